//! Partitions come and go: in the order of calls that librdkafka needs. Everything here runs on the poll thread.
//!
//! Assign: start offsets; take over each queue; (incremental) assign; take over again. Revoke: no longer owned; wait for the commit on its way;
//! the listener drains; commit; resume what was paused; (incremental) unassign; throw away what still waits in the queues.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer, RebalanceProtocol};
use rdkafka::{Offset, TopicPartitionList};

use super::member::{Begin, BeginAt, Command, GroupContext, Member, Owned};
use super::queue::{BeginAgain, KafkaPartitionQueue, NativeClient};
use super::seam::{Assigned, Epoch, GroupError, NextOffset, StartOffset};
use super::start::{self, Start};
use crate::record::TopicPartition;

const LOST: &str = "the assignment was lost";

/// The group gave partitions to this worker.
pub(super) fn assign(member: &Arc<Member>, consumer: &BaseConsumer<GroupContext>, given: &TopicPartitionList) {
    let partitions = partitions_of(given);
    let started = match member.client() {
        // Told while the consumer is being dropped: nobody is left to read.
        Err(_) => None,
        Ok(_) => start::find(member, consumer, &partitions, BeginAt::Committed),
    };
    let Some(starts) = started else {
        tracing::warn!(group = member.settings.group_id, "an assignment is not taken up: it was lost, or the worker stops");
        if let Err(error) = give_back(consumer, given) {
            tracing::warn!(group = member.settings.group_id, "the assignment could not be given back: {error}");
        }
        return;
    };
    if let Err(message) = begin(member, consumer, starts) {
        member.report(&format!("partitions could not be started, tried again: {message}"), false);
        member.ownership.lock().unstarted.extend(partitions.iter().map(|partition| (partition.clone(), None)));
        for partition in partitions {
            ask_to_begin(member, Begin { partition, of: None, at: BeginAt::Committed });
        }
    }
    member.turns.turn();
}

/// The group takes partitions away, or has given them to others already.
pub(super) fn revoke(member: &Arc<Member>, consumer: &BaseConsumer<GroupContext>, taken: &TopicPartitionList) {
    let lost = consumer.assignment_lost();
    let partitions = partitions_of(taken);
    member.ownership.lock().unstarted.retain(|p, _| !partitions.contains(p));
    let owned = disown(member, consumer, &partitions, lost);
    let given_back = give_back(consumer, taken);
    if let Err(error) = given_back {
        member.report(&format!("partitions could not be given back: {error}"), false);
    }
    discard(member, &owned);
    member.turns.turn();
}

/// Begins partitions again at other places, in the middle of a session. What is asked for an assignment that is over is passed over: the next one may have
/// passed that place, or be another worker's.
///
/// Seeking or pausing does not revive a partition whose offset was out of range: it has to leave the assignment and come back, with a round
/// trip to the broker between (without one the later assign overtakes the stop: 39 of 40 rounds stalled). The eager protocol knows only whole
/// assignments: all partitions start anew at what the listener gave back for them.
///
/// # Errors
/// The partitions stay in `unstarted` and the call has to be made again.
pub(super) fn begin_again(member: &Arc<Member>, consumer: &BaseConsumer<GroupContext>, asked: &[Begin]) -> Result<(), String> {
    let mut wanted: HashMap<TopicPartition, (Option<Epoch>, BeginAt)> = HashMap::new();
    let (mut these, mut others) = (Vec::new(), Vec::new());
    {
        let ownership = member.ownership.lock();
        for Begin { partition, of, at } in asked {
            if ownership.present(partition) == Some(*of) {
                wanted.entry(partition.clone()).or_insert((*of, *at));
            }
        }
        let given = ownership.owned.iter().map(|(partition, owned)| (partition, Some(owned.epoch)));
        for (partition, of) in given.chain(ownership.unstarted.iter().map(|(partition, of)| (partition, *of))) {
            if wanted.contains_key(partition) { these.push(partition.clone()) } else { others.push((partition.clone(), of)) }
        }
    }
    if wanted.is_empty() {
        return Ok(());
    }
    let cooperative = matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative);
    if cooperative {
        others.clear();
    }
    let (others, of_others): (Vec<TopicPartition>, Vec<Option<Epoch>>) = others.into_iter().unzip();
    if cooperative {
        let owned: Vec<TopicPartition> = these.iter().filter(|partition| member.owns(partition)).cloned().collect();
        if !owned.is_empty() {
            consumer.incremental_unassign(&list_of(&owned)).map_err(|e| e.to_string())?;
        }
    }
    disown(member, consumer, &others, false);
    disown(member, consumer, &these, true);
    {
        let mut ownership = member.ownership.lock();
        ownership.unstarted.extend(others.iter().cloned().zip(of_others));
        ownership.unstarted.extend(wanted.iter().map(|(partition, (of, _))| (partition.clone(), *of)));
    }
    if !cooperative {
        consumer.unassign().map_err(|e| e.to_string())?;
    }
    // Also the round trip that lets the stop take effect.
    let mut starts = start::find(member, consumer, &others, BeginAt::Committed).ok_or(LOST)?;
    for (partition, (_, at)) in &wanted {
        starts.extend(start::find(member, consumer, std::slice::from_ref(partition), *at).ok_or(LOST)?);
    }
    discard(member, &others);
    discard(member, &these);
    begin(member, consumer, starts)
}

