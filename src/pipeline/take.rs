//! Records in: one fair turn over a shard's partitions, and what is done after each take (`take_record.rs`: what is done with each record).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::config::BadRecords;
use crate::flow::{HoldCause, Lets, Pace};
use crate::kafka::{PartitionQueue, QueueEvent, Taken};

use super::partition::{Hold, Partition, Wait};
use super::shard::Shard;
use super::shard_table::ShardTable;
use super::take_record::{Stopped, Take, TakeLimits, Turn};
use super::trouble::panic_words;

/// What one partition may take before the next one's turn: bytes of keys and values.
const TURN_BYTES_MAX: u64 = 1024 * 1024;
/// Bad records that one take copies before it yields.
const BAD_PER_TAKE_MAX: usize = 64;

impl Shard {
    /// Takes from each partition that may move, once, in turn. Returns how many records came.
    pub fn take_turn(&mut self, now: Instant) -> u64 {
        if self.parts.handle.is_paused() {
            self.waits_for_sink = false;
            return 0;
        }
        if self.share_lets(now) == Lets::Nothing {
            return 0;
        }
        self.waits_for_sink = !self.slots.is_empty() && self.budget().over_limit();
        if self.slots.is_empty() || self.waits_for_sink {
            return 0;
        }
        let count = self.slots.len();
        let (mut records, mut turns) = (0, 0);
        while turns < count && self.pace_wait().is_zero() {
            records += self.take_from((self.first_slot + turns) % count, now);
            turns += 1;
            if self.budget().over_limit() {
                break;
            }
        }
        // After a whole round the next partition comes first; a round that the pace cut short goes on where it stopped.
        self.first_slot = (self.first_slot + if turns < count { turns } else { 1 }) % count;
        self.account();
        records
    }

    /// How long the worker's limit of records a second wants to wait.
    pub(super) fn pace_wait(&self) -> Duration {
        self.parts.worker.pace.as_ref().map_or(Duration::ZERO, |pace| pace.wait(self.parts.tasks.now()))
    }

    fn take_from(&mut self, slot: usize, now: Instant) -> u64 {
        let over_share = |table: &ShardTable| !table.ready.is_empty() || table.entry.is_over_share(self.budget());
        let Some(partition) = self.slots.get(slot) else { return 0 };
        let Some(table) = partition.table.filter(|_| partition.takes()) else {
            self.waits_for_sink |= partition.hold.as_ref().is_some_and(|hold| hold.wait == Wait::Table);
            return 0;
        };
        if self.tables.get(table).is_none_or(over_share) {
            self.waits_for_sink = true;
            return 0;
        }
        // The dead-letter queue is full: partitions with letters in the backlog wait, the others go on.
        if self.bad_backlog.iter().any(|bad| bad.share.slot as usize == slot) {
            self.waits_for_sink = true;
            return 0;
        }
        if !partition.letters.is_empty() && self.letters_fill_memory() {
            self.waits_for_sink = true;
            return 0;
        }
        let Some(mut queue) = self.slots.get_mut(slot).and_then(|partition| partition.queue.take()) else { return 0 };
        let mut turn = Turn::default();
        self.place.takes(slot);
        let taken = self.run_take(slot, table, now, &mut turn, queue.as_mut());
        self.place.took();
        if let Some(partition) = self.slots.get_mut(slot) {
            partition.queue = Some(queue);
            partition.publish();
            if turn.records > 0 {
                use std::sync::atomic::Ordering::Relaxed;
                if let Some(table) = self.tables.get_mut(table) {
                    table.plans.used(partition.last_plan, now);
                }
                partition.metrics.records_consumed.increment(turn.records);
                partition.metrics.bytes_consumed.increment(turn.bytes);
                partition.progress.records.fetch_add(turn.records, Relaxed);
                partition.progress.bytes.fetch_add(turn.bytes, Relaxed);
            }
        }
        if let Some(pace) = &self.parts.worker.pace {
            pace.took(turn.records, self.parts.tasks.now());
        }
        let records = turn.records;
        self.after_take(slot, table, turn, taken, now);
        records
    }

