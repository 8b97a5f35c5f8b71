//! The open batch of a table in one shard, and the append job that it becomes.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::bigquery::Gate;
use crate::decode::{ClosedRows, RowBuffer, RowRoom};
use crate::flow::Lease;
use crate::kafka::Epoch;
use crate::table::SharedLayout;

use super::events::ShardHandle;
use super::fence::Fence;
use super::freshness::Timestamps;
use super::ledger::SpanId;
use super::progress::PartitionProgress;
use super::worker::TableEntry;

/// Consecutive rows of a batch that belong to one span of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// The partition's slot in its shard.
    pub slot: u32,
    /// The epoch in which the rows were taken.
    pub epoch: Epoch,
    /// The span.
    pub span: SpanId,
    /// How many rows.
    pub rows: u32,
}

/// Rows of one table that wait for company.
pub struct OpenBatch {
    /// The rows.
    pub rows: RowBuffer,
    /// Whose they are, in the order of the rows.
    pub shares: Vec<Share>,
    /// Their records' timestamps.
    pub times: Timestamps,
    /// When the first row came.
    pub opened_at: Instant,
}

impl OpenBatch {
    /// An empty batch of this layout, which makes this room with its first row.
    pub fn new(layout: SharedLayout, room: RowRoom, now: Instant) -> Self {
        Self { rows: RowBuffer::with_room(layout, room), shares: Vec::new(), times: Timestamps::default(), opened_at: now }
    }

    /// Notes whose the row is that was just pushed.
    #[inline]
    pub fn note(&mut self, slot: u32, epoch: Epoch, span: SpanId) {
        match self.shares.last_mut() {
            Some(share) if share.span == span && share.slot == slot && share.epoch == epoch => share.rows += 1,
            _ => self.shares.push(Share { slot, epoch, span, rows: 1 }),
        }
    }

    /// When it must be closed.
    pub fn due_at(&self, linger: Duration) -> Instant {
        self.opened_at + linger
    }
}

/// Bytes of a closed batch, counted with its table until they are acknowledged or given up, however that comes.
pub struct Unacked {
    table: Arc<TableEntry>,
    bytes: i64,
}

impl Unacked {
    /// Counts them.
    pub fn new(table: Arc<TableEntry>, bytes: usize) -> Self {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        table.unacked_bytes.fetch_add(bytes, Relaxed);
        Self { table, bytes }
    }
}

impl Drop for Unacked {
    fn drop(&mut self) {
        self.table.unacked_bytes.fetch_sub(self.bytes, Relaxed);
    }
}

/// A closed batch on its way to BigQuery.
pub struct AppendJob {
    /// The table.
    pub table: Arc<TableEntry>,
    /// The rows, their layout, and where each came from.
    pub rows: ClosedRows,
    /// Whose they are, in the order of the rows.
    pub shares: Vec<Share>,
    /// Their records' timestamps.
    pub times: Timestamps,
    /// The shard that wants to know the outcome.
    pub shard: ShardHandle,
    /// The assignments that the rows come from, by slot.
    pub partitions: Vec<(u32, Arc<PartitionProgress>)>,
    /// The memory it takes, given back when the job ends.
    pub lease: Lease,
    /// How often its partition had gone back to read again when it was closed; exactly once only, where a job has one partition.
    pub run: u64,
    /// Its bytes in the table's count of those not acknowledged, taken out when the job ends.
    pub _unacked: Unacked,
}

impl AppendJob {
    /// Whether the assignment that a share was taken in is over.
    pub fn is_gone(&self, share: &Share) -> bool {
        self.partitions
            .iter()
            .find(|(slot, _)| *slot == share.slot)
            .is_none_or(|(_, progress)| progress.is_gone() || progress.epoch != share.epoch)
    }

    /// Whether the assignments of all its rows are over.
    pub fn all_gone(&self) -> bool {
        self.shares.iter().all(|share| self.is_gone(share))
    }

    /// The gate of an append of this job: closed while the fence is up, and once an assignment that is not over now is, also when that
    /// happens while the append waits for room. Make it before rows of assignments that are over are left out.
    pub fn gate(&self, fence: &Arc<Fence>) -> Arc<dyn Gate> {
        let present = self.partitions.iter().map(|(_, progress)| progress).filter(|progress| !progress.is_gone());
        Arc::new(JobGate { fence: fence.clone(), partitions: present.cloned().collect() })
    }

    /// The assignment that a share was taken in.
    pub fn partition_of(&self, share: &Share) -> Option<&Arc<PartitionProgress>> {
        self.partitions.iter().find(|(slot, _)| *slot == share.slot).map(|(_, progress)| progress)
    }

    /// The share that the row of this index belongs to.
    pub fn share_of(&self, row: u32) -> Option<usize> {
        let mut end = 0;
        self.shares.iter().position(|share| {
            end += share.rows;
            row < end
        })
    }
}

/// See [`AppendJob::gate`].
#[derive(Debug)]
struct JobGate {
    fence: Arc<Fence>,
    partitions: Vec<Arc<PartitionProgress>>,
}

impl Gate for JobGate {
    fn is_open(&self) -> bool {
        // The fence first: asking it counts as a sign of life.
        self.fence.is_open() && !self.partitions.iter().any(|progress| progress.is_gone())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;
    use crate::flow::Budget;
    use crate::pipeline::worker::WorkerShared;
    use crate::table::TableName;

    #[test]
    fn a_job_that_goes_unsent_leaves_no_bytes_in_its_tables_count() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let worker = WorkerShared::new(Budget::new(1 << 20), runtime.handle().clone(), false);
        let table = worker.table(&TableName { project: "p".into(), dataset: "d".into(), table: "t".into() });
        let (first, second) = (Unacked::new(table.clone(), 700), Unacked::new(table.clone(), 300));
        assert_eq!(table.unacked_bytes.load(Relaxed), 1000);
        drop(first);
        assert_eq!(table.unacked_bytes.load(Relaxed), 300);
        let panicked = std::thread::spawn(move || {
            let _kept = second;
            std::panic::panic_any("on purpose");
        });
        assert!(panicked.join().is_err());
        assert_eq!(table.unacked_bytes.load(Relaxed), 0);
    }
}
