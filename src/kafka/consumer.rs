//! Starting a member of a consumer group.

use std::sync::Arc;

use super::error::KafkaError;
use super::seam::{GroupControl, GroupListener};
use super::settings::GroupSettings;

/// Starts a member of a consumer group with a poll thread of its own.
pub fn start_group(settings: GroupSettings, listener: Arc<dyn GroupListener>) -> Result<Arc<dyn GroupControl>, KafkaError> {
    let _ = (settings, listener);
    Err(KafkaError::Stopped("the consumer is landing in the next minutes".to_owned()))
}
