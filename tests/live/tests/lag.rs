//! What the leader measures on real brokers: many partitions in one question, transactions, retention, compaction, sizes.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use apache_avro::Schema;
use millrace::config::{KafkaValue, StartAt};
use millrace::kafka::{ClusterSettings, GroupSettings, HighWatermarks, LagClient, Sampler, Topics};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::Producer as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::Value;

use crate::harness::avro::{framed, small, small_schema};
use crate::harness::cluster::Cluster;
use crate::harness::installation::{Installation, avro_connector};
use crate::harness::journal::{Outgoing, Producer};
use crate::harness::process::wait_for;
use crate::harness::registry::block;
use crate::harness::servers::Servers;
use crate::harness::worker::Worker;

const SECONDS_60: Duration = Duration::from_secs(60);

fn settings(kafka: &Cluster, group: &str, topics: &[&str]) -> GroupSettings {
    let servers = ("bootstrap.servers".to_owned(), KafkaValue::Text(kafka.bootstrap()));
    GroupSettings {
        cluster: ClusterSettings { kafka: [servers].into(), connector: group.to_owned(), ..ClusterSettings::default() },
        group_id: group.to_owned(),
        topics: Topics::List(topics.iter().map(|topic| (*topic).to_owned()).collect()),
        start: StartAt::Earliest,
        prefetch_bytes: 0,
        partitions_max: None,
        revoke_commit_timeout: Duration::from_secs(3),
    }
}

/// End, first and committed offsets of 1,000 partitions in under 200 ms, and their high watermarks too.
pub fn a_thousand_partitions_in_one_look(servers: &Servers) -> anyhow::Result<()> {
    const PARTITIONS: i32 = 1_000;
    let kafka = servers.kafka()?;
    // One replica each: three times as many would be the three small brokers' problem, not the question's.
    let admin: AdminClient<DefaultClientContext> = kafka.client().create()?;
    let topic = NewTopic::new("thousand", PARTITIONS, TopicReplication::Fixed(1));
    let options = AdminOptions::new().request_timeout(Some(SECONDS_60)).operation_timeout(Some(SECONDS_60));
    for made in block(async { Ok(admin.create_topics([&topic], &options).await?) })? {
        made.map_err(|(topic, code)| anyhow::anyhow!("cannot create {topic}: {code}"))?;
    }
    let settings = settings(kafka, "thousand-group", &["thousand"]);
    let client = LagClient::new(&settings)?;
    let partitions = wait_for("1,000 partitions with leaders", SECONDS_60, || {
        let partitions = client.partitions(Duration::from_secs(10))?;
        // Refused as a whole while a partition has no leader yet.
        let Ok(offsets) = client.query(&partitions, Duration::from_secs(10)) else { return Ok(None) };
        let all = partitions.len() == 1_000 && offsets.iter().all(|of| of.end == Some(0) && of.low == Some(0));
        Ok(all.then_some(partitions))
    })?;
    // Commits for all of them, so that the group's answer is as long as it would be.
    let member: BaseConsumer = kafka.client().set("group.id", "thousand-group").create()?;
    let mut commits = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        commits.add_partition_offset("thousand", partition, Offset::Offset(0))?;
    }
    wait_for("the commits", SECONDS_60, || Ok(member.commit(&commits, CommitMode::Sync).ok()))?;
    let high = HighWatermarks::new(&settings)?;
    let mut times = Vec::new();
    let mut high_times = Vec::new();
    for _ in 0..30 {
        let begun = Instant::now();
        let offsets = client.query(&partitions, Duration::from_secs(10))?;
        times.push(begun.elapsed());
        ensure!(offsets.iter().all(|of| (of.low, of.end, of.committed) == (Some(0), Some(0), Some(0))), "an answer is missing");
        let begun = Instant::now();
        let highs = high.query(&partitions, Duration::from_secs(10))?;
        high_times.push(begun.elapsed());
        ensure!(highs.len() == 1_000, "{} high watermarks", highs.len());
    }
    times.sort();
    high_times.sort();
    let at = |times: &[Duration], share: usize| times[(times.len() - 1) * share / 100];
    eprintln!(
        "    end, first and committed offsets of 1,000 partitions: median {:?}, p90 {:?}, worst {:?}; high watermarks: median {:?}, p90 {:?}",
        at(&times, 50),
        at(&times, 90),
        at(&times, 100),
        at(&high_times, 50),
        at(&high_times, 90)
    );
    ensure!(at(&times, 50) < Duration::from_millis(200), "{times:?}");
    Ok(())
}

