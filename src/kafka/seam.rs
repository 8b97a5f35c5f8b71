//! What the pipeline sees of Kafka: a listener for rebalances, a queue per partition, and control over the group.
//!
//! These are traits so that a seeded simulation can stand in for librdkafka.

use std::sync::Arc;
use std::thread::Thread;
use std::time::Duration;

use crate::record::{Record, TopicPartition};

/// Counts the assignments of one partition to this worker; what belongs to an epoch that is over is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Epoch(pub u64);

/// Where a newly assigned partition starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartOffset {
    /// At the group's committed offset.
    Committed(i64),
    /// Without a committed offset: at the first record there is.
    Earliest,
    /// Without a committed offset: behind the last record there is (this offset, asked from the broker).
    Latest(i64),
    /// Where [`GroupControl::restart_at`] named. The group has another offset, or none, until this one is committed.
    Asked(i64),
}

/// The offset to read next: every record below it is finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextOffset {
    /// The partition.
    pub partition: TopicPartition,
    /// One more than the last finished record's offset.
    pub offset: i64,
    /// What is stored beside the offset, up to 4,096 bytes (the broker's `offset.metadata.max.bytes`); a commit without it erases what was there.
    pub metadata: Option<Arc<str>>,
}

impl NextOffset {
    /// An offset without metadata.
    pub fn plain(partition: TopicPartition, offset: i64) -> Self {
        Self { partition, offset, metadata: None }
    }
}

/// A partition that was given to this worker.
pub struct Assigned {
    /// Which one.
    pub partition: TopicPartition,
    /// This assignment's number.
    pub epoch: Epoch,
    /// Where it starts.
    pub start: StartOffset,
    /// What the last commit stored beside the group's offset, wherever the partition starts; `None` when there was nothing.
    pub metadata: Option<Arc<str>>,
    /// Its records.
    pub queue: Box<dyn PartitionQueue>,
}

/// What a connector does at a rebalance. All calls come on the poll thread, one at a time.
pub trait GroupListener: Send + Sync + 'static {
    /// The group has this member, though it owns no partition: there are more members than partitions, or more come soon. Told about once a
    /// second while that is so.
    fn joined(&self) {}
    /// Partitions are this worker's from now on; their queues fill as soon as this returns.
    fn assigned(&self, partitions: Vec<Assigned>);
    /// Partitions are about to go. Must return within the revoke deadline: with the queues of these partitions dropped (no shard is inside
    /// a take of theirs any more) and the offsets that may be committed for them.
    fn revoking(&self, partitions: &[TopicPartition]) -> Vec<NextOffset>;
    /// The heads that the last `revoking` gave were not committed for these partitions (refused, or no answer in time): their records since the
    /// last commit come again elsewhere.
    fn not_committed(&self, partitions: &[TopicPartition]);
    /// Partitions are gone already and others may own them: drop what is open, commit nothing. Queues must be dropped on return.
    fn lost(&self, partitions: &[TopicPartition]);
    /// A group-wide error in librdkafka's words, for health (the log has them already); `fatal` ends the consumer.
    fn group_error(&self, message: &str, fatal: bool);
}

/// What the callback wants next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// The next record, if one waits.
    Continue,
    /// No more records in this take. The present one counts as taken all the same.
    Yield,
}

/// Something other than a record came out of a partition's queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueueEvent {
    /// The offset asked for is not there: deleted by retention (or beyond the end, after an unclean election).
    OutOfRange {
        /// The offset asked for.
        asked: i64,
    },
    /// A fetch error; librdkafka goes on trying.
    Error {
        /// In librdkafka's words.
        message: String,
    },
}

/// What one take brought.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taken {
    /// Records handed to the callback.
    pub records: u64,
    /// At most one event; taking stops at it.
    pub event: Option<QueueEvent>,
}

/// The records of one assigned partition. Dropping it gives the queue back.
pub trait PartitionQueue: Send {
    /// Hands waiting records to `on_record`, in order, until none waits or it says [`Flow::Yield`]. Never blocks. A record handed over is
    /// taken: librdkafka's position has advanced.
    fn take(&mut self, on_record: &mut dyn FnMut(&Record<'_>) -> Flow) -> Taken;
    /// How many records wait to be taken, roughly.
    fn waiting(&self) -> usize;
    /// Unparks `thread` whenever the queue turns from empty to not empty.
    fn wake_on_data(&mut self, thread: Thread);
}

/// Why Kafka did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// The group is between generations: try again at the next tick.
    #[error("the group is rebalancing: {0}")]
    Rebalancing(String),
    /// This member was fenced or the partition is no longer its own: drop what belongs to it.
    #[error("no longer a member: {0}")]
    Fenced(String),
    /// No answer in time: the outcome is unknown.
    #[error("no answer in time: {0}")]
    TimedOut(String),
    /// The brokers take less metadata beside an offset than this commit carries (`offset.metadata.max.bytes`).
    #[error("the brokers take less metadata beside an offset (offset.metadata.max.bytes): {0}")]
    MetadataTooLarge(String),
    /// Anything else, in librdkafka's words.
    #[error("{0}")]
    Other(String),
}

/// Control over a running consumer, from shards and the committer. Every call has a time limit.
pub trait GroupControl: Send + Sync + 'static {
    /// Commits, synchronously. A partition whose own answer is an error is named with it; the others are committed.
    fn commit(&self, offsets: &[NextOffset], timeout: Duration) -> Result<Vec<(TopicPartition, GroupError)>, GroupError>;
    /// Stops fetching a partition. What waits in its queue is out of date: the next take drops it (or hands it over, if it was quicker).
    fn pause(&self, partition: &TopicPartition) -> Result<(), GroupError>;
    /// Goes to `offset` and fetches again. Records taken after this returned begin at `offset` (or at the first one behind it).
    fn seek_and_resume(&self, partition: &TopicPartition, offset: i64, timeout: Duration) -> Result<(), GroupError>;
    /// Begins again at `offset` (`None`: the first record there is) after [`QueueEvent::OutOfRange`]. Done by the poll thread soon after; the
    /// listener sees a `lost` and an `assigned` with a new epoch for it, which starts at [`StartOffset::Asked`] (or `Earliest`).
    ///
    /// Asked for the assignment `epoch`: when that is over, by an earlier request perhaps, nothing happens, for the next one may have passed `offset`.
    ///
    /// Every record below `offset` must be finished, or given up by the user's rule: the group's offset is to follow, with or without a further record.
    fn restart_at(&self, partition: &TopicPartition, epoch: Epoch, offset: Option<i64>) -> Result<(), GroupError>;
    /// The first and the next offset of a partition on the broker; the next one is the last stable offset under read_committed.
    fn watermarks(&self, partition: &TopicPartition, timeout: Duration) -> Result<(i64, i64), GroupError>;
    /// How long ago the poll thread last came around. Over the session timeout: the worker may be fenced without knowing. Zero once it is closed.
    fn since_last_poll(&self) -> Duration;
    /// The session timeout in force.
    fn session_timeout(&self) -> Duration;
    /// Leaves the group cleanly: a last `revoking` on the poll thread, commits, LeaveGroup; returns when the consumer is closed.
    fn close(&self, timeout: Duration) -> Result<(), GroupError>;
}
