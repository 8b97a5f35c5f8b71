//! A shard with everything around it played: queues, consumer, tables, BigQuery, dead-letter topic. The oracle holds every published head
//! against what was acknowledged.

mod assignments;
mod ends;
mod failures;
mod plan_memory;
mod played;
mod rests;
mod wedges;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rand::SeedableRng;

use self::played::{Control, Log, LogQueue, OneTable, Post, Sink};
use super::dead_letters::DeadLetters;
use super::events::{ShardEvent, ShardHandle};
use super::exact::ExactParts;
use super::fence::Fence;
use super::letter::Letter;
use super::plans::PlanMaker;
use super::progress::PartitionProgress;
use super::route::TableRoutes;
use super::shard::{Shard, ShardParts};
use super::trouble::Trouble;
use super::worker::WorkerShared;
use super::writers::{WriterParts, Writers};
use crate::bigquery::TableSpec;
use crate::config::{ConnectorConfig, Evolve};
use crate::decode::DecodeOptions;
use crate::flow::{Budget, Tasks};
use crate::kafka::{Assigned, Epoch, StartOffset};
use crate::record::TopicPartition;
use crate::telemetry::exact::ExactMetrics;
use crate::telemetry::metrics::ConnectorMetrics;

/// What has not come about by then does not come: far longer than a busy machine takes.
const STUCK_AFTER: Duration = Duration::from_secs(120);

struct Stage {
    shard: Shard,
    events: tokio::sync::mpsc::Receiver<ShardEvent>,
    log: Arc<Log>,
    sink: Arc<Sink>,
    post: Arc<Post>,
    progress: Arc<PartitionProgress>,
    budget: Arc<Budget>,
    trouble: Arc<Trouble>,
}

fn stage(runtime: &tokio::runtime::Handle, values: Vec<Option<Vec<u8>>>, trouble: bool, seed: u64) -> Stage {
    limited_stage(runtime, values, trouble, seed, None)
}

fn limited_stage(
    runtime: &tokio::runtime::Handle,
    values: Vec<Option<Vec<u8>>>,
    trouble: bool,
    seed: u64,
    records_per_s: Option<u64>,
) -> Stage {
    sized_stage(runtime, values, trouble, seed, records_per_s, 64 * 1024 * 1024)
}

fn sized_stage(
    runtime: &tokio::runtime::Handle,
    values: Vec<Option<Vec<u8>>>,
    trouble: bool,
    seed: u64,
    records_per_s: Option<u64>,
    memory_bytes: u64,
) -> Stage {
    let toml = r#"
        topics = ["t"]
        [value]
        format = "json"
        [table]
        name = "d.t"
        metadata = ["headers"]
        [delivery]
        linger = "2ms"
        batch_rows = 7
    "#;
    let mut config: ConnectorConfig = toml::from_str(toml).expect("a connector");
    config.name = "c".into();
    let config = Arc::new(config);
    let log = Arc::new(Log {
        values,
        position: AtomicI64::new(0),
        paused: false.into(),
        restarts: Mutex::default(),
        event: Mutex::default(),
        stopped: false.into(),
        closed: false.into(),
        panics: Mutex::default(),
    });
    let sink = Arc::new(Sink {
        rows: Mutex::default(),
        rng: Mutex::new(rand_chacha::ChaCha8Rng::seed_from_u64(seed)),
        trouble,
        failures: AtomicU64::new(0),
        panics: AtomicU64::new(0),
        drop_after: AtomicU64::new(u64::MAX),
    });
    let post = Arc::new(Post::default());
    let budget = Budget::new(memory_bytes);
    let worker = WorkerShared::new(budget.clone(), runtime.clone(), false).limited_to(records_per_s, Instant::now());
    let worker = Arc::new(worker);
    let tasks: Arc<dyn Tasks> = worker.tasks.clone();
    let metrics = Arc::new(ConnectorMetrics::new("c"));
    let spec = TableSpec { create: false, partition: None, cluster: Vec::new(), evolve: Evolve::Add };
    let trouble = Arc::new(Trouble::default());
    let dead_letters = Arc::new(DeadLetters {
        connector: "c".into(),
        policy: config.errors.bad_records,
        topic: "c.dead".into(),
        truncate_oversized: false,
        letters: post.clone(),
        rereader: post.clone(),
        metrics: metrics.clone(),
        counts: Arc::default(),
        tasks: tasks.clone(),
        trouble: trouble.clone(),
        rejects: super::rejected::places(),
    });
    let fence = Arc::new(Fence::new(tasks.clone()));
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
            tables: Arc::new(OneTable(sink.clone())),
            spec: spec.clone(),
            fence: fence.clone(),
            dead_letters: dead_letters.clone(),
            tasks: tasks.clone(),
            freshness: Arc::default(),
            metrics: metrics.clone(),
            exact: Arc::new(ExactParts {
                guarantee: config.delivery.guarantee,
                on_lost: config.delivery.on_lost_stream,
                streams: sink.clone(),
                bell: Arc::default(),
                metrics: Arc::new(ExactMetrics::new("c")),
            }),
            trouble: trouble.clone(),
        })),
        plans: Arc::new(PlanMaker {
            schemas: None,
            tables: Arc::new(OneTable(sink.clone())),
            spec,
            options: DecodeOptions::new(&config, false).expect("options"),
            tasks: tasks.clone(),
        }),
        bad_records: dead_letters.start(),
        dead_letters,
        fence,
        trouble: trouble.clone(),
        metrics,
        tasks,
    });
    let partition = TopicPartition::new("t", 0);
    let progress = Arc::new(PartitionProgress::new(partition, Epoch(1), StartOffset::Committed(0)));
    Stage { shard, events, log, sink, post, progress, budget, trouble }
}

