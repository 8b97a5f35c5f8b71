//! The journal check of `tests/live` against a real BigQuery project. Kafka and the registry are the servers of `tests/live`, so
//! `tests/live/install` comes first.
//!
//! Ignored unless `MILLRACE_CLOUD_PROJECT` and `MILLRACE_CLOUD_DATASET` name an existing dataset in which application default credentials
//! may create tables, write and query; the test's tables are left there for a look, each run's under a name of its own.
#![allow(clippy::expect_used, reason = "tests")]

#[path = "../live/harness/mod.rs"]
mod harness;
#[allow(dead_code, reason = "each folder uses its part of it")]
#[path = "../machine/mod.rs"]
mod machine;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};

use harness::avro::{Stock, framed, stock_schema};
use harness::emulator::Reader;
use harness::installation::{Installation, avro_connector};
use harness::journal::{Outgoing, Producer, Stream, reconcile, reconcile_exactly};
use harness::servers::{Servers, parts};

const PROJECT: &str = "MILLRACE_CLOUD_PROJECT";
const DATASET: &str = "MILLRACE_CLOUD_DATASET";
/// After this long a dead or paused worker's partitions go to others.
const SESSION_MS: i64 = 6_000;

fn main() -> std::process::ExitCode {
    let unset = std::env::var_os(PROJECT).is_none() || std::env::var_os(DATASET).is_none();
    if unset {
        eprintln!("tests/cloud is skipped: {PROJECT} and {DATASET} are not set");
    }
    harness::run(
        &[
            ("every_record_is_there_once", every_record_is_there_once),
            ("nothing_is_lost_when_a_worker_is_killed", nothing_is_lost_when_a_worker_is_killed),
            ("exactly_once_doubles_nothing_when_workers_are_killed", exactly_once_doubles_nothing_when_workers_are_killed),
        ],
        unset,
    )
}

/// One run's table, connector and reader in the real project.
struct Cloud {
    topic: String,
    table: String,
    installation: Installation,
    reader: Reader,
    schema_id: u32,
}

impl Cloud {
    fn new(servers: &Servers, test: &str, partitions: i32) -> anyhow::Result<Self> {
        Self::promising(servers, test, partitions, "at-least-once")
    }

    fn promising(servers: &Servers, test: &str, partitions: i32, guarantee: &str) -> anyhow::Result<Self> {
        let (project, dataset) = (std::env::var(PROJECT).context(PROJECT)?, std::env::var(DATASET).context(DATASET)?);
        let run = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let topic = format!("{test}_{run}");
        let kafka = servers.kafka()?;
        kafka.create_topic(&topic, partitions, &[])?;
        kafka.create_topic(&format!("{topic}.dead"), 1, &[])?;
        let schema_id = servers.registry()?.register(&format!("{topic}-value"), &stock_schema()?, &[])?;
        let table = format!("{dataset}.{topic}");
        let mut installation = Installation::without_bigquery(servers, test)?;
        installation.set("bigquery", "project", project.clone());
        installation.set("kafka", "session.timeout.ms", SESSION_MS);
        let connector = avro_connector(&topic, &table, &format!("{topic}.dead"));
        installation.connector(&topic, &format!("{connector}\n[delivery]\nguarantee = \"{guarantee}\"\n"))?;
        let reader = Reader::start(&parts()?.join("python/bin/python"), None, &project)?;
        Ok(Self { topic, table, installation, reader, schema_id })
    }
}

fn every_record_is_there_once(servers: &Servers) -> anyhow::Result<()> {
    let cloud = Cloud::new(servers, "every_record_is_there_once", 4)?;
    let mut worker = cloud.installation.start()?;
    let (stock, producer) = (Stock::new()?, Producer::new(servers.kafka()?.client(), &cloud.topic)?);
    for n in 0..20_000 {
        let value = framed(cloud.schema_id, &stock.encode(n)?);
        producer.send(Stock::reference(n), &Outgoing { partition: Some((n % 4) as i32), value: Some(&value), ..Outgoing::default() })?;
    }
    // A table is made first: the service may take minutes until its writers see it.
    reconcile_exactly(&cloud.reader, &cloud.table, "reference", &producer.journal()?, Duration::from_secs(600))?;
    ensure!(worker.metric("millrace_dead_letters_total", &[])? == 0.0, "a dead letter");
    worker.terminate()
}

