//! A worker's share of the pipeline with one partition, driven turn by turn: it can stand still at any step, die there, or wake later.

use std::sync::Arc;
use std::task::Waker;
use std::thread::Thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::world::{Reach, World};
use crate::config::{ConnectorConfig, FleetConfig};
use crate::flow::{Budget, Clock, Tasks, TokioTasks};
use crate::kafka::{Assigned, Epoch, Flow, GroupControl, GroupListener, PartitionQueue, StartOffset, Taken};
use crate::pipeline::WorkerShared;
use crate::pipeline::assembly::{Assembly, AssemblyParts, ConnectorWorld};
use crate::pipeline::committer::CommitterParts;
use crate::pipeline::shard_thread::ShardLoop;
use crate::record::{Headers, Record, TopicPartition};

/// Time in which waits are a fiftieth as long.
struct Quick(TokioTasks);

impl Clock for Quick {
    fn now_monotonic(&self) -> Duration {
        self.0.now_monotonic()
    }
    fn now_wall_us(&self) -> i64 {
        self.0.now_wall_us()
    }
}

impl Tasks for Quick {
    fn now(&self) -> Instant {
        self.0.now()
    }
    fn sleep(&self, span: Duration) -> futures::future::BoxFuture<'static, ()> {
        self.0.sleep(span / 50)
    }
    fn spawn(&self, work: futures::future::BoxFuture<'static, ()>) {
        self.0.spawn(work);
    }
    fn spawn_blocking(&self, work: Box<dyn FnOnce() + Send>) {
        work();
    }
    fn random(&self) -> u64 {
        7
    }
}

struct Queue(Reach);

struct NoHeaders;

impl Headers for NoHeaders {
    fn last(&self, _name: &str) -> Option<Option<&[u8]>> {
        None
    }
    fn each(&self, _visit: &mut dyn FnMut(&str, Option<&[u8]>)) {}
}

impl PartitionQueue for Queue {
    fn take(&mut self, on_record: &mut dyn FnMut(&Record<'_>) -> Flow) -> Taken {
        let mut taken = Taken::default();
        loop {
            let offset = {
                let mut position = self.0.position.lock();
                let (offset, paused) = *position;
                if paused || offset as usize >= self.0.world.values.len() {
                    return taken;
                }
                position.0 += 1;
                offset
            };
            taken.records += 1;
            let value = self.0.world.values[offset as usize].as_deref();
            let record = Record { topic: "t", partition: 0, offset, timestamp_ms: Some(1), key: None, value, headers: &NoHeaders };
            if on_record(&record) == Flow::Yield {
                return taken;
            }
        }
    }
    fn waiting(&self) -> usize {
        0
    }
    fn wake_on_data(&mut self, _thread: Thread) {}
}

pub struct Owner {
    pub number: u64,
    runtime: tokio::runtime::Runtime,
    assembly: Assembly,
    shards: Vec<ShardLoop>,
    committer: CommitterParts,
    world: Arc<World>,
    partition: TopicPartition,
}

pub const EXACT: &str = "guarantee = \"exactly-once\"";

impl Owner {
    /// The group's next generation: this owner has the partition, and nobody else may commit any more.
    pub fn start(world: &Arc<World>, delivery: &str) -> Self {
        let committed = world.state.lock().committed.as_ref().map_or(0, |committed| committed.0);
        Self::start_at(world, delivery, StartOffset::Committed(committed))
    }

