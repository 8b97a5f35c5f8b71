//! What the faults happen to: three workers, six partitions, records all the time, and wires along every way that leaves a worker.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use millrace::embedded::bigquery::{Cell, EmbeddedBigQuery, Settings};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::groups::GroupInfo;
use rdkafka::topic_partition_list::TopicPartitionList;

use crate::harness::avro::{Stock, framed, stock_schema};
use crate::harness::cluster::Cluster;
use crate::harness::installation::{Installation, avro_connector};
use crate::harness::journal::{Producer, Stream};
use crate::harness::process::wait_for;
use crate::harness::servers::Servers;
use crate::harness::wire::Wire;
use crate::harness::worker::Worker;
use crate::machine::Watch;

pub const TOPIC: &str = "faults";
pub const DEAD: &str = "faults.dead";
pub const PARTITIONS: i32 = 6;
pub const WORKERS: usize = 3;
/// Records a second.
pub const RATE: u32 = 150;
const PROJECT: &str = "test";
const START_WITHIN: Duration = Duration::from_secs(60);

/// Rows by place: identity, and when each copy landed, milliseconds since the epoch.
pub type Rows = BTreeMap<(i32, i64), Vec<(String, i64)>>;

pub struct Stage<'a> {
    pub kafka: &'a Cluster,
    pub brokers: Wire,
    /// The ways to BigQuery's REST and gRPC ports.
    pub sink: Wire,
    pub registry: Wire,
    pub bigquery: EmbeddedBigQuery,
    pub fleet: Vec<Worker>,
    /// Seconds by which the first worker's clock is apart: see `parts/clock_jump.c`.
    pub clock: PathBuf,
    /// The schema that records name from now on.
    pub schema: Arc<AtomicU32>,
    pub second_schema: u32,
    /// Rows that processes which are gone had appended since their last commits, and those they had counted.
    pub gone_duplicates: f64,
    installation: Installation,
    stream: Option<Stream>,
    probe: BaseConsumer,
    /// Never a member of the workers' group: it asks for what that has committed.
    of_group: BaseConsumer,
    rows: Rows,
    read: u64,
    // Last: the embedded BigQuery runs on it.
    _runtime: tokio::runtime::Runtime,
}

impl<'a> Stage<'a> {
    pub fn start(servers: &'a Servers, test: &str) -> anyhow::Result<Self> {
        let (kafka, registry) = (servers.kafka()?, servers.registry()?);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let bigquery = runtime.block_on(EmbeddedBigQuery::start(Settings::default())).context("the embedded BigQuery")?;
        bigquery.create_dataset(PROJECT, "faults").context("the embedded BigQuery")?;
        kafka.create_topic(TOPIC, PARTITIONS, &[])?;
        let mut again = stock_schema()?;
        let first = servers.registry()?.register("faults-value", &again, &[])?;
        again["doc"] = "the same, said once more".into();
        let second = registry.register("faults-again-value", &again, &[])?;
        ensure!(first != second, "the registry takes both schemas for one");

        let (brokers, bootstrap) = kafka.wire()?;
        let port = |url: &str| -> anyhow::Result<u16> {
            let address = url.trim_start_matches("http://").split('/').next().unwrap_or_default();
            Ok(address.rsplit(':').next().unwrap_or_default().parse()?)
        };
        let (rest, grpc) = (bigquery.rest_url(), bigquery.grpc_url());
        let sink = Wire::open(&[(0, port(&rest)?), (0, port(&grpc)?)])?;
        let to_registry = Wire::open(&[(0, registry.port())])?;
        let along = |url: &str, from: u16, to: u16| url.replace(&format!(":{from}"), &format!(":{to}"));
        let mut installation = Installation::without_bigquery(servers, test)?;
        installation.set("kafka", "bootstrap.servers", bootstrap);
        installation.set("registry", "urls", vec![along(&registry.url(), registry.port(), to_registry.port(0))]);
        installation.set("registry", "timeout", "2s");
        installation.set("bigquery", "project", PROJECT);
        installation.set("bigquery", "credentials", "none");
        installation.set("bigquery", "rest_endpoint", along(&rest, port(&rest)?, sink.port(0)));
        installation.set("bigquery", "grpc_endpoint", along(&grpc, port(&grpc)?, sink.port(1)));
        installation.set("bigquery", "append_timeout", "5s");
        installation.set("bigquery", "visibility_delay", "2s");
        let folder = installation.folder().to_owned();
        let file = |name: &str| folder.join(name).display().to_string();
        installation.set("scaling", "mode", "local");
        installation.set("scaling", "min", WORKERS as i64);
        installation.set("scaling", "max", WORKERS as i64);
        installation.set("scaling", "lock_file", file("lock"));
        installation.set("scaling", "replicas_file", file("replicas"));
        std::fs::write(file("replicas"), format!("{WORKERS}\n"))?;
        installation.connector(TOPIC, &avro_connector(TOPIC, "faults.rows", DEAD))?;

        let schema = Arc::new(AtomicU32::new(first));
        let (stock, named) = (Stock::new()?, schema.clone());
        let stream = Stream::start(Producer::new(kafka.client(), TOPIC)?, PARTITIONS, RATE, move |n| {
            (Stock::reference(n), framed(named.load(Ordering::Relaxed), &stock.encode(n).expect("a stock update encodes")))
        });
        let clock = folder.join("clock");
        let mut stage = Self {
            kafka,
            brokers,
            sink,
            registry: to_registry,
            bigquery,
            fleet: Vec::new(),
            clock,
            schema,
            second_schema: second,
            gone_duplicates: 0.0,
            installation,
            stream: Some(stream),
            probe: kafka.client().create()?,
            of_group: kafka.client().set("group.id", format!("connect-{TOPIC}")).create()?,
            rows: Rows::new(),
            read: 0,
            _runtime: runtime,
        };
        // A folder without colons: they part the names in LD_PRELOAD.
        let shim = super::processes::clock_shim(&servers.folder("clock")?)?;
        stage.set_clock(0)?;
        let clock = stage.clock.clone();
        stage.join_by(0, |command| {
            command.env("LD_PRELOAD", shim).env("CLOCK_JUMP_FILE", clock);
        })?;
        (1..WORKERS).try_for_each(|number| stage.join(number))?;
        stage.settled()?;
        stage.flows("the start", Watch::start(), START_WITHIN)?;
        Ok(stage)
    }