impl Stage {
    fn assign(&mut self) {
        let assigned = Assigned {
            partition: self.progress.partition.clone(),
            epoch: self.progress.epoch,
            start: StartOffset::Committed(0),
            metadata: None,
            queue: Box::new(LogQueue(self.log.clone())),
        };
        let event = ShardEvent::Assigned(vec![(assigned, self.progress.clone())]);
        assert!(self.shard.handle(event, Instant::now()));
    }

    /// One turn of the shard's thread, without its sleep. Returns how many records were taken.
    fn turn(&mut self) -> u64 {
        let now = Instant::now();
        while let Ok(event) = self.events.try_recv() {
            assert!(self.shard.handle(event, now));
        }
        let records = self.shard.take_turn(now);
        self.shard.tick(Instant::now());
        records
    }

    /// Turns until the head is at the end. The check runs on every turn.
    fn run(&mut self, mut check: impl FnMut(&Self, i64)) {
        let end = self.log.values.len() as i64;
        let started = Instant::now();
        loop {
            self.turn();
            let head = self.progress.head().unwrap_or(0);
            check(self, head);
            if head == end {
                return;
            }
            assert!(started.elapsed() < STUCK_AFTER, "stuck at {head} of {end}: {:?}", self.progress.hold());
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

/// Everything fine lands, everything bad is a dead letter, under lost answers, refusals, splits, holds and rewinds; and no head ever passes
/// a record that is neither.
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
    while budget.used() > 0 && started.elapsed() < STUCK_AFTER {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(budget.used(), 0, "leases that nobody gave back");
}

/// With `max_records_per_s`, records come at that rate, and the share of it that was used is known.
#[test]
fn a_limit_of_records_a_second_holds() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let (count, limit) = (2000, 2000);
    let mut stage = limited_stage(runtime.handle(), (0..count).map(value).collect(), false, 1, Some(limit));
    stage.assign();
    let started = Instant::now();
    stage.run(|_, _| {});
    // 128 records, one take, and 100 ms of credit come sooner.
    assert!(started.elapsed() > Duration::from_millis(800), "{count} records in {:?}", started.elapsed());
    let busy = stage.shard.parts.worker.pace.as_ref().map(crate::flow::Pace::busy);
    assert!(busy.is_some_and(|busy| busy >= Duration::from_secs(1)), "{count} records last a second at {limit}/s: {busy:?}");
}

fn text(row: &[u8]) -> &[u8] {
    let start = row.windows(5).position(|w| w == b"fine " || w == b"rejec").unwrap_or(0);
    &row[start..]
}

fn header(letter: &Letter, name: &str) -> String {
    let value = letter.headers.iter().find(|(n, _)| n == name).and_then(|(_, v)| v.clone()).unwrap_or_default();
    String::from_utf8_lossy(&value).into_owned()
}
