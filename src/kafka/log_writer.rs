//! Writing to the fleet's own topics.

use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::error::{KafkaError as RdKafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::util::Timeout;

use super::context::ClientEvents;
use super::error::KafkaError;
use super::log_topic::PARTITION;
use super::properties;
use super::purpose::Purpose;
use super::settings::ClusterSettings;

/// Bytes that may wait for the brokers. A single note above it is refused.
const BUFFER_BYTES: u64 = 8 << 20;

/// A producer for partition 0 of the fleet's topics.
pub struct LogWriter {
    cluster: ClusterSettings,
    timeout: Duration,
    producer: Mutex<FutureProducer<ClientEvents>>,
}

impl LogWriter {
    /// A writer that gives a note up after `timeout`.
    ///
    /// # Errors
    /// Properties that librdkafka refuses. Does not wait for brokers.
    pub fn new(cluster: &ClusterSettings, timeout: Duration) -> Result<Self, KafkaError> {
        Ok(Self { cluster: cluster.clone(), timeout, producer: Mutex::new(make(cluster, timeout)?) })
    }

    /// Writes one note and returns when the in-sync replicas have it. `value` `None` deletes the key in a compacted topic.
    ///
    /// # Errors
    /// No acknowledgement in time (it may have been written all the same), or a refusal.
    pub async fn write(&self, topic: &str, key: &str, value: Option<&[u8]>) -> Result<(), KafkaError> {
        let producer = self.producer.lock().clone();
        let mut record = FutureRecord::<str, [u8]>::to(topic).partition(PARTITION).key(key);
        if let Some(value) = value {
            record = record.payload(value);
        }
        let sent = producer.send(record, Timeout::After(self.timeout)).await;
        let Err((error, _)) = sent else { return Ok(()) };
        self.replace_if_dead(&producer);
        let what = format!("writing to topic {topic}");
        Err(match error.rdkafka_error_code() {
            Some(Code::MessageTimedOut | Code::QueueFull) => KafkaError::TimedOut { what, within: self.timeout },
            Some(code @ (Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed)) => {
                KafkaError::Refused { what, message: format!("{code}: allow WRITE and DESCRIBE (before Kafka 2.8 also IDEMPOTENT_WRITE)") }
            }
            _ => KafkaError::from_rdkafka(what, &error, self.timeout),
        })
    }

    /// Where the topic ends now: what was acknowledged before this was asked lies below.
    ///
    /// # Errors
    /// No answer within the writer's timeout, or a refusal.
    pub async fn end(&self, topic: &str) -> Result<i64, KafkaError> {
        let (producer, asked, timeout) = (self.producer.lock().clone(), topic.to_owned(), self.timeout);
        let answer = tokio::task::spawn_blocking(move || producer.client().fetch_watermarks(&asked, PARTITION, timeout)).await;
        let what = || format!("asking where topic {topic} ends");
        match answer {
            Ok(Ok((_, end))) => Ok(end),
            Ok(Err(error)) => Err(KafkaError::from_rdkafka(what(), &error, timeout)),
            Err(error) => Err(KafkaError::Stopped(format!("{} panicked: {}", what(), crate::telemetry::panics::join_words(error)))),
        }
    }

    /// An idempotent producer that met a fatal error refuses everything from then on.
    fn replace_if_dead(&self, used: &FutureProducer<ClientEvents>) {
        if used.client().fatal_error().is_none() {
            return;
        }
        let mut producer = self.producer.lock();
        if producer.client().fatal_error().is_none() {
            return; // somebody did it
        }
        match make(&self.cluster, self.timeout) {
            Ok(fresh) => *producer = fresh,
            Err(error) => tracing::error!(%error, "the producer of the fleet's topics failed and cannot be made anew"),
        }
    }
}

fn make(cluster: &ClusterSettings, timeout: Duration) -> Result<FutureProducer<ClientEvents>, KafkaError> {
    let purpose = Purpose::Producer { name: "fleet", buffer_bytes: BUFFER_BYTES, timeout_ms: timeout.as_millis().max(1) };
    let properties = properties::merge(cluster, &purpose)?;
    properties.config.create_with_context(properties.events).map_err(|error: RdKafkaError| properties::creation_error(error))
}