/// Small records of a registered schema.
struct Values {
    schema: Schema,
    id: u32,
}

impl Values {
    fn register(servers: &Servers, topic: &str) -> anyhow::Result<Self> {
        let schema = small_schema("Small", &[]);
        let id = servers.registry()?.register(&format!("{topic}-value"), &schema, &[])?;
        Ok(Self { schema: Schema::parse(&schema)?, id })
    }

    /// All of one length: numbers from 100,000 on.
    fn of(&self, n: i64) -> anyhow::Result<Vec<u8>> {
        Ok(framed(self.id, &small(&self.schema, 100_000 + n, &[])?))
    }

    fn send(&self, producer: &Producer, numbers: std::ops::Range<i64>) -> anyhow::Result<()> {
        for n in numbers {
            let (key, value) = (format!("{:04}", n % 500), self.of(n)?);
            let record = Outgoing { partition: Some(0), key: key.as_bytes(), value: Some(&value), ..Outgoing::default() };
            producer.send(n.to_string(), &record)?;
        }
        producer.inner().flush(SECONDS_60)?;
        Ok(())
    }
}

/// A worker that measures and decides for itself, and says so only.
fn observer(servers: &Servers, test: &str, topic: &str) -> anyhow::Result<Worker> {
    let mut installation = Installation::new(servers, test)?;
    installation.set("scaling", "mode", "observe");
    installation.set("scaling", "report_interval", "500ms");
    installation.set("scaling", "decide_interval", "1s");
    installation.set("scaling", "report_topic", format!("{topic}.reports"));
    installation.set("scaling", "state_topic", format!("{topic}.state"));
    let dataset = topic.replace('-', "_");
    servers.emulator()?.reader().create_dataset(&dataset)?;
    let dead = format!("{topic}.dead");
    servers.kafka()?.create_topic(&dead, 1, &[])?;
    installation.connector(topic, &avro_connector(topic, &format!("{dataset}.rows"), &dead))?;
    installation.start()
}

/// What the leader says of the partition 0 of its only connector.
fn partition(worker: &Worker) -> anyhow::Result<Value> {
    let (code, body) = worker.get("/fleet")?;
    ensure!(code == 200, "/fleet answered {code}: {body}");
    let fleet: Value = serde_json::from_str(&body)?;
    Ok(fleet["connectors"][0]["partitions"][0].clone())
}

fn wait_for_partition(worker: &Worker, what: &str, is: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
    let mut last = Value::Null;
    let found = wait_for(what, SECONDS_60, || {
        last = partition(worker)?;
        Ok(is(&last).then(|| last.clone()))
    });
    found.with_context(|| format!("{what}: the leader says {last}"))
}

