//! Dead letters: records that cannot become rows, sent as they are, with headers that say why.
//!
//! **Promise**: a dead letter counts as finished only when the dead-letter topic acknowledged it (acks=all, idempotent producer), or when
//! the user's rule says to skip such records.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use crate::config::BadRecords;
use crate::flow::{HoldCause, Lease};
use crate::record::{OwnedRecord, RecordError, TopicPartition};
use crate::telemetry::metrics::ConnectorMetrics;

use super::batch::Share;
use super::events::{Outcome, ShardEvent, ShardHandle, ShareOutcome};

/// Dead letters of one connector that wait or are on their way.
const QUEUE_MAX: usize = 1024;
/// Dead letters on their way at a time.
const IN_FLIGHT_MAX: usize = 256;

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
    /// Who wants to know.
    pub shard: ShardHandle,
    /// The memory it takes.
    pub lease: Lease,
}

/// A row that BigQuery rejected.
#[derive(Debug, Clone)]
pub struct RejectedRow {
    /// Where its record is.
    pub partition: TopicPartition,
    /// Its record's offset.
    pub offset: i64,
    /// What is wrong with it.
    pub error: RecordError,
    /// The row as JSON, for the case that the record is gone.
    pub row_json: String,
}

/// Bad records since the worker started.
#[derive(Debug, Default)]
pub struct BadRecordCounts {
    /// Durable in the dead-letter topic.
    pub dead_letters: AtomicU64,
    /// Dropped by `bad_records = "skip"`.
    pub skipped: AtomicU64,
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
    /// For the `when` header.
    pub clock: Arc<dyn crate::flow::Clock>,
}

impl DeadLetters {
    /// Why a partition holds whose bad record could not be put away.
    pub fn hold_cause(&self) -> HoldCause {
        if self.policy == BadRecords::Stop { HoldCause::BadRecord } else { HoldCause::DeadLetterTopic }
    }

    /// Starts the task that sends bad records; a full queue stops the shard from taking more of the partitions that have some.
    pub fn start(self: &Arc<Self>, runtime: &tokio::runtime::Handle) -> mpsc::Sender<BadRecord> {
        let (sender, mut receiver) = mpsc::channel::<BadRecord>(QUEUE_MAX);
        let letters = self.clone();
        let permits = Arc::new(tokio::sync::Semaphore::new(IN_FLIGHT_MAX));
        runtime.spawn(async move {
            while let Some(bad) = receiver.recv().await {
                // The semaphore is never closed while this task runs.
                let Ok(permit) = permits.clone().acquire_owned().await else { return };
                let letters = letters.clone();
                tokio::spawn(async move {
                    let _permit = permit;
                    letters.send_bad(bad).await;
                });
            }
        });
        sender
    }

    async fn send_bad(&self, bad: BadRecord) {
        let BadRecord { record, error, share, shard, lease } = bad;
        let result = self.put(record, &error, None).await;
        drop(lease);
        let (finished, abandoned, hold) = match result {
            Ok(()) => (share.rows, 0, None),
            Err(message) => (0, share.rows, Some((HoldCause::DeadLetterTopic, message))),
        };
        shard.send(ShardEvent::Outcome(Outcome { table: None, shares: vec![ShareOutcome { share, finished, abandoned }], hold })).await;
    }

    /// Sends rejected rows by the user's rule: `Ok` when each is durable in the topic or may be dropped.
    ///
    /// # Errors
    /// In words, when the records cannot be read again or the topic does not take them: the rows are to be given up (read again later).
    pub async fn send_rejected(&self, rows: Vec<RejectedRow>) -> Result<(), String> {
        match self.policy {
            BadRecords::Skip => {
                for row in &rows {
                    self.metrics.skipped(row.error.class.as_str()).increment(1);
                    self.counts.skipped.fetch_add(1, Relaxed);
                }
                return Ok(());
            }
            BadRecords::Stop => {
                let first = rows.first().map(|row| format!("{} offset {}: {}", row.partition, row.offset, row.error)).unwrap_or_default();
                return Err(format!("bad_records = \"stop\": {first}"));
            }
            BadRecords::DeadLetter => {}
        }
        let mut by_partition: BTreeMap<TopicPartition, Vec<RejectedRow>> = BTreeMap::new();
        for row in rows {
            by_partition.entry(row.partition.clone()).or_default().push(row);
        }
        for (partition, mut rows) in by_partition {
            rows.sort_by_key(|row| row.offset);
            let offsets: Vec<i64> = rows.iter().map(|row| row.offset).collect();
            let records = self.rereader.reread(&partition, &offsets).await?;
            for (row, record) in rows.into_iter().zip(records) {
                let gone = record.is_none();
                let record = record.unwrap_or_else(|| OwnedRecord {
                    topic: partition.topic.clone(),
                    partition: partition.partition,
                    offset: row.offset,
                    timestamp_ms: None,
                    key: None,
                    value: Some(Bytes::from(row.row_json.clone())),
                    headers: Vec::new(),
                });
                self.put(record, &row.error, gone.then_some("row-json")).await?;
            }
        }
        Ok(())
    }

    async fn put(&self, record: OwnedRecord, error: &RecordError, value_is: Option<&str>) -> Result<(), String> {
        let mut letter = self.letter(record, error, value_is);
        let mut cut = 0;
        loop {
            match self.letters.put(&self.topic, letter.clone()).await {
                Ok(()) => {
                    self.metrics.dead_letters(error.class.as_str()).increment(1);
                    self.counts.dead_letters.fetch_add(1, Relaxed);
                    return Ok(());
                }
                Err(LetterError::TooLarge(message)) if self.truncate_oversized && cut < 2 => {
                    cut += 1;
                    letter = shortened(letter, cut, &message);
                }
                Err(LetterError::TooLarge(message)) => {
                    return Err(format!(
                        "dead-letter topic `{}`: {message}; raise its max.message.bytes, or set `truncate_oversized = true` in [errors]",
                        self.topic
                    ));
                }
                Err(LetterError::Refused(message)) => {
                    return Err(format!(
                        "dead-letter topic `{}` does not take records: {message}; it must exist and be writable",
                        self.topic
                    ));
                }
            }
        }
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
        add("__millrace.errors.when", rfc3339(self.clock.now_wall_us()));
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

fn rfc3339(wall_us: i64) -> String {
    chrono::DateTime::from_timestamp_micros(wall_us)
        .map(|at| at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true))
        .unwrap_or_else(|| format!("{wall_us} us since the epoch"))
}

/// How long a dead letter may wait for its topic before its partition holds.
pub const LETTER_TIMEOUT: Duration = Duration::from_secs(30);

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
