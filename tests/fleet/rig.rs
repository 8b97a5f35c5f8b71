//! Broker and BigQuery embedded, one connector, and real programs as the fleet's workers.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use millrace::embedded::bigquery::{Cell, EmbeddedBigQuery, Settings, Stall};
use millrace::embedded::broker::{BrokerSettings, EmbeddedBroker};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

pub const PARTITIONS: i32 = 4;
/// Bytes of every record's value: `{"n":100000}` and so on.
pub const RECORD_BYTES: f64 = 12.0;
const LIMIT: Duration = Duration::from_secs(90);

/// A fleet's surroundings, and its workers by number.
pub struct Rig {
    runtime: tokio::runtime::Runtime,
    broker: EmbeddedBroker,
    _bigquery: EmbeddedBigQuery,
    folder: tempfile::TempDir,
    workers: Vec<Option<Worker>>,
}

struct Worker {
    child: Child,
    address: String,
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
        // The second test finds it installed.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (broker, bigquery) = runtime.block_on(async {
            let broker = EmbeddedBroker::start(BrokerSettings::default()).await.unwrap();
            let bigquery = EmbeddedBigQuery::start(Settings::default()).await.unwrap();
            bigquery.create_dataset("p", "d").unwrap();
            broker.create_topic("numbers", PARTITIONS).await.unwrap();
            let table = serde_json::json!({
                "tableReference": { "projectId": "p", "datasetId": "d", "tableId": "numbers" },
                "schema": { "fields": [{ "name": "n", "type": "INTEGER" }] },
            });
            let url = format!("{}/projects/p/datasets/d/tables", bigquery.rest_url());
            let answer = reqwest::Client::new().post(url).body(table.to_string()).send().await.unwrap();
            assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
            (broker, bigquery)
        });
        let folder = tempfile::tempdir().unwrap();
        let rig = Self { runtime, broker, _bigquery: bigquery, folder, workers: Vec::new() };
        fs::create_dir(rig.path("connectors")).unwrap();
        let connector = "topics = [\"numbers\"]\n[value]\nformat = \"json\"\n[table]\nname = \"d.numbers\"\n[delivery]\nlinger = \"50ms\"\n\
                         [errors]\nbad_records = \"stop\"\n";
        fs::write(rig.path("connectors/numbers.toml"), connector).unwrap();
        fs::write(rig.path("replicas"), "1\n").unwrap();
        fs::write(
            rig.path("millrace.toml"),
            format!(
                "[kafka]\n\"bootstrap.servers\" = \"{}\"\n\"session.timeout.ms\" = 4000\n[bigquery]\nproject = \"p\"\ncredentials = \"none\"\n\
                 rest_endpoint = \"{}\"\ngrpc_endpoint = \"{}\"\n[worker]\nlisten = \"127.0.0.1:0\"\nlog = \"json\"\nmemory = \"64 MiB\"\n\
                 {worker}\n[scaling]\nreport_interval = \"400ms\"\ndecide_interval = \"700ms\"\n{}\n",
                rig.broker.bootstrap_servers(),
                rig._bigquery.rest_url(),
                rig._bigquery.grpc_url(),
                scaling(&rig),
            ),
        )
        .unwrap();
        rig
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts a worker of this number and waits until it answers.
    pub fn start(&mut self, number: usize) {
        let path = self.path(&format!("log.{number}"));
        let log = fs::File::create(&path).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
        command.arg("run").arg("--config").arg(self.path("millrace.toml")).arg("--connectors").arg(self.path("connectors"));
        command.env("MILLRACE_ORDINAL", number.to_string()).env_remove("POD_NAME");
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn().unwrap();
        while self.workers.len() <= number {
            self.workers.push(None);
        }
        self.workers[number] = Some(Worker { child, address: String::new() });
        let mut address = String::new();
        self.wait_until("a worker's address", |_| {
            let log = fs::read_to_string(&path).unwrap();
            let line = log.lines().find(|line| line.contains("\"address\"")).map(|line| serde_json::from_str::<Value>(line).unwrap());
            let field = |value: &Value| value["address"].as_str().map(str::to_owned);
            address = line.and_then(|line| field(&line).or_else(|| field(&line["fields"]))).unwrap_or_default();
            !address.is_empty()
        });
        self.workers[number].as_mut().unwrap().address = address;
    }

    /// The numbers of the workers that run.
    pub fn running(&self) -> Vec<usize> {
        (0..self.workers.len()).filter(|number| self.workers[*number].is_some()).collect()
    }

    /// SIGKILL.
    pub fn kill(&mut self, number: usize) {
        let mut worker = self.workers[number].take().unwrap();
        worker.child.kill().unwrap();
        worker.child.wait().unwrap();
    }

    /// BigQuery takes appends and answers none, or answers again.
    pub fn stall(&self, stall: Stall) {
        self._bigquery.set_stall(stall);
    }

    /// A worker's process.
    pub fn pid(&self, number: usize) -> Pid {
        Pid::from_raw(self.workers[number].as_ref().unwrap().child.id().cast_signed()).unwrap()
    }

    /// How a worker ended, if it did by itself.
    pub fn ended(&mut self, number: usize) -> Option<ExitStatus> {
        self.workers[number].as_mut().unwrap().child.try_wait().unwrap()
    }

    /// Everything that a worker printed.
    pub fn log(&self, number: usize) -> String {
        fs::read_to_string(self.path(&format!("log.{number}"))).unwrap_or_default()
    }

    /// SIGTERM, without waiting for the end.
    pub fn terminate(&self, number: usize) {
        kill_process(self.pid(number), Signal::TERM).unwrap();
    }

    /// Waits for the end after SIGTERM; it must end well.
    pub fn wait_for_end(&mut self, number: usize) {
        let mut worker = self.workers[number].take().unwrap();
        let begun = Instant::now();
        let status = loop {
            match worker.child.try_wait().unwrap() {
                Some(status) => break status,
                None if begun.elapsed() > LIMIT => {
                    let _ = worker.child.kill();
                    panic!("worker {number} did not end; {}", self.log_ends());
                }
                None => thread::sleep(Duration::from_millis(50)),
            }
        };
        assert!(status.success(), "worker {number}: {status}; {}", self.log_ends());
    }

    /// The address of a worker's HTTP server.
    pub fn url(&self, number: usize) -> String {
        format!("http://{}", self.workers[number].as_ref().unwrap().address)
    }

    /// Status code and body of a worker's path.
    pub fn get(&self, number: usize, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.workers[number].as_ref().unwrap().address).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// `GET /fleet` of a worker.
    pub fn fleet(&self, number: usize) -> Value {
        let (code, body) = self.get(number, "/fleet");
        assert_eq!(code, 200, "{body}");
        serde_json::from_str(&body).unwrap()
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
        let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", self.broker.bootstrap_servers()).create().unwrap();
        for value in values {
            producer.send(BaseRecord::<(), str>::to("numbers").partition(partition).payload(value)).unwrap();
        }
        producer.flush(Duration::from_secs(20)).unwrap();
    }

    /// Adds a column to the table.
    pub fn add_column(&self, name: &str) {
        let fields =
            serde_json::json!({ "schema": { "fields": [{ "name": "n", "type": "INTEGER" }, { "name": name, "type": "INTEGER" }] } });
        let url = format!("{}/projects/p/datasets/d/tables/numbers", self._bigquery.rest_url());
        self.runtime.block_on(async {
            let answer = reqwest::Client::new().patch(url).body(fields.to_string()).send().await.unwrap();
            assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
        });
    }

    /// The numbers in a column of the table, in order; nulls left out.
    pub fn column(&self, name: &str) -> Vec<i64> {
        let mut numbers = Vec::new();
        // Without the column there are none.
        let _missing = self._bigquery.books().read("p", "d", "numbers", &[name], |row| {
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
        let begun = Instant::now();
        while !done(self) {
            assert!(begun.elapsed() < LIMIT, "not within {LIMIT:?}: {what}; {}", self.log_ends());
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn log_ends(&self) -> String {
        let mut text = String::new();
        for number in 0..self.workers.len() {
            let log = fs::read_to_string(self.path(&format!("log.{number}"))).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            text += &format!("worker {number}'s log ends with:\n{}\n", lines[lines.len().saturating_sub(12)..].join("\n"));
        }
        text
    }

    /// Produces so many records a second, evenly over the partitions, until it is stopped.
    pub fn produce(&self, per_second: u32) -> Flow {
        let producer: BaseProducer =
            ClientConfig::new().set("bootstrap.servers", self.broker.bootstrap_servers()).set("linger.ms", "5").create().unwrap();
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

impl Drop for Rig {
    fn drop(&mut self) {
        for worker in self.workers.iter_mut().flatten() {
            let _ = worker.child.kill();
            let _ = worker.child.wait();
        }
        let _inside = self.runtime.enter();
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