    /// How many seconds the first worker's clock is apart from the machine's.
    pub fn set_clock(&self, seconds: i64) -> anyhow::Result<()> {
        use std::io::Write;
        // In place: the worker has mapped it.
        let mut file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(&self.clock)?;
        Ok(file.write_all(&seconds.to_ne_bytes())?)
    }

    /// Starts a worker with this ordinal, in its place.
    pub fn join(&mut self, number: usize) -> anyhow::Result<()> {
        self.join_by(number, |_| {})
    }

    fn join_by(&mut self, number: usize, prepare: impl FnOnce(&mut Command)) -> anyhow::Result<()> {
        let worker = self.installation.start_by(env!("CARGO_BIN_EXE_millrace"), |command| {
            command.env("MILLRACE_ORDINAL", number.to_string());
            prepare(command);
        })?;
        self.fleet.insert(number, worker);
        Ok(())
    }

    /// Waits until the workers own all partitions between them.
    pub fn settled(&mut self) -> anyhow::Result<()> {
        wait_for("all partitions are owned", START_WITHIN, || {
            Ok((self.sum("millrace_assigned_partitions", &[])? == f64::from(PARTITIONS)).then_some(()))
        })
    }

    /// Waits until the workers own all partitions, nobody else is in their group, and no rebalance is under way.
    pub fn at_rest(&mut self) -> anyhow::Result<()> {
        self.settled()?;
        let group = format!("connect-{TOPIC}");
        wait_for("a group at rest", START_WITHIN, || {
            // A broker that is asked for a group while it moves answers with an error.
            let Ok(found) = self.probe.fetch_group_list(Some(&group), Duration::from_secs(5)) else { return Ok(None) };
            let at_rest = |group: &GroupInfo| group.state() == "Stable" && group.members().len() == WORKERS;
            Ok(found.groups().iter().any(at_rest).then_some(()))
        })
    }

