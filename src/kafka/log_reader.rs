//! Reading the fleet's own topics from a bounded way back, by everyone, without a group.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError as RdKafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use super::client::ConsumerHandle;
use super::context::ClientEvents;
use super::error::KafkaError;
use super::log_topic::{GROUP, PARTITION};
use super::purpose::Errand;
use super::settings::ClusterSettings;

/// Where the reading of a topic begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStart {
    /// At the first record there is: for compacted topics.
    Beginning,
    /// So many offsets before the end: for reports, of which the old ones say nothing. Offsets, not times: neither the clocks of those who
    /// wrote them nor this machine's is asked.
    Last(i64),
}

/// A record of such a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// Its topic.
    pub topic: String,
    /// Its offset.
    pub offset: i64,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value; `None` deletes the key.
    pub value: Option<Vec<u8>>,
}

/// A consumer of partition 0 of some topics. Belongs to one thread, which may block. Fetches at most 1 MiB ahead.
pub struct LogReader {
    consumer: ConsumerHandle<ClientEvents>,
    starts: HashMap<String, i64>,
    ends: HashMap<String, i64>,
}

impl LogReader {
    /// Opens the topics and asks where they end now. Each question takes at most `timeout`.
    ///
    /// # Errors
    /// Brokers that do not answer, a topic that is not there or may not be read.
    pub fn open(cluster: &ClusterSettings, topics: &[(String, LogStart)], timeout: Duration) -> Result<Self, KafkaError> {
        let consumer = ConsumerHandle::outside(cluster, GROUP, Errand::FleetLog)?;
        let (mut starts, mut ends) = (HashMap::new(), HashMap::new());
        let mut list = TopicPartitionList::with_capacity(topics.len());
        for (topic, start) in topics {
            let failed = |error: RdKafkaError| {
                KafkaError::from_rdkafka(format!("reading topic {topic}{}", consumer.context().because()), &error, timeout)
            };
            let (low, end) = consumer.fetch_watermarks(topic, PARTITION, timeout).map_err(failed)?;
            let from = match start {
                LogStart::Beginning => low,
                LogStart::Last(count) => low.max(end - count),
            };
            list.add_partition_offset(topic, PARTITION, Offset::Offset(from)).map_err(failed)?;
            starts.insert(topic.clone(), from);
            ends.insert(topic.clone(), end);
        }
        let what = || topics.iter().map(|(topic, _)| topic.as_str()).collect::<Vec<_>>().join(", ");
        consumer.assign(&list).map_err(|error| KafkaError::from_rdkafka(format!("reading {}", what()), &error, timeout))?;
        Ok(Self { consumer, starts, ends })
    }

    /// The topic's end when it was opened: records at or above it came later.
    pub fn end_at_open(&self, topic: &str) -> i64 {
        self.ends.get(topic).copied().unwrap_or(0)
    }

    /// Reads what stood in the topics when they were opened. Blocks; for a command, not for a worker.
    ///
    /// # Errors
    /// As [`LogReader::next`]; nothing came for `quiet_max` though the end was not reached.
    pub fn read_to_end(&self, quiet_max: Duration) -> Result<Vec<LogRecord>, KafkaError> {
        let (mut records, mut left) = (Vec::new(), self.ends.clone());
        left.retain(|topic, end| *end > self.starts.get(topic).copied().unwrap_or(0));
        let mut heard = Instant::now();
        while !left.is_empty() {
            let Some(record) = self.next(Duration::from_millis(100))? else {
                if heard.elapsed() > quiet_max {
                    let what = format!("reading {} to its end", left.keys().cloned().collect::<Vec<_>>().join(", "));
                    return Err(KafkaError::TimedOut { what, within: quiet_max });
                }
                continue;
            };
            heard = Instant::now();
            if left.get(&record.topic).is_some_and(|end| record.offset + 1 >= *end) {
                left.remove(&record.topic);
            }
            records.push(record);
        }
        Ok(records)
    }

    /// The next record, or `None` when none came within `wait` (or librdkafka met an error from which it recovers by itself).
    ///
    /// # Errors
    /// One from which it does not recover: open the topics again.
    pub fn next(&self, wait: Duration) -> Result<Option<LogRecord>, KafkaError> {
        match self.consumer.poll(wait) {
            None => Ok(None),
            Some(Ok(message)) => Ok(Some(LogRecord {
                topic: message.topic().to_owned(),
                offset: message.offset(),
                key: message.key().map(<[u8]>::to_vec),
                value: message.payload().map(<[u8]>::to_vec),
            })),
            Some(Err(error)) => match error.rdkafka_error_code() {
                Some(code) if !recovers(code) => {
                    let message = format!("{code}{}", self.consumer.context().because());
                    Err(KafkaError::Refused { what: "reading the fleet's topics".to_owned(), message })
                }
                _ => {
                    tracing::debug!(target: "librdkafka", %error, "while reading the fleet's topics");
                    Ok(None)
                }
            },
        }
    }
}

/// What librdkafka gets over by itself. A refused group is nothing to a reader that is in none.
fn recovers(code: Code) -> bool {
    !matches!(
        code,
        Code::AutoOffsetReset
            | Code::OffsetOutOfRange
            | Code::UnknownTopicOrPartition
            | Code::UnknownTopic
            | Code::UnknownPartition
            | Code::TopicAuthorizationFailed
            | Code::Fatal
            | Code::BadMessage
    )
}
