//! Broker and BigQuery embedded, one connector, and real programs as the fleet's workers.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use millrace::config::{KafkaValue, ScalingConfig};
use millrace::embedded::bigquery::{Cell, Stall};
use millrace::embedded::broker::{BrokerFault, BrokerFaultRates};
use millrace::fleet::StateTopic;
use millrace::kafka::ClusterSettings;
use rdkafka::producer::{BaseRecord, Producer};
use rustix::process::{Pid, Signal};
use serde_json::Value;

use crate::machine::Watch;
use crate::program::{Parts, WorkerProcess};

pub const PARTITIONS: i32 = 4;
/// Bytes of every record's value: `{"n":100000}` and so on.
pub const RECORD_BYTES: f64 = 12.0;
const LIMIT: Duration = Duration::from_secs(90);
/// A worker that is killed is missed soon, and a machine that stands still for some seconds costs nobody its partitions.
const SESSION: &str = "\"session.timeout.ms\" = 7000";

/// A fleet's surroundings, and its workers by number.
pub struct Rig {
    // First: workers end before what they work on.
    workers: Vec<Option<WorkerProcess>>,
    parts: Parts,
    folder: tempfile::TempDir,
}

impl Rig {
    /// The parts; `scaling` are more lines of `[scaling]`, whose mode is `local`. The replicas file says 1.
    pub fn new(scaling: &str) -> Self {
        Self::with("", |rig| {
            let (lock, replicas) = (rig.path("lock"), rig.path("replicas"));
            format!("mode = \"local\"\nlock_file = \"{}\"\nreplicas_file = \"{}\"\n{scaling}", lock.display(), replicas.display())
        })
    }

    /// The parts for a fleet that only says how many workers it wants; each can do `capacity` records/s.
    pub fn observing(capacity: u32, scaling: &str) -> Self {
        Self::with(&format!("max_records_per_s = {capacity}"), |_| format!("mode = \"observe\"\n{scaling}"))
    }

