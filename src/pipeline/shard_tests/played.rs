//! What stands around a shard, played: a partition's log, the consumer, BigQuery, the dead-letter topic.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::SeqCst};
use std::thread::Thread;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rand::Rng;

use crate::bigquery::{
    Append, AppendFailure, Appender, ErrorClass, RowError, StreamLine, TableError, TableSpec, TableState, Tables, WriteStreams,
};
use crate::decode::split_rows;
use crate::flow::HoldCause;
use crate::kafka::{Epoch, Flow, GroupControl, GroupError, NextOffset, PartitionQueue, QueueEvent, Taken};
use crate::pipeline::dead_letters::{LetterBox, LetterError, Rereader};
use crate::pipeline::letter::Letter;
use crate::record::{Headers, OwnedRecord, Record, TopicPartition};
use crate::table::{Column, ColumnType, Mode, TableName};

/// A partition's log: value by offset, and where the consumer stands.
pub(super) struct Log {
    pub values: Vec<Option<Vec<u8>>>,
    pub position: AtomicI64,
    pub paused: std::sync::atomic::AtomicBool,
    /// What the shard asked for: where to begin again.
    pub restarts: Mutex<Vec<Option<i64>>>,
    /// What comes out of the queue next, behind the records that wait.
    pub event: Mutex<Option<QueueEvent>>,
    /// The consumer has stopped fetching: seeks are refused.
    pub stopped: std::sync::atomic::AtomicBool,
    /// The consumer was told to leave its group.
    pub closed: std::sync::atomic::AtomicBool,
    /// Records whose headers panic when they are touched: by offset, how many times more.
    pub panics: Mutex<BTreeMap<i64, u32>>,
}

/// A record's headers, of which there are none: touching them may panic.
struct LogHeaders<'a>(&'a Log, i64);

impl Headers for LogHeaders<'_> {
    fn last(&self, _name: &str) -> Option<Option<&[u8]>> {
        None
    }
    fn each(&self, _visit: &mut dyn FnMut(&str, Option<&[u8]>)) {
        let panics = self.0.panics.lock().get_mut(&self.1).is_some_and(|left| {
            *left = left.saturating_sub(1);
            true
        });
        if panics {
            self.0.panics.lock().retain(|_, left| *left > 0);
            std::panic::panic_any("on purpose");
        }
    }
}

pub(super) struct LogQueue(pub Arc<Log>);

impl PartitionQueue for LogQueue {
    fn take(&mut self, on_record: &mut dyn FnMut(&Record<'_>) -> Flow) -> Taken {
        let mut taken = Taken::default();
        while !self.0.paused.load(SeqCst) {
            let offset = self.0.position.load(SeqCst);
            let Some(value) = self.0.values.get(offset as usize) else { break };
            self.0.position.store(offset + 1, SeqCst);
            taken.records += 1;
            let record = Record {
                topic: "t",
                partition: 0,
                offset,
                timestamp_ms: Some(1),
                key: Some(b"k"),
                value: value.as_deref(),
                headers: &LogHeaders(&self.0, offset),
            };
            if on_record(&record) == Flow::Yield {
                break;
            }
        }
        taken.event = self.0.event.lock().take();
        taken
    }
    fn waiting(&self) -> usize {
        if self.0.paused.load(SeqCst) { 0 } else { self.0.values.len() - self.0.position.load(SeqCst) as usize }
    }
    fn wake_on_data(&mut self, _thread: Thread) {}
}

pub(super) struct Control(pub Arc<Log>);

impl GroupControl for Control {
    fn commit(&self, _offsets: &[NextOffset], _timeout: Duration) -> Result<Vec<(TopicPartition, GroupError)>, GroupError> {
        Ok(Vec::new())
    }
    fn pause(&self, _partition: &TopicPartition) -> Result<(), GroupError> {
        self.0.paused.store(true, SeqCst);
        Ok(())
    }
    fn seek_and_resume(&self, _partition: &TopicPartition, offset: i64, _timeout: Duration) -> Result<(), GroupError> {
        if self.0.stopped.load(SeqCst) {
            return Err(GroupError::Other("Local: Erroneous state".into()));
        }
        self.0.position.store(offset, SeqCst);
        self.0.paused.store(false, SeqCst);
        Ok(())
    }
    fn restart_at(&self, _partition: &TopicPartition, _epoch: Epoch, offset: Option<i64>) -> Result<(), GroupError> {
        self.0.restarts.lock().push(offset);
        Ok(())
    }
    fn watermarks(&self, _partition: &TopicPartition, _timeout: Duration) -> Result<(i64, i64), GroupError> {
        Ok((0, self.0.values.len() as i64))
    }
    fn since_last_poll(&self) -> Duration {
        Duration::ZERO
    }
    fn session_timeout(&self) -> Duration {
        Duration::from_secs(10)
    }
    fn close(&self, _timeout: Duration) -> Result<(), GroupError> {
        self.0.closed.store(true, SeqCst);
        Ok(())
    }
}

/// BigQuery with a will of its own. Rows are counted by their bytes.
pub(super) struct Sink {
    pub rows: Mutex<BTreeMap<Vec<u8>, u32>>,
    pub rng: Mutex<rand_chacha::ChaCha8Rng>,
    pub trouble: bool,
    pub failures: AtomicU64,
    /// So many appends panic.
    pub panics: AtomicU64,
    /// Somebody drops the table's column `s` after so many appends.
    pub drop_after: AtomicU64,
}

impl Sink {
    fn dropped(&self) -> bool {
        self.drop_after.load(SeqCst) == 0
    }
}

impl Appender for Sink {
    fn append(&self, append: Append) -> BoxFuture<'static, Result<(), AppendFailure>> {
        if self.panics.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok() {
            std::panic::panic_any("on purpose");
        }
        let rows: Vec<Vec<u8>> = split_rows(&append.rows).map(|range| append.rows[range].to_vec()).collect();
        assert_eq!(rows.len(), append.row_count as usize, "the count says what the bytes hold");
        let fail = |class, maybe_durable, row_errors| Err(AppendFailure { class, message: "as told".into(), row_errors, maybe_durable });
        let rejected: Vec<RowError> = rows
            .iter()
            .enumerate()
            .filter(|(_, row)| row.windows(6).any(|w| w == b"reject"))
            .map(|(index, _)| RowError { index: index as u32, message: "no".into() })
            .take(2)
            .collect();
        let (dice, delay) = {
            let mut rng = self.rng.lock();
            (rng.random_range(0..100), rng.random_range(0..3))
        };
        let result = if self.dropped() && append.layout.column("s").is_some() {
            self.failures.fetch_add(1, SeqCst);
            fail(ErrorClass::SchemaMismatchExtraFields, false, Vec::new())
        } else if !rejected.is_empty() {
            fail(ErrorClass::RowErrors, false, rejected)
        } else if !self.trouble || dice < 60 {
            let mut landed = self.rows.lock();
            rows.into_iter().for_each(|row| *landed.entry(row).or_default() += 1);
            Ok(())
        } else {
            self.failures.fetch_add(1, SeqCst);
            match dice {
                60..75 => fail(ErrorClass::Transient, false, Vec::new()),
                75..85 => {
                    let mut landed = self.rows.lock();
                    rows.into_iter().for_each(|row| *landed.entry(row).or_default() += 1);
                    fail(ErrorClass::Transient, true, Vec::new())
                }
                // A lone row that is too large is a dead letter: only several may be.
                85..95 if append.row_count > 1 => fail(ErrorClass::RequestTooLarge, false, Vec::new()),
                85..95 => fail(ErrorClass::Transient, false, Vec::new()),
                _ => fail(ErrorClass::PermissionDenied, false, Vec::new()),
            }
        };
        // Never zero by itself: `u64::MAX` stands for never.
        let _ = self.drop_after.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1).filter(|_| left < u64::MAX));
        async move {
            tokio::time::sleep(Duration::from_millis(delay)).await;
            result
        }
        .boxed()
    }
}

