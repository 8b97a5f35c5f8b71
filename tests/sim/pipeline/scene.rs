//! The scene: topic, group, BigQuery, dead-letter topic, and the processes that run production's code between them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use millrace::bigquery::tables_over;
use millrace::config::{BadRecords, ConnectorConfig, FleetConfig, HumanDuration, OnLostRange, OnLostStream};
use millrace::flow::{Budget, BudgetKind, Tasks};
use millrace::kafka::GroupControl;
use millrace::pipeline::{Assembly, AssemblyParts, ConnectorWorld, WorkerShared};
use parking_lot::Mutex;
use rand::Rng;

use super::bigquery::Client;
use super::consumer::Consumer;
use super::group::{Group, SESSION};
use super::letters::{Post, Topic};
use super::log::{Log, Registry};
use super::mutants::Mutant;
use super::oracle::Oracle;
use super::run::FAULTS;
use super::settings::Settings;
use super::tasks::MachineTasks;
use super::threads::{commit, turn};
use super::warehouse::Warehouse;
use crate::world::{MachineId, World};

/// A process: it runs on a machine of its own, and whatever starts after it is another one.
pub type ProcessId = MachineId;
/// For how long after a change write servers may not know it; they know it sooner in this world.
const VISIBILITY_DELAY: Duration = Duration::from_secs(15);
/// How long a process may take to stop before it is killed.
const GRACE: Duration = Duration::from_secs(12);
/// How often the user looks whether a partition waits for him.
const LOOK_EVERY: Duration = Duration::from_secs(4);
/// What a process may take: more than it ever needs here, hardly enough, or less than its plans take alone.
const MEMORY: u64 = 64 << 20;
const MEMORY_SHORT: [u64; 4] = [300, 1 << 10, 4 << 10, 20 << 10];

/// A running process.
pub struct Process {
    pub budget: Arc<Budget>,
    consumer: Arc<Consumer>,
    stopping: Arc<AtomicBool>,
    assembly: Arc<Assembly>,
}

/// Everything, shared.
#[derive(Clone)]
pub struct Scene {
    pub world: World,
    pub log: Arc<Log>,
    pub oracle: Arc<Oracle>,
    pub group: Arc<Group>,
    pub warehouse: Arc<Warehouse>,
    pub letters: Arc<Topic>,
    pub registry: Arc<Registry>,
    pub fleet: Arc<Mutex<BTreeMap<ProcessId, Process>>>,
    pub mutant: Mutant,
    /// How often a process stands still right before rows leave it.
    pub pause_share: f64,
    /// The user's files.
    pub settings: Arc<Mutex<Settings>>,
    /// When the last process that stands still goes on.
    pub frozen_until: Arc<Mutex<Duration>>,
}

impl Scene {
    /// A scene of this seed without processes.
    pub fn new(world: World, records_until: Duration, mutant: Mutant) -> Self {
        let partitions = world.draw(|random| random.random_range(1..5));
        let log = Arc::new(Log::draw(&world, partitions, records_until));
        let settings = Arc::new(Mutex::new(Settings::draw(&world)));
        let oracle = Oracle::new(&world, &log);
        let pause_share = world.draw(|random| if random.random_bool(0.5) { 0.02 } else { 0.0 });
        Self {
            group: Group::new(&world, &oracle, log.partitions()),
            warehouse: Arc::new(Warehouse::new(&world)),
            letters: Arc::default(),
            registry: Arc::new(Registry::new(&world)),
            fleet: Arc::default(),
            oracle,
            log,
            world,
            mutant,
            pause_share,
            settings,
            frozen_until: Arc::default(),
        }
    }

