//! Reading single records again, without a group.

use std::time::Duration;

use super::error::KafkaError;
use super::settings::GroupSettings;
use crate::record::OwnedRecord;

/// Reads records again that BigQuery rejected. One consumer and one thread for all callers; requests are answered in turn.
pub struct Rereader {}

impl Rereader {
    /// A re-reader for a connector. It carries the group's name (so that no other right is needed) but never joins it.
    pub fn new(settings: &GroupSettings) -> Result<Self, KafkaError> {
        let _ = settings;
        Ok(Self {})
    }

    /// The records at `offsets` (ascending), in that order; `None` for one that is gone (retention, compaction).
    pub async fn reread(
        &self,
        topic: &str,
        partition: i32,
        offsets: &[i64],
        timeout: Duration,
    ) -> Result<Vec<Option<OwnedRecord>>, KafkaError> {
        let _ = (topic, partition, offsets, timeout);
        Err(KafkaError::Stopped("landing".to_owned()))
    }
}