pub fn transactions_open_and_aborted(servers: &Servers) -> anyhow::Result<()> {
    let kafka = servers.kafka()?;
    kafka.create_topic("lag-transactions", 1, &[])?;
    let mut config = kafka.client();
    config.set("transactional.id", "live-lag").set("transaction.timeout.ms", "120000");
    let producer = Producer::new(config, "lag-transactions")?;
    let limit = Duration::from_secs(30);
    producer.inner().init_transactions(limit)?;
    let values = Values::register(servers, "lag-transactions")?;
    producer.inner().begin_transaction()?;
    values.send(&producer, 0..100)?;
    producer.inner().commit_transaction(limit)?;
    let mut worker = observer(servers, "lag::transactions_open_and_aborted", "lag-transactions")?;
    // 100 records and a marker, which nobody reads: no lag all the same.
    let is = |p: &Value, end: i64, lag: i64| p["end_offset"] == end && p["lag_records"] == lag;
    let done =
        wait_for_partition(&worker, "no lag behind a marker", |p| is(p, 101, 0) && p["lag_ms"] == 0 && p["committed_offset"] == 100)?;
    ensure!(done["open_transaction_ms"].is_null(), "{done}");

    producer.inner().begin_transaction()?;
    values.send(&producer, 100..150)?;
    let open = wait_for_partition(&worker, "an open transaction", |p| p["open_transaction_ms"].as_i64().is_some_and(|ms| ms > 10_000))?;
    ensure!(is(&open, 101, 0) && open["high_watermark"] == 151 && open["lag_ms"] == 0, "{open}");
    let fleet: Value = serde_json::from_str(&worker.get("/fleet")?.1)?;
    let remarks = fleet["remarks"].to_string();
    ensure!(remarks.contains("open transaction in lag-transactions[0]") && remarks.contains("50 records wait"), "{remarks}");

    producer.inner().abort_transaction(limit)?;
    // 50 aborted records and a marker.
    let aborted = wait_for_partition(&worker, "no lag behind an aborted transaction", |p| is(p, 152, 0) && p["lag_ms"] == 0)?;
    ensure!(aborted["open_transaction_ms"].is_null() && aborted["committed_offset"] == 100, "{aborted}");

    producer.inner().begin_transaction()?;
    values.send(&producer, 150..160)?;
    producer.inner().commit_transaction(limit)?;
    wait_for_partition(&worker, "the next transaction", |p| is(p, 163, 0) && p["committed_offset"] == 162)?;
    worker.terminate()
}

pub fn retention_and_sizes(servers: &Servers) -> anyhow::Result<()> {
    let kafka = servers.kafka()?;
    kafka.create_topic("lag-retention", 1, &[("cleanup.policy", "compact,delete")])?;
    let producer = Producer::new(kafka.client(), "lag-retention")?;
    let values = Values::register(servers, "lag-retention")?;
    values.send(&producer, 0..1_000)?;
    let size = 4.0 + values.of(0)?.len() as f64;
    let settings = settings(kafka, "connect-lag-retention", &["lag-retention"]);
    // Nobody consumes it yet: the last records tell their size, key and value.
    let sampler = Sampler::new(&settings)?;
    let mean = sampler.mean_bytes("lag-retention", &[(0, 0, 1_000)], SECONDS_60)?;
    ensure!(mean.get(&0) == Some(&size), "{mean:?}");
    // And again: the same partition is assigned anew.
    let begun = Instant::now();
    let mean = sampler.mean_bytes("lag-retention", &[(0, 998, 1_000)], SECONDS_60)?;
    ensure!(mean.get(&0) == Some(&size) && begun.elapsed() < SECONDS_60 / 2, "{mean:?} in {:?}", begun.elapsed());
    ensure!(sampler.readable("lag-retention", &[(0, 990, 1_000)], SECONDS_60)?.get(&0) == Some(&true), "ten records are there");
    ensure!(sampler.readable("lag-retention", &[(0, 1_000, 1_000)], SECONDS_60)?.get(&0) == Some(&false), "none is there");
    // A commit of long ago, and retention that has overtaken it.
    let member: BaseConsumer = kafka.client().set("group.id", "connect-lag-retention").create()?;
    let mut commit = TopicPartitionList::new();
    commit.add_partition_offset("lag-retention", 0, Offset::Offset(100))?;
    wait_for("the commit", SECONDS_60, || Ok(member.commit(&commit, CommitMode::Sync).ok()))?;
    kafka.delete_records("lag-retention", 0, 900)?;
    let offsets = LagClient::new(&settings)?;
    let partitions = offsets.partitions(SECONDS_60)?;
    let known = offsets.query(&partitions, SECONDS_60)?;
    let known = known.first().context("no answer")?;
    ensure!((known.low, known.end, known.committed) == (Some(900), Some(1_000), Some(100)), "{known:?}");
    // The worker holds the partition: the lost range is for the user to see. The leader counts what can still be read.
    let mut worker = observer(servers, "lag::retention_and_sizes", "lag-retention")?;
    let measured =
        wait_for_partition(&worker, "lag without what was deleted", |p| p["lag_records"] == 100 && !p["bytes_per_record"].is_null())?;
    ensure!(measured["committed_offset"] == 100 && measured["lag_bytes"] == 100.0 * size, "{measured}");
    worker.terminate()
}
