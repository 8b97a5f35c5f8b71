//! What a shard does between takes: events in, batches out (`release.rs`: holds that end).

use std::time::{Duration, Instant};

use crate::flow::{BudgetKind, HoldCause};
use crate::kafka::{Epoch, NextOffset};
use crate::record::TopicPartition;

use super::batch::{AppendJob, Unacked};
use super::events::{Outcome, ShardEvent};
use super::partition::{Hold, NextOwner, Wait};
use super::shard::{Draining, Shard};

/// How long a seek may take before the hold is tried again. librdkafka answers by itself; the shard stands still meanwhile.
pub(super) const SEEK_TIMEOUT: Duration = Duration::from_secs(1);

impl Shard {
    /// Takes an event in. `false` ends the shard.
    pub fn handle(&mut self, event: ShardEvent, now: Instant) -> bool {
        match event {
            ShardEvent::Assigned(assigned) => self.assign(assigned),
            ShardEvent::Revoke { partitions, deadline, reply } => {
                let slots = self.slots_of(&partitions);
                self.begin_drain(&slots);
                self.draining.push(Draining { slots, deadline, reply });
            }
            ShardEvent::Lost { partitions, reply } => {
                let slots = self.slots_of(&partitions);
                self.let_go(&slots, NextOwner::ReadsFromCommit);
                // Rows of these partitions are left out by the writer, which sees that their assignment is over.
                self.close_all();
                // Whoever asked may have stopped waiting.
                let _ = reply.try_send(Vec::new());
            }
            ShardEvent::Outcome(outcome) => self.settle(outcome, now),
            ShardEvent::Plan { table, key, answer } => self.take_plan(&table, &key, answer, now),
            ShardEvent::Watermarks { slot, epoch, asked, range } => self.out_of_range(slot as usize, epoch, asked, range, now),
            ShardEvent::Stream { slot, epoch, news } => self.stream_news(slot as usize, epoch, news, now),
            ShardEvent::Stop => return false,
        }
        true
    }

    /// Takes nothing more from these partitions, and sends what was taken.
    fn begin_drain(&mut self, slots: &[(usize, Epoch)]) {
        for (slot, _) in slots {
            if let Some(partition) = self.slots.get_mut(*slot) {
                partition.queue = None;
                partition.draining = true;
                partition.progress.set_draining();
            }
            if self.is_exact() {
                self.leave_unsent(*slot);
            }
        }
        self.close_all();
    }

    /// Slots with their present epochs: a drain that ends late must not take the next assignment with it.
    fn slots_of(&self, partitions: &[TopicPartition]) -> Vec<(usize, Epoch)> {
        let slots = partitions.iter().filter_map(|partition| self.slot_of.get(partition).copied());
        slots.filter_map(|slot| Some((slot, self.slots.get(slot)?.epoch()))).collect()
    }

    /// Ends assignments, and counts the finished records that come again.
    fn let_go(&mut self, slots: &[(usize, Epoch)], next_owner: NextOwner) {
        let exact = self.is_exact();
        for (slot, epoch) in slots {
            if exact && self.slots.get(*slot).is_some_and(|partition| partition.is_current(*epoch)) {
                self.end_stream(*slot);
            }
            if let Some(partition) = self.slots.get_mut(*slot).filter(|partition| partition.is_current(*epoch)) {
                let again = if exact { 0 } else { partition.finished_again_records(next_owner) };
                if let Some(table) = partition.table.and_then(|table| self.tables.get(table)) {
                    table.entry.metrics.possible_duplicate_rows.increment(again);
                }
                partition.queue = None;
                partition.owned = false;
                partition.progress.set_gone();
                partition.hold = None;
                partition.resting_since = None;
            }
        }
    }

    /// Ends the assignments that no revocation ended: the thread ends, and no commit of theirs will follow.
    pub fn end(&mut self) {
        let owned: Vec<_> = (0..self.slots.len()).filter_map(|slot| Some((slot, self.slots.get(slot)?.epoch()))).collect();
        self.let_go(&owned, NextOwner::ReadsFromCommit);
    }

    /// Counts an append's or a dead letter's rows down.
    fn settle(&mut self, outcome: Outcome, now: Instant) {
        let mut given_up = Vec::new();
        let exact = self.is_exact();
        let rejected = outcome.shares.iter().map(|share| u64::from(share.rejected)).sum();
        if rejected > 0 {
            self.count_rejected(rejected, now);
        }
        for share in &outcome.shares {
            let Some(partition) = self.slots.get_mut(share.share.slot as usize) else { continue };
            if !partition.is_current(share.share.epoch) {
                // Durable, but the assignment is over: the partition's present owner may read these records again.
                if let Some(table) = outcome.table.as_ref().filter(|_| !exact) {
                    table.metrics.possible_duplicate_rows.increment(u64::from(share.finished));
                }
                continue;
            }
            if outcome.table.is_none() {
                partition.letters.answered(share.share.span, share.share.rows, now);
            } else if share.rejected > 0 {
                partition.letters.sent(share.share.span, share.rejected, now);
            }
            partition.landed_below = partition.landed_below.max(outcome.landed_below.unwrap_or(0));
            partition.ledger.finish(share.share.span, share.finished);
            partition.ledger.abandon(share.share.span, share.abandoned);
            partition.publish();
            if share.abandoned > 0 && !partition.draining {
                given_up.push(share.share.slot as usize);
            } else if share.finished > 0 && outcome.table.is_none() && partition.backoff.tries() > 0 {
                partition.backoff.reset();
            }
        }
        given_up.dedup();
        for slot in given_up {
            let (cause, message) = outcome.hold.clone().unwrap_or((HoldCause::UnknownError, "rows were given up".to_owned()));
            let wait = if outcome.table.is_some() && !matches!(cause, HoldCause::DeadLetterTopic | HoldCause::BadRecord) {
                Wait::Table
            } else {
                let delay = self.slots.get_mut(slot).map_or(Duration::from_secs(1), |partition| partition.backoff.next_delay());
                Wait::Until(now + delay)
            };
            self.hold(slot, Hold { cause, wait, met_offset: None }, message);
        }
    }