    fn run_take(&mut self, slot: usize, table: usize, now: Instant, turn: &mut Turn, queue: &mut dyn PartitionQueue) -> Taken {
        let limits = self.limits();
        let bad_records = self.bad_records_now();
        let (Some(partition), Some(table)) = (self.slots.get_mut(slot), self.tables.get_mut(table)) else { return Taken::default() };
        let ShardTable { plans, batch, room, .. } = table;
        let Partition { ledger, last_plan, progress, suspect, .. } = partition;
        let mut take = Take {
            framing: &self.framing,
            place: &self.place,
            progress,
            ledger,
            plans,
            last_plan,
            batch,
            turn,
            limits,
            bad_records,
            room: *room,
            slot: u32::try_from(slot).unwrap_or(u32::MAX),
            suspect: *suspect,
            now,
            now_us: self.parts.tasks.now_wall_us(),
            began: self.parts.tasks.now(),
            in_hand: None,
            parts: &self.parts,
        };
        let taken = catch_unwind(AssertUnwindSafe(|| queue.take(&mut |record| take.record(record))));
        taken.unwrap_or_else(|panic| {
            // The row in hand was not finished, and a row buffer counts finished rows only: all else is as it was.
            take.turn.stopped = Some(Stopped::Panicked(take.in_hand, panic_words(panic.as_ref())));
            Taken::default()
        })
    }

    fn limits(&self) -> TakeLimits {
        let delivery = &self.parts.config.delivery;
        TakeLimits {
            // While it is tried whether records still die: one at a time.
            bytes: if self.dead_share.is_trying() { 0 } else { TURN_BYTES_MAX },
            records: self.parts.worker.pace.as_ref().map_or(u64::MAX, Pace::take_max),
            bad_records: if self.letters_fill_memory() { 1 } else { BAD_PER_TAKE_MAX },
            batch_bytes: usize::try_from(delivery.batch_bytes.bytes()).unwrap_or(usize::MAX),
            batch_rows: delivery.batch_rows as usize,
        }
    }

    fn after_take(&mut self, slot: usize, table: usize, turn: Turn, taken: Taken, now: Instant) {
        if turn.full {
            self.close_batch(table);
        }
        if turn.tombstones > 0 {
            self.parts.metrics.tombstones.increment(turn.tombstones);
        }
        for class in turn.skipped {
            self.parts.metrics.skipped(class).increment(1);
            self.parts.dead_letters.counts.skipped.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        if let Some(partition) = self.slots.get_mut(slot) {
            turn.bad.iter().for_each(|bad| partition.letters.sent(bad.share.span, 1, now));
        }
        if self.parts.config.errors.bad_records == BadRecords::DeadLetter && turn.records > 0 {
            self.count_dead(turn.records, turn.bad.len() as u64, turn.bad.last().map(|bad| &bad.error), now);
        }
        self.bad_backlog.extend(turn.bad);
        self.send_bad();
        match turn.stopped {
            Some(Stopped::OldPlan(key, offset)) => {
                if let Some(table) = self.tables.get_mut(table) {
                    table.plans.forget(&key);
                }
                self.hold_for_plan(slot, table, key, offset, now);
            }
            Some(Stopped::NeedsPlan(key, offset)) => self.hold_for_plan(slot, table, key, offset, now),
            Some(Stopped::AtBadRecord(error, offset)) if self.dead_share.is_trying() => self.still_dies(slot, offset, &error, now),
            Some(Stopped::AtBadRecord(error, offset)) => {
                let wait = self.slots.get_mut(slot).map_or(Duration::from_secs(30), |partition| partition.backoff.next_delay());
                let message = format!("bad_records = \"stop\", offset {offset}: {error}");
                self.hold(slot, Hold { cause: HoldCause::BadRecord, wait: Wait::Until(now + wait), met_offset: Some(offset) }, message);
            }
            Some(Stopped::Panicked(offset, words)) => self.after_panic(slot, offset, words, now),
            None => {}
        }
        if let Some(event) = taken.event {
            self.queue_event(slot, event);
        }
    }

    pub(super) fn queue_event(&mut self, slot: usize, event: QueueEvent) {
        match event {
            QueueEvent::OutOfRange { asked } => self.ask_watermarks(slot, asked),
            QueueEvent::Error { message } => {
                self.parts.metrics.consumer_errors.increment(1);
                if let Some(partition) = self.slots.get(slot) {
                    tracing::warn!(connector = self.parts.config.name, partition = %partition.progress.partition, message, "fetch error; librdkafka tries again");
                }
            }
        }
    }

    /// Hands bad records to the dead-letter task as far as it has room.
    pub(super) fn send_bad(&mut self) {
        use tokio::sync::mpsc::error::TrySendError;
        let mut rest = Vec::new();
        for bad in self.bad_backlog.drain(..) {
            if !rest.is_empty() {
                rest.push(bad);
                continue;
            }
            match self.parts.bad_records.try_send(bad) {
                Ok(()) => {}
                // The task ends only after its shards.
                Err(TrySendError::Full(bad) | TrySendError::Closed(bad)) => rest.push(bad),
            }
        }
        self.bad_backlog = rest;
    }
}
