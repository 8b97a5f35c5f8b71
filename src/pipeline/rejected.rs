//! Rows that BigQuery rejected, on their way to the dead-letter topic: their records are read again from Kafka, for a letter holds the
//! record's own bytes. Outside the append that brought them: rows of other partitions must not wait for the topic.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::join_all;
use tokio::sync::Semaphore;

use crate::flow::{Backoff, Lease};
use crate::record::{OwnedRecord, RecordError, TopicPartition};

use super::batch::Share;
use super::dead_letters::{DeadLetters, LetterEnd};
use super::events::{ShardEvent, ShardHandle};
use super::letter::Death;
use super::progress::PartitionProgress;

/// Appends of one connector whose rejected rows are on their way at a time. Others wait for a place, with the memory that
/// they lease (`late_letters.rs` bounds it); the writer does not.
const PLACES: usize = 256;
/// The longest wait before records are read again once more.
const AGAIN_MAX: Duration = Duration::from_secs(4);

/// Room for a connector's rejected rows.
pub fn places() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(PLACES))
}

/// A row that BigQuery rejected.
#[derive(Debug)]
pub struct RejectedRow {
    /// The assignment that its record was taken in.
    pub progress: Arc<PartitionProgress>,
    /// Its place in the ledger (one row).
    pub share: Share,
    /// Its record's offset.
    pub offset: i64,
    /// What is wrong with it.
    pub error: RecordError,
    /// The row as JSON, for the case that the record is gone.
    pub row_json: String,
}

impl RejectedRow {
    /// The memory it takes.
    pub fn size_bytes(&self) -> usize {
        self.row_json.len() + self.error.message.len() + 256
    }
}

/// The rejected rows of one append.
pub struct RejectedRows {
    /// The rows.
    pub rows: Vec<RejectedRow>,
    /// Who wants to know how each ended.
    pub shard: ShardHandle,
    /// The memory that they take.
    pub lease: Lease,
}

impl DeadLetters {
    /// Takes rejected rows over: each is told to the shard when its letter is durable. Never waits: a dead-letter topic that
    /// is down must not keep the writer from the rows of partitions without a bad record.
    pub fn take_rejected(self: &Arc<Self>, rejected: RejectedRows) {
        let letters = self.clone();
        self.tasks.spawn(Box::pin(async move {
            // The semaphore is never closed.
            let Ok(_place) = letters.rejects.clone().acquire_owned().await else { return };
            let RejectedRows { rows, shard, lease } = rejected;
            let mut by_partition: BTreeMap<TopicPartition, Vec<RejectedRow>> = BTreeMap::new();
            for row in rows {
                by_partition.entry(row.progress.partition.clone()).or_default().push(row);
            }
            let names: Vec<String> = by_partition.keys().map(ToString::to_string).collect();
            // A partition whose leader is away must not keep the others waiting.
            let sent = join_all(by_partition.into_values().map(|rows| letters.send_of_partition(rows, &shard)));
            if AssertUnwindSafe(sent).catch_unwind().await.is_err() {
                let names = names.join(" ");
                letters
                    .trouble
                    .fail(format!("sending rejected rows of {names} as dead letters panicked: please report it; restart the worker"));
            }
            drop(lease);
        }));
    }

    /// Sends rejected rows of one partition until the topic has all of them, or the partition goes. Their shard is told nothing.
    pub(super) async fn until_all_durable(&self, rejected: RejectedRows) -> LetterEnd {
        let mut rows = rejected.rows;
        let Some(records) = self.records_of(&mut rows).await else { return LetterEnd::PartitionGone };
        for (row, record) in rows.into_iter().zip(records) {
            if self.until_row_durable(row, record).await == LetterEnd::PartitionGone {
                return LetterEnd::PartitionGone;
            }
        }
        LetterEnd::Durable
    }

    async fn send_of_partition(&self, mut rows: Vec<RejectedRow>, shard: &ShardHandle) {
        let mut records = self.records_of(&mut rows).await.map(Vec::into_iter);
        for row in rows {
            let share = row.share;
            let end = match records.as_mut() {
                Some(records) => self.until_row_durable(row, records.next().flatten()).await,
                None => LetterEnd::PartitionGone,
            };
            // A shard that has ended needs no answer: whoever owns the partition next reads the record again.
            shard.send(ShardEvent::Outcome(end.outcome(share))).await;
        }
    }

    async fn until_row_durable(&self, row: RejectedRow, record: Option<OwnedRecord>) -> LetterEnd {
        let record_is_gone = record.is_none();
        let (error, progress) = (row.error.clone(), row.progress.clone());
        let record = record.unwrap_or_else(|| in_place_of_its_record(row));
        self.until_durable(record, &Death { error: &error, record_is_gone }, &progress).await
    }

    /// Sorts rows of one partition by offset, and reads their records as soon as Kafka gives them, in that order; `None` for one that is
    /// gone. `None` for all when the partition has gone.
    async fn records_of(&self, rows: &mut [RejectedRow]) -> Option<Vec<Option<OwnedRecord>>> {
        rows.sort_by_key(|row| row.offset);
        let Some(progress) = rows.first().map(|row| row.progress.clone()) else { return Some(Vec::new()) };
        let offsets: Vec<i64> = rows.iter().map(|row| row.offset).collect();
        let seed = offsets.first().copied().unwrap_or(0).unsigned_abs();
        let mut backoff = Backoff::new(Duration::from_millis(250), 2.0, AGAIN_MAX, seed);
        loop {
            match self.rereader.reread(&progress.partition, &offsets).await {
                Ok(records) => return Some(records),
                Err(message) => self.refused(message),
            }
            if progress.is_gone() {
                return None;
            }
            self.tasks.sleep(backoff.next_delay()).await;
        }
    }
}

/// What a letter holds when retention or compaction has taken the record.
fn in_place_of_its_record(row: RejectedRow) -> OwnedRecord {
    OwnedRecord {
        topic: row.progress.partition.topic.clone(),
        partition: row.progress.partition.partition,
        offset: row.offset,
        timestamp_ms: None,
        key: None,
        value: Some(Bytes::from(row.row_json)),
        headers: Vec::new(),
    }
}
