//! Sending dead letters: records that cannot become rows, as they are, with headers that say why (`letter.rs`).
//!
//! **Promise**: a dead letter counts as finished only when the dead-letter topic acknowledged it (acks=all, idempotent producer), or when
//! the user's rule says to skip such records.
//!
//! A letter that the topic does not take stays on its way until it does, or until its partition goes: giving it up would mean to read its
//! record again, and letters and rows beside it a second time. Its partition holds meanwhile (`late_letters.rs`), so only so many wait.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};

use crate::config::BadRecords;
use crate::flow::{Backoff, HoldCause, Lease, Tasks};
use crate::record::{OwnedRecord, RecordError, TopicPartition};
use crate::telemetry::metrics::ConnectorMetrics;

use super::batch::Share;
use super::events::{Outcome, ShardEvent, ShardHandle, ShareOutcome};
use super::letter::{Cut, Death, Letter};
use super::progress::PartitionProgress;
use super::trouble::Trouble;

/// Dead letters of one connector that wait or are on their way.
const QUEUE_MAX: usize = 1024;
/// Dead letters on their way at a time.
const IN_FLIGHT_MAX: usize = 256;
/// The longest wait before a refused letter is sent again: how late a mended topic may be noticed.
const AGAIN_MAX: Duration = Duration::from_secs(4);

/// Why the dead-letter topic did not take a letter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LetterError {
    /// It is larger than the topic or the broker takes.
    #[error("the dead letter is too large: {0}")]
    TooLarge(String),
    /// Anything else; the letter may be sent again.
    #[error("{0}")]
    Refused(String),
}

/// The dead-letter topic.
#[async_trait]
pub trait LetterBox: Send + Sync + 'static {
    /// `Ok`: durable in the topic.
    async fn put(&self, topic: &str, letter: Letter) -> Result<(), LetterError>;
    /// Why letters take so long, where that is known.
    fn complaint(&self) -> Option<String> {
        None
    }
}

/// Reads records again, for dead letters of rows that BigQuery rejected.
#[async_trait]
pub trait Rereader: Send + Sync + 'static {
    /// The records of these offsets, in the same order; `None` where it is gone.
    async fn reread(&self, partition: &TopicPartition, offsets: &[i64]) -> Result<Vec<Option<OwnedRecord>>, String>;
}

/// A record that failed before it became a row.
pub struct BadRecord {
    /// The record.
    pub record: OwnedRecord,
    /// What is wrong with it.
    pub error: RecordError,
    /// Its place in the ledger (one row).
    pub share: Share,
    /// The assignment that it was taken in.
    pub progress: Arc<PartitionProgress>,
    /// Who wants to know.
    pub shard: ShardHandle,
    /// The memory it takes.
    pub lease: Lease,
}

/// Bad records since the worker started.
#[derive(Debug, Default)]
pub struct BadRecordCounts {
    /// Durable in the dead-letter topic.
    pub dead_letters: AtomicU64,
    /// Dropped by `bad_records = "skip"`.
    pub skipped: AtomicU64,
    /// Why a letter was refused last; nothing when one was taken since.
    refusal: Mutex<Option<String>>,
}

/// The dead letters of one connector.
pub struct DeadLetters {
    /// The connector's name.
    pub connector: String,
    /// What the user wants done.
    pub policy: BadRecords,
    /// Where they go.
    pub topic: String,
    /// Leave out optional headers, then the value, when a letter is too large.
    pub truncate_oversized: bool,
    /// The topic.
    pub letters: Arc<dyn LetterBox>,
    /// Reads rejected rows' records.
    pub rereader: Arc<dyn Rereader>,
    /// Counts by cause.
    pub metrics: Arc<ConnectorMetrics>,
    /// For `/status`.
    pub counts: Arc<BadRecordCounts>,
    /// Where letters wait, and what time it is.
    pub tasks: Arc<dyn Tasks>,
    /// Told when a letter's task panics.
    pub trouble: Arc<Trouble>,
    /// Appends whose rejected rows may be on their way to the topic at a time.
    pub rejects: Arc<Semaphore>,
}