    /// Starts a process.
    pub fn start(&self) {
        let wall_offset_us = self.world.draw(|random| random.random_range(-5_000_000..5_000_000));
        let process = self.world.machine(1.0, wall_offset_us);
        let tasks: Arc<dyn Tasks> = Arc::new(MachineTasks::new(&self.world, process, wall_offset_us));
        let client = Arc::new(Client::new(self, process));
        let settings = *self.settings.lock();
        self.oracle.starts(process, settings);
        let (connector, fleet) = self.files(settings);
        let budget =
            Budget::new(self.world.draw(|random| if random.random_bool(0.3) { MEMORY_SHORT[random.random_range(0..4)] } else { MEMORY }));
        let around = ConnectorWorld {
            config: Arc::new(connector),
            fleet: Arc::new(fleet),
            schemas: Some(self.registry.clone()),
            tables: tables_over(client.clone(), tasks.clone(), VISIBILITY_DELAY),
            appender: client.clone(),
            streams: client,
            worker: Arc::new(WorkerShared::with_tasks(budget.clone(), tasks.clone(), false)),
        };
        let post = Arc::new(Post { scene: self.clone(), process });
        let mut assembly = Assembly::new(AssemblyParts { world: around, letters: post.clone(), rereader: post }).expect("a connector");
        let consumer = Consumer::new(self, process, &tasks);
        let control: Arc<dyn GroupControl> = consumer.clone();
        let (shards, committer) = assembly.join(&control);
        let stopping = Arc::new(AtomicBool::new(false));
        let mut ends = Vec::new();
        for shard in shards {
            let (ended, end) = tokio::sync::oneshot::channel::<()>();
            ends.push(end);
            let (tasks, stopping) = (tasks.clone(), stopping.clone());
            let (oracle, budget) = (self.oracle.clone(), budget.clone());
            let looked = move || {
                let plans_large = budget.used_by(BudgetKind::Plans) >= budget.limit_bytes();
                if budget.over_limit() || plans_large {
                    oracle.see(|seen| {
                        seen.full += u64::from(budget.over_limit());
                        seen.plans_large += u64::from(plans_large);
                    });
                }
            };
            self.world.spawn(process, async move {
                turn(shard, tasks, stopping, looked).await;
                drop(ended);
            });
        }
        self.world.spawn(process, commit(committer, tasks.clone(), stopping.clone()));
        self.world.spawn(process, consumer.clone().beat());
        self.world.spawn(process, consumer.clone().poll(assembly.listener.clone()));
        self.world.note(|| format!("process {process} starts: {settings:?}, {} bytes", budget.limit_bytes()));
        self.fleet.lock().insert(process, Process { budget, consumer, stopping, assembly: Arc::new(assembly) });
    }

    fn files(&self, settings: Settings) -> (ConnectorConfig, FleetConfig) {
        static FILES: OnceLock<(ConnectorConfig, FleetConfig)> = OnceLock::new();
        let (mut connector, mut fleet) = FILES.get_or_init(parse).clone();
        self.world.draw(|random| {
            connector.delivery.linger = HumanDuration::from_millis(random.random_range(5..250));
            connector.delivery.batch_rows = random.random_range(2..12);
            fleet.worker.shards = random.random_range(1..3);
        });
        connector.delivery.guarantee = settings.guarantee;
        connector.delivery.on_lost_stream = settings.on_lost_stream;
        connector.on_lost_range = settings.on_lost_range;
        connector.errors.bad_records = settings.bad_records;
        match self.mutant {
            Mutant::AlwaysSkips => connector.errors.bad_records = BadRecords::Skip,
            Mutant::AlwaysContinues => connector.on_lost_range = OnLostRange::Continue,
            Mutant::AlwaysReplays => connector.delivery.on_lost_stream = OnLostStream::AtLeastOnce,
            _ => {}
        }
        (connector, fleet)
    }

    /// The processes that run.
    pub fn running(&self) -> Vec<ProcessId> {
        self.fleet.lock().keys().copied().collect()
    }

    /// SIGKILL.
    pub fn kill(&self, process: ProcessId) {
        if self.fleet.lock().remove(&process).is_some() {
            self.world.note(|| format!("process {process} is killed"));
            self.oracle.see(|seen| seen.crashes += 1);
            self.oracle.ended(process);
            self.world.destroy(process);
        }
    }

    /// SIGTERM; SIGKILL when it takes too long.
    pub fn stop(&self, process: ProcessId) {
        if let Some(running) = self.fleet.lock().get(&process) {
            self.world.note(|| format!("process {process} is to stop"));
            running.consumer.close();
            self.look_whether_stopped(process, self.world.now() + GRACE);
        }
    }

