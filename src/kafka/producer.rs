//! The dead-letter producer.

use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::error::KafkaError as RdKafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::util::Timeout;
use rdkafka_sys::RDKafkaErrorCode;

use super::context::{ClientEvents, LastReason};
use super::error::KafkaError;
use super::properties;
use super::purpose::Purpose;
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
        /// Bytes of key, value and headers, as [`OwnedRecord::size_bytes`].
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

/// How long a record may wait for room in the buffer.
const ROOM_TIMEOUT: Duration = Duration::from_secs(30);

/// Writes dead letters: acks=all, idempotent, bounded in memory. Made anew by itself after an error that an idempotent producer does
/// not survive (its records fail; they are the caller's to send again, so a dead letter may come twice).
pub struct DeadLetterProducer {
    cluster: ClusterSettings,
    buffer_bytes: u64,
    timeout: Option<Duration>,
    live: Mutex<Live>,
}

/// The present client, and what it complained about last.
struct Live {
    producer: FutureProducer<ClientEvents>,
    reason: LastReason,
}

impl DeadLetterProducer {
    /// A producer that holds at most `buffer_bytes` of records that are not acknowledged, and gives up a record after `timeout`; without
    /// one it tries for as long as it lives, and never writes a record twice however often brokers come and go (unless the user set a
    /// timeout in `[kafka]`: a record that was given up may have been written).
    ///
    /// # Errors
    /// Properties that librdkafka or millrace's promises refuse. Does not wait for brokers.
    pub fn new(cluster: &ClusterSettings, buffer_bytes: u64, timeout: Option<Duration>) -> Result<Self, KafkaError> {
        let live = Mutex::new(make(cluster, buffer_bytes, timeout)?);
        Ok(Self { cluster: cluster.clone(), buffer_bytes, timeout, live })
    }

    /// Writes `record` to `topic` (its own topic, partition and offset are not used) and returns when it is durable on all in-sync
    /// replicas. Null and empty keys, values and header values stay what they are. A dropped future leaves the outcome unknown.
    ///
    /// # Errors
    /// With a time limit within twice that: once for room in the buffer, once for the brokers. Without: for what time does not mend (a
    /// topic that is missing, a right, a size), and after 30 s without room.
    pub async fn send(&self, topic: &str, record: &OwnedRecord) -> Result<(), ProduceError> {
        let producer = self.live.lock().producer.clone();
        let mut message = FutureRecord::<[u8], [u8]>::to(topic);
        if let Some(key) = &record.key {
            message = message.key(key);
        }
        if let Some(value) = &record.value {
            message = message.payload(value);
        }
        if let Some(timestamp) = record.timestamp_ms {
            message = message.timestamp(timestamp);
        }
        if !record.headers.is_empty() {
            let headers = record.headers.iter().fold(OwnedHeaders::new_with_capacity(record.headers.len()), |headers, (key, value)| {
                headers.insert(Header { key, value: value.as_deref() })
            });
            message = message.headers(headers);
        }
        let sent = producer.send(message, Timeout::After(self.timeout.unwrap_or(ROOM_TIMEOUT))).await;
        sent.map(drop).map_err(|(error, _)| {
            self.replace_if_dead(&producer);
            sort(&error, topic, record.size_bytes())
        })
    }

    /// librdkafka's last complaint, such as a broker that cannot be reached.
    pub fn complaint(&self) -> Option<String> {
        self.live.lock().reason.get()
    }

    /// The topic's `max.message.bytes`, or `None` when it cannot be asked (no right to describe its configuration, or no answer in 10 s).
    pub async fn max_message_bytes(&self, topic: &str) -> Option<u64> {
        let purpose = Purpose::Producer { name: "dead-letters", buffer_bytes: 0, timeout_ms: timeout_ms(self.timeout) };
        let properties = properties::merge(&self.cluster, &purpose).ok()?;
        let admin: AdminClient<ClientEvents> = properties.config.create_with_context(properties.events).ok()?;
        let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(10)));
        let answer = admin.describe_configs(&[ResourceSpecifier::Topic(topic)], &options).await;
        // Destroying a client waits for its threads.
        drop(tokio::task::spawn_blocking(move || drop(admin)));
        let described = answer.ok()?.into_iter().next()?.ok()?;
        described.get("max.message.bytes")?.value.as_ref()?.parse().ok()
    }

    /// An idempotent producer that met a fatal error refuses everything from then on.
    fn replace_if_dead(&self, used: &FutureProducer<ClientEvents>) {
        let Some((code, reason)) = used.client().fatal_error() else { return };
        let mut live = self.live.lock();
        if live.producer.client().fatal_error().is_none() {
            return; // somebody did it
        }
        match make(&self.cluster, self.buffer_bytes, self.timeout) {
            Ok(fresh) => {
                tracing::warn!(connector = self.cluster.connector, "the dead-letter producer is made anew after {code}: {reason}");
                *live = fresh;
            }
            Err(error) => tracing::error!(
                connector = self.cluster.connector,
                "the dead-letter producer failed ({code}) and cannot be made anew: {error}"
            ),
        }
    }
}

/// librdkafka's `message.timeout.ms`: 0 is without limit.
fn timeout_ms(timeout: Option<Duration>) -> u128 {
    timeout.map_or(0, |timeout| timeout.as_millis().max(1))
}

fn make(cluster: &ClusterSettings, buffer_bytes: u64, timeout: Option<Duration>) -> Result<Live, KafkaError> {
    let properties =
        properties::merge(cluster, &Purpose::Producer { name: "dead-letters", buffer_bytes, timeout_ms: timeout_ms(timeout) })?;
    let reason = properties.events.last_reason();
    let producer = properties.config.create_with_context(properties.events).map_err(properties::creation_error)?;
    Ok(Live { producer, reason })
}

fn sort(error: &RdKafkaError, topic: &str, size_bytes: usize) -> ProduceError {
    use RDKafkaErrorCode as Code;
    let (topic, message) = (topic.to_owned(), error.to_string());
    match error.rdkafka_error_code() {
        Some(Code::MessageSizeTooLarge | Code::InvalidMessageSize | Code::MessageBatchTooLarge) => {
            ProduceError::TooLarge { topic, size_bytes, message }
        }
        Some(Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition | Code::InvalidTopic) => {
            ProduceError::TopicMissing { topic, message }
        }
        Some(Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed) => ProduceError::NotAuthorized { topic, message },
        Some(Code::MessageTimedOut | Code::OperationTimedOut | Code::RequestTimedOut | Code::QueueFull) => {
            ProduceError::TimedOut { topic, message }
        }
        _ => ProduceError::Other { topic, message },
    }
}
