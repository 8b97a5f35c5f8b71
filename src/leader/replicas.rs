//! The number of workers that the fleet is asked to have, wherever it stands.

use std::time::Duration;

use async_trait::async_trait;

use super::store::StoreError;

/// How many workers were asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scale {
    /// Workers that were asked for.
    pub replicas: u32,
    /// Workers that exist, ready or not, where that is known.
    pub existing: Option<u32>,
    /// Names this state of it: a write that carries another is refused.
    pub version: String,
}

/// Where the number stands.
///
/// Promise of every implementation: a write takes effect only if the version is still the one that was read, however late it arrives.
#[async_trait]
pub trait Replicas: Send + Sync {
    /// Reads it, within `timeout`.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn read(&self, timeout: Duration) -> Result<Scale, StoreError>;

    /// Sets it to `replicas` if it is still at `version`. One request, never repeated. Returns after `timeout` at the latest.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn write(&self, version: &str, replicas: u32, timeout: Duration) -> Result<(), StoreError>;
}