    fn look_whether_stopped(&self, process: ProcessId, kill_at: Duration) {
        let scene = self.clone();
        self.world.after(Duration::from_millis(100), move |world| {
            let closed = scene.fleet.lock().get(&process).map(|running| (running.consumer.is_closed(), running.stopping.clone()));
            match closed {
                None => {}
                Some((true, stopping)) => {
                    stopping.store(true, SeqCst);
                    scene.fleet.lock().remove(&process);
                    scene.oracle.see(|seen| seen.stops += 1);
                    world.note(|| format!("process {process} has left"));
                    // Its shards end in their next turns; then it is gone: what is still on its way nobody counts any more.
                    let oracle = scene.oracle.clone();
                    world.after(Duration::from_millis(200), move |world| {
                        oracle.ended(process);
                        world.destroy(process);
                    });
                }
                Some((false, _)) if world.now() >= kill_at => scene.kill(process),
                Some((false, _)) => scene.look_whether_stopped(process, kill_at),
            }
        });
    }

    /// SIGSTOP, and SIGCONT after a while.
    pub fn freeze(&self, process: ProcessId, span: Duration) {
        self.world.note(|| format!("process {process} stands still for {span:?}"));
        if span > SESSION + Duration::from_secs(1) {
            self.oracle.stands_still(process, self.world.now() + span);
        }
        let mut until = self.frozen_until.lock();
        *until = (self.world.now() + span).max(*until);
        drop(until);
        self.world.freeze(process, span);
    }

    /// The user changes his files: every process is stopped, and another one starts beside it.
    pub fn roll_out(&self, settings: Settings) {
        self.world.note(|| format!("the user's files change: {settings:?}"));
        let before = std::mem::replace(&mut *self.settings.lock(), settings);
        self.oracle.see(|seen| seen.switches += u64::from(before.guarantee != settings.guarantee));
        for process in self.running() {
            self.stop(process);
            let scene = self.clone();
            let after = self.world.draw_span(Duration::from_secs(3));
            self.world.after(after, move |_| scene.start());
        }
    }

    /// The user looks at the holds now and then, and chooses where a choice is asked for.
    pub fn watch(&self) {
        let scene = self.clone();
        self.world.after(LOOK_EVERY, move |_| {
            let mut rests = 0;
            let settings = *scene.settings.lock();
            let mut chosen = settings;
            let committed = scene.group.committed();
            for (process, running) in scene.fleet.lock().iter() {
                if running.budget.over_limit() {
                    let used = BudgetKind::ALL.map(|kind| (kind.as_str(), running.budget.used_by(kind)));
                    scene.world.note(|| format!("process {process} is out of memory: {used:?}"));
                }
                for partition in running.assembly.listener.ownership.snapshot() {
                    rests += u64::from(partition.resting_since_ms().is_some());
                    let number = partition.partition.partition;
                    if let Some(claimed) = partition.committed() {
                        scene.oracle.claims(*process, number, claimed, committed.get(&number).copied());
                    }
                    chosen = partition.hold().and_then(|hold| chosen.chosen(hold.cause)).unwrap_or(chosen);
                }
            }
            scene.oracle.see(|seen| seen.rests += rests);
            if chosen != settings && (scene.world.now() > FAULTS || scene.warehouse.chance(0.3)) {
                scene.oracle.see(|seen| seen.choices += 1);
                scene.roll_out(chosen);
            }
            scene.watch();
        });
    }

    /// Whether everything is finished and committed.
    pub fn is_done(&self) -> bool {
        let committed = self.group.committed();
        let at_end = |partition: i32| self.oracle.is_at_end(partition, committed.get(&partition).copied());
        (0..self.log.partitions()).all(at_end) && self.oracle.all_finished()
    }

    /// Connectors that gave up, which nothing here is a reason for.
    pub fn failures(&self) -> Vec<String> {
        self.fleet.lock().values().filter_map(|running| running.assembly.failure()).collect()
    }
}

fn parse() -> (ConnectorConfig, FleetConfig) {
    let connector = r#"
        topics = ["t"]
        [value]
        format = "avro"
        [table]
        name = "d.t"
        create = true
        metadata = ["partition", "offset"]
        [errors]
        bad_records = "dead-letter"
    "#;
    let fleet = serde_json::json!({ "kafka": { "bootstrap.servers": "none" }, "bigquery": { "project": "p" } });
    let mut connector: ConnectorConfig = toml::from_str(connector).expect("a connector");
    connector.name = "c".to_owned();
    (connector, serde_json::from_value(fleet).expect("a fleet"))
}
