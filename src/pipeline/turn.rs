//! What a shard does between takes: events in, holds begun and ended, batches out.

use std::time::{Duration, Instant};

use crate::decode::SchemaKey;
use crate::flow::{BudgetKind, HoldCause};
use crate::kafka::{Epoch, GroupError, NextOffset};
use crate::record::TopicPartition;

use super::batch::{AppendJob, Unacked};
use super::events::{Outcome, ShardEvent};
use super::partition::{Hold, Wait};
use super::plans::PlanAnswer;
use super::shard::{Draining, Shard};
use super::shard_table::PlanState;

/// How long a seek may take before the hold is tried again. librdkafka answers by itself; the shard stands still meanwhile.
pub(super) const SEEK_TIMEOUT: Duration = Duration::from_secs(1);

impl Shard {
    /// Takes an event in. `false` ends the shard.
    pub fn handle(&mut self, event: ShardEvent, now: Instant) -> bool {
        match event {
            ShardEvent::Assigned(assigned) => self.assign(assigned),
            ShardEvent::Revoke { partitions, deadline, reply } => {
                let slots = self.slots_of(&partitions);
                for (slot, _) in &slots {
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
                self.draining.push(Draining { slots, deadline, reply });
            }
            ShardEvent::Lost { partitions, reply } => {
                let slots = self.slots_of(&partitions);
                self.let_go(&slots, false);
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

    /// Slots with their present epochs: a drain that ends late must not take the next assignment with it.
    fn slots_of(&self, partitions: &[TopicPartition]) -> Vec<(usize, Epoch)> {
        let slots = partitions.iter().filter_map(|partition| self.slot_of.get(partition).copied());
        slots.filter_map(|slot| Some((slot, self.slots.get(slot)?.epoch()))).collect()
    }

    /// Ends assignments. Whoever has the partitions next reads from the head if `heads_given`, from the last commit otherwise: finished records
    /// behind that come again.
    fn let_go(&mut self, slots: &[(usize, Epoch)], heads_given: bool) {
        let exact = self.is_exact();
        for (slot, epoch) in slots {
            if exact && self.slots.get(*slot).is_some_and(|partition| partition.is_current(*epoch)) {
                self.end_stream(*slot);
            }
            if let Some(partition) = self.slots.get_mut(*slot).filter(|partition| partition.is_current(*epoch)) {
                let again = if exact { 0 } else { partition.finished_again_records(heads_given) };
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
        self.let_go(&owned, false);
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
                // Durable, but the assignment is over: whoever has the partition now may read these records again.
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

    pub(super) fn hold_for_plan(&mut self, slot: usize, table: usize, key: SchemaKey, offset: i64, now: Instant) {
        let hold = Hold { cause: HoldCause::PlanPending, wait: Wait::Plan(key.clone()), met_offset: Some(offset) };
        self.hold(slot, hold, format!("the plan of {key} is being made, for which its schema and its table are asked for"));
        self.ask_plan(table, &key, now);
    }

    fn ask_plan(&mut self, table: usize, key: &SchemaKey, now: Instant) {
        let handle = self.parts.handle.clone();
        if let Some(table) = self.tables.get_mut(table)
            && table.plans.ask(key, now)
        {
            self.parts.plans.request(table.entry.clone(), key.clone(), handle);
        }
    }

    fn take_plan(&mut self, table: &crate::table::TableName, key: &SchemaKey, answer: PlanAnswer, now: Instant) {
        let indices = self.tables_of(table);
        let waiting: Vec<usize> = (0..self.slots.len())
            .filter(|slot| {
                self.slots.get(*slot).is_some_and(|partition| {
                    partition.table.is_some_and(|table| indices.contains(&table))
                        && partition.hold.as_ref().is_some_and(|hold| hold.wait == Wait::Plan(key.clone()))
                })
            })
            .collect();
        let delay = waiting
            .iter()
            .filter_map(|slot| self.slots.get_mut(*slot).map(|partition| partition.backoff.next_delay()))
            .max()
            .unwrap_or(Duration::from_secs(1));
        let news = match &answer {
            PlanAnswer::Hold { cause, message, .. } => Some((*cause, message.clone())),
            PlanAnswer::Ready(_) | PlanAnswer::Dead(_) => None,
        };
        for index in indices {
            if let Some(table) = self.tables.get_mut(index) {
                table.answer(key, answer.clone(), delay, now);
            }
        }
        for slot in waiting {
            let Some(partition) = self.slots.get_mut(slot) else { continue };
            match &news {
                None => {
                    partition.backoff.reset();
                    self.try_release(slot, now);
                }
                Some((cause, message)) => {
                    if partition.change_hold(*cause, message.clone(), Wait::Plan(key.clone())) {
                        self.parts.metrics.hold_began(cause.as_str());
                        tracing::warn!(
                            connector = self.parts.config.name,
                            partition = %partition.progress.partition,
                            cause = cause.as_str(),
                            message,
                            "partition holds"
                        );
                    }
                }
            }
        }
        self.account_plans();
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

    fn try_release(&mut self, slot: usize, now: Instant) {
        let exact = self.is_exact();
        let Some(partition) = self.slots.get_mut(slot) else { return };
        let (Some(hold), true) = (&partition.hold, partition.owned && !partition.draining) else { return };
        let Some(index) = partition.table else { return };
        let Some(table) = self.tables.get(index) else { return };
        match &hold.wait {
            Wait::User => return,
            Wait::Until(at) | Wait::Restart { at, .. } if now < *at => return,
            Wait::Until(_) => {}
            Wait::Restart { offset, .. } => {
                let offset = *offset;
                return self.restart(slot, offset, now);
            }
            Wait::Letters if !partition.letters.is_empty() => return,
            Wait::Letters => {}
            Wait::Stream => return,
            Wait::Table if table.health.held().is_some() => return,
            Wait::Table => {}
            Wait::Plan(key) => match table.plans.state_of(key) {
                Some(PlanState::Ready(_) | PlanState::Dead(..)) => {}
                Some(PlanState::Pending) => return,
                Some(PlanState::Waiting(again_at)) if now < *again_at => return,
                Some(PlanState::Waiting(_)) | None => {
                    let key = key.clone();
                    self.ask_plan(index, &key, now);
                    return;
                }
            },
        }
        if partition.waits_for_stream() {
            return;
        }
        if partition.ledger.has_abandoned() {
            // Not before every answer is in: what becomes durable meanwhile need not be read again.
            let Some(rewind) = partition.ledger.rewind() else { return };
            partition.run += 1;
            if exact {
                // None of them comes a second time.
                partition.ledger.finished_below(partition.landed_below);
            }
            let again = if exact { 0 } else { rewind.finished_again_records };
            table.entry.metrics.possible_duplicate_rows.increment(again);
        }
        let target = partition.progress.partition.clone();
        if let Some(offset) = partition.resume_offset()
            && let Err(error) = self.parts.control.seek_and_resume(&target, offset, SEEK_TIMEOUT)
        {
            tracing::warn!(connector = self.parts.config.name, partition = %target, offset, %error, "seek failed; tried again");
            if let Some(hold) = self.slots.get_mut(slot).and_then(|partition| partition.hold.as_mut()) {
                let at = now + Duration::from_secs(1);
                hold.wait = match error {
                    // librdkafka has stopped fetching (an offset out of range, whose event was not taken yet): a seek does not revive it.
                    GroupError::Other(_) => Wait::Restart { at, offset: Some(offset) },
                    _ => Wait::Until(at),
                };
            }
            return;
        }
        let now_ms = self.now_ms();
        if let Some(partition) = self.slots.get_mut(slot) {
            if partition.hold.as_ref().is_some_and(|hold| hold.cause != HoldCause::PlanPending) {
                tracing::info!(connector = self.parts.config.name, partition = %target, "partition goes on");
            }
            partition.end_hold(now_ms);
            partition.publish();
        }
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
            // Not only after the next take: what is counted may be why nothing is taken.
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
            // The poll thread may have stopped waiting: then nothing is committed, and the records come again.
            let heads_given = draining.reply.try_send(heads).is_ok();
            self.let_go(&draining.slots, heads_given);
            false
        });
        self.draining.append(&mut waiting);
    }
}