    fn with(worker: &str, scaling: impl Fn(&Self) -> String) -> Self {
        let rig = Self { workers: Vec::new(), parts: Parts::start(&["numbers"], PARTITIONS), folder: tempfile::tempdir().unwrap() };
        fs::create_dir(rig.path("connectors")).unwrap();
        fs::write(rig.path("connectors/numbers.toml"), Parts::connector_toml("numbers", "50ms")).unwrap();
        fs::write(rig.path("replicas"), "1\n").unwrap();
        let scaling = format!("[scaling]\nreport_interval = \"400ms\"\ndecide_interval = \"700ms\"\n{}", scaling(&rig));
        fs::write(rig.path("millrace.toml"), rig.parts.millrace_toml(SESSION, worker, &scaling)).unwrap();
        rig
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts a worker of this number and waits until it answers.
    pub fn start(&mut self, number: usize) {
        let worker = WorkerProcess::start(self.folder.path(), &format!("log.{number}"), number);
        while self.workers.len() <= number {
            self.workers.push(None);
        }
        self.workers[number] = Some(worker);
        // It answers before its part in the fleet has begun.
        self.wait_until("its part in the fleet", |rig| rig.get(number, "/fleet").0 != 404);
    }

    fn worker(&self, number: usize) -> &WorkerProcess {
        self.workers[number].as_ref().unwrap()
    }

    /// The numbers of the workers that run.
    pub fn running(&self) -> Vec<usize> {
        (0..self.workers.len()).filter(|number| self.workers[*number].is_some()).collect()
    }

    /// SIGKILL.
    pub fn kill(&mut self, number: usize) {
        drop(self.workers[number].take().unwrap());
    }

    /// BigQuery takes appends and answers none, or answers again.
    pub fn stall(&self, stall: Stall) {
        self.parts.bigquery.set_stall(stall);
    }

    /// Fetches are answered 100 ms late and later from now on.
    pub fn slow_fetches(&self) {
        self.parts.broker.set_faults(BrokerFaultRates::none().with(BrokerFault::SlowFetch, 1.0));
        // Those that wait for records now are the last that are answered at once.
        self.wait_until("fetches that are slow", |rig| rig.parts.broker.fired().values().sum::<u64>() > 20);
    }

    /// No broker answers.
    pub fn brokers_down(&self) {
        for broker in 1..=self.parts.broker.bootstrap_servers().split(',').count() {
            self.parts.runtime.block_on(self.parts.broker.broker_down(i32::try_from(broker).unwrap())).unwrap();
        }
    }

    /// The connector's members get partitions by ranges, so that each that joins or leaves stops all. Before the first start.
    pub fn by_ranges(&self) {
        let file = fs::read_to_string(self.path("connectors/numbers.toml")).unwrap();
        let kafka = "[kafka]\n\"partition.assignment.strategy\" = \"range\"\n[value]\n";
        fs::write(self.path("connectors/numbers.toml"), file.replace("[value]\n", kafka)).unwrap();
    }

    /// Writes to the fleet's state topic, as a leader would.
    pub fn write_state(&self, key: &str, value: &Value) {
        let servers = KafkaValue::Text(self.parts.broker.bootstrap_servers());
        let cluster = ClusterSettings { kafka: [("bootstrap.servers".to_owned(), servers)].into(), ..ClusterSettings::default() };
        let topic = StateTopic::open(&cluster, &ScalingConfig::default()).unwrap();
        self.parts.runtime.block_on(topic.write(key, Some(value.to_string().as_bytes()))).unwrap();
    }

    /// A worker's process.
    pub fn pid(&self, number: usize) -> Pid {
        self.worker(number).pid()
    }

    /// How a worker ended, if it did by itself.
    pub fn ended(&mut self, number: usize) -> Option<ExitStatus> {
        self.workers[number].as_mut().unwrap().ended()
    }

    /// Everything that a worker printed.
    pub fn log(&self, number: usize) -> String {
        fs::read_to_string(self.path(&format!("log.{number}"))).unwrap_or_default()
    }

    /// SIGTERM, without waiting for the end.
    pub fn terminate(&self, number: usize) {
        self.worker(number).signal(Signal::TERM);
    }

    /// Waits for the end after SIGTERM; it must end well.
    pub fn wait_for_end(&mut self, number: usize) {
        self.workers[number].take().unwrap().wait_for_end();
    }

    /// The address of a worker's HTTP server.
    pub fn url(&self, number: usize) -> String {
        format!("http://{}", self.worker(number).address())
    }

    /// Status code and body of a worker's path.
    pub fn get(&self, number: usize, path: &str) -> (u16, String) {
        self.worker(number).get(path)
    }

    /// `GET /fleet` of a worker.
    pub fn fleet(&self, number: usize) -> Value {
        self.worker(number).json("/fleet")
    }

    /// A gauge of a worker, where it shows one.
    pub fn metric(&self, number: usize, series: &str) -> Option<f64> {
        let page = self.get(number, "/metrics").1;
        page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
    }

    /// Runs the program with these arguments.
    pub fn program(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_millrace")).args(arguments).stdin(Stdio::null()).output().unwrap()
    }

    /// Writes records and waits until the broker has them.
    pub fn send(&self, partition: i32, values: &[String]) {
        let producer = self.parts.producer();
        for value in values {
            producer.send(BaseRecord::<(), str>::to("numbers").partition(partition).payload(value)).unwrap();
        }
        producer.flush(Duration::from_secs(20)).unwrap();
    }

    /// Adds a column to the table.
    pub fn add_column(&self, name: &str) {
        let fields =
            serde_json::json!({ "schema": { "fields": [{ "name": "n", "type": "INTEGER" }, { "name": name, "type": "INTEGER" }] } });
        let url = format!("{}/projects/p/datasets/d/tables/numbers", self.parts.bigquery.rest_url());
        self.parts.runtime.block_on(async {
            let answer = reqwest::Client::new().patch(url).body(fields.to_string()).send().await.unwrap();
            assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
        });
    }

    /// The numbers in a column of the table, in order; nulls left out.
    pub fn column(&self, name: &str) -> Vec<i64> {
        let mut numbers = Vec::new();
        // Without the column there are none.
        let _missing = self.parts.bigquery.books().read("p", "d", "numbers", &[name], |row| {
            if let Cell::Int(n) = row[0] {
                numbers.push(n);
            }
            true
        });
        numbers.sort_unstable();
        numbers
    }

    pub fn replicas(&self) -> u32 {
        fs::read_to_string(self.path("replicas")).unwrap().trim().parse().unwrap()
    }

    pub fn wait_until(&self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let begun = Watch::start();
        while !done(self) {
            assert!(begun.elapsed() < LIMIT, "not within {LIMIT:?}: {what}; {}", self.log_ends());
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn log_ends(&self) -> String {
        let lines = 24 / self.running().len().max(1);
        self.workers.iter().flatten().map(|worker| worker.log_end(lines.max(3))).collect::<Vec<_>>().join("\n")
    }

    /// Produces so many records a second, evenly over the partitions, until it is stopped.
    pub fn produce(&self, per_second: u32) -> Flow {
        let producer = self.parts.producer();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let begun = Instant::now();
            let mut sent = 0;
            while !stopped.load(Ordering::Relaxed) {
                let due = (begun.elapsed().as_secs_f64() * f64::from(per_second)) as i32;
                for n in sent..due {
                    let value = format!("{{\"n\":{}}}", 100_000 + n % 800_000);
                    producer.send(BaseRecord::<(), str>::to("numbers").partition(n % PARTITIONS).payload(&value)).unwrap();
                }
                sent = sent.max(due);
                producer.poll(Duration::from_millis(5));
            }
            producer.flush(Duration::from_secs(20)).unwrap();
        });
        Flow { stop, thread: Some(thread) }
    }
}

/// Records on their way; dropping it ends them.
pub struct Flow {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
