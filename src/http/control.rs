//! What a worker can be told over HTTP.

use async_trait::async_trait;

use crate::fleet::{DesiredConnector, Verb};

/// Asked by the router, done by the worker.
#[async_trait]
pub trait Control: Send + Sync + 'static {
    /// Tells a connector something, for the whole fleet and over restarts; gives what is wished of it now. Returns when Kafka has it.
    ///
    /// # Errors
    /// See [`Refusal`].
    async fn tell(&self, connector: &str, verb: Verb) -> Result<DesiredConnector, Refusal>;
}

/// Why a worker does not do what it was told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Neither this worker nor another one has such a connector.
    #[error("no connector `{0}`")]
    Unknown(String),
    /// It cannot be done as things are.
    #[error("{0}")]
    Conflict(String),
    /// Kafka does not take it now.
    #[error("{0}")]
    Unavailable(String),
}
