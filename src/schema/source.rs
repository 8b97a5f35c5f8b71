//! The seam between the pipeline and whoever has schemas.

use std::sync::Arc;

use async_trait::async_trait;

use crate::decode::{AvroSchema, SchemaKey};

/// Why a schema cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// The source answers for certain that it has none (the registry's 404): its records are dead letters.
    #[error("{0}")]
    Unknown(String),
    /// The header's name is not acceptable (points outside the folder, is no name): its records are dead letters.
    #[error("{0}")]
    OutsideFolder(String),
    /// The source has it, but it is no schema that can be used (unparsable Avro, another type than Avro, too large, too deep):
    /// its records are dead letters.
    #[error("{0}")]
    Unusable(String),
    /// The folder has no such file yet: hold and look again.
    #[error("{0}")]
    FileMissing(String),
    /// The source does not answer, or answers rubbish, or refuses our credentials: hold and try again. Never a dead letter.
    #[error("{0}")]
    Unavailable(String),
}

/// Gives schemas. Implementations keep what they got, ask once for callers that ask at the same time, and try again by themselves only
/// within one call's time limit: holding and trying again later is the pipeline's.
#[async_trait]
pub trait SchemaSource: Send + Sync + 'static {
    /// The schema that this key names.
    async fn fetch(&self, key: &SchemaKey) -> Result<Arc<AvroSchema>, SchemaError>;
}
