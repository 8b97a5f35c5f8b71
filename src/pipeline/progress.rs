//! Where each owned partition stands: written by its shard, read by the committer, metrics and status.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

use parking_lot::Mutex;

use crate::flow::HoldCause;
use crate::kafka::{Epoch, NextOffset, StartOffset};
use crate::record::TopicPartition;

use super::exact::Published;

/// No offset known yet.
const UNKNOWN: i64 = -1;

/// A hold as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldInfo {
    /// Why.
    pub cause: HoldCause,
    /// What is wrong and what to do.
    pub message: String,
    /// Since when, milliseconds since the epoch.
    pub since_ms: i64,
}

/// One assignment of one partition.
#[derive(Debug)]
pub struct PartitionProgress {
    /// Which partition.
    pub partition: TopicPartition,
    /// Which assignment.
    pub epoch: Epoch,
    head: AtomicI64,
    next: AtomicI64,
    committed: AtomicI64,
    /// Records taken.
    pub records: AtomicU64,
    /// Bytes of keys and values taken.
    pub bytes: AtomicU64,
    /// Records that the broker has beyond the head; as the lag task saw it last.
    pub lag_records: AtomicI64,
    /// At rest since then, milliseconds since the epoch: paused because memory is short.
    resting_since_ms: AtomicI64,
    /// What commits carry beside the offset.
    pub published: Published,
    hold: Mutex<Option<HoldInfo>>,
    draining: AtomicBool,
    gone: AtomicBool,
}

impl PartitionProgress {
    /// A partition that was just assigned. Where the group does not have the offset that it starts at, the next commit takes the group
    /// there.
    pub fn new(partition: TopicPartition, epoch: Epoch, start: StartOffset) -> Self {
        let (head, committed) = match start {
            StartOffset::Committed(offset) => (offset, offset),
            // The commit at the end of a topic may have failed.
            StartOffset::Asked(offset) | StartOffset::Latest(offset) => (offset, UNKNOWN),
            StartOffset::Earliest => (UNKNOWN, UNKNOWN),
        };
        Self {
            partition,
            epoch,
            head: AtomicI64::new(head),
            next: AtomicI64::new(head),
            committed: AtomicI64::new(committed),
            records: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            lag_records: AtomicI64::new(UNKNOWN),
            resting_since_ms: AtomicI64::new(UNKNOWN),
            published: Published::default(),
            hold: Mutex::new(None),
            draining: AtomicBool::new(false),
            gone: AtomicBool::new(false),
        }
    }

    /// With what the last commit stored beside the offset: commits keep it until somebody knows better.
    #[must_use]
    pub fn with_metadata(mut self, metadata: Option<Arc<str>>) -> Self {
        self.published = Published::as_read(metadata);
        self
    }

    /// Notes that a revocation drains it: what was not sent yet and would need another commit first stays unsent.
    pub fn set_draining(&self) {
        self.draining.store(true, SeqCst);
        self.published.wake();
    }

    /// Whether a revocation drains it.
    pub fn is_draining(&self) -> bool {
        self.draining.load(SeqCst)
    }

    /// Ends this assignment: rows that were not sent yet stay unsent, and another worker reads their records again.
    pub fn set_gone(&self) {
        self.gone.store(true, SeqCst);
        self.published.wake();
    }

    /// Whether this assignment is over.
    pub fn is_gone(&self) -> bool {
        self.gone.load(SeqCst)
    }

    /// Publishes the ledger's head and next offset. Only the shard that owns the ledger calls it.
    pub fn publish(&self, head: Option<i64>, next: Option<i64>) {
        if let Some(head) = head {
            self.head.store(head, SeqCst);
        }
        if let Some(next) = next {
            self.next.store(next, Relaxed);
        }
    }

    /// The offset that may be committed: every record below it is finished.
    pub fn head(&self) -> Option<i64> {
        known(self.head.load(SeqCst))
    }

