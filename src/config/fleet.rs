//! `millrace.toml`: what all workers of a fleet share.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::scaling::ScalingConfig;
use super::values::{ByteSize, HumanDuration, Secret};

/// `millrace.toml`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FleetConfig {
    /// Any librdkafka property, `"bootstrap.servers"` at least. Values may be strings, numbers or booleans.
    pub kafka: BTreeMap<String, KafkaValue>,
    /// The schema registry; needed by connectors whose schemas come from it.
    #[serde(default)]
    pub registry: Option<RegistryConfig>,
    /// Where rows go.
    pub bigquery: BigQueryConfig,
    /// One worker process.
    #[serde(default)]
    pub worker: WorkerConfig,
    /// How many workers there are.
    #[serde(default)]
    pub scaling: ScalingConfig,
}

/// The value of a librdkafka property. Shown as `***`, for any of them may be a password.
#[derive(Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(extend("writeOnly" = true))]
pub enum KafkaValue {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Anything else.
    Text(String),
}

impl KafkaValue {
    /// As librdkafka takes it. May be a secret.
    pub fn to_property(&self) -> String {
        match self {
            Self::Bool(b) => b.to_string(),
            Self::Int(i) => i.to_string(),
            Self::Text(s) => s.clone(),
        }
    }
}

impl std::fmt::Debug for KafkaValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for KafkaValue {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

/// `[registry]`: Confluent's schema registry API.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RegistryConfig {
    /// Its address, path included; several are tried in turn.
    pub urls: Vec<String>,
    /// Basic authentication: the user.
    #[serde(default)]
    pub username: Option<String>,
    /// Basic authentication: the password.
    #[serde(default)]
    pub password: Option<Secret>,
    /// A bearer token, instead of basic authentication.
    #[serde(default)]
    pub bearer_token: Option<Secret>,
    /// Mutual TLS: the client's certificate chain, PEM.
    #[serde(default)]
    pub client_cert_file: Option<PathBuf>,
    /// Mutual TLS: the client's key, PEM.
    #[serde(default)]
    pub client_key_file: Option<PathBuf>,
    /// How long one request may take.
    #[serde(default = "registry_timeout")]
    pub timeout: HumanDuration,
}

fn registry_timeout() -> HumanDuration {
    HumanDuration::from_secs(10)
}

/// `[bigquery]`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BigQueryConfig {
    /// The project of tables that name none.
    pub project: String,
    /// `"application-default"` (the default), `"none"` (emulators), or the path of a credentials file: a service account's key, or an
    /// external account (workload identity federation, from EKS too).
    #[serde(default = "application_default")]
    pub credentials: String,
    /// The REST endpoint, `https://bigquery.googleapis.com/bigquery/v2` by default.
    #[serde(default)]
    pub rest_endpoint: Option<String>,
    /// The Storage Write endpoint, `https://bigquerystorage.googleapis.com` by default; `http://` is plaintext.
    #[serde(default)]
    pub grpc_endpoint: Option<String>,
    /// The location of new datasets' tables' connections, such as `"eu"`: sent as the routing header of shared connections.
    #[serde(default)]
    pub location: Option<String>,
    /// Send NUMERIC, TIME and DATETIME as text instead of BigQuery's packed forms: slower, for emulators that do not know these.
    #[serde(default)]
    pub text_literals: bool,
    /// The most append connections of a worker.
    #[serde(default = "connections_max")]
    pub connections_max: u32,
    /// The most bytes in flight on one connection.
    #[serde(default = "connection_in_flight")]
    pub connection_in_flight: ByteSize,
    /// How long an append may stay unanswered before its connection is given up (and the append sent again).
    #[serde(default = "append_timeout")]
    pub append_timeout: HumanDuration,
    /// How long a change of a table may take to be seen by the write servers; within it their complaints about the schema are retried.
    #[serde(default = "visibility_delay")]
    pub visibility_delay: HumanDuration,
}

fn application_default() -> String {
    "application-default".to_owned()
}
fn connections_max() -> u32 {
    8
}
fn connection_in_flight() -> ByteSize {
    ByteSize::mib(20)
}
fn append_timeout() -> HumanDuration {
    HumanDuration::from_secs(300)
}
fn visibility_delay() -> HumanDuration {
    HumanDuration::from_secs(600)
}

/// `[worker]`: one worker process.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WorkerConfig {
    /// The memory that records and rows may take in this process: prefetch, open buffers, bytes in flight, dead letters, plans.
    pub memory: ByteSize,
    /// Where health, metrics and status are served.
    pub listen: String,
    /// The bearer token of the HTTP server, at least 16 characters. With it `/status`, `/fleet` and every writing verb need
    /// `Authorization: Bearer <token>`; health and metrics stay open. Without it nothing can be written over HTTP.
    pub api_token: Option<Secret>,
    /// Threads that decode, for each connector.
    pub shards: u32,
    /// The most records a second that this worker takes, all connectors together: to leave something of a broker or of a sink's quota to
    /// others, or to try what a slower machine would do. No limit by default.
    pub max_records_per_s: Option<u64>,
    /// PEM file of certificate authorities that every TLS connection trusts, beside the system's.
    pub ca_file: Option<PathBuf>,
    /// How logs are written.
    pub log: LogFormat,
    /// How often offsets are committed.
    pub commit_interval: HumanDuration,
    /// How long a revocation waits for appends in flight before it commits what is durable.
    pub revoke_deadline: HumanDuration,
    /// How long a stop waits for appends in flight.
    pub shutdown_deadline: HumanDuration,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self {
            memory: ByteSize::mib(512),
            listen: "127.0.0.1:8080".to_owned(),
            api_token: None,
            shards: 1,
            max_records_per_s: None,
            ca_file: None,
            log: LogFormat::Text,
            commit_interval: HumanDuration::from_secs(1),
            revoke_deadline: HumanDuration::from_secs(2),
            shutdown_deadline: HumanDuration::from_secs(20),
        }
    }
}

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}
