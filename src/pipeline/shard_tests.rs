//! A shard with everything around it played: queues, consumer, tables, BigQuery, dead-letter topic. The oracle holds every published head against
//! what was acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::SeqCst};
use std::thread::Thread;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rand::{Rng, SeedableRng};

use super::dead_letters::{DeadLetters, Letter, LetterBox, LetterError, Rereader};
use super::events::{ShardEvent, ShardHandle};
use super::fence::Fence;
use super::plans::PlanMaker;
use super::progress::PartitionProgress;
use super::route::TableRoutes;
use super::shard::{Shard, ShardParts};
use super::worker::WorkerShared;
use super::writers::{WriterParts, Writers};
use crate::bigquery::{Append, AppendFailure, Appender, ErrorClass, RowError, TableError, TableSpec, TableState, Tables};
use crate::config::{ConnectorConfig, Evolve};
use crate::decode::{DecodeOptions, split_rows};
use crate::flow::{Budget, Clock, HoldCause, SystemClock};
use crate::kafka::{Assigned, Epoch, Flow, GroupControl, GroupError, NextOffset, PartitionQueue, StartOffset, Taken};
use crate::record::{NoHeaders, OwnedRecord, Record, TopicPartition};
use crate::table::{Column, ColumnType, Mode, TableName};
use crate::telemetry::metrics::ConnectorMetrics;

/// A partition's log: value by offset, and where the consumer stands.
struct Log {
    values: Vec<Option<Vec<u8>>>,
    position: AtomicI64,
    paused: std::sync::atomic::AtomicBool,
}

struct LogQueue(Arc<Log>);

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
                headers: &NoHeaders,
            };
            if on_record(&record) == Flow::Yield {
                break;
            }
        }
        taken
    }
    fn wake_on_data(&mut self, _thread: Thread) {}
}

struct Control(Arc<Log>);

impl GroupControl for Control {
    fn commit(&self, _offsets: &[NextOffset], _timeout: Duration) -> Result<Vec<(TopicPartition, GroupError)>, GroupError> {
        Ok(Vec::new())
    }
    fn pause(&self, _partition: &TopicPartition) -> Result<(), GroupError> {
        self.0.paused.store(true, SeqCst);
        Ok(())
    }
    fn seek_and_resume(&self, _partition: &TopicPartition, offset: i64, _timeout: Duration) -> Result<(), GroupError> {
        self.0.position.store(offset, SeqCst);
        self.0.paused.store(false, SeqCst);
        Ok(())
    }
    fn restart_at(&self, _partition: &TopicPartition, _offset: Option<i64>) -> Result<(), GroupError> {
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
        Ok(())
    }
}

/// BigQuery with a will of its own. Rows are counted by their bytes.
struct Sink {
    rows: Mutex<BTreeMap<Vec<u8>, u32>>,
    rng: Mutex<rand_chacha::ChaCha8Rng>,
    trouble: bool,
    failures: AtomicU64,
}

impl Appender for Sink {
    fn append(&self, append: Append) -> BoxFuture<'static, Result<(), AppendFailure>> {
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
        let result = if !rejected.is_empty() {
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
        async move {
            tokio::time::sleep(Duration::from_millis(delay)).await;
            result
        }
        .boxed()
    }
}

struct OneTable;

#[async_trait]
impl Tables for OneTable {
    async fn get(&self, _table: &TableName) -> Result<Option<TableState>, TableError> {
        let column = |name: &str, ty| Column { name: name.into(), ty, mode: Mode::Nullable, description: None };
        Ok(Some(TableState {
            columns: vec![column("n", ColumnType::Int64), column("s", ColumnType::String(None))],
            etag: "e".into(),
            creation_time_ms: 1,
            time_partition: None,
        }))
    }
    async fn ensure(&self, table: &TableName, _spec: &TableSpec, _wanted: &[Column]) -> Result<TableState, TableError> {
        self.get(table).await?.ok_or(TableError { cause: HoldCause::TableMissing, message: "none".into(), retry_after: None })
    }
    fn changed_recently(&self, _table: &TableName) -> bool {
        false
    }
}

#[derive(Default)]
struct Post {
    letters: Mutex<Vec<Letter>>,
    refuse: AtomicU64,
}