    /// Ends holds whose reason is over, sends what is due. Called on every turn of the thread.
    pub fn tick(&mut self, now: Instant) {
        self.send_bad();
        self.hold_for_late_letters(now);
        for index in 0..self.tables.len() {
            if self.tables.get_mut(index).is_some_and(super::shard_table::ShardTable::follow_generation) {
                self.close_batch(index);
            }
        }
        for slot in 0..self.slots.len() {
            if self.slots.get(slot).is_some_and(|partition| partition.hold.is_some()) {
                self.try_release(slot, now);
                if self.parts.tasks.now().duration_since(now) >= SEEK_TIMEOUT {
                    break; // Kafka is slow: the others after the events that came meanwhile, a revocation perhaps.
                }
            }
        }
        let linger = self.linger();
        let pressed = self.budget().pressure();
        for index in 0..self.tables.len() {
            let due =
                self.tables.get(index).and_then(|table| table.batch.as_ref()).is_some_and(|batch| pressed || now >= batch.due_at(linger));
            if due {
                self.close_batch(index);
            }
        }
        self.rest_in_turn(now);
        self.dispatch();
        self.answer_drained(now);
    }

    /// Closes every open batch: a revocation must not wait for a linger.
    pub(super) fn close_all(&mut self) {
        for index in 0..self.tables.len() {
            self.close_batch(index);
        }
        self.dispatch();
    }

    /// Turns the open batch of a table into a job.
    pub(super) fn close_batch(&mut self, index: usize) {
        let Some(mut batch) = self.tables.get_mut(index).and_then(|table| table.batch.take()) else { return };
        if batch.rows.is_empty() {
            // Now, not after the next take: the memory that is counted here may be the reason why nothing is taken.
            return self.account();
        }
        let mut partitions: Vec<(u32, std::sync::Arc<super::progress::PartitionProgress>)> = Vec::new();
        let mut run = 0;
        for share in &batch.shares {
            if partitions.iter().all(|(slot, _)| *slot != share.slot)
                && let Some(partition) = self.slots.get_mut(share.slot as usize)
            {
                partition.ledger.close_span();
                run = partition.run;
                partitions.push((share.slot, partition.progress.clone()));
            }
        }
        let room = batch.rows.room();
        batch.rows.trim();
        let lease = self.budget().lease(BudgetKind::InFlight, batch.rows.memory_bytes() as u64);
        let rows = batch.rows.close();
        let Some(table) = self.tables.get_mut(index) else { return };
        table.room = room;
        table.ready.push_back(AppendJob {
            table: table.entry.clone(),
            _unacked: Unacked::new(table.entry.clone(), rows.rows.len()),
            rows,
            shares: batch.shares,
            times: batch.times,
            shard: self.parts.handle.clone(),
            partitions,
            lease,
            run,
        });
        self.account();
    }

    /// Hands closed batches to the writers as far as they have room.
    pub(super) fn dispatch(&mut self) {
        use tokio::sync::mpsc::error::TrySendError;
        let exact = self.is_exact();
        for index in 0..self.tables.len() {
            while let Some(job) = self.tables.get_mut(index).and_then(|table| table.ready.pop_front()) {
                let waits = exact && !self.may_be_announced(&job);
                let Some(table) = self.tables.get_mut(index) else { break };
                let sent = if waits { Err(TrySendError::Full(job)) } else { table.writer.jobs.try_send(job) };
                match sent {
                    Ok(()) => {}
                    // A writer ends only after its shards.
                    Err(TrySendError::Full(job) | TrySendError::Closed(job)) => {
                        table.ready.push_front(job);
                        break;
                    }
                }
            }
        }
    }

    fn answer_drained(&mut self, now: Instant) {
        let mut waiting = std::mem::take(&mut self.draining);
        waiting.retain(|draining| {
            let current = |(slot, epoch): &(usize, Epoch)| self.slots.get(*slot).filter(|partition| partition.is_current(*epoch));
            let busy = draining.slots.iter().filter_map(current).any(|partition| partition.ledger.pending_records() > 0);
            if busy && now < draining.deadline {
                return true;
            }
            let heads = draining
                .slots
                .iter()
                .filter_map(current)
                .filter_map(|partition| {
                    Some(NextOffset {
                        partition: partition.progress.partition.clone(),
                        offset: partition.ledger.head()?,
                        metadata: partition.progress.published.now().0,
                    })
                })
                .collect();
            // Queues go before the answer: the poll thread gives the partitions back as soon as it has it.
            for (slot, _) in &draining.slots {
                if let Some(partition) = self.slots.get_mut(*slot).filter(|partition| partition.draining) {
                    partition.queue = None;
                }
            }
            let next_owner = match draining.reply.try_send(heads) {
                Ok(()) => NextOwner::ReadsFromHead,
                // The poll thread has stopped waiting: nothing is committed.
                Err(_) => NextOwner::ReadsFromCommit,
            };
            self.let_go(&draining.slots, next_owner);
            false
        });
        self.draining.append(&mut waiting);
    }
}
