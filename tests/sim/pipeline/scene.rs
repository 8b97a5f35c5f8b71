//! The scene: topic, group, BigQuery, dead-letter topic, and the processes that run production's code between them.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::task::{Poll, Wake, Waker};
use std::time::Duration;

use millrace::bigquery::tables_over;
use millrace::config::{ConnectorConfig, FleetConfig, Guarantee, HumanDuration};
use millrace::flow::{Budget, Tasks};
use millrace::kafka::GroupControl;
use millrace::pipeline::{AfterTurn, Assembly, AssemblyParts, CommitterParts, ShardLoop, WorkerShared};
use parking_lot::Mutex;
use rand::Rng;

use super::bigquery::{Client, Warehouse};
use super::consumer::Consumer;
use super::group::{Group, SESSION};
use super::letters::{Post, Topic};
use super::log::{Log, Registry};
use super::mutants::Mutant;
use super::oracle::Oracle;
use super::tasks::MachineTasks;
use crate::world::{MachineId, World};

/// A process: it runs on a machine of its own, and whatever starts after it is another one.
pub type ProcessId = MachineId;
/// For how long after a change write servers may not know it; they know it sooner in this world.
const VISIBILITY_DELAY: Duration = Duration::from_secs(15);
/// A shard with nothing to do sleeps this long, or until it is woken ...
const IDLE_SLEEP: Duration = Duration::from_millis(50);
/// ... here for longer, as on a busy machine: turns that do nothing are most of a run's cost.
const IDLE_SLEEP_HERE: Duration = Duration::from_millis(170);
/// How long a process may take to stop before it is killed.
const GRACE: Duration = Duration::from_secs(12);

/// A running process.
pub struct Process {
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
    /// What the connector promises.
    pub guarantee: Guarantee,
    /// When the last process that stands still goes on.
    pub frozen_until: Arc<Mutex<Duration>>,
}

impl Scene {
    /// A scene of this seed without processes.
    pub fn new(world: World, records_until: Duration, mutant: Mutant) -> Self {
        let partitions = world.draw(|random| random.random_range(1..5));
        let log = Arc::new(Log::draw(&world, partitions, records_until));
        let exact = world.draw(|random| random.random_bool(0.4));
        let guarantee = if exact { Guarantee::ExactlyOnce } else { Guarantee::AtLeastOnce };
        let oracle = Oracle::new(&world, &log, exact);
        let pause_share = world.draw(|random| if random.random_bool(0.5) { 0.02 } else { 0.0 });
        Self {
            group: Group::new(&world, &oracle, log.partitions(), mutant == Mutant::SkipIntents),
            warehouse: Arc::new(Warehouse::new(&world)),
            letters: Arc::default(),
            registry: Arc::new(Registry::new(&world)),
            fleet: Arc::default(),
            oracle,
            log,
            world,
            mutant,
            pause_share,
            guarantee,
            frozen_until: Arc::default(),
        }
    }

    /// Starts a process.
    pub fn start(&self) -> ProcessId {
        let process = self.world.machine(1.0, self.world.draw(|random| random.random_range(-5_000_000..5_000_000)));
        let tasks: Arc<dyn Tasks> = Arc::new(MachineTasks::new(&self.world, process));
        let client = Arc::new(Client::new(self, process));
        let (connector, fleet) = self.files();
        let mut assembly = Assembly::new(AssemblyParts {
            config: Arc::new(connector),
            fleet: Arc::new(fleet),
            schemas: Some(self.registry.clone()),
            tables: tables_over(client.clone(), tasks.clone(), VISIBILITY_DELAY),
            appender: client.clone(),
            streams: client,
            letters: Arc::new(Post(self.clone())),
            rereader: Arc::new(Post(self.clone())),
            worker: Arc::new(WorkerShared::with_tasks(Budget::new(64 << 20), tasks.clone(), false)),
        })
        .expect("a connector");
        let consumer = Consumer::new(self, process, &tasks);
        let control: Arc<dyn GroupControl> = consumer.clone();
        let (shards, committer) = assembly.join(&control);
        let stopping = Arc::new(AtomicBool::new(false));
        let mut ends = Vec::new();
        for shard in shards {
            let (ended, end) = tokio::sync::oneshot::channel::<()>();
            ends.push(end);
            let (tasks, stopping) = (tasks.clone(), stopping.clone());
            self.world.spawn(process, async move {
                turn(shard, tasks, stopping).await;
                drop(ended);
            });
        }
        self.world.spawn(process, commit(committer, tasks.clone(), stopping.clone()));
        self.world.spawn(process, consumer.clone().beat());
        self.world.spawn(process, consumer.clone().poll(assembly.listener.clone()));
        self.world.note(|| format!("process {process} starts"));
        self.fleet.lock().insert(process, Process { consumer, stopping, assembly: Arc::new(assembly) });
        process
    }

