//! Broker and BigQuery embedded, a folder of connectors as a kubelet mounts it, and the real program as one worker.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use millrace::embedded::bigquery::Cell;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseRecord, Producer};
use serde_json::Value;

use crate::machine::Watch;
use crate::program::{Parts, WorkerProcess};

pub const PARTITIONS: i32 = 4;
const LIMIT: Duration = Duration::from_secs(120);

/// Everything around one worker.
pub struct Rig {
    // First: it ends before what it works on.
    worker: Option<WorkerProcess>,
    parts: Parts,
    folder: tempfile::TempDir,
    versions: u32,
}

/// A connector's file.
pub fn connector(name: &str, linger: &str) -> String {
    Parts::connector_toml(name, linger)
}

impl Rig {
    /// The parts, with a topic and a table for each name; no worker yet.
    pub fn new(names: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("connectors")).unwrap();
        let rig = Self { worker: None, parts: Parts::start(names, PARTITIONS), folder, versions: 0 };
        fs::write(rig.path("millrace.toml"), rig.fleet()).unwrap();
        rig
    }

    /// `millrace.toml`.
    pub fn fleet(&self) -> String {
        self.parts.millrace_toml("", "", "")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes the folder hold these connectors, as a kubelet does with a ConfigMap: files of a new folder, then one renamed link.
    pub fn publish(&mut self, files: &[(&str, &str)]) {
        self.versions += 1;
        let (connectors, version) = (self.path("connectors"), format!("..{}", self.versions));
        fs::create_dir(connectors.join(&version)).unwrap();
        for (name, text) in files {
            fs::write(connectors.join(&version).join(format!("{name}.toml")), text).unwrap();
        }
        symlink(&version, connectors.join("..data_tmp")).unwrap();
        fs::rename(connectors.join("..data_tmp"), connectors.join("..data")).unwrap();
        for (name, _) in files {
            let link = connectors.join(format!("{name}.toml"));
            if link.symlink_metadata().is_err() {
                symlink(format!("..data/{name}.toml"), link).unwrap();
            }
        }
        for entry in fs::read_dir(&connectors).unwrap() {
            let path = entry.unwrap().path();
            if path.is_symlink() && !path.exists() {
                fs::remove_file(path).unwrap();
            }
        }
    }

    /// Starts the worker and waits until it answers.
    pub fn start(&mut self) {
        self.worker = Some(WorkerProcess::start(self.folder.path(), "log", 0));
    }

    fn worker(&self) -> &WorkerProcess {
        self.worker.as_ref().unwrap()
    }

    /// The first line of the worker's log that holds this text.
    pub fn logged(&self, text: &str) -> Option<String> {
        self.worker().logged(text)
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        self.worker().signal(signal);
    }

    /// SIGTERM; it must end by itself, well.
    pub fn stop(&mut self) {
        self.signal(rustix::process::Signal::TERM);
        self.worker.take().unwrap().wait_for_end();
    }

    /// Status code and body of a path.
    pub fn get(&self, path: &str) -> (u16, String) {
        self.worker().get(path)
    }

    pub fn status(&self) -> Value {
        self.worker().json("/status")
    }

    /// The names of the connectors and the partitions that each owns.
    pub fn connectors(&self) -> BTreeMap<String, usize> {
        let status = self.status();
        let connectors = status["connectors"].as_array().unwrap();
        connectors.iter().map(|c| (c["name"].as_str().unwrap().to_owned(), c["partitions"].as_array().unwrap().len())).collect()
    }

    /// The sum of a metric's series that carry all of these labels.
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = self.get("/metrics").1;
        let of = |line: &&str| line.split(['{', ' ']).next() == Some(name) && labels.iter().all(|label| line.contains(label));
        text.lines().filter(of).map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
    }

    /// How often each number is in a connector's table.
    pub fn numbers(&self, name: &str) -> BTreeMap<i64, u32> {
        let mut numbers = BTreeMap::new();
        let read = self.parts.bigquery.books().read("p", "d", name, &["n"], |row| {
            let Cell::Int(n) = row[0] else { panic!("{:?}", row[0]) };
            *numbers.entry(n).or_insert(0) += 1;
            true
        });
        read.unwrap();
        numbers
    }

    /// The sum of a group's committed offsets.
    pub fn committed(&self, name: &str) -> i64 {
        let group = format!("connect-{name}");
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", self.parts.broker.bootstrap_servers()).set("group.id", group);
        let consumer: BaseConsumer = client.create().unwrap();
        let mut partitions = rdkafka::TopicPartitionList::new();
        partitions.add_partition_range(name, 0, PARTITIONS - 1);
        let committed = consumer.committed_offsets(partitions, Duration::from_secs(10)).unwrap();
        committed.elements().iter().filter_map(|partition| partition.offset().to_raw()).filter(|offset| *offset > 0).sum()
    }

    pub fn wait_until(&self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let begun = Watch::start();
        while !done(self) {
            assert!(begun.elapsed() < LIMIT, "not within {LIMIT:?}: {what}; {}", self.log_end());
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn log_end(&self) -> String {
        self.worker.as_ref().map(|worker| worker.log_end(24)).unwrap_or_default()
    }

    /// Produces the numbers 0, 1, 2, ... to each of these topics, about 500 a second, until it is stopped.
    pub fn produce(&self, topics: &[&str]) -> Flow {
        let producer = self.parts.producer();
        let (stop, next) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(0)));
        let topics: Vec<String> = topics.iter().map(|topic| (*topic).to_owned()).collect();
        let (stopped, count) = (stop.clone(), next.clone());
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let n = count.fetch_add(1, Ordering::Relaxed);
                for topic in &topics {
                    let value = format!("{{\"n\":{n}}}");
                    let partition = i32::try_from(n % i64::from(PARTITIONS)).unwrap();
                    producer.send(BaseRecord::<(), str>::to(topic).partition(partition).payload(&value)).unwrap();
                }
                producer.poll(Duration::from_millis(2));
            }
            producer.flush(Duration::from_secs(20)).unwrap();
        });
        Flow { stop, next, thread: Some(thread) }
    }
}

/// Records on their way.
pub struct Flow {
    stop: Arc<AtomicBool>,
    next: Arc<AtomicI64>,
    thread: Option<JoinHandle<()>>,
}

impl Flow {
    /// How many were produced by now.
    pub fn count(&self) -> i64 {
        self.next.load(Ordering::Relaxed)
    }

    /// No more of them; gives how many there are in each topic.
    pub fn stop(mut self) -> i64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        self.count()
    }
}
