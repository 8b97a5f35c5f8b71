//! A group's committed offsets, seen and set from outside the group.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::{Offset, TopicPartitionList};
use rdkafka_sys::RDKafkaErrorCode as Code;

use super::client::Outsider;
use super::error::KafkaError;
use super::lag::{by_partition, list_offsets};
use super::purpose::Errand;
use super::queue::{self, metadata_of};
use super::rebalance::list_of;
use super::settings::GroupSettings;
use super::topics;
use crate::record::TopicPartition;

/// What the brokers have of one partition for a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedPartition {
    /// The partition.
    pub partition: TopicPartition,
    /// The first offset that is left; `None` when its leader did not answer.
    pub first: Option<i64>,
    /// The offset behind the last record that may be read; `None` when its leader did not answer.
    pub end: Option<i64>,
    /// The group's committed offset; `None` without one.
    pub committed: Option<i64>,
    /// What somebody stored beside it.
    pub metadata: Option<Arc<str>>,
}

/// Why offsets were not set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotSet {
    /// The group has members: the broker takes offsets from nobody else. Nothing was set.
    #[error("the group has members: {0}")]
    Members(String),
    /// No answer, or another refusal; the words say which partitions.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
}

/// Asks for a group's offsets and sets them. No member of the group. All calls block.
pub struct GroupOffsets {
    settings: GroupSettings,
    asker: Outsider,
}

impl GroupOffsets {
    /// A client with a connector's rights.
    ///
    /// # Errors
    /// As [`super::start_group`].
    pub fn new(settings: &GroupSettings) -> Result<Self, KafkaError> {
        Ok(Self { settings: settings.clone(), asker: Outsider::new(&settings.cluster, &settings.group_id, Errand::Offsets)? })
    }

    /// Every partition of the connector's topics, in order.
    ///
    /// # Errors
    /// Brokers that do not answer within `timeout` a question; a topic of the list that is not there.
    pub fn all(&self, timeout: Duration) -> Result<Vec<CommittedPartition>, KafkaError> {
        let known = topics::known(&self.asker, &self.settings.topics, timeout)?;
        if let Some((topic, words)) = known.missing.first() {
            return Err(KafkaError::Refused { what: format!("topic {topic}"), message: words.clone() });
        }
        let mut partitions = known.partitions;
        partitions.sort();
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let ends = list_offsets(&self.asker, &self.settings, &partitions, Offset::End, timeout)?;
        let firsts = list_offsets(&self.asker, &self.settings, &partitions, Offset::Beginning, timeout)?;
        let answer = self.asker.consumer().committed_offsets(list_of(&partitions), timeout);
        let answer = answer.map_err(|error| KafkaError::from_rdkafka(self.what("committed offsets"), &error, timeout))?;
        let committed = by_partition(&answer);
        let of = |partition: TopicPartition| CommittedPartition {
            first: firsts.get(&partition).copied(),
            end: ends.get(&partition).copied(),
            committed: committed.get(&partition).copied(),
            metadata: metadata_of(&answer, &partition),
            partition,
        };
        Ok(partitions.into_iter().map(of).collect())
    }

    /// The first offset of each partition whose record is not older than `at_ms` (milliseconds since the epoch); none for a partition
    /// without one.
    ///
    /// # Errors
    /// Brokers that do not answer within `timeout`.
    pub fn at_time(
        &self,
        partitions: &[TopicPartition],
        at_ms: i64,
        timeout: Duration,
    ) -> Result<HashMap<TopicPartition, i64>, KafkaError> {
        let failed = |error: rdkafka::error::KafkaError| KafkaError::from_rdkafka(self.what("offsets of a time"), &error, timeout);
        let mut list = list_of(partitions);
        // Here librdkafka takes the time where offsets stand otherwise.
        list.set_all_offsets(Offset::Offset(at_ms)).map_err(failed)?;
        let answer = self.asker.consumer().offsets_for_times(list, timeout).map_err(failed)?;
        Ok(by_partition(&answer))
    }

    /// The members that the brokers tell about. Of a group of the newer protocol (KIP-848) they tell nothing this way: that the group is
    /// empty is known only when [`GroupOffsets::set`] did it.
    ///
    /// # Errors
    /// Brokers that do not answer, or know no such question.
    pub fn members(&self, timeout: Duration) -> Result<Vec<String>, KafkaError> {
        let group = self.settings.group_id.as_str();
        let groups = self.asker.consumer().fetch_group_list(Some(group), timeout);
        let groups = groups.map_err(|error| KafkaError::from_rdkafka(self.what("members"), &error, timeout))?;
        let members = groups.groups().iter().filter(|found| found.name() == group).flat_map(|found| found.members());
        Ok(members.map(|member| format!("{} on {}", member.client_id(), member.client_host().trim_start_matches('/'))).collect())
    }

    /// Commits these offsets for the group, without metadata: what stood beside the old ones goes. All or nothing: the coordinator refuses
    /// while the group has a member.
    ///
    /// # Errors
    /// See [`NotSet`].
    pub fn set(&self, offsets: &[(TopicPartition, i64)], timeout: Duration) -> Result<(), NotSet> {
        let mut list = TopicPartitionList::with_capacity(offsets.len());
        for (partition, offset) in offsets {
            let added = list.add_partition_offset(&partition.topic, partition.partition, Offset::Offset(*offset));
            added.map_err(|error| KafkaError::from_rdkafka(self.what("offsets"), &error, timeout))?;
        }
        let (whole, single) = queue::commit(self.asker.consumer().as_ref(), &list, timeout);
        let code = single.first().map(|(_, code)| *code).or(whole);
        match code {
            None => Ok(()),
            Some(code @ (Code::UnknownMemberId | Code::IllegalGeneration | Code::RebalanceInProgress)) => {
                Err(NotSet::Members(code.to_string()))
            }
            Some(code @ (Code::StaleMemberEpoch | Code::FencedMemberEpoch | Code::FencedInstanceId)) => {
                Err(NotSet::Members(code.to_string()))
            }
            Some(Code::OperationTimedOut | Code::RequestTimedOut) => {
                Err(KafkaError::TimedOut { what: self.what("setting offsets"), within: timeout }.into())
            }
            Some(code) => {
                let which: Vec<String> = single.iter().map(|(partition, code)| format!("{partition}: {code}")).collect();
                let message = if which.is_empty() { code.to_string() } else { which.join(", ") };
                Err(KafkaError::Refused { what: self.what("setting offsets"), message }.into())
            }
        }
    }

    fn what(&self, what: &str) -> String {
        format!("{what}, group {}", self.settings.group_id)
    }
}
