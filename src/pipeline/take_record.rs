//! One record's way from its partition's queue into the open batch of its table.
//!
//! This is the hot path. Per record: two comparisons in the ledger, one of the schema's key, the plan, a few additions. Nothing is
//! allocated, locked, cloned or formatted for a good record.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{BadRecords, Tombstones};
use crate::decode::{Framing, RowOrigin, RowRoom, SchemaKey};
use crate::flow::BudgetKind;
use crate::kafka::Flow;
use crate::record::{Record, RecordError, RecordErrorClass, Stage};

use super::batch::{OpenBatch, Share};
use super::dead_letters::BadRecord;
use super::ledger::Ledger;
use super::progress::PartitionProgress;
use super::shard::ShardParts;
use super::shard_table::{PlanList, PlanState};
use super::suspect::panicked;
use super::whereabouts::ShardPlace;

/// What one partition may take before the next one's turn: time.
const TURN_TIME_MAX: Duration = Duration::from_millis(5);
/// Records between two looks at the time.
const LOOK_EVERY: u64 = 128;
/// A plan for JSON is made again when it is older than this and meets a field that it does not know.
const PLAN_OLD_AFTER: Duration = Duration::from_secs(30);

/// Why a take ended before the queue was empty, and what is to be done about the partition.
pub(super) enum Stopped {
    /// This schema has no plan yet.
    NeedsPlan(SchemaKey, i64),
    /// A field that the plan does not know, and the plan is old: the table may have the column by now.
    OldPlan(SchemaKey, i64),
    /// A bad record, and the user wants to stop at it.
    AtBadRecord(RecordError, i64),
    /// Taking this record panicked; without an offset, what came before the first one.
    Panicked(Option<i64>, &'static str),
}

/// What one take did, beside filling the batch.
#[derive(Default)]
pub(super) struct Turn {
    pub records: u64,
    /// Of keys and values.
    pub bytes: u64,
    pub tombstones: u64,
    /// The class of each record that `bad_records = "skip"` dropped.
    pub skipped: Vec<&'static str>,
    pub bad: Vec<BadRecord>,
    pub stopped: Option<Stopped>,
    /// The batch is to be closed.
    pub full: bool,
}

/// Where a take ends although more records wait.
pub(super) struct TakeLimits {
    /// Of keys and values.
    pub bytes: u64,
    pub records: u64,
    /// Bad records, each of which is copied.
    pub bad_records: usize,
    pub batch_bytes: usize,
    pub batch_rows: usize,
}

/// A take from one partition into one table.
pub(super) struct Take<'a> {
    pub parts: &'a ShardParts,
    pub framing: &'a Framing,
    pub place: &'a ShardPlace,
    pub progress: &'a Arc<PartitionProgress>,
    pub ledger: &'a mut Ledger,
    pub plans: &'a mut PlanList,
    /// The index of the partition's last plan.
    pub last_plan: &'a mut usize,
    pub batch: &'a mut Option<OpenBatch>,
    pub turn: &'a mut Turn,
    pub limits: TakeLimits,
    pub bad_records: BadRecords,
    /// The room that a new batch begins with.
    pub room: RowRoom,
    pub slot: u32,
    /// The record that panicked before: it is not decoded again.
    pub suspect: Option<i64>,
    /// When the shard's turn began.
    pub now: Instant,
    pub now_us: i64,
    /// When this take began.
    pub began: Instant,
    /// The record that was taken last.
    pub in_hand: Option<i64>,
}

