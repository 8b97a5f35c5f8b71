//! Dead letters: records that cannot become rows, sent as they are, with headers that say why.
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
use bytes::Bytes;
use futures::FutureExt;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, mpsc};

use crate::config::BadRecords;
use crate::flow::{Backoff, HoldCause, Lease, Tasks};
use crate::record::{OwnedRecord, RecordError, TopicPartition};
use crate::telemetry::metrics::ConnectorMetrics;

use super::batch::Share;
use super::events::{Outcome, ShardEvent, ShardHandle, ShareOutcome};
use super::progress::PartitionProgress;
use super::trouble::Trouble;

/// Dead letters of one connector that wait or are on their way.
const QUEUE_MAX: usize = 1024;
/// Dead letters on their way at a time.
const IN_FLIGHT_MAX: usize = 256;
/// The longest wait before a refused letter is sent again: how late a mended topic may be noticed.
const AGAIN_MAX: Duration = Duration::from_secs(4);

/// A message for the dead-letter topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// The key as it was.
    pub key: Option<Bytes>,
    /// The value as it was.
    pub value: Option<Bytes>,
    /// The record's headers as they were, then ours.
    pub headers: Vec<(String, Option<Bytes>)>,
    /// The record's timestamp as it was.
    pub timestamp_ms: Option<i64>,
}

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
        let finished = self.until_durable(record, &error, None, &progress).await;
        drop(lease);
        shard.send(ShardEvent::Outcome(letter_outcome(share, finished))).await;
    }

    /// Sends a letter until the topic has it: `true`. `false`: its partition has gone, and whoever owns it now reads the record again.
    pub(super) async fn until_durable(
        &self,
        record: OwnedRecord,
        error: &RecordError,
        value_is: Option<&str>,
        progress: &PartitionProgress,
    ) -> bool {
        let seed = record.offset.unsigned_abs() ^ u64::from(record.partition.unsigned_abs()) << 32;
        let mut backoff = Backoff::new(Duration::from_millis(250), 2.0, AGAIN_MAX, seed);
        let mut letter = self.letter(record, error, value_is);
        let mut cut = 0;
        loop {
            let refusal = match self.letters.put(&self.topic, letter.clone()).await {
                Ok(()) => {
                    self.metrics.dead_letters(error.class.as_str()).increment(1);
                    self.counts.dead_letters.fetch_add(1, Relaxed);
                    *self.counts.refusal.lock() = None;
                    return true;
                }
                Err(LetterError::TooLarge(message)) if self.truncate_oversized && cut < 2 => {
                    cut += 1;
                    letter = shortened(letter, cut, &message);
                    continue;
                }
                Err(LetterError::TooLarge(message)) => {
                    format!("{message}; raise its max.message.bytes, or set `truncate_oversized = true` in [errors]")
                }
                Err(LetterError::Refused(message)) => format!("{message}; it must exist and be writable"),
            };
            self.refused(refusal);
            if progress.is_gone() {
                return false;
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

    fn letter(&self, record: OwnedRecord, error: &RecordError, value_is: Option<&str>) -> Letter {
        let mut headers = record.headers;
        let mut add = |name: &str, value: String| headers.push((name.to_owned(), Some(Bytes::from(value))));
        // Kafka Connect's names (ErrorHandlingMetrics, KIP-298) where it has one.
        add("__connect.errors.topic", record.topic.to_string());
        add("__connect.errors.partition", record.partition.to_string());
        add("__connect.errors.offset", record.offset.to_string());
        add("__connect.errors.connector.name", self.connector.clone());
        add("__connect.errors.stage", error.stage.as_str().to_owned());
        add("__connect.errors.exception.class.name", error.class.as_str().to_owned());
        add("__connect.errors.exception.message", error.message.clone());
        add("__millrace.errors.when", rfc3339(self.tasks.now_wall_us()));
        if let Some(value_is) = value_is {
            add("__millrace.errors.value", value_is.to_owned());
        }
        Letter { key: record.key, value: record.value, headers, timestamp_ms: record.timestamp_ms }
    }
}

/// First without the record's own headers, then without its value; the cause, the coordinates and the value's hash stay.
fn shortened(mut letter: Letter, cut: u32, why: &str) -> Letter {
    letter.headers.retain(|(name, _)| name.starts_with("__connect.errors.") || name.starts_with("__millrace.errors."));
    if cut == 1 {
        letter.headers.push(("__millrace.errors.left.out".to_owned(), Some(Bytes::from(format!("headers ({why})")))));
    } else if let Some(value) = letter.value.take() {
        letter
            .headers
            .push(("__millrace.errors.left.out".to_owned(), Some(Bytes::from(format!("value of {} bytes ({why})", value.len())))));
        letter.headers.push(("__millrace.errors.value.sha256".to_owned(), Some(Bytes::from(hex::encode(Sha256::digest(&value))))));
    }
    letter
}

/// A letter's end: durable, or given up.
pub(super) fn letter_outcome(share: Share, finished: bool) -> Outcome {
    let (finished, abandoned) = if finished { (share.rows, 0) } else { (0, share.rows) };
    let hold = (abandoned > 0).then(|| (HoldCause::DeadLetterTopic, "its letter was given up".to_owned()));
    Outcome { table: None, shares: vec![ShareOutcome { share, finished, abandoned, rejected: 0 }], hold, landed_below: None }
}

/// A moment as people read it; microseconds since the epoch.
pub(super) fn rfc3339(wall_us: i64) -> String {
    chrono::DateTime::from_timestamp_micros(wall_us)
        .map(|at| at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true))
        .unwrap_or_else(|| format!("{wall_us} us since the epoch"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_letter_that_is_too_large_loses_headers_first() {
        let letter = Letter {
            key: Some(Bytes::from_static(b"k")),
            value: Some(Bytes::from_static(b"abc")),
            headers: vec![("mine".into(), None), ("__connect.errors.topic".into(), Some(Bytes::from_static(b"t")))],
            timestamp_ms: Some(1),
        };
        let first = shortened(letter, 1, "limit");
        assert!(first.headers.iter().all(|(n, _)| n != "mine"));
        assert_eq!(first.value.as_deref(), Some(b"abc".as_slice()));
        let second = shortened(first, 2, "limit");
        assert_eq!(second.value, None);
        let hash = second.headers.iter().find(|(n, _)| n == "__millrace.errors.value.sha256").unwrap().1.clone().unwrap();
        assert_eq!(hash, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(rfc3339(1_700_000_000_123_456), "2023-11-14T22:13:20.123Z");
    }
}
