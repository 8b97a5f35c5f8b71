//! One source of access tokens for REST and gRPC.
//!
//! Tokens come from `google-cloud-auth`: application default credentials, service account keys, external accounts (files, URLs,
//! executables, AWS), metadata servers (GKE). It caches them and refreshes them ahead of their expiry. What it lacks for EKS is in [`aws`].

mod aws;

use std::path::Path;
use std::time::{Duration, Instant};

use google_cloud_auth::credentials::{
    Builder, CacheableResource, Credentials, external_account, impersonated, service_account, user_account,
};
use http::{Extensions, HeaderMap};
use parking_lot::Mutex;
use serde_json::Value;

use super::ConnectError;

/// The narrowest scope that tables, patches and appends take.
const SCOPE: &str = "https://www.googleapis.com/auth/bigquery";
/// After a refusal that the token server meant, it is asked again at the earliest after this.
const REBUILD_AFTER: Duration = Duration::from_secs(15);
/// How long a token may take. google-cloud-auth 1.18 asks most token servers without any limit: one that takes a request and never answers would
/// hold up every append and every call, for ever.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest part of a token server's words that goes into a message, in characters.
const WORDS_SHOWN: usize = 400;

/// What application default credentials were looked for in, and what to do where they are in none of it.
const WHERE_FROM: &str = " from the application default credentials (give the pod a service account that may use BigQuery, let \
    GOOGLE_APPLICATION_CREDENTIALS or [bigquery] credentials name a credentials file, or run `gcloud auth application-default login`)";

/// Where tokens come from.
enum Kind {
    /// No token is sent: emulators.
    None,
    /// What the environment says: the file that `GOOGLE_APPLICATION_CREDENTIALS` or gcloud names, else the metadata server.
    ApplicationDefault,
    /// A credentials file.
    File { json: Value, http: reqwest::Client },
}

/// Access tokens, cached, refreshed ahead of expiry, replaced when BigQuery refuses one.
pub(crate) struct TokenSource {
    kind: Kind,
    current: Mutex<Current>,
}

#[derive(Default)]
struct Current {
    credentials: Option<Credentials>,
    generation: u64,
    refused_at: Option<Instant>,
}

/// The headers of one request.
pub(crate) struct AuthHeaders {
    /// `authorization`, and `x-goog-user-project` where the credentials name one; empty without credentials.
    pub(crate) headers: HeaderMap,
    /// Which credentials these are from, for [`TokenSource::invalidate`].
    pub(crate) generation: u64,
}

/// There is no token.
#[derive(Debug)]
pub(crate) struct AuthError {
    /// The token server's words.
    pub(crate) message: String,
    /// Whether it may pass by itself.
    pub(crate) transient: bool,
}

impl TokenSource {
    /// Reads `[bigquery] credentials`: `"application-default"`, `"none"`, or a file's path. Asks no server yet.
    pub(crate) async fn new(credentials: &str, http: &reqwest::Client) -> Result<Self, ConnectError> {
        let kind = match credentials {
            "none" => Kind::None,
            "application-default" => match std::env::var_os("GOOGLE_APPLICATION_CREDENTIALS") {
                // Read by us, so that AWS accounts get what EKS needs.
                Some(path) if Path::new(&path).is_file() => Kind::File { json: read(Path::new(&path))?, http: http.clone() },
                _ => Kind::ApplicationDefault,
            },
            path => Kind::File { json: read(Path::new(path))?, http: http.clone() },
        };
        let source = Self { kind, current: Mutex::default() };
        if !matches!(source.kind, Kind::None) {
            let built = source.build().map_err(ConnectError::Credentials)?;
            source.current.lock().credentials = Some(built);
        }
        Ok(source)
    }

    /// The headers for one request: from the cache nearly always.
    pub(crate) async fn headers(&self) -> Result<AuthHeaders, AuthError> {
        self.headers_within(TOKEN_TIMEOUT).await
    }