impl Take<'_> {
    /// Takes the next record of the partition's queue.
    #[inline]
    pub fn record(&mut self, record: &Record<'_>) -> Flow {
        if !self.ledger.wants(record.offset) {
            return Flow::Continue;
        }
        self.in_hand = Some(record.offset);
        self.place.at(record.offset);
        let flow = self.put(record);
        if self.turn.stopped.is_some() {
            return flow; // not taken: it comes again
        }
        self.turn.records += 1;
        self.turn.bytes += (record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len)) as u64;
        if self.is_over() { Flow::Yield } else { flow }
    }

    fn is_over(&self) -> bool {
        let late = || self.parts.tasks.now().duration_since(self.began) >= TURN_TIME_MAX;
        self.turn.bytes >= self.limits.bytes
            || (self.turn.records.is_multiple_of(LOOK_EVERY) && (self.turn.records >= self.limits.records || late()))
    }

    /// Puts a record into the batch, aside, or back to where it was.
    #[inline]
    fn put(&mut self, record: &Record<'_>) -> Flow {
        if self.suspect == Some(record.offset) {
            return self.bad(record, panicked());
        }
        if record.value.is_none() {
            return self.tombstone(record);
        }
        let (key, payload) = match self.framing.split(record) {
            Ok(split) => split,
            Err(error) => return self.bad(record, error),
        };
        let known = self.plans.find(*self.last_plan, key, self.now);
        *self.last_plan = known.unwrap_or(*self.last_plan);
        let ready = match known.and_then(|index| self.plans.state(index)) {
            Some(PlanState::Ready(ready)) => ready,
            Some(PlanState::Dead(error, again_at)) if self.now < *again_at => {
                let error = error.clone();
                return self.bad(record, error);
            }
            _ => return self.stop(Stopped::NeedsPlan(key.to_key(), record.offset)),
        };
        let fits = |batch: &OpenBatch| batch.rows.layout().version >= ready.layout.version;
        let batch = match &mut *self.batch {
            Some(batch) if fits(batch) => batch,
            Some(batch) if !batch.rows.is_empty() => {
                // Closed after this take; the record waits for the next one, unread.
                self.turn.full = true;
                return self.stop(Stopped::NeedsPlan(key.to_key(), record.offset));
            }
            place => place.insert(OpenBatch::new(ready.layout.clone(), self.room, self.now)),
        };
        match batch.rows.push(&ready.plan, payload, record, self.now_us, RowOrigin { slot: self.slot, offset: record.offset }) {
            Ok(_) => {
                let span = self.ledger.enter(record.offset);
                batch.note(self.slot, self.progress.epoch, span);
                if let Some(timestamp_ms) = record.timestamp_ms {
                    batch.times.add(timestamp_ms);
                }
                self.turn.full |= batch.rows.len_bytes() >= self.limits.batch_bytes || batch.rows.len_rows() >= self.limits.batch_rows;
                if self.turn.full { Flow::Yield } else { Flow::Continue }
            }
            Err(error) if error.class == RecordErrorClass::UnknownField && self.began.duration_since(ready.made_at) > PLAN_OLD_AFTER => {
                self.stop(Stopped::OldPlan(key.to_key(), record.offset))
            }
            Err(error) => self.bad(record, error),
        }
    }

    fn stop(&mut self, why: Stopped) -> Flow {
        self.turn.stopped = Some(why);
        Flow::Yield
    }

    fn tombstone(&mut self, record: &Record<'_>) -> Flow {
        self.turn.tombstones += 1;
        match self.parts.config.tombstones {
            Tombstones::Skip => {
                self.ledger.enter_finished(record.offset);
                Flow::Continue
            }
            Tombstones::DeadLetter => {
                let words = "the record has no value, and `tombstones = \"dead-letter\"`";
                self.bad(record, RecordError::new(Stage::Framing, RecordErrorClass::UnexpectedTombstone, words))
            }
        }
    }

    /// Does with a bad record what the user wants.
    fn bad(&mut self, record: &Record<'_>, error: RecordError) -> Flow {
        match self.bad_records {
            BadRecords::Skip => {
                self.ledger.enter_finished(record.offset);
                self.turn.skipped.push(error.class.as_str());
                Flow::Continue
            }
            BadRecords::Stop => self.stop(Stopped::AtBadRecord(error, record.offset)),
            BadRecords::DeadLetter => {
                let (offset, record) = (record.offset, record.to_owned_record());
                let span = self.ledger.enter(offset);
                let share = Share { slot: self.slot, epoch: self.progress.epoch, span, rows: 1 };
                let lease = self.parts.worker.budget.lease(BudgetKind::DeadLetters, record.size_bytes() as u64);
                let (progress, shard) = (self.progress.clone(), self.parts.handle.clone());
                self.turn.bad.push(BadRecord { record, error, share, progress, shard, lease });
                if self.turn.bad.len() >= self.limits.bad_records { Flow::Yield } else { Flow::Continue }
            }
        }
    }
}
