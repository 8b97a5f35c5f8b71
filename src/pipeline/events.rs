//! What reaches a shard from other threads: one bounded channel, and a wake-up.

use std::sync::mpsc::SyncSender;
use std::task::Waker;
use std::time::Instant;

use parking_lot::RwLock;
use std::sync::Arc;
use tokio::sync::mpsc;

use crate::decode::SchemaKey;
use crate::flow::HoldCause;
use crate::kafka::{Assigned, Epoch, NextOffset};
use crate::record::TopicPartition;
use crate::table::TableName;

use super::batch::Share;
use super::exact::StreamNews;
use super::pause::Pause;
use super::plans::PlanAnswer;
use super::progress::PartitionProgress;
use super::work::WorkTimes;
use super::worker::TableEntry;

/// Events that may wait for a shard. A sender that meets a full channel waits; limits on appends and dead letters in flight bound how many
/// there are.
pub const EVENTS_MAX: usize = 4096;

/// Something a shard must know.
pub enum ShardEvent {
    /// Partitions came.
    Assigned(Vec<(Assigned, Arc<PartitionProgress>)>),
    /// Partitions go: drain until the deadline, then answer with their heads. Their queues are dropped at once.
    Revoke {
        /// Which.
        partitions: Vec<TopicPartition>,
        /// Answer by then, drained or not.
        deadline: Instant,
        /// The heads go here.
        reply: SyncSender<Vec<NextOffset>>,
    },
    /// Partitions are gone: drop their rows, answer when their queues are dropped.
    Lost {
        /// Which.
        partitions: Vec<TopicPartition>,
        /// The answer goes here.
        reply: SyncSender<Vec<NextOffset>>,
    },
    /// An append job or a dead letter ended.
    Outcome(Outcome),
    /// A plan is there, or why it is not.
    Plan {
        /// The table it is for.
        table: TableName,
        /// The schema it is for.
        key: SchemaKey,
        /// The answer.
        answer: PlanAnswer,
    },
    /// Where a partition's records begin now, after its offset was out of range.
    Watermarks {
        /// The slot that asked.
        slot: u32,
        /// In which epoch.
        epoch: Epoch,
        /// The offset that was not there.
        asked: i64,
        /// First and next offset, or why they are not known.
        range: Result<(i64, i64), String>,
    },
    /// A partition's stream has something to tell.
    Stream {
        /// The partition's slot.
        slot: u32,
        /// In which epoch.
        epoch: Epoch,
        /// What.
        news: StreamNews,
    },
    /// End the thread.
    Stop,
}

/// How the rows of an append job, or one dead letter, ended.
pub struct Outcome {
    /// The table that the rows went to; none for a dead letter.
    pub table: Option<Arc<TableEntry>>,
    /// Per share: rows finished and rows given up. Never more than the share has.
    pub shares: Vec<ShareOutcome>,
    /// Why rows were given up.
    pub hold: Option<(HoldCause, String)>,
    /// Exactly once: every record of the partition below this offset is finished.
    pub landed_below: Option<i64>,
}

/// How the rows of one share ended.
#[derive(Debug, Clone, Copy)]
pub struct ShareOutcome {
    /// The share.
    pub share: Share,
    /// Rows that are durable in BigQuery or in the dead-letter topic.
    pub finished: u32,
    /// Rows that must be read again.
    pub abandoned: u32,
    /// Rows that BigQuery rejected: their dead letters are on their way, and end with outcomes of their own.
    pub rejected: u32,
}

/// The way to a shard. Who is to be woken is known once it runs.
#[derive(Clone)]
pub struct ShardHandle {
    events: mpsc::Sender<ShardEvent>,
    waker: Arc<RwLock<Option<Waker>>>,
    work: Arc<WorkTimes>,
    pause: Arc<Pause>,
}

impl ShardHandle {
    /// A handle and the shard's end of the channel.
    pub fn new() -> (Self, mpsc::Receiver<ShardEvent>) {
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        (Self { events, waker: Arc::new(RwLock::new(None)), work: Arc::default(), pause: Arc::default() }, receiver)
    }

    /// The shard takes nothing while `pause` is on.
    #[must_use]
    pub fn pausing_with(mut self, pause: Arc<Pause>) -> Self {
        self.pause = pause;
        self
    }

    /// Whether the shard is to take nothing.
    pub fn is_paused(&self) -> bool {
        self.pause.is_on()
    }

    /// How the shard's thread spends its time.
    pub fn work(&self) -> &WorkTimes {
        &self.work
    }

    /// Names whom to wake.
    pub fn set_waker(&self, waker: Waker) {
        *self.waker.write() = Some(waker);
    }

    /// Sends from an async task; `false` when the shard has ended (its records are read again by whoever owns them next).
    pub async fn send(&self, event: ShardEvent) -> bool {
        let sent = self.events.send(event).await.is_ok();
        self.wake();
        sent
    }

    /// Sends from a thread that may block.
    pub fn blocking_send(&self, event: ShardEvent) -> bool {
        let sent = self.events.blocking_send(event).is_ok();
        self.wake();
        sent
    }

    /// Has the shard look at once.
    pub fn wake(&self) {
        if let Some(waker) = self.waker.read().as_ref() {
            waker.wake_by_ref();
        }
    }
}