    /// Begins elsewhere than where the group is.
    pub fn start_at(world: &Arc<World>, delivery: &str, start: StartOffset) -> Self {
        let (generation, committed) = {
            let mut state = world.state.lock();
            state.generation += 1;
            (state.generation, state.committed.clone())
        };
        let metadata = committed.and_then(|committed| committed.1);
        let offset = match start {
            StartOffset::Committed(offset) | StartOffset::Latest(offset) | StartOffset::Asked(offset) => offset,
            StartOffset::Earliest => 0,
        };
        let reach = Reach { world: world.clone(), owner: generation, generation, position: Arc::new(Mutex::new((offset, false))) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let toml = format!(
            "topics = [\"t\"]\n[value]\nformat = \"json\"\n[table]\nname = \"d.t\"\n[delivery]\nlinger = \"1ms\"\nbatch_rows = 5\n{delivery}"
        );
        let mut config: ConnectorConfig = toml::from_str(&toml).unwrap();
        config.name = "c".into();
        let fleet: FleetConfig = serde_json::from_value(serde_json::json!({
            "kafka": { "bootstrap.servers": "nowhere" },
            "bigquery": { "project": "p", "credentials": "none" },
        }))
        .unwrap();
        let tasks = Arc::new(Quick(TokioTasks::new(runtime.handle().clone())));
        let control: Arc<dyn GroupControl> = Arc::new(reach.clone());
        let around = ConnectorWorld {
            config: Arc::new(config),
            fleet: Arc::new(fleet),
            schemas: None,
            tables: Arc::new(reach.clone()),
            appender: Arc::new(reach.clone()),
            streams: Arc::new(reach.clone()),
            worker: Arc::new(WorkerShared::with_tasks(Budget::new(64 << 20), tasks, false)),
        };
        let mut assembly =
            Assembly::new(AssemblyParts { world: around, letters: Arc::new(reach.clone()), rereader: Arc::new(reach.clone()) }).unwrap();
        let (shards, committer) = assembly.join(&control);
        for shard in &shards {
            shard.set_waker(Waker::noop().clone());
        }
        let partition = TopicPartition::new("t", 0);
        assembly.listener.assigned(vec![Assigned {
            partition: partition.clone(),
            epoch: Epoch(1),
            start,
            metadata,
            queue: Box::new(Queue(reach)),
        }]);
        Self { number: generation, runtime, assembly, shards, committer, world: world.clone(), partition }
    }

    /// One turn of everything.
    pub fn turn(&mut self) {
        self.turn_with(true);
    }

    /// Turns, with the committer or without, until something has come.
    pub fn turn_until(&mut self, commits: bool, what: &str, done: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !done(self) {
            self.turn_with(commits);
            assert!(began.elapsed() < Duration::from_secs(20), "not {what}: {:?}", self.hold());
        }
    }

    fn turn_with(&mut self, commits: bool) {
        for shard in &mut self.shards {
            shard.turn();
        }
        if commits {
            self.committer.turn();
        }
        self.runtime.block_on(async {
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
            tokio::time::sleep(Duration::from_micros(50)).await;
        });
    }

    /// Turns until everything is committed, or the owner stands still. Panics when neither comes.
    pub fn run(&mut self) -> bool {
        let began = Instant::now();
        let end = self.world.values.len() as i64;
        loop {
            if self.world.is_stopped(self.number) {
                return false;
            }
            if self.world.state.lock().committed.as_ref().is_some_and(|(offset, _)| *offset == end) {
                return true;
            }
            self.turn();
            let state = || (self.hold(), self.assembly.failure(), self.world.state.lock().committed.clone());
            assert!(began.elapsed() < Duration::from_secs(20), "stuck: {:?}; {:?}", state(), self.world.state.lock().steps);
        }
    }

    /// So many turns. Whether everything is committed then.
    pub fn run_some(&mut self, turns: u32) -> bool {
        (0..turns).for_each(|_| self.turn());
        self.world.state.lock().committed.as_ref().is_some_and(|(offset, _)| *offset == self.world.values.len() as i64)
    }

    /// Turns until the partition holds with this cause; its words.
    pub fn run_until_held(&mut self, cause: &str) -> String {
        let began = Instant::now();
        loop {
            if let Some((held, message)) = self.hold()
                && held == cause
            {
                return message;
            }
            self.turn();
            assert!(began.elapsed() < Duration::from_secs(20), "no hold: {:?}", self.hold());
        }
    }

    /// Whether something announced is not committed yet.
    pub fn announces(&self) -> bool {
        self.assembly.ownership.snapshot().iter().any(|progress| progress.published.is_wanted())
    }

    /// What it says that the group has.
    pub fn claims(&self) -> Option<i64> {
        self.assembly.ownership.snapshot().first().and_then(|progress| progress.committed())
    }

    pub fn hold(&self) -> Option<(&'static str, String)> {
        let owned = self.assembly.ownership.snapshot();
        owned.first().and_then(|progress| progress.hold()).map(|hold| (hold.cause.as_str(), hold.message))
    }

    /// A clean revocation, with its commit.
    pub fn give_back(mut self) {
        let partitions = [self.partition.clone()];
        let mut asked = self.assembly.listener.begin_revoking(&partitions);
        while !asked.is_over(Instant::now()) {
            self.turn();
        }
        let heads = self.assembly.listener.end_revoking(&partitions, asked);
        assert_eq!(heads.len(), 1);
        let _ = self.committer.control.commit(&heads, Duration::from_secs(1));
    }
}