fn nothing_is_lost_when_a_worker_is_killed(servers: &Servers) -> anyhow::Result<()> {
    let cloud = Cloud::new(servers, "nothing_is_lost_when_a_worker_is_killed", 4)?;
    let mut worker = cloud.installation.start()?;
    let (stock, producer) = (Stock::new()?, Producer::new(servers.kafka()?.client(), &cloud.topic)?);
    let id = cloud.schema_id;
    let stream =
        Stream::start(producer, 4, 1000, move |n| (Stock::reference(n), framed(id, &stock.encode(n).expect("a stock update encodes"))));
    worker.wait_for_metric("millrace_table_rows_durable_total", &[], 5000.0, Duration::from_secs(600))?;
    worker.process().kill()?;
    let mut worker = cloud.installation.start()?;
    std::thread::sleep(Duration::from_secs(30));
    let journal = stream.stop()?;
    let duplicates = reconcile(&cloud.reader, &cloud.table, "reference", &journal, Duration::from_secs(300))?;
    eprintln!("    {} records, {duplicates} duplicates after one kill", journal.len());
    // What was appended since the last commit, at most 1 s before the kill, with its answers still on the way.
    ensure!(duplicates <= 5000, "{duplicates} duplicates");
    worker.terminate()
}

/// What `docs/durability.md` assumes of the service: no append lands after FinalizeWriteStream has answered, and its row count has every
/// append that landed. One worker is killed with appends on their way, the next is paused until another has its partitions, and wakes with
/// appends that it had announced.
fn exactly_once_doubles_nothing_when_workers_are_killed(servers: &Servers) -> anyhow::Result<()> {
    const TAKEOVERS: &str = "millrace_exact_takeovers_total";
    let cloud = Cloud::promising(servers, "exactly_once_doubles_nothing_when_workers_are_killed", 4, "exactly-once")?;
    let mut first = cloud.installation.start()?;
    let (stock, producer) = (Stock::new()?, Producer::new(servers.kafka()?.client(), &cloud.topic)?);
    let id = cloud.schema_id;
    let stream =
        Stream::start(producer, 4, 1000, move |n| (Stock::reference(n), framed(id, &stock.encode(n).expect("a stock update encodes"))));
    // A table is made first: the service may take minutes until its writers see it.
    first.wait_for_metric("millrace_table_rows_durable_total", &[], 5000.0, Duration::from_secs(600))?;
    first.process().kill()?;
    let mut second = cloud.installation.start()?;
    second.wait_for_metric(TAKEOVERS, &[], 1.0, Duration::from_secs(120))?;
    second.wait_for_metric("millrace_table_rows_durable_total", &[], 5000.0, Duration::from_secs(120))?;
    second.process().signal("STOP")?;
    let mut third = cloud.installation.start()?;
    let taken_over = third.wait_for_metric(TAKEOVERS, &[], 1.0, Duration::from_secs(120));
    second.process().signal("CONT")?;
    taken_over?;
    std::thread::sleep(Duration::from_secs(20));
    let journal = stream.stop()?;
    reconcile_exactly(&cloud.reader, &cloud.table, "reference", &journal, Duration::from_secs(300))?;
    let (mut takeovers, mut landed) = (0.0, 0.0);
    for worker in [&second, &third] {
        takeovers += worker.metric(TAKEOVERS, &[])?;
        landed += worker.metric("millrace_exact_landed_appends_found_total", &[])?;
        ensure!(worker.metric("millrace_exact_streams_lost_total", &[])? == 0.0, "a stream whose rows could not be counted");
    }
    eprintln!("    {} records, {takeovers} takeovers, {landed} landed appends found in them, each row once", journal.len());
    second.terminate()?;
    third.terminate()
}
