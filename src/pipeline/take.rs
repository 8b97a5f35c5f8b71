//! Records in: one fair turn over a shard's partitions, decoding inside the consumer's callback.
//!
//! This is the hot path. Per record: two comparisons in the ledger, one of the schema's key, the plan, a few additions. Nothing is
//! allocated, locked, cloned or formatted for a good record.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::config::{BadRecords, Tombstones};
use crate::decode::{RowOrigin, SchemaKey};
use crate::flow::{BudgetKind, HoldCause, Lets, Pace};
use crate::kafka::{Flow, QueueEvent, Taken};
use crate::record::{Record, RecordError, RecordErrorClass, Stage};

use super::batch::{OpenBatch, Share};
use super::dead_letters::BadRecord;
use super::partition::{Hold, Partition, Wait};
use super::shard::Shard;
use super::shard_table::{PlanState, ShardTable};
use super::suspect::panicked;
use super::trouble::panic_words;

/// What one partition may take before the next one's turn: bytes of keys and values.
const TURN_BYTES_MAX: u64 = 1024 * 1024;
/// What one partition may take before the next one's turn: time.
const TURN_TIME_MAX: Duration = Duration::from_millis(5);
/// Records between two looks at the time.
const LOOK_EVERY: u64 = 128;
/// A plan for JSON is made again when it is older than this and meets a field that it does not know.
const PLAN_OLD_AFTER: Duration = Duration::from_secs(30);
/// No record has this offset.
const NO_OFFSET: i64 = i64::MIN;
/// Bad records that one take copies before it yields.
const BAD_PER_TAKE_MAX: usize = 64;

/// Why a take ended before the queue was empty, and what is to be done about the partition.
enum Stopped {
    /// This schema has no plan yet.
    NeedsPlan(SchemaKey, i64),
    /// A field that the plan does not know, and the plan is old: the table may have the column by now.
    OldPlan(SchemaKey, i64),
    /// A bad record, and the user wants to stop at it.
    AtBadRecord(RecordError, i64),
    /// Decoding this record panicked.
    Panicked(i64, &'static str),
}

/// What one take did, beside filling batches.
#[derive(Default)]
struct Turn {
    records: u64,
    bytes: u64,
    tombstones: u64,
    skipped: Vec<&'static str>,
    bad: Vec<BadRecord>,
    stopped: Option<Stopped>,
    full: bool,
}

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

    fn run_take(
        &mut self,
        slot: usize,
        table: usize,
        now: Instant,
        turn: &mut Turn,
        queue: &mut dyn crate::kafka::PartitionQueue,
    ) -> Taken {
        let tasks = self.parts.tasks.clone();
        let began = tasks.now();
        let now_us = tasks.now_wall_us();
        let config = &self.parts.config;
        let handle = &self.parts.handle;
        let place = &self.place;
        let budget = &self.parts.worker.budget;
        let letters_fill_memory = self.letters_fill_memory();
        let framing = &self.framing;
        let batch_bytes = usize::try_from(config.delivery.batch_bytes.bytes()).unwrap_or(usize::MAX);
        let batch_rows = config.delivery.batch_rows as usize;
        let bad_records = self.bad_records_now();
        // While it is tried whether records die no more: one at a time.
        let bytes_max = if self.dead_share.is_trying() { 0 } else { TURN_BYTES_MAX };
        let (Some(partition), Some(table)) = (self.slots.get_mut(slot), self.tables.get_mut(table)) else { return Taken::default() };
        let ShardTable { plans, batch: open, room, .. } = table;
        let Partition { ledger, last_plan, progress, suspect, .. } = partition;
        let epoch = progress.epoch;
        let suspect = suspect.unwrap_or(NO_OFFSET);
        let mut in_hand = NO_OFFSET;
        let records_max = self.parts.worker.pace.as_ref().map_or(u64::MAX, Pace::take_max);
        let slot = u32::try_from(slot).unwrap_or(u32::MAX);

        let bad_record = |record: &Record<'_>, error: RecordError, ledger: &mut super::ledger::Ledger, turn: &mut Turn| -> Flow {
            match bad_records {
                BadRecords::Skip => {
                    ledger.enter_finished(record.offset);
                    turn.skipped.push(error.class.as_str());
                    Flow::Continue
                }
                BadRecords::Stop => {
                    turn.stopped = Some(Stopped::AtBadRecord(error, record.offset));
                    Flow::Yield
                }
                BadRecords::DeadLetter => {
                    let (offset, record) = (record.offset, record.to_owned_record());
                    let span = ledger.enter(offset);
                    let lease = budget.lease(BudgetKind::DeadLetters, record.size_bytes() as u64);
                    let share = Share { slot, epoch, span, rows: 1 };
                    turn.bad.push(BadRecord { record, error, share, progress: progress.clone(), shard: handle.clone(), lease });
                    if turn.bad.len() >= BAD_PER_TAKE_MAX || letters_fill_memory { Flow::Yield } else { Flow::Continue }
                }
            }
        };