    /// The next offset to be taken.
    pub fn next(&self) -> Option<i64> {
        known(self.next.load(Relaxed))
    }

    /// The group's committed offset as this assignment last read or committed it.
    pub fn committed(&self) -> Option<i64> {
        known(self.committed.load(Relaxed))
    }

    /// Notes a commit that the broker accepted.
    pub fn set_committed(&self, offset: i64) {
        self.committed.store(offset, Relaxed);
    }

    /// Shows or clears that the partition rests.
    pub fn set_resting(&self, since_ms: Option<i64>) {
        self.resting_since_ms.store(since_ms.unwrap_or(UNKNOWN), Relaxed);
    }

    /// Since when the partition rests, if it does.
    pub fn resting_since_ms(&self) -> Option<i64> {
        known(self.resting_since_ms.load(Relaxed))
    }

    /// Shows or clears the hold.
    pub fn set_hold(&self, hold: Option<HoldInfo>) {
        *self.hold.lock() = hold;
    }

    /// The hold, if the partition holds.
    pub fn hold(&self) -> Option<HoldInfo> {
        self.hold.lock().clone()
    }
}

fn known(offset: i64) -> Option<i64> {
    (offset != UNKNOWN).then_some(offset)
}

/// The partitions that this worker owns for one connector. A revocation that takes a partition out waits for a commit that is on its way;
/// those who only look do not.
#[derive(Debug, Default)]
pub struct Ownership {
    /// Held while offsets are committed: seconds, when the brokers are slow.
    commit_turn: Mutex<()>,
    /// Held for moments.
    owned: Mutex<HashMap<TopicPartition, Arc<PartitionProgress>>>,
}

impl Ownership {
    /// Takes a partition in; one of an older epoch goes.
    pub fn insert(&self, progress: Arc<PartitionProgress>) {
        self.owned.lock().insert(progress.partition.clone(), progress);
    }

    /// Takes partitions out, and ends their assignments at the same moment: once nothing is owned the fence falls, and their rows must not
    /// leave behind it. Waits for a commit that is on its way.
    pub fn remove(&self, partitions: &[TopicPartition]) -> Vec<Arc<PartitionProgress>> {
        let _turn = self.commit_turn.lock();
        let mut owned = self.owned.lock();
        partitions.iter().filter_map(|partition| owned.remove(partition)).inspect(|progress| progress.set_gone()).collect()
    }

    /// What is owned now, in order.
    pub fn snapshot(&self) -> Vec<Arc<PartitionProgress>> {
        let mut all: Vec<_> = self.owned.lock().values().cloned().collect();
        all.sort_by(|a, b| a.partition.cmp(&b.partition));
        all
    }

    /// Calls `commit` with the heads that the group does not have yet (all of them if `even_unchanged`) and those whose metadata are waited
    /// for, while no partition can be taken out. Beside each offset: whose it is, and the version of the metadata that it carries.
    pub fn with_commits<R>(
        &self,
        even_unchanged: bool,
        commit: impl FnOnce(&[NextOffset], &[(Arc<PartitionProgress>, u64)], bool) -> R,
    ) -> R {
        let _turn = self.commit_turn.lock();
        let mut owned: Vec<Arc<PartitionProgress>> = self.owned.lock().values().cloned().collect();
        owned.sort_by(|a, b| a.partition.cmp(&b.partition));
        let owns_none = owned.is_empty();
        let (mut offsets, mut whose) = (Vec::new(), Vec::new());
        for progress in owned {
            let Some(head) = progress.head() else { continue };
            let new = progress.committed().is_none_or(|committed| head > committed) || progress.published.is_wanted();
            if new || even_unchanged {
                let (metadata, version) = progress.published.now();
                offsets.push(NextOffset { partition: progress.partition.clone(), offset: head, metadata });
                whose.push((progress, version));
            }
        }
        commit(&offsets, &whose, owns_none)
    }
}