    /// A metric's sum over the fleet.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> anyhow::Result<f64> {
        self.fleet.iter().map(|worker| worker.metric(name, labels)).sum()
    }

    /// SIGKILL; what it had counted, and what it may have appended since its last commit, is kept.
    pub fn kill(&mut self, number: usize) -> anyhow::Result<()> {
        let mut worker = self.fleet.remove(number);
        self.gone_duplicates += worker.metric("millrace_possible_duplicate_rows_total", &[])?;
        worker.process().kill()?;
        self.gone_duplicates += self.comes_again()?;
        Ok(())
    }

    /// How many rows come twice because a worker is gone, at most: two seconds of its share of the records, for commits come once a second;
    /// more where the machine was so slow that more has landed than is committed. To be asked before others have its partitions.
    pub fn comes_again(&mut self) -> anyhow::Result<f64> {
        std::thread::sleep(Duration::from_millis(500)); // what the worker had sent is landing
        let mut asked = TopicPartitionList::new();
        asked.add_partition_range(TOPIC, 0, PARTITIONS - 1);
        let committed = wait_for("committed offsets", START_WITHIN, || {
            Ok(self.of_group.committed_offsets(asked.clone(), Duration::from_secs(5)).ok())
        })?;
        let mut beyond = 0;
        for of in committed.elements() {
            let committed = of.offset().to_raw().unwrap_or_default().max(0);
            beyond += self.rows()?.range((of.partition(), committed)..(of.partition() + 1, 0)).count();
        }
        Ok((2.0 * f64::from(RATE) / WORKERS as f64 * 2.0).max(beyond as f64))
    }

    /// All rows so far.
    pub fn rows(&mut self) -> anyhow::Result<&Rows> {
        let (mut odd, mut read) = (None, 0);
        let (rows, from) = (&mut self.rows, self.read);
        let columns = ["kafka_partition", "kafka_offset", "reference"];
        let done = self.bigquery.books().read_landed((PROJECT, "faults", "rows"), &columns, from, |cells, at_ms| {
            read += 1;
            match cells {
                [Cell::Int(partition), Cell::Int(offset), Cell::Text(identity)] => {
                    let place = (i32::try_from(*partition).unwrap_or(-1), *offset);
                    rows.entry(place).or_default().push((identity.clone(), at_ms));
                }
                other => odd = Some(format!("{other:?}")),
            }
        });
        ensure!(odd.is_none(), "a row of another kind: {odd:?}");
        // A table that is not there yet has no rows.
        if done.is_ok() {
            self.read += read;
        }
        Ok(&self.rows)
    }

    /// Waits until whatever the topic holds now has landed, in every partition: within `limit` of `since`.
    pub fn flows(&mut self, what: &str, since: Watch, limit: Duration) -> anyhow::Result<()> {
        let probe = &self.probe;
        // Leaders move when a broker dies, and when a busy machine lets one seem dead.
        let ask = |p| wait_for("the end", START_WITHIN, || Ok(probe.fetch_watermarks(TOPIC, p, Duration::from_secs(5)).ok()));
        let ends: Vec<i64> = (0..PARTITIONS).map(|p| Ok(ask(p)?.1)).collect::<anyhow::Result<_>>()?;
        let mut reached = Vec::new();
        let left = limit.saturating_sub(since.elapsed());
        let flows = wait_for(what, left, || {
            let rows = self.rows()?;
            reached =
                (0..PARTITIONS).map(|p| rows.range((p, 0)..(p + 1, 0)).next_back().map_or(0, |((_, offset), _)| offset + 1)).collect();
            // The last ones may be poison, which lands elsewhere.
            Ok(reached.iter().zip(&ends).all(|(reached, end)| reached + 1 >= *end).then_some(()))
        });
        let states = || -> Vec<String> { self.fleet.iter().map(|worker| format!("{:?}", worker.get("/health/ready"))).collect() };
        flows.with_context(|| {
            format!("of {limit:?} since the fault; ends {ends:?}, reached {reached:?}; ready:\n{}", states().join("\n"))
        })?;
        eprintln!("    {what}: flowing again after {:.1} s of {} s", since.elapsed().as_secs_f64(), limit.as_secs());
        Ok(())
    }

    /// No restart helps against what is away or held: every worker says that it lives.
    pub fn all_live(&self) -> anyhow::Result<()> {
        for worker in &self.fleet {
            let (code, body) = worker.get("/health/live")?;
            ensure!(code == 200, "/health/live answered {code}: {body}");
        }
        Ok(())
    }

    /// Ends the records and the fleet, and holds what landed against what was produced.
    pub fn reconcile(mut self) -> anyhow::Result<()> {
        let journal = self.stream.take().context("a stream")?.stop()?;
        self.flows("the end", Watch::start(), Duration::from_secs(30))?;
        wait_for("every record", Duration::from_secs(30), || Ok((self.rows()?.len() >= journal.len()).then_some(())))?;
        // A copy that is on its way would land after it was counted here.
        wait_for("nothing on its way", Duration::from_secs(30), || {
            Ok((self.sum("millrace_memory_used_bytes", &[("kind", "in_flight")])? == 0.0).then_some(()))
        })?;
        let counted = self.sum("millrace_possible_duplicate_rows_total", &[])? + self.gone_duplicates;
        ensure!(self.sum("millrace_dead_letters_total", &[])? <= f64::from(PARTITIONS), "more dead letters than poison");
        self.fleet.iter_mut().try_for_each(Worker::terminate)?;
        let rows = self.rows()?;
        let missing: Vec<_> = journal.keys().filter(|place| !rows.contains_key(place)).take(5).collect();
        ensure!(missing.is_empty(), "missing, among others: {missing:?}");
        for (place, copies) in rows {
            let produced = journal.get(place).with_context(|| format!("{place:?} was never produced as a good record"))?;
            ensure!(copies.iter().all(|(identity, _)| identity == produced), "{place:?} was produced as {produced}: {copies:?}");
        }
        let duplicates: usize = rows.values().map(|copies| copies.len() - 1).sum();
        eprintln!("    {} records, {duplicates} duplicates, at most {counted} by what was counted and what died", journal.len());
        ensure!(duplicates as f64 <= counted, "{duplicates} duplicates, at most {counted} by what was counted and what died");
        Ok(())
    }
}
