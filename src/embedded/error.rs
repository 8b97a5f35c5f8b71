//! Why an embedded part does not start or do what it is told.

/// Why an embedded part does not start or do what it is told.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// The settings contradict themselves.
    #[error("{0}")]
    Settings(String),
    /// The port cannot be had.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address asked for.
        address: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The mock cluster refuses.
    #[error("embedded broker: {0}")]
    Broker(String),
    /// The BigQuery refuses.
    #[error("embedded BigQuery: {0}")]
    BigQuery(String),
    /// The registry refuses.
    #[error("embedded registry: {0}")]
    Registry(String),
}
