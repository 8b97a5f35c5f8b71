//! The size of the last records of partitions, also of those that nobody consumes.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError as RdKafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use super::client::ConsumerHandle;
use super::context::ClientEvents;
use super::error::KafkaError;
use super::purpose::Errand;
use super::rebalance::list_of;
use super::settings::GroupSettings;
use crate::record::TopicPartition;

/// How many of a partition's last offsets are looked at (rho in Landau et al., arXiv 2206.11170).
///
/// Only sizes are taken from them, not the production rate: timestamps of one producer's batch lie within a millisecond and would say
/// anything, and those of backfills and mirrored topics are old. Rates come from differences of end offsets.
pub const SAMPLE_RECORDS: i64 = 5;

/// A consumer without a group that looks at the ends of partitions. Belongs to one thread at a time, which may block.
pub struct Sampler {
    consumer: ConsumerHandle<ClientEvents>,
}

impl Sampler {
    /// A sampler with a connector's rights.
    ///
    /// # Errors
    /// As [`super::start_group`].
    pub fn new(settings: &GroupSettings) -> Result<Self, KafkaError> {
        Ok(Self { consumer: ConsumerHandle::outside(&settings.cluster, &settings.group_id, Errand::Sample)? })
    }

    /// Mean bytes of key and value of the last [`SAMPLE_RECORDS`] records of these partitions of one topic, each given with its number,
    /// first and end offset. A partition without records (or whose last offsets hold none: transaction markers, compaction), and one that
    /// did not answer within `timeout`, is left out.
    ///
    /// # Errors
    /// When librdkafka refuses the whole question.
    pub fn mean_bytes(&self, topic: &str, partitions: &[(i32, i64, i64)], timeout: Duration) -> Result<HashMap<i32, f64>, KafkaError> {
        let failed = |error: RdKafkaError| KafkaError::from_rdkafka(format!("sampling records of {topic}"), &error, timeout);
        let mut open: HashMap<i32, Seen> = HashMap::with_capacity(partitions.len());
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for (partition, low, end) in partitions.iter().filter(|(_, low, end)| end > low) {
            let from = (*low).max(end - SAMPLE_RECORDS);
            list.add_partition_offset(topic, *partition, Offset::Offset(from)).map_err(failed)?;
            open.insert(*partition, Seen { end: *end, records: 0, bytes: 0 });
        }
        let names: Vec<TopicPartition> = open.keys().map(|partition| TopicPartition::new(topic, *partition)).collect();
        let Some(first) = names.first() else { return Ok(HashMap::new()) };
        self.consumer.incremental_assign(&list).map_err(failed)?;
        let seen = self.look(topic, open, Instant::now() + timeout);
        // The next assignment may not overlap this one; a round trip lets the end of it take effect.
        self.consumer.incremental_unassign(&list_of(&names)).map_err(failed)?;
        self.consumer.fetch_watermarks(topic, first.partition, Duration::from_secs(1)).map_err(failed)?;
        let means = seen.into_iter().filter(|(_, seen)| seen.records > 0);
        Ok(means.map(|(partition, seen)| (partition, seen.bytes as f64 / f64::from(seen.records))).collect())
    }

    /// Whether there is a record to read in these ranges (number, from, end) of a topic's partitions: behind the last committed record
    /// there may be nothing but transaction markers and aborted records, which nobody will ever read. A partition that gave no answer
    /// within `timeout` is left out.
    ///
    /// # Errors
    /// When librdkafka refuses the whole question.
    pub fn readable(&self, topic: &str, ranges: &[(i32, i64, i64)], timeout: Duration) -> Result<HashMap<i32, bool>, KafkaError> {
        let failed = |error: RdKafkaError| KafkaError::from_rdkafka(format!("looking for records of {topic}"), &error, timeout);
        let mut list = TopicPartitionList::with_capacity(ranges.len());
        let mut open: HashMap<i32, i64> = HashMap::with_capacity(ranges.len());
        for (partition, from, end) in ranges {
            list.add_partition_offset(topic, *partition, Offset::Offset(*from)).map_err(failed)?;
            open.insert(*partition, *end);
        }
        let names: Vec<TopicPartition> = open.keys().map(|partition| TopicPartition::new(topic, *partition)).collect();
        let Some(first) = names.first() else { return Ok(HashMap::new()) };
        self.consumer.incremental_assign(&list).map_err(failed)?;
        let deadline = Instant::now() + timeout;
        let mut answers = HashMap::with_capacity(open.len());
        while !open.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            match self.consumer.poll(left.min(Duration::from_millis(100))) {
                Some(Ok(message)) if message.topic() == topic => {
                    if let Some(end) = open.remove(&message.partition()) {
                        answers.insert(message.partition(), message.offset() < end);
                    }
                }
                Some(Err(RdKafkaError::PartitionEOF(partition))) => {
                    open.remove(&partition);
                    answers.entry(partition).or_insert(false);
                }
                Some(Err(error)) => tracing::debug!(target: "librdkafka", %error, "while looking for records"),
                Some(Ok(_)) | None => {}
            }
        }
        self.consumer.incremental_unassign(&list_of(&names)).map_err(failed)?;
        self.consumer.fetch_watermarks(topic, first.partition, Duration::from_secs(1)).map_err(failed)?;
        Ok(answers)
    }

    /// Reads until each partition has shown its end, or the deadline.
    fn look(&self, topic: &str, mut open: HashMap<i32, Seen>, deadline: Instant) -> HashMap<i32, Seen> {
        let mut done = HashMap::with_capacity(open.len());
        while !open.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let ended = match self.consumer.poll(left.min(Duration::from_millis(100))) {
                // What an earlier question left behind.
                Some(Ok(message)) if message.topic() != topic => None,
                Some(Ok(message)) => open.get_mut(&message.partition()).and_then(|seen| {
                    seen.records += 1;
                    seen.bytes += (message.key_len() + message.payload_len()) as u64;
                    (message.offset() + 1 >= seen.end).then(|| message.partition())
                }),
                Some(Err(RdKafkaError::PartitionEOF(partition))) => Some(partition),
                Some(Err(error)) => {
                    tracing::debug!(target: "librdkafka", %error, "while sampling");
                    None
                }
                None => None,
            };
            done.extend(ended.and_then(|partition| open.remove_entry(&partition)));
        }
        done.extend(open);
        done
    }
}

struct Seen {
    end: i64,
    records: u32,
    bytes: u64,
}
