//! Batched questions about offsets.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::consumer::Consumer;
use rdkafka::{Offset, TopicPartitionList};

use super::client::Outsider;
use super::error::KafkaError;
use super::purpose::Errand;
use super::rebalance::list_of;
use super::settings::GroupSettings;
use super::topics;
use crate::record::TopicPartition;

/// What the brokers say about one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionOffsets {
    /// The partition.
    pub partition: TopicPartition,
    /// The first offset that is left; `None` when its leader did not answer.
    pub low: Option<i64>,
    /// The offset behind the last record, under read_committed the last stable one; `None` when its leader did not answer.
    pub end: Option<i64>,
    /// The group's committed offset; `None` without one.
    pub committed: Option<i64>,
}

/// Where the topics end for those who write: the high watermark, which goes on behind an open transaction while the last stable offset
/// stands.
pub struct HighWatermarks {
    settings: GroupSettings,
    asker: Outsider,
}

impl HighWatermarks {
    /// A client with a connector's rights. It reads nothing.
    ///
    /// # Errors
    /// As [`super::start_group`].
    pub fn new(settings: &GroupSettings) -> Result<Self, KafkaError> {
        Ok(Self { settings: settings.clone(), asker: Outsider::new(&settings.cluster, &settings.group_id, Errand::HighWatermarks)? })
    }

    /// The high watermark of each partition whose leader answered, in one batched question.
    ///
    /// # Errors
    /// When the whole question failed.
    pub fn query(&self, partitions: &[TopicPartition], timeout: Duration) -> Result<HashMap<TopicPartition, i64>, KafkaError> {
        list_offsets(&self.asker, &self.settings, partitions, Offset::End, timeout)
    }
}

/// Asks for the offsets of many partitions at once. All calls block: use a thread that may.
pub struct LagClient {
    settings: GroupSettings,
    asker: Outsider,
    /// Topics that were seen with partitions.
    seen: Mutex<HashSet<String>>,
}

impl LagClient {
    /// A client that asks for a connector's group. It is no member of the group.
    ///
    /// # Errors
    /// As [`super::start_group`].
    pub fn new(settings: &GroupSettings) -> Result<Self, KafkaError> {
        Ok(Self {
            settings: settings.clone(),
            asker: Outsider::new(&settings.cluster, &settings.group_id, Errand::Lag)?,
            seen: Mutex::default(),
        })
    }

    /// First, end and committed offsets of `partitions`, in their order: three batched questions, each within `timeout` (4.5 ms for 1,000
    /// partitions on a healthy cluster).
    ///
    /// # Errors
    /// When a whole question failed, which on Apache Kafka one partition without a leader is enough for; what was left out of an answer is
    /// `None`.
    pub fn query(&self, partitions: &[TopicPartition], timeout: Duration) -> Result<Vec<PartitionOffsets>, KafkaError> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let ends = list_offsets(&self.asker, &self.settings, partitions, Offset::End, timeout)?;
        let lows = list_offsets(&self.asker, &self.settings, partitions, Offset::Beginning, timeout)?;
        let committed = self.asker.consumer().committed_offsets(list_of(partitions), timeout);
        let committed = by_partition(&committed.map_err(|e| failed(&self.asker, &self.settings, "committed offsets", &e, timeout))?);
        Ok(partitions
            .iter()
            .map(|partition| PartitionOffsets {
                low: lows.get(partition).copied(),
                end: ends.get(partition).copied(),
                committed: committed.get(partition).copied(),
                partition: partition.clone(),
            })
            .collect())
    }

    /// All partitions of the connector's topics, by the brokers' metadata; without topics that this client never saw.
    ///
    /// # Errors
    /// When the brokers do not answer, or answer with an error for a topic that was there before: a list without it would be taken for all.
    pub fn partitions(&self, timeout: Duration) -> Result<Vec<TopicPartition>, KafkaError> {
        complete(topics::known(&self.asker, &self.settings.topics, timeout)?, &mut self.seen.lock())
    }
}

fn complete(known: topics::Known, seen: &mut HashSet<String>) -> Result<Vec<TopicPartition>, KafkaError> {
    if let Some((topic, words)) = known.missing.iter().find(|(topic, _)| seen.contains(topic)) {
        return Err(KafkaError::Refused { what: format!("topic {topic}, which was there before"), message: words.clone() });
    }
    let fresh: HashSet<&str> = known.partitions.iter().map(|partition| &*partition.topic).collect();
    seen.extend(fresh.into_iter().map(str::to_owned));
    Ok(known.partitions)
}

pub(super) fn list_offsets(
    asker: &Outsider,
    settings: &GroupSettings,
    partitions: &[TopicPartition],
    which: Offset,
    timeout: Duration,
) -> Result<HashMap<TopicPartition, i64>, KafkaError> {
    let mut list = list_of(partitions);
    let what = if which == Offset::End { "end offsets" } else { "first offsets" };
    list.set_all_offsets(which).map_err(|e| failed(asker, settings, what, &e, timeout))?;
    let answer = asker.consumer().offsets_for_times(list, timeout).map_err(|e| failed(asker, settings, what, &e, timeout))?;
    Ok(by_partition(&answer))
}

fn failed(asker: &Outsider, settings: &GroupSettings, what: &str, error: &rdkafka::error::KafkaError, within: Duration) -> KafkaError {
    KafkaError::from_rdkafka(format!("{what}, group {}{}", settings.group_id, asker.because()), error, within)
}

/// Offsets that were answered without an error.
pub(super) fn by_partition(list: &TopicPartitionList) -> HashMap<TopicPartition, i64> {
    let answered = list.elements().into_iter().filter(|element| element.error().is_ok());
    answered
        .filter_map(|element| match element.offset() {
            Offset::Offset(offset) => Some((TopicPartition::new(element.topic(), element.partition()), offset)),
            _ => None,
        })
        .collect()
}

/// The partitions of a connector's topics, with a client for this one question.
pub(super) fn partitions_of(settings: &GroupSettings, timeout: Duration) -> Result<Vec<TopicPartition>, KafkaError> {
    LagClient::new(settings)?.partitions(timeout)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_was_there_is_not_missing_but_unknown() {
        let there = |topics: &[&str], missing: &[&str]| topics::Known {
            partitions: topics.iter().map(|topic| TopicPartition::new(*topic, 0)).collect(),
            missing: missing.iter().map(|topic| ((*topic).to_owned(), "leader not available".to_owned())).collect(),
            brokers: 1,
        };
        let mut seen = HashSet::new();
        assert_eq!(complete(there(&["a"], &["never"]), &mut seen).unwrap().len(), 1);
        let error = complete(there(&[], &["never", "a"]), &mut seen).unwrap_err().to_string();
        assert!(error.contains("topic a, which was there before: leader not available"), "{error}");
        assert_eq!(complete(there(&["a", "never"], &[]), &mut seen).unwrap().len(), 2);
    }
}