/// Takes over the queues, assigns, takes over again, tells the listener.
fn begin(member: &Arc<Member>, consumer: &BaseConsumer<GroupContext>, starts: Vec<Start>) -> Result<(), String> {
    let client: Arc<dyn NativeClient> = member.client().map_err(|e| e.to_string())?;
    let mut list = TopicPartitionList::with_capacity(starts.len());
    for Start { partition, at, .. } in &starts {
        let offset = match at {
            StartOffset::Committed(offset) | StartOffset::Latest(offset) | StartOffset::Asked(offset) => Offset::Offset(*offset),
            StartOffset::Earliest => Offset::Beginning,
        };
        list.add_partition_offset(&partition.topic, partition.partition, offset).map_err(|e| format!("{partition}: {e}"))?;
    }
    let epochs: Vec<Epoch> = {
        let mut ownership = member.ownership.lock();
        starts.iter().map(|_| ownership.next_epoch()).collect()
    };
    let again = |epoch: Epoch| -> BeginAgain {
        let member = Arc::downgrade(member);
        Arc::new(move |partition| {
            if let Some(member) = member.upgrade() {
                ask_to_begin(&member, Begin { partition: partition.clone(), of: Some(epoch), at: BeginAt::Earliest });
            }
        })
    };
    let take_over = |partition: &TopicPartition, begin_again: Option<BeginAgain>| {
        KafkaPartitionQueue::take_over(&client, partition, begin_again).ok_or_else(|| format!("{partition}: no queue"))
    };
    // Once before, so that the start of fetching does not send records to the consumer's queue (rdkafka_partition.c:2293) ...
    let before: Vec<_> = starts.iter().map(|start| take_over(&start.partition, None)).collect::<Result<_, _>>()?;
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => consumer.incremental_assign(&list),
        RebalanceProtocol::Eager | RebalanceProtocol::None => consumer.assign(&list),
    }
    .map_err(|e| e.to_string())?;
    // ... and once after, since stopping an earlier assignment takes the mark away (rdkafka_partition.c:1840).
    let mut assigned = Vec::with_capacity(starts.len());
    let queues: Vec<_> =
        starts.iter().zip(&epochs).map(|(start, epoch)| take_over(&start.partition, Some(again(*epoch)))).collect::<Result<_, _>>()?;
    drop(before);
    {
        let mut ownership = member.ownership.lock();
        for ((Start { partition, at, metadata }, queue), epoch) in starts.iter().zip(queues).zip(epochs) {
            ownership.unstarted.remove(partition);
            ownership.owned.insert(partition.clone(), Owned { epoch, paused: false });
            let (partition, metadata) = (partition.clone(), metadata.clone());
            assigned.push(Assigned { partition, epoch, start: *at, metadata, queue: Box::new(queue) });
        }
    }
    start::pin_latest(member, client.as_ref(), &starts);
    member.listener.assigned(assigned);
    Ok(())
}