    async fn headers_within(&self, limit: Duration) -> Result<AuthHeaders, AuthError> {
        if matches!(self.kind, Kind::None) {
            return Ok(AuthHeaders { headers: HeaderMap::new(), generation: 0 });
        }
        let (credentials, generation) = self.current()?;
        let Ok(answer) = tokio::time::timeout(limit, credentials.headers(Extensions::new())).await else {
            // The request hangs in these credentials' own task: only others ask anew.
            self.invalidate(generation);
            return Err(AuthError {
                message: format!("no access token: no answer from the token server within {limit:?}"),
                transient: true,
            });
        };
        match answer {
            Ok(CacheableResource::New { data, .. }) => {
                self.current.lock().refused_at = None;
                Ok(AuthHeaders { headers: data, generation })
            }
            Ok(CacheableResource::NotModified) => Err(AuthError { message: "the token cache is empty".to_owned(), transient: true }),
            Err(error) => {
                let transient = error.is_transient();
                if !transient {
                    self.current.lock().refused_at.get_or_insert_with(Instant::now);
                }
                let words = super::rest::source_chain(&error);
                let message: String = words.chars().take(WORDS_SHOWN).collect();
                let searched = if matches!(self.kind, Kind::ApplicationDefault) { WHERE_FROM } else { "" };
                Err(AuthError { message: format!("no access token{searched}: {message}{}", super::trust::advice(&words)), transient })
            }
        }
    }

    /// Throws the tokens of this generation away: BigQuery refused one (401, UNAUTHENTICATED). Of many refusals of one generation, only
    /// the first does something.
    pub(crate) fn invalidate(&self, generation: u64) {
        let mut current = self.current.lock();
        if current.generation == generation {
            current.credentials = None;
        }
    }

    fn current(&self) -> Result<(Credentials, u64), AuthError> {
        let mut current = self.current.lock();
        // google-cloud-auth stops asking after a refusal that was meant: ask anew now and then, the cause may be mended.
        let stale = current.refused_at.is_some_and(|at| at.elapsed() > REBUILD_AFTER);
        if let (Some(credentials), false) = (&current.credentials, stale) {
            return Ok((credentials.clone(), current.generation));
        }
        let credentials = self.build().map_err(|message| AuthError { message, transient: false })?;
        current.generation += 1;
        current.refused_at = None;
        current.credentials = Some(credentials.clone());
        Ok((credentials, current.generation))
    }

    fn build(&self) -> Result<Credentials, String> {
        let built = match &self.kind {
            Kind::None => return Err("credentials are \"none\"".to_owned()),
            Kind::ApplicationDefault => Builder::default().with_scopes([SCOPE]).build(),
            Kind::File { json, http } => match json.get("type").and_then(Value::as_str) {
                Some("service_account") => service_account::Builder::new(json.clone())
                    .with_access_specifier(service_account::AccessSpecifier::from_scopes([SCOPE]))
                    .build(),
                Some("external_account") => match aws::Source::from_config(json, http) {
                    Some(source) => return source.credentials(json, SCOPE),
                    None => external_account::Builder::new(json.clone()).with_scopes([SCOPE]).build(),
                },
                Some("authorized_user") => user_account::Builder::new(json.clone()).with_scopes([SCOPE]).build(),
                Some("impersonated_service_account") => impersonated::Builder::new(json.clone()).with_scopes([SCOPE]).build(),
                other => {
                    return Err(format!(
                        "the file's type is {}: expected one of service_account, external_account, authorized_user, impersonated_service_account",
                        other.map_or_else(|| "missing".to_owned(), |other| format!("`{other}`"))
                    ));
                }
            },
        };
        // The builder's errors name what is missing, never a value.
        built.map_err(|e| super::rest::source_chain(&e))
    }
}

fn read(path: &Path) -> Result<Value, ConnectError> {
    let wrong = |what: String| ConnectError::Credentials(format!("{}: {what}", path.display()));
    let bytes = std::fs::read(path).map_err(|e| wrong(e.to_string()))?;
    // Only where the mistake is: serde_json's words may hold a part of the key.
    serde_json::from_slice(&bytes).map_err(|e| wrong(format!("no JSON (line {}, column {})", e.line(), e.column())))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    use super::*;

    #[tokio::test]
    async fn a_token_server_that_never_answers_is_given_up_and_asked_anew() {
        let _tls = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let asked = Arc::new(AtomicU32::new(0));
        let json = serde_json::json!({
            "type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "r",
            "token_uri": format!("http://{}/token", silent.local_addr().unwrap()),
        });
        let counted = asked.clone();
        tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((stream, _)) = silent.accept().await {
                counted.fetch_add(1, SeqCst);
                open.push(stream);
            }
        });
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), json.to_string()).unwrap();
        let source = TokenSource::new(file.path().to_str().unwrap(), &reqwest::Client::new()).await.unwrap();
        for asks in 1..=2 {
            let (limit, patience) = (Duration::from_millis(500), Duration::from_secs(10));
            let answer = tokio::time::timeout(patience, source.headers_within(limit)).await.unwrap();
            assert!(answer.err().is_some_and(|error| error.transient && error.message.contains("no answer from the token server")));
            assert!(asked.load(SeqCst) >= asks, "asked {} times", asked.load(SeqCst));
        }
    }
}
