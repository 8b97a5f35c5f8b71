//! The dead-letter producer.

use std::time::Duration;

use super::error::KafkaError;
use super::settings::ClusterSettings;
use crate::record::OwnedRecord;

/// Why a record was not written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProduceError {
    /// Larger than its topic (or the producer) takes.
    #[error("topic {topic} does not take a record of {size_bytes} bytes: {message}")]
    TooLarge {
        /// The topic.
        topic: String,
        /// Bytes of key, value and headers.
        size_bytes: usize,
        /// In librdkafka's words.
        message: String,
    },
    /// The topic does not exist.
    #[error("topic {topic} does not exist: {message}")]
    TopicMissing {
        /// The topic.
        topic: String,
        /// In librdkafka's words.
        message: String,
    },
    /// This client may not write to the topic.
    #[error("topic {topic} may not be written: {message}")]
    NotAuthorized {
        /// The topic.
        topic: String,
        /// In librdkafka's words.
        message: String,
    },
    /// No acknowledgement in time: it may have been written all the same.
    #[error("topic {topic} gave no acknowledgement in time: {message}")]
    TimedOut {
        /// The topic.
        topic: String,
        /// In librdkafka's words.
        message: String,
    },
    /// Anything else.
    #[error("topic {topic}: {message}")]
    Other {
        /// The topic.
        topic: String,
        /// In librdkafka's words.
        message: String,
    },
}

/// Writes dead letters: acks=all, idempotent, bounded in memory and time.
pub struct DeadLetterProducer {}

impl DeadLetterProducer {
    /// A producer that holds at most `buffer_bytes` of records that are not acknowledged, and gives up a record after `timeout`.
    pub fn new(cluster: &ClusterSettings, buffer_bytes: u64, timeout: Duration) -> Result<Self, KafkaError> {
        let _ = (cluster, buffer_bytes, timeout);
        Ok(Self {})
    }

    /// Writes `record` to `topic` (its own topic, partition and offset are not used) and returns when it is durable on all in-sync replicas.
    /// Null and empty keys, values and header values stay what they are. Cancel-safe: a dropped future leaves the outcome unknown.
    pub async fn send(&self, topic: &str, record: &OwnedRecord) -> Result<(), ProduceError> {
        let _ = record;
        Err(ProduceError::Other { topic: topic.to_owned(), message: "landing".to_owned() })
    }

    /// The topic's `max.message.bytes`, or `None` when it cannot be asked.
    pub async fn max_message_bytes(&self, topic: &str) -> Option<u64> {
        let _ = topic;
        None
    }
}
