//! Broker and BigQuery embedded, a folder of connectors as a kubelet mounts it, and the real program as one worker.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use millrace::embedded::bigquery::{Cell, EmbeddedBigQuery, Settings};
use millrace::embedded::broker::{BrokerSettings, EmbeddedBroker};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;

pub const PARTITIONS: i32 = 4;
const LIMIT: Duration = Duration::from_secs(60);

/// Everything around one worker.
pub struct Rig {
    runtime: tokio::runtime::Runtime,
    broker: EmbeddedBroker,
    bigquery: EmbeddedBigQuery,
    folder: tempfile::TempDir,
    versions: u32,
    worker: Option<Child>,
    address: String,
}

/// A connector's file: JSON numbers of a topic of its name into a table of its name.
pub fn connector(name: &str, linger: &str) -> String {
    format!(
        "topics = [\"{name}\"]\n[value]\nformat = \"json\"\n[table]\nname = \"d.{name}\"\n[delivery]\nlinger = \"{linger}\"\n\
         [errors]\nbad_records = \"stop\"\n"
    )
}

impl Rig {
    /// The parts, with a topic and a table for each name; no worker yet.
    pub fn new(names: &[&str]) -> Self {
        // The second test finds it installed.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (broker, bigquery) = runtime.block_on(async {
            let broker = EmbeddedBroker::start(BrokerSettings::default()).await.unwrap();
            let bigquery = EmbeddedBigQuery::start(Settings::default()).await.unwrap();
            bigquery.create_dataset("p", "d").unwrap();
            for name in names {
                broker.create_topic(name, PARTITIONS).await.unwrap();
                let table = serde_json::json!({
                    "tableReference": { "projectId": "p", "datasetId": "d", "tableId": name },
                    "schema": { "fields": [{ "name": "n", "type": "INTEGER" }] },
                });
                let url = format!("{}/projects/p/datasets/d/tables", bigquery.rest_url());
                let answer = reqwest::Client::new().post(url).body(table.to_string()).send().await.unwrap();
                assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
            }
            (broker, bigquery)
        });
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("connectors")).unwrap();
        let rig = Self { runtime, broker, bigquery, folder, versions: 0, worker: None, address: String::new() };
        fs::write(rig.path("millrace.toml"), rig.fleet()).unwrap();
        rig
    }

    /// `millrace.toml`.
    pub fn fleet(&self) -> String {
        format!(
            "[kafka]\n\"bootstrap.servers\" = \"{}\"\n[bigquery]\nproject = \"p\"\ncredentials = \"none\"\nrest_endpoint = \"{}\"\n\
             grpc_endpoint = \"{}\"\n[worker]\nlisten = \"127.0.0.1:0\"\nlog = \"json\"\nmemory = \"64 MiB\"\n",
            self.broker.bootstrap_servers(),
            self.bigquery.rest_url(),
            self.bigquery.grpc_url()
        )
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
        let log = fs::File::create(self.path("log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
        command.arg("run").arg("--config").arg(self.path("millrace.toml")).arg("--connectors").arg(self.path("connectors"));
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.worker = Some(command.spawn().unwrap());
        self.wait_until("the worker's address", |rig| rig.logged("\"address\"").is_some());
        let line: Value = serde_json::from_str(&self.logged("\"address\"").unwrap()).unwrap();
        let field = |value: &Value| value["address"].as_str().map(str::to_owned);
        self.address = field(&line).or_else(|| field(&line["fields"])).unwrap();
    }

    /// The first line of the worker's log that holds this text.
    pub fn logged(&self, text: &str) -> Option<String> {
        let log = fs::read_to_string(self.path("log")).unwrap();
        log.lines().find(|line| line.contains(text)).map(str::to_owned)
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.worker.as_ref().unwrap().id().cast_signed()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// SIGTERM; it must end by itself, well.
    pub fn stop(&mut self) {
        self.signal(rustix::process::Signal::TERM);
        let mut worker = self.worker.take().unwrap();
        let begun = Instant::now();
        let status = loop {
            match worker.try_wait().unwrap() {
                Some(status) => break status,
                None if begun.elapsed() > LIMIT => {
                    let _ = worker.kill();
                    panic!("it did not end; {}", self.log_end());
                }
                None => thread::sleep(Duration::from_millis(50)),
            }
        };
        assert!(status.success(), "{status}; {}", self.log_end());
    }

    /// Status code and body of a path.
    pub fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        // Long answers come in chunks: the lines with their lengths are no JSON and no metric.
        let chunked = head.to_lowercase().contains("transfer-encoding: chunked");
        let body = if chunked { body.split("\r\n").skip(1).step_by(2).collect() } else { body.to_owned() };
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body)
    }

    pub fn status(&self) -> Value {
        serde_json::from_str(&self.get("/status").1).unwrap()
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
        let read = self.bigquery.books().read("p", "d", name, &["n"], |row| {
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
        client.set("bootstrap.servers", self.broker.bootstrap_servers()).set("group.id", group);
        let consumer: BaseConsumer = client.create().unwrap();
        let mut partitions = rdkafka::TopicPartitionList::new();
        partitions.add_partition_range(name, 0, PARTITIONS - 1);
        let committed = consumer.committed_offsets(partitions, Duration::from_secs(10)).unwrap();
        committed.elements().iter().filter_map(|partition| partition.offset().to_raw()).filter(|offset| *offset > 0).sum()
    }

    pub fn wait_until(&self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let begun = Instant::now();
        while !done(self) {
            assert!(begun.elapsed() < LIMIT, "not within {LIMIT:?}: {what}; {}", self.log_end());
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn log_end(&self) -> String {
        let log = fs::read_to_string(self.path("log")).unwrap();
        let lines: Vec<&str> = log.lines().collect();
        format!("its log ends with:\n{}", lines[lines.len().saturating_sub(25)..].join("\n"))
    }

    /// Produces the numbers 0, 1, 2, ... to each of these topics, about 500 a second, until it is stopped.
    pub fn produce(&self, topics: &[&str]) -> Flow {
        let producer: BaseProducer =
            ClientConfig::new().set("bootstrap.servers", self.broker.bootstrap_servers()).set("linger.ms", "5").create().unwrap();
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

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(mut worker) = self.worker.take() {
            let _ = worker.kill();
            let _ = worker.wait();
        }
        let _inside = self.runtime.enter();
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