    fn files(&self) -> (ConnectorConfig, FleetConfig) {
        static FILES: OnceLock<(ConnectorConfig, FleetConfig)> = OnceLock::new();
        let (mut connector, mut fleet) = FILES.get_or_init(parse).clone();
        self.world.draw(|random| {
            connector.delivery.linger = HumanDuration::from_millis(random.random_range(5..250));
            connector.delivery.guarantee = self.guarantee;
            connector.delivery.batch_rows = random.random_range(2..12);
            fleet.worker.shards = random.random_range(1..3);
        });
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
            let scene = self.clone();
            self.world.after(span, move |_| scene.oracle.woke(process));
        }
        let mut until = self.frozen_until.lock();
        *until = (self.world.now() + span).max(*until);
        drop(until);
        self.world.freeze(process, span);
    }

    /// Whether everything is finished and committed.
    pub fn is_done(&self) -> bool {
        let committed = self.group.committed();
        let at_end = |partition| committed.get(&partition).copied().unwrap_or(0) == self.log.end(partition);
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

/// What wakes a shard from its sleep.
struct Nudge {
    nudged: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl Wake for Nudge {
    fn wake(self: Arc<Self>) {
        self.nudged.store(true, SeqCst);
        if let Some(task) = self.task.lock().as_ref() {
            task.wake_by_ref();
        }
    }
}

/// A shard's thread.
async fn turn(mut shard: ShardLoop, tasks: Arc<dyn Tasks>, stopping: Arc<AtomicBool>) {
    let nudge = Arc::new(Nudge { nudged: AtomicBool::new(false), task: Mutex::default() });
    shard.set_waker(Waker::from(nudge.clone()));
    loop {
        let most = match shard.turn() {
            AfterTurn::Again => Duration::from_millis(1),
            AfterTurn::Sleep(most) if most < IDLE_SLEEP => most,
            AfterTurn::Sleep(_) => IDLE_SLEEP_HERE,
            AfterTurn::End => return,
        };
        if stopping.load(SeqCst) {
            shard.end();
            return;
        }
        let mut sleep = tasks.sleep(most);
        poll_fn(|context| {
            *nudge.task.lock() = Some(context.waker().clone());
            if nudge.nudged.swap(false, SeqCst) { Poll::Ready(()) } else { sleep.as_mut().poll(context) }
        })
        .await;
    }
}

/// The committer's thread.
async fn commit(committer: CommitterParts, tasks: Arc<dyn Tasks>, stopping: Arc<AtomicBool>) {
    let nudge = Arc::new(Nudge { nudged: AtomicBool::new(false), task: Mutex::default() });
    committer.bell.set_waker(Waker::from(nudge.clone()));
    let mut wait = committer.interval;
    while !stopping.load(SeqCst) {
        let mut sleep = tasks.sleep(wait);
        poll_fn(|context| {
            *nudge.task.lock() = Some(context.waker().clone());
            if nudge.nudged.swap(false, SeqCst) | committer.bell.has_rung() { Poll::Ready(()) } else { sleep.as_mut().poll(context) }
        })
        .await;
        wait = committer.turn();
        // Appends that are announced meanwhile share the next commit, as in the thread.
        tasks.sleep(Duration::from_millis(10)).await;
    }
}
