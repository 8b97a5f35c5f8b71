//! From `[bigquery]` to something that tables and appends can be asked of.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::append::{CreatedStreams, Pool, PoolSettings};
use super::auth::TokenSource;
use super::changes::Changes;
use super::rest::{HttpTransport, RestClient, RestTransport};
use super::tables::{EvolutionPace, RestTables};
use super::trust::Trust;
use super::{Appender, Tables, WriteStreams};
use crate::config::BigQueryConfig;
use crate::flow::{Tasks, TokioTasks};

/// BigQuery's public REST endpoint.
const REST_ENDPOINT: &str = "https://bigquery.googleapis.com/bigquery/v2";
/// BigQuery's public Storage Write endpoint.
const GRPC_ENDPOINT: &str = "https://bigquerystorage.googleapis.com";

/// Why BigQuery cannot be talked to at all: a setting is wrong. Never shows a secret.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The `ca_file` is unusable.
    #[error("[worker] ca_file = \"{}\": {what}", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The credentials are unusable.
    #[error("[bigquery] credentials: {0}")]
    Credentials(String),
    /// An endpoint is no address.
    #[error("[bigquery] {key} = \"{value}\": {what}")]
    Endpoint {
        /// `rest_endpoint` or `grpc_endpoint`.
        key: &'static str,
        /// As configured.
        value: String,
        /// What is wrong with it.
        what: String,
    },
    /// The HTTP client could not be made.
    #[error("HTTP client: {0}")]
    Http(String),
}

/// BigQuery as `[bigquery]` describes it: one for a worker, shared by its connectors.
#[derive(Clone)]
pub struct BigQuery {
    pub(super) project: String,
    pub(super) tokens: Arc<TokenSource>,
    pub(super) rest: Arc<RestClient>,
    pub(super) http: reqwest::Client,
    /// The address up to `/projects`.
    pub(super) rest_endpoint: String,
    tables: Arc<RestTables>,
    pool: Pool,
    streams: Arc<CreatedStreams>,
}

/// Prepares clients for REST and gRPC; connections are opened when first used, so this succeeds while BigQuery is away.
///
/// Both share one source of tokens and trust the system's authorities and those of `ca_file`. Google's token endpoints are asked by
/// `google-cloud-auth`, which trusts the system's authorities or those that `SSL_CERT_FILE` names: the program sees to it that these
/// are both (`cli/authorities.rs`). Must run inside a tokio runtime.
pub async fn connect(config: &BigQueryConfig, ca_file: Option<&Path>) -> Result<BigQuery, ConnectError> {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // main installs it first thing; a second installation only says that it is there.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    }
    let trust = Trust::load(ca_file)?;
    let http = trust.http_client()?;
    let tokens = Arc::new(TokenSource::new(&config.credentials, &http).await?);
    let tasks: Arc<dyn Tasks> = Arc::new(TokioTasks::new(tokio::runtime::Handle::current()));
    let changes = Arc::new(Changes::new(config.visibility_delay.get(), tasks.clone()));

    let rest_endpoint = config.rest_endpoint.as_deref().unwrap_or(REST_ENDPOINT);
    reqwest::Url::parse(rest_endpoint).map_err(|e| ConnectError::Endpoint {
        key: "rest_endpoint",
        value: rest_endpoint.to_owned(),
        what: e.to_string(),
    })?;
    let rest = Arc::new(RestClient::new(Arc::new(HttpTransport::new(http.clone(), rest_endpoint, tokens.clone())), tasks.clone()));
    let tables = Arc::new(RestTables::new(rest.clone(), changes.clone(), EvolutionPace::default(), tasks));

    let grpc_endpoint = config.grpc_endpoint.as_deref().unwrap_or(GRPC_ENDPOINT);
    let endpoint = grpc(grpc_endpoint, &trust).map_err(|what| ConnectError::Endpoint {
        key: "grpc_endpoint",
        value: grpc_endpoint.to_owned(),
        what,
    })?;
    let pool = Pool::new(endpoint, tokens.clone(), changes, PoolSettings::from_config(config));
    let streams = Arc::new(CreatedStreams::new(&pool));
    let rest_endpoint = rest_endpoint.trim_end_matches('/').to_owned();
    Ok(BigQuery { project: config.project.clone(), tokens, rest, http, rest_endpoint, tables, pool, streams })
}

/// Tables over another transport than HTTP, in another time than the system's: for a simulation of many workers.
pub fn tables_over(transport: Arc<dyn RestTransport>, tasks: Arc<dyn Tasks>, visibility_delay: Duration) -> Arc<dyn Tables> {
    let changes = Arc::new(Changes::new(visibility_delay, tasks.clone()));
    let rest = Arc::new(RestClient::new(transport, tasks.clone()));
    Arc::new(RestTables::new(rest, changes, EvolutionPace::default(), tasks))
}

impl BigQuery {
    /// Tables over REST.
    pub fn tables(&self) -> Arc<dyn Tables> {
        self.tables.clone()
    }

    /// Rows over the Storage Write API.
    pub fn appender(&self) -> Arc<dyn Appender> {
        Arc::new(self.pool.clone())
    }

    /// Rows over streams of their own, for exactly once.
    pub fn streams(&self) -> Arc<dyn WriteStreams> {
        self.streams.clone()
    }
}

fn grpc(address: &str, trust: &Trust) -> Result<tonic::transport::Endpoint, String> {
    let endpoint = tonic::transport::Endpoint::from_shared(address.to_owned()).map_err(|e| e.to_string())?;
    let scheme = endpoint.uri().scheme_str().map(str::to_owned);
    let endpoint = endpoint
        .user_agent(super::trust::USER_AGENT)
        .map_err(|e| e.to_string())?
        .connect_timeout(Duration::from_secs(20))
        .tcp_nodelay(true)
        // A peer that is gone is noticed within a minute, long before `append_timeout`.
        .http2_keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20))
        .keep_alive_while_idle(true);
    match scheme.as_deref() {
        Some("http") => Ok(endpoint),
        Some("https") => endpoint.tls_config(trust.grpc()).map_err(|e| e.to_string()),
        _ => Err("expected http:// or https://".to_owned()),
    }
}