        let mut on_record = |record: &Record<'_>| -> Flow {
            if !ledger.wants(record.offset) {
                return Flow::Continue;
            }
            in_hand = record.offset;
            place.at(record.offset);
            let size = record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
            let flow = 'record: {
                if record.offset == suspect {
                    break 'record bad_record(record, panicked(), ledger, turn);
                }
                if record.value.is_none() {
                    turn.tombstones += 1;
                    match config.tombstones {
                        Tombstones::Skip => {
                            ledger.enter_finished(record.offset);
                            break 'record Flow::Continue;
                        }
                        Tombstones::DeadLetter => {
                            let error = RecordError::new(
                                Stage::Framing,
                                RecordErrorClass::UnexpectedTombstone,
                                "the record has no value, and `tombstones = \"dead-letter\"`",
                            );
                            break 'record bad_record(record, error, ledger, turn);
                        }
                    }
                }
                let (key, payload) = match framing.split(record) {
                    Ok(split) => split,
                    Err(error) => break 'record bad_record(record, error, ledger, turn),
                };
                let state = plans.find(*last_plan, key, now).and_then(|index| {
                    *last_plan = index;
                    plans.state(index)
                });
                let ready = match state {
                    Some(PlanState::Ready(ready)) => ready,
                    Some(PlanState::Dead(error, again_at)) if now < *again_at => {
                        let error = error.clone();
                        break 'record bad_record(record, error, ledger, turn);
                    }
                    _ => {
                        turn.stopped = Some(Stopped::NeedsPlan(key.to_key(), record.offset));
                        return Flow::Yield;
                    }
                };
                let fits = open.as_ref().is_some_and(|batch| batch.rows.layout().version >= ready.layout.version);
                if !fits {
                    if open.as_ref().is_some_and(|batch| !batch.rows.is_empty()) {
                        // Closed after this take; the record waits for the next one, unread.
                        turn.full = true;
                        turn.stopped = Some(Stopped::NeedsPlan(key.to_key(), record.offset));
                        return Flow::Yield;
                    }
                    *open = Some(OpenBatch::new(ready.layout.clone(), *room, now));
                }
                let Some(batch) = open.as_mut() else { return Flow::Yield };
                match batch.rows.push(&ready.plan, payload, record, now_us, RowOrigin { slot, offset: record.offset }) {
                    Ok(_) => {
                        let span = ledger.enter(record.offset);
                        batch.note(slot, epoch, span);
                        if let Some(timestamp_ms) = record.timestamp_ms {
                            batch.times.add(timestamp_ms);
                        }
                        if batch.rows.len_bytes() >= batch_bytes || batch.rows.len_rows() >= batch_rows {
                            turn.full = true;
                            Flow::Yield
                        } else {
                            Flow::Continue
                        }
                    }
                    Err(error) if error.class == RecordErrorClass::UnknownField && began.duration_since(ready.made_at) > PLAN_OLD_AFTER => {
                        turn.stopped = Some(Stopped::OldPlan(key.to_key(), record.offset));
                        return Flow::Yield;
                    }
                    Err(error) => bad_record(record, error, ledger, turn),
                }
            };
            if turn.stopped.is_none() {
                turn.records += 1;
                turn.bytes += size as u64;
            }
            if turn.bytes >= bytes_max
                || (turn.records.is_multiple_of(LOOK_EVERY)
                    && (turn.records >= records_max || tasks.now().duration_since(began) >= TURN_TIME_MAX))
            {
                return Flow::Yield;
            }
            flow
        };
        let taken = catch_unwind(AssertUnwindSafe(|| queue.take(&mut on_record)));
        taken.unwrap_or_else(|panic| {
            // The row in hand was not finished, and a row buffer counts finished rows only: all else is as it was.
            turn.stopped = Some(Stopped::Panicked(in_hand, panic_words(panic.as_ref())));
            Taken::default()
        })
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