#[async_trait]
impl LetterBox for Post {
    async fn put(&self, _topic: &str, letter: Letter) -> Result<(), LetterError> {
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

struct Stage {
    shard: Shard,
    events: tokio::sync::mpsc::Receiver<ShardEvent>,
    log: Arc<Log>,
    sink: Arc<Sink>,
    post: Arc<Post>,
    progress: Arc<PartitionProgress>,
    budget: Arc<Budget>,
}

fn stage(runtime: &tokio::runtime::Handle, values: Vec<Option<Vec<u8>>>, trouble: bool, seed: u64) -> Stage {
    let toml = r#"
        topics = ["t"]
        [value]
        format = "json"
        [table]
        name = "d.t"
        [delivery]
        linger = "2ms"
        batch_rows = 7
    "#;
    let mut config: ConnectorConfig = toml::from_str(toml).expect("a connector");
    config.name = "c".into();
    let config = Arc::new(config);
    let log = Arc::new(Log { values, position: AtomicI64::new(0), paused: false.into() });
    let sink = Arc::new(Sink {
        rows: Mutex::default(),
        rng: Mutex::new(rand_chacha::ChaCha8Rng::seed_from_u64(seed)),
        trouble,
        failures: AtomicU64::new(0),
    });
    let post = Arc::new(Post::default());
    let budget = Budget::new(64 * 1024 * 1024);
    let worker = Arc::new(WorkerShared::new(budget.clone(), runtime.clone(), false));
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let metrics = Arc::new(ConnectorMetrics::new("c"));
    let spec = TableSpec { create: false, partition: None, cluster: Vec::new(), evolve: Evolve::Add };
    let dead_letters = Arc::new(DeadLetters {
        connector: "c".into(),
        policy: config.errors.bad_records,
        topic: "c.dead".into(),
        truncate_oversized: false,
        letters: post.clone(),
        rereader: post.clone(),
        metrics: metrics.clone(),
        counts: Arc::default(),
        clock: clock.clone(),
    });
    let fence = Arc::new(Fence::new());
    let (handle, events) = ShardHandle::new();
    let shard = Shard::new(ShardParts {
        config: config.clone(),
        handle,
        worker: worker.clone(),
        control: Arc::new(Control(log.clone())),
        routes: Arc::new(TableRoutes::new(&config.table, "p")),
        writers: Arc::new(Writers::new(WriterParts {
            connector: "c".into(),
            appender: sink.clone(),
            tables: Arc::new(OneTable),
            spec: spec.clone(),
            fence: fence.clone(),
            dead_letters: dead_letters.clone(),
            clock: clock.clone(),
            freshness: Arc::default(),
            metrics: metrics.clone(),
            runtime: runtime.clone(),
        })),
        plans: Arc::new(PlanMaker {
            schemas: None,
            tables: Arc::new(OneTable),
            spec,
            options: DecodeOptions::new(&config, false).expect("options"),
            runtime: runtime.clone(),
        }),
        dead_letters: dead_letters.start(runtime),
        counts: dead_letters.counts.clone(),
        fence,
        metrics,
        clock,
    });
    let partition = TopicPartition::new("t", 0);
    let progress = Arc::new(PartitionProgress::new(partition, Epoch(1), Some(0)));
    Stage { shard, events, log, sink, post, progress, budget }
}

impl Stage {
    fn assign(&mut self) {
        let assigned = Assigned {
            partition: self.progress.partition.clone(),
            epoch: self.progress.epoch,
            start: StartOffset::Committed(0),
            queue: Box::new(LogQueue(self.log.clone())),
        };
        let event = ShardEvent::Assigned(vec![(assigned, self.progress.clone())]);
        assert!(self.shard.handle(event, Instant::now()));
    }

    /// Turns until the head is at the end. The check runs on every turn.
    fn run(&mut self, mut check: impl FnMut(&Self, i64)) {
        let end = self.log.values.len() as i64;
        let started = Instant::now();
        loop {
            let now = Instant::now();
            while let Ok(event) = self.events.try_recv() {
                assert!(self.shard.handle(event, now));
            }
            self.shard.take_turn(now);
            self.shard.tick(Instant::now());
            let head = self.progress.head().unwrap_or(0);
            check(self, head);
            if head == end {
                return;
            }
            assert!(started.elapsed() < Duration::from_secs(60), "stuck at {head} of {end}: {:?}", self.progress.hold());
            std::thread::sleep(Duration::from_micros(300));
        }
    }
}

fn value(n: usize) -> Option<Vec<u8>> {
    match n % 23 {
        5 => None,
        11 => Some(b"{ not json".to_vec()),
        17 => Some(format!("{{\"n\": {n}, \"s\": \"reject {n}\"}}").into_bytes()),
        _ => Some(format!("{{\"n\": {n}, \"s\": \"fine {n}\"}}").into_bytes()),
    }
}

fn is_fine(n: usize) -> bool {
    !matches!(n % 23, 5 | 11 | 17)
}

/// Everything fine lands, everything bad is a dead letter, under lost answers, refusals, splits, holds and rewinds; and no head ever passes a
/// record that is neither.
#[test]
fn no_head_passes_what_is_not_durable() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    for seed in 0..4 {
        let count = 400;
        let mut stage = stage(runtime.handle(), (0..count).map(value).collect(), true, seed);
        stage.post.refuse.store(3, SeqCst);
        stage.assign();
        let needle = |n: usize| format!("fine {n}").into_bytes();
        stage.run(|stage, head| {
            let landed = stage.sink.rows.lock();
            let have: BTreeSet<&[u8]> = landed.keys().map(|row| text(row)).collect();
            for n in 0..head as usize {
                assert!(!is_fine(n) || have.contains(needle(n).as_slice()), "seed {seed}: head {head} passed {n}, which is not durable");
            }
        });
        let landed = stage.sink.rows.lock();
        assert_eq!(landed.len(), (0..count).filter(|n| is_fine(*n)).count(), "seed {seed}");
        assert!(stage.sink.failures.load(SeqCst) > 0, "seed {seed}: nothing failed, nothing was shown");
        let dead: BTreeSet<String> = stage.post.letters.lock().iter().map(|letter| header(letter, "__connect.errors.offset")).collect();
        let expected: BTreeSet<String> = (0..count).filter(|n| matches!(n % 23, 11 | 17)).map(|n| n.to_string()).collect();
        assert_eq!(dead, expected, "seed {seed}");
        drop(landed);
        drop(stage.shard);
    }
}

/// Without trouble nothing comes twice, and the memory is given back.
#[test]
fn without_trouble_nothing_comes_twice() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let mut stage = stage(runtime.handle(), (0..2000).map(value).collect(), false, 1);
    stage.assign();
    stage.run(|_, _| {});
    assert!(stage.sink.rows.lock().values().all(|copies| *copies == 1));
    assert_eq!(stage.sink.rows.lock().len(), (0..2000).filter(|n| is_fine(*n)).count());
    let (shard, budget) = (stage.shard, stage.budget);
    drop(shard);
    let started = Instant::now();
    while budget.used() > 0 && started.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(budget.used(), 0, "leases that nobody gave back");
}