impl DeadLetters {
    /// Starts the task that sends bad records; a full queue stops the shard from taking more of the partitions that have some.
    pub fn start(self: &Arc<Self>) -> mpsc::Sender<BadRecord> {
        let (sender, mut receiver) = mpsc::channel::<BadRecord>(QUEUE_MAX);
        let letters = self.clone();
        let permits = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
        self.tasks.spawn(Box::pin(async move {
            while let Some(bad) = receiver.recv().await {
                // The semaphore is never closed while this task runs.
                let Ok(permit) = permits.clone().acquire_owned().await else { return };
                let (letters, tasks) = (letters.clone(), letters.tasks.clone());
                tasks.spawn(Box::pin(async move {
                    let _permit = permit;
                    let (at, offset) = (bad.progress.partition.clone(), bad.record.offset);
                    if AssertUnwindSafe(letters.send_bad(bad)).catch_unwind().await.is_err() {
                        letters.trouble.fail(format!(
                            "sending the dead letter of {at} offset {offset} panicked: please report it; restart the worker"
                        ));
                    }
                }));
            }
        }));
        sender
    }

    async fn send_bad(&self, bad: BadRecord) {
        let BadRecord { record, error, share, progress, shard, lease } = bad;
        let end = self.until_durable(record, &Death { error: &error, record_is_gone: false }, &progress).await;
        drop(lease);
        shard.send(ShardEvent::Outcome(end.outcome(share))).await;
    }

    /// Sends a record's letter until the topic has it, or its partition goes.
    pub(super) async fn until_durable(&self, record: OwnedRecord, why: &Death<'_>, progress: &PartitionProgress) -> LetterEnd {
        let seed = record.offset.unsigned_abs() ^ u64::from(record.partition.unsigned_abs()) << 32;
        let mut backoff = Backoff::new(Duration::from_millis(250), 2.0, AGAIN_MAX, seed);
        let mut letter = Letter::of(record, why, &self.connector, self.tasks.now_wall_us());
        let mut cuts = Cut::ALL.into_iter();
        loop {
            let refusal = match self.letters.put(&self.topic, letter.clone()).await {
                Ok(()) => {
                    self.metrics.dead_letters(why.error.class.as_str()).increment(1);
                    self.counts.dead_letters.fetch_add(1, Relaxed);
                    *self.counts.refusal.lock() = None;
                    return LetterEnd::Durable;
                }
                Err(LetterError::TooLarge(message)) => match cuts.next().filter(|_| self.truncate_oversized) {
                    Some(cut) => {
                        letter = letter.shortened(cut, &message);
                        continue;
                    }
                    None => format!("{message}; raise its max.message.bytes, or set `truncate_oversized = true` in [errors]"),
                },
                Err(LetterError::Refused(message)) => format!("{message}; it must exist and be writable"),
            };
            self.refused(refusal);
            if progress.is_gone() {
                return LetterEnd::PartitionGone;
            }
            self.tasks.sleep(backoff.next_delay()).await;
        }
    }

    /// Counts a record that `bad_records = "skip"` drops.
    pub(super) fn skipped(&self, error: &RecordError) {
        self.metrics.skipped(error.class.as_str()).increment(1);
        self.counts.skipped.fetch_add(1, Relaxed);
    }

    /// Notes why letters wait.
    pub(super) fn refused(&self, why: String) {
        tracing::debug!(connector = self.connector, topic = self.topic, why, "a dead letter waits");
        *self.counts.refusal.lock() = Some(why);
    }

    /// For people whose partition holds because of letters.
    pub fn late_message(&self, late: Duration) -> String {
        let why = self.counts.refusal.lock().clone().or_else(|| self.letters.complaint());
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        format!(
            "dead-letter topic `{}` leaves dead letters of this partition unacknowledged for {} s{why}; it goes on by itself when the topic takes them",
            self.topic,
            late.as_secs()
        )
    }
}

/// How the sending of a letter ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum LetterEnd {
    /// The topic has acknowledged it.
    Durable,
    /// Its partition has gone: whoever owns that now reads the record again.
    PartitionGone,
}

impl LetterEnd {
    /// For the shard that took the record.
    pub fn outcome(self, share: Share) -> Outcome {
        let (finished, abandoned, hold) = match self {
            Self::Durable => (share.rows, 0, None),
            Self::PartitionGone => (0, share.rows, Some((HoldCause::DeadLetterTopic, "its letter was given up".to_owned()))),
        };
        Outcome { table: None, shares: vec![ShareOutcome { share, finished, abandoned, rejected: 0 }], hold, landed_below: None }
    }
}
