//! What every Kafka client does with librdkafka's logs, errors and requests for tokens.

use std::error::Error;
use std::sync::Arc;

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError as RdKafkaError;
use rdkafka::statistics::Statistics;

use super::oauth::TokenSource;

/// Logs go to `tracing` under the target `librdkafka`; the last error's reason is kept for whoever polls; tokens are fetched when asked
/// for.
pub(super) struct ClientEvents {
    client: String,
    token: Option<TokenSource>,
    last_reason: LastReason,
}

/// librdkafka's last words for an error, of one client.
#[derive(Clone, Default)]
pub(super) struct LastReason(Arc<Mutex<Option<String>>>);

impl LastReason {
    /// The words, left in place.
    pub fn get(&self) -> Option<String> {
        self.0.lock().clone()
    }
}

impl ClientEvents {
    /// For a client of this connector.
    pub fn new(client: &str, token: Option<TokenSource>) -> Self {
        Self { client: client.to_owned(), token, last_reason: LastReason::default() }
    }

    /// librdkafka's words for the error that the poll has just returned.
    pub fn take_reason(&self) -> Option<String> {
        self.last_reason.0.lock().take()
    }

    /// The same in parentheses, to stand behind what was asked; nothing where librdkafka said nothing.
    pub fn because(&self) -> String {
        self.take_reason().map(|reason| format!(" ({reason})")).unwrap_or_default()
    }

    /// librdkafka's last words, for whoever has handed these events over.
    pub fn last_reason(&self) -> LastReason {
        self.last_reason.clone()
    }
}

impl ClientContext for ClientEvents {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        let connector = self.client.as_str();
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
                tracing::error!(target: "librdkafka", connector, fac, "{message}");
            }
            RDKafkaLogLevel::Warning => tracing::warn!(target: "librdkafka", connector, fac, "{message}"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => tracing::info!(target: "librdkafka", connector, fac, "{message}"),
            RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", connector, fac, "{message}"),
        }
    }

    /// Nothing reads librdkafka's own statistics: millrace counts what it does itself.
    fn stats(&self, _statistics: Statistics) {}
    fn stats_raw(&self, _statistics: &[u8]) {}

    fn error(&self, error: RdKafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", connector = self.client, %error, "{reason}");
        *self.last_reason.0.lock() = Some(reason.to_owned());
    }

    fn generate_oauth_token(&self, _config: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        let source = self.token.as_ref().ok_or(
            "no source of tokens: set \"sasl.oauthbearer.method\" to \"oidc\" with its endpoint, client id and secret (or, for tests, \
             \"enable.sasl.oauthbearer.unsecure.jwt\")",
        )?;
        source.token().map_err(|error| {
            tracing::error!(connector = self.client, "OAUTHBEARER token: {error}");
            error.into()
        })
    }
}

impl ConsumerContext for ClientEvents {}