/// A revocation answers with a head below which everything is durable, and late answers of the old epoch move nothing.
#[test]
fn a_revocation_drains_and_the_next_epoch_starts_clean() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let mut stage = stage(runtime.handle(), (0..500).map(value).collect(), false, 2);
    stage.assign();
    let started = Instant::now();
    while stage.progress.head().unwrap_or(0) < 50 {
        let now = Instant::now();
        while let Ok(event) = stage.events.try_recv() {
            stage.shard.handle(event, now);
        }
        stage.shard.take_turn(now);
        stage.shard.tick(Instant::now());
        assert!(started.elapsed() < Duration::from_secs(20));
    }
    let (reply, answer) = std::sync::mpsc::sync_channel(1);
    let partitions = vec![stage.progress.partition.clone()];
    stage.shard.handle(ShardEvent::Revoke { partitions, deadline: Instant::now() + Duration::from_secs(5), reply }, Instant::now());
    let heads = loop {
        let now = Instant::now();
        while let Ok(event) = stage.events.try_recv() {
            stage.shard.handle(event, now);
        }
        assert_eq!(stage.shard.take_turn(now), 0, "a partition that goes takes nothing");
        stage.shard.tick(Instant::now());
        if let Ok(heads) = answer.try_recv() {
            break heads;
        }
        assert!(started.elapsed() < Duration::from_secs(20));
    };
    let head = heads.first().expect("a head").offset;
    assert_eq!(head, stage.log.position.load(SeqCst), "drained: everything taken is finished");
    stage.progress = Arc::new(PartitionProgress::new(stage.progress.partition.clone(), Epoch(2), Some(head)));
    stage.assign();
    stage.run(|_, _| {});
    assert!(stage.sink.rows.lock().values().all(|copies| *copies == 1), "a clean handover doubles nothing");
}

fn text(row: &[u8]) -> &[u8] {
    let start = row.windows(5).position(|w| w == b"fine " || w == b"rejec").unwrap_or(0);
    &row[start..]
}

fn header(letter: &Letter, name: &str) -> String {
    let value = letter.headers.iter().find(|(n, _)| n == name).and_then(|(_, v)| v.clone()).unwrap_or_default();
    String::from_utf8_lossy(&value).into_owned()
}
