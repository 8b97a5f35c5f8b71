//! Where an assigned partition starts. The rule stands at [`super::start_group`].

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use super::error::KafkaError;
use super::lag;
use super::member::{BeginAt, GroupContext, Member};
use super::queue::{self, NativeClient};
use super::rebalance::list_of;
use super::seam::{NextOffset, StartOffset};
use crate::config::StartAt;
use crate::record::TopicPartition;

/// One question to the group's coordinator or a partition's leader.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two tries.
const ASK_AGAIN: Duration = Duration::from_millis(250);

/// Where a partition starts, and what was committed beside the group's offset.
pub(super) struct Start {
    pub partition: TopicPartition,
    pub at: StartOffset,
    pub metadata: Option<Arc<str>>,
}

/// The group's committed offset of a partition.
struct Committed {
    offset: Option<i64>,
    metadata: Option<Arc<str>>,
}

/// The start of each partition; `None` when the assignment was lost or the member closes meanwhile. Tries again without end otherwise (the
/// error reaches the listener each time): a guess would lose or repeat records. Heartbeats go on, librdkafka sends them by itself.
///
/// Every way makes at least one round trip to the group's coordinator.
pub(super) fn find(
    member: &Member,
    consumer: &BaseConsumer<GroupContext>,
    partitions: &[TopicPartition],
    at: BeginAt,
) -> Option<Vec<Start>> {
    if partitions.is_empty() {
        return Some(Vec::new());
    }
    loop {
        match find_once(member, consumer, partitions, at) {
            Ok(starts) => return Some(starts),
            Err(error) => member.report(&format!("start offsets, tried again: {error}"), false),
        }
        member.turns.turn();
        if member.closing.load(Ordering::Acquire) || consumer.assignment_lost() {
            return None;
        }
        thread::sleep(ASK_AGAIN);
    }
}

fn find_once(
    member: &Member,
    consumer: &BaseConsumer<GroupContext>,
    partitions: &[TopicPartition],
    at: BeginAt,
) -> Result<Vec<Start>, KafkaError> {
    let committed = committed(consumer, partitions)?;
    let mut starts = Vec::with_capacity(partitions.len());
    for (partition, committed) in partitions.iter().zip(committed) {
        // Each may be a question of its own.
        member.turns.turn();
        let at = match (at, committed.offset) {
            (BeginAt::Offset(offset), _) => StartOffset::Asked(offset),
            (BeginAt::Earliest, _) => StartOffset::Earliest,
            (BeginAt::Committed, Some(offset)) => StartOffset::Committed(offset),
            (BeginAt::Committed, None) if member.fresh.get().is_some_and(|known| known.contains(partition)) => {
                let (_, end) = consumer
                    .fetch_watermarks(&partition.topic, partition.partition, ASK_TIMEOUT)
                    .map_err(|e| KafkaError::from_rdkafka(format!("the end of {partition}"), &e, ASK_TIMEOUT))?;
                StartOffset::Latest(end)
            }
            (BeginAt::Committed, None) => StartOffset::Earliest,
        };
        starts.push(Start { partition: partition.clone(), at, metadata: committed.metadata });
    }
    Ok(starts)
}

/// The group's committed offsets, in the order of `partitions`.
fn committed(consumer: &BaseConsumer<GroupContext>, partitions: &[TopicPartition]) -> Result<Vec<Committed>, KafkaError> {
    let what = "the group's committed offsets";
    let list: TopicPartitionList =
        consumer.committed_offsets(list_of(partitions), ASK_TIMEOUT).map_err(|e| KafkaError::from_rdkafka(what, &e, ASK_TIMEOUT))?;
    partitions
        .iter()
        .map(|partition| {
            let element = list
                .find_partition(&partition.topic, partition.partition)
                .ok_or_else(|| KafkaError::Refused { what: what.to_owned(), message: format!("no answer for {partition}") })?;
            element.error().map_err(|e| KafkaError::from_rdkafka(format!("the committed offset of {partition}"), &e, ASK_TIMEOUT))?;
            let offset = match element.offset() {
                Offset::Offset(offset) => Some(offset),
                _ => None,
            };
            Ok(Committed { offset, metadata: queue::metadata_of(&list, partition) })
        })
        .collect()
}

/// With `start = "latest"`: which partitions there are before this member joins, if the group has no committed offset for any of them; else
/// the empty set. Tries again until it is known or the member closes.
pub(super) fn remember_fresh(member: &Member, consumer: &BaseConsumer<GroupContext>) {
    if member.settings.start == StartAt::Earliest {
        return;
    }
    while !member.closing.load(Ordering::Acquire) {
        member.turns.turn();
        let known = lag::partitions_of(&member.settings, ASK_TIMEOUT);
        match known.and_then(|known| committed(consumer, &known).map(|committed| (known, committed))) {
            Ok((known, committed)) => {
                let fresh: HashSet<_> =
                    if committed.iter().all(|committed| committed.offset.is_none()) { known.into_iter().collect() } else { HashSet::new() };
                // Set once: this is the only caller, once for a member.
                let _first = member.fresh.set(fresh);
                return;
            }
            Err(error) => member.report(&format!("whether the group is new, tried again: {error}"), false),
        }
        thread::sleep(ASK_AGAIN);
    }
}

/// Commits the offsets of partitions that start at their end, at once: so the choice holds after a restart, also for one that stays idle.
pub(super) fn pin_latest(member: &Member, client: &dyn NativeClient, starts: &[Start]) {
    let latest: Vec<NextOffset> = starts
        .iter()
        .filter_map(|start| match start.at {
            StartOffset::Latest(offset) => Some(NextOffset::plain(start.partition.clone(), offset)),
            StartOffset::Committed(_) | StartOffset::Asked(_) | StartOffset::Earliest => None,
        })
        .collect();
    match member.commit(client, &latest, member.settings.revoke_commit_timeout) {
        Ok(failed) if failed.is_empty() => {}
        outcome => tracing::warn!(
            group = member.settings.group_id,
            "the start at the end of {} partitions is not committed ({outcome:?}): until their first commit a restart takes them from their first record",
            latest.len()
        ),
    }
}