/// At least once needs no streams of its own.
#[async_trait]
impl WriteStreams for Sink {
    async fn create(&self, table: &TableName) -> Result<Arc<str>, AppendFailure> {
        panic!("a stream of {table} was created")
    }
    async fn finalize(&self, stream: &str) -> Result<u64, AppendFailure> {
        panic!("{stream} was finalized")
    }
    fn open(&self, stream: &Arc<str>) -> Box<dyn StreamLine> {
        panic!("{stream} was opened")
    }
}

pub(super) struct OneTable(pub Arc<Sink>);

#[async_trait]
impl Tables for OneTable {
    async fn get(&self, _table: &TableName) -> Result<Option<TableState>, TableError> {
        let column = |name: &str, ty| Column { name: name.into(), ty, mode: Mode::Nullable, description: None };
        let mut columns = vec![column("n", ColumnType::Int64), column("s", ColumnType::String(None))];
        columns.retain(|column| column.name != "s" || !self.0.dropped());
        Ok(Some(TableState { columns, etag: "e".into(), creation_time_ms: 1, time_partition: None }))
    }
    async fn ensure(&self, table: &TableName, _spec: &TableSpec, wanted: &[Column]) -> Result<TableState, TableError> {
        let state = self.get(table).await?;
        let mut state = state.ok_or(TableError { cause: HoldCause::TableMissing, message: "none".into(), retry_after: None })?;
        if self.0.dropped() && wanted.iter().any(|column| column.name == "s") {
            return Err(TableError { cause: HoldCause::EvolutionForbidden, message: "no `s`".into(), retry_after: None });
        }
        let missing: Vec<Column> =
            wanted.iter().filter(|column| !state.columns.iter().any(|have| have.name == column.name)).cloned().collect();
        state.columns.extend(missing);
        Ok(state)
    }
    fn changed_recently(&self, _table: &TableName) -> bool {
        false
    }
}

#[derive(Default)]
pub(super) struct Post {
    pub letters: Mutex<Vec<Letter>>,
    pub refuse: AtomicU64,
    /// Nothing is answered meanwhile.
    pub silent: std::sync::atomic::AtomicBool,
}

#[async_trait]
impl LetterBox for Post {
    async fn put(&self, _topic: &str, letter: Letter) -> Result<(), LetterError> {
        while self.silent.load(SeqCst) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if self.refuse.load(SeqCst) > 0 {
            self.refuse.fetch_sub(1, SeqCst);
            return Err(LetterError::Refused("as told".into()));
        }
        self.letters.lock().push(letter);
        Ok(())
    }
}

#[async_trait]
impl Rereader for Post {
    async fn reread(&self, partition: &TopicPartition, offsets: &[i64]) -> Result<Vec<Option<OwnedRecord>>, String> {
        let again = |offset: &i64| OwnedRecord {
            topic: partition.topic.clone(),
            partition: partition.partition,
            offset: *offset,
            timestamp_ms: Some(1),
            key: None,
            value: Some(bytes::Bytes::from_static(b"again")),
            headers: Vec::new(),
        };
        Ok(offsets.iter().map(|offset| Some(again(offset))).collect())
    }
}
