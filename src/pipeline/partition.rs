//! One partition in its shard: ledger, queue, hold.

use std::sync::Arc;
use std::time::Instant;

use crate::decode::SchemaKey;
use crate::flow::{Backoff, HoldCause};
use crate::kafka::{Epoch, PartitionQueue};
use crate::telemetry::metrics::PartitionMetrics;

use super::late_letters::LettersUnderWay;
use super::ledger::Ledger;
use super::progress::{HoldInfo, PartitionProgress};

/// A hold of the same cause within this long counts as the same hold: `since` stays, and no second line in the log.
const SAME_HOLD_MS: i64 = 90_000;

/// What a hold waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wait {
    /// The plan of this schema.
    Plan(SchemaKey),
    /// The table takes rows again.
    Table,
    /// Every dead letter that is on its way is answered.
    Letters,
    /// This moment.
    Until(Instant),
    /// This moment, and that nothing of the partition is under way: then it begins again, with a new assignment.
    Restart {
        /// When.
        at: Instant,
        /// Where; `None`: at the first record that is left.
        offset: Option<i64>,
    },
    /// The partition's stream: what its former owner left is found out, or the stream cannot go on; exactly once.
    Stream,
    /// The user: a change of the configuration, which comes with a restart.
    User,
}

/// A hold.
#[derive(Debug)]
pub struct Hold {
    /// Why.
    pub cause: HoldCause,
    /// What for.
    pub wait: Wait,
    /// The offset to go on at, where the ledger has none yet: the record that was met.
    pub met_offset: Option<i64>,
}

/// A partition as its shard keeps it. The slot outlives assignments, so that late answers find the epoch that they belong to over.
pub struct Partition {
    /// The present (or last) assignment.
    pub progress: Arc<PartitionProgress>,
    /// Whether it is assigned now.
    pub owned: bool,
    /// A revocation drains it: nothing more is taken.
    pub draining: bool,
    /// Which records are finished.
    pub ledger: Ledger,
    /// Its records, while it is assigned.
    pub queue: Option<Box<dyn PartitionQueue>>,
    /// Its table's index in the shard; none when its topic has no table.
    pub table: Option<usize>,
    /// The index of the plan that the last record used.
    pub last_plan: usize,
    /// Why it does not move, if it does not.
    pub hold: Option<Hold>,
    /// Paused since then because memory is short, see `rest.rs`.
    pub resting_since: Option<Instant>,
    /// Fetches since then.
    pub fetching_since: Instant,
    /// Its metrics.
    pub metrics: PartitionMetrics,
    /// Waits between tries after an own failure (bad record).
    pub backoff: Backoff,
    /// Dead letters on their way.
    pub letters: LettersUnderWay,
    /// The record whose decoding panicked: it is taken again, and not decoded.
    pub suspect: Option<i64>,
    /// How often it went back to read again.
    pub run: u64,
    /// Every record below this offset is finished, whatever the ledger's spans say: a takeover or the partition's writer found that out.
    pub landed_below: i64,
    /// What its stream waits for, as long as it does: whatever else it holds for meanwhile, it does not go on before.
    pub stream_waits: Option<(HoldCause, String)>,
    last_hold: Option<(HoldInfo, i64)>,
}

/// Where whoever has a partition next begins to read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextOwner {
    /// At the ledger's head: it is committed as the partition is given back.
    ReadsFromHead,
    /// At the last commit.
    ReadsFromCommit,
}

impl Partition {
    /// A slot for a partition that comes for the first time.
    pub fn new(progress: Arc<PartitionProgress>, metrics: PartitionMetrics, now: Instant) -> Self {
        let seed = (u64::from(progress.partition.partition.unsigned_abs()) << 32) ^ progress.partition.topic.len() as u64;
        Self {
            ledger: Ledger::new(progress.head()),
            progress,
            owned: false,
            draining: false,
            queue: None,
            table: None,
            last_plan: 0,
            hold: None,
            resting_since: None,
            fetching_since: now,
            metrics,
            backoff: Backoff::hold(seed),
            letters: LettersUnderWay::default(),
            suspect: None,
            run: 0,
            landed_below: 0,
            stream_waits: None,
            last_hold: None,
        }
    }

    /// The present epoch.
    pub fn epoch(&self) -> Epoch {
        self.progress.epoch
    }

    /// Whether an answer for this epoch still counts.
    pub fn is_current(&self, epoch: Epoch) -> bool {
        self.owned && self.progress.epoch == epoch
    }

    /// Whether records are taken.
    pub fn takes(&self) -> bool {
        self.owned && !self.draining && self.hold.is_none() && self.resting_since.is_none() && self.table.is_some()
    }

    /// Begins a hold. Returns `true` when it is worth a line in the log: neither short nor the one that just ended.
    pub fn begin_hold(&mut self, hold: Hold, message: String, now_ms: i64) -> bool {
        let cause = hold.cause;
        let again = self.last_hold.take().filter(|(last, ended_ms)| last.cause == cause && now_ms - ended_ms < SAME_HOLD_MS);
        let since_ms = again.as_ref().map_or(now_ms, |(last, _)| last.since_ms);
        self.progress.set_hold(Some(HoldInfo { cause, message, since_ms }));
        self.hold = Some(hold);
        again.is_none() && !matches!(cause, HoldCause::PlanPending | HoldCause::TakingOver)
    }

    /// Changes why it holds (a plan that was asked for cannot be had). Returns `true` when that is news.
    pub fn change_hold(&mut self, cause: HoldCause, message: String, wait: Wait) -> bool {
        let Some(hold) = &mut self.hold else { return false };
        let news = hold.cause != cause;
        hold.cause = cause;
        hold.wait = wait;
        let since_ms = self.progress.hold().map_or(0, |info| info.since_ms);
        self.progress.set_hold(Some(HoldInfo { cause, message, since_ms }));
        news
    }

    /// Whether its stream waits: then that is what it holds for from now on.
    pub fn waits_for_stream(&mut self) -> bool {
        let Some((cause, message)) = self.stream_waits.clone() else { return false };
        self.change_hold(cause, message, Wait::Stream);
        true
    }

    /// Ends the hold.
    pub fn end_hold(&mut self, now_ms: i64) {
        self.hold = None;
        if let Some(info) = self.progress.hold() {
            self.last_hold = Some((info, now_ms));
        }
        self.progress.set_hold(None);
    }

    /// How many finished records come again when this assignment ends: those beyond the head, and those between it and where the next owner
    /// reads from. An upper bound: gaps between offsets count as records.
    pub fn finished_again_records(&self, next_owner: NextOwner) -> u64 {
        let since_commit = match (next_owner, self.ledger.head(), self.progress.committed()) {
            (NextOwner::ReadsFromHead, ..) | (_, None, _) => 0,
            (NextOwner::ReadsFromCommit, Some(head), Some(committed)) => u64::try_from(head - committed).unwrap_or(0),
            (NextOwner::ReadsFromCommit, Some(_), None) => self.progress.records.load(std::sync::atomic::Ordering::Relaxed),
        };
        since_commit + self.ledger.finished_beyond_head()
    }

    /// Publishes head and next offset.
    pub fn publish(&self) {
        self.progress.publish(self.ledger.head(), self.ledger.next());
    }

    /// Where to go on when a hold ends.
    pub fn resume_offset(&self) -> Option<i64> {
        self.ledger.next().or_else(|| self.hold.as_ref().and_then(|hold| hold.met_offset))
    }
}