/// Ends this worker's ownership, with a commit of what the listener gives back unless the partitions are lost. Returns those that were owned.
fn disown(member: &Arc<Member>, consumer: &BaseConsumer<GroupContext>, partitions: &[TopicPartition], lost: bool) -> Vec<TopicPartition> {
    let mut paused = Vec::new();
    let owned: Vec<TopicPartition> = {
        let mut ownership = member.ownership.lock();
        let mut take = |p: &TopicPartition| {
            let owned = ownership.owned.remove(p)?;
            if owned.paused {
                paused.push(p.clone());
            }
            Some(p.clone())
        };
        partitions.iter().filter_map(&mut take).collect()
    };
    if owned.is_empty() {
        return owned;
    }
    // No commit begins for them any more; one on its way ends first.
    drop(member.commit_turn.lock());
    let drain = member.turns.long_step("giving partitions back");
    if lost {
        member.listener.lost(&owned);
    } else {
        let heads = member.listener.revoking(&owned);
        drop(drain);
        member.turns.turn();
        commit_heads(member, &heads);
    }
    if !paused.is_empty()
        && let Err(error) = consumer.resume(&list_of(&paused))
    {
        tracing::debug!(group = member.settings.group_id, "resume before giving back: {error}");
    }
    owned
}

/// The last commit of a revocation. A member whose epoch is about to change is answered STALE_MEMBER_EPOCH for a moment: tried again, briefly.
fn commit_heads(member: &Member, heads: &[NextOffset]) {
    let Ok(client) = member.client() else { return };
    let timeout = member.settings.revoke_commit_timeout;
    let deadline = Instant::now() + timeout.min(Duration::from_secs(1));
    loop {
        match member.commit(client.as_ref(), heads, timeout) {
            Ok(failed) => {
                for (partition, error) in &failed {
                    tracing::warn!(group = member.settings.group_id, %partition, "commit at the revocation: {error}; its records will come again");
                }
                let refused: Vec<TopicPartition> = failed.into_iter().map(|(partition, _)| partition).collect();
                if !refused.is_empty() {
                    member.listener.not_committed(&refused);
                }
                return;
            }
            Err(GroupError::Rebalancing(_)) if Instant::now() < deadline => thread::sleep(Duration::from_millis(100)),
            Err(error) => {
                let group = member.settings.group_id.as_str();
                tracing::warn!(group, "commit at the revocation of {} partitions: {error}; their records may come again", heads.len());
                let refused: Vec<TopicPartition> = heads.iter().map(|next| next.partition.clone()).collect();
                member.listener.not_committed(&refused);
                return;
            }
        }
    }
}

/// Asks the poll thread, from any thread. The queue is bounded: when it is full the caller's partition stays as it is and says so.
pub(super) fn ask_to_begin(member: &Member, begin: Begin) {
    let partition = begin.partition.clone();
    if member.commands.try_send(Command::Begin(begin)).is_err() {
        member.report(&format!("{partition} could not be asked to begin again: too many requests, or the consumer is closed"), false);
    }
}

fn give_back(consumer: &BaseConsumer<GroupContext>, partitions: &TopicPartitionList) -> rdkafka::error::KafkaResult<()> {
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => consumer.incremental_unassign(partitions),
        RebalanceProtocol::Eager | RebalanceProtocol::None => consumer.unassign(),
    }
}

fn discard(member: &Member, partitions: &[TopicPartition]) {
    let Ok(client) = member.client() else { return };
    let client: Arc<dyn NativeClient> = client;
    for partition in partitions {
        if let Some(mut queue) = KafkaPartitionQueue::take_over(&client, partition, None) {
            queue.discard_all();
        }
    }
}

fn partitions_of(list: &TopicPartitionList) -> Vec<TopicPartition> {
    list.elements().iter().map(|e| TopicPartition::new(e.topic(), e.partition())).collect()
}

/// The partitions as librdkafka takes them.
pub(super) fn list_of(partitions: &[TopicPartition]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        list.add_partition(&partition.topic, partition.partition);
    }
    list
}
