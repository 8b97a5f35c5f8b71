//! `guarantee = "exactly-once"` on Apache Kafka: workers are killed, and paused for longer than their session, while records flow; every
//! record is one row. Once on the BigQuery emulator that others wrote, once on the embedded one with lost answers and ended connections.

use std::time::Duration;

use anyhow::{Context, ensure};
use millrace::embedded::bigquery::{Cell, EmbeddedBigQuery, FaultClass, Settings};

use crate::harness::avro::{Stock, framed, stock_schema};
use crate::harness::installation::{Installation, avro_connector, patient};
use crate::harness::journal::{Journal, Producer, Stream, reconcile_exactly};
use crate::harness::process::wait_for;
use crate::harness::servers::Servers;
use crate::harness::worker::Worker;
use crate::machine::Watch;

const PARTITIONS: i32 = 4;
const RATE: u32 = 400;
const PROJECT: &str = "test";
/// Kills and pauses in turn.
const BLOWS: usize = 6;
const SESSION_MS: i64 = 6_000;
const SETTLED_WITHIN: Duration = Duration::from_secs(120);

fn exact(connector: &str) -> String {
    let with_delivery = if connector.contains("[delivery]") { connector.to_owned() } else { format!("{connector}\n[delivery]\n") };
    with_delivery.replace("[delivery]", "[delivery]\nguarantee = \"exactly-once\"")
}

pub fn emulator(servers: &Servers) -> anyhow::Result<()> {
    let mut installation = Installation::new(servers, "exactly_once::emulator")?;
    installation.set("kafka", "session.timeout.ms", SESSION_MS);
    let reader = servers.emulator()?.reader();
    reader.create_dataset("exact")?;
    let name = "exact_emulator";
    let journal = blows(servers, name, &installation, &patient(&avro_connector(name, "exact.rows", &format!("{name}.dead"))))?;
    reconcile_exactly(reader, "exact.rows", "reference", &journal, SETTLED_WITHIN).context("killed and paused, exactly once")
}

pub fn embedded(servers: &Servers) -> anyhow::Result<()> {
    let mut installation = Installation::without_bigquery(servers, "exactly_once::embedded")?;
    installation.set("kafka", "session.timeout.ms", SESSION_MS);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let settings = Settings { append_latency: Duration::from_millis(50), ..Settings::default() };
    let bigquery = runtime.block_on(EmbeddedBigQuery::start(settings)).context("the embedded BigQuery")?;
    bigquery.create_dataset(PROJECT, "exact").context("the embedded BigQuery")?;
    let mut faults = bigquery.faults().get();
    let classes = [FaultClass::LostAck, FaultClass::ConnectionDrain, FaultClass::UnaryUnavailable, FaultClass::UnaryLostAnswer];
    faults.rates.extend(classes.map(|class| (class, 0.03)));
    bigquery.faults().set(faults);
    installation.set("bigquery", "project", PROJECT);
    installation.set("bigquery", "credentials", "none");
    installation.set("bigquery", "rest_endpoint", bigquery.rest_url());
    installation.set("bigquery", "grpc_endpoint", bigquery.grpc_url());
    let name = "exact_embedded";
    let journal = blows(servers, name, &installation, &avro_connector(name, "exact.rows", &format!("{name}.dead")))?;
    let read = wait_for("all rows", SETTLED_WITHIN, || {
        let read = read(&bigquery)?;
        Ok((read.len() >= journal.len()).then_some(read))
    })?;
    for (place, identity) in &read {
        ensure!(journal.get(place) == Some(identity), "{place:?} is there as {identity}");
    }
    let places: std::collections::BTreeSet<_> = read.iter().map(|(place, _)| *place).collect();
    ensure!(places.len() == read.len(), "{} rows of {} records: some are there twice", read.len(), places.len());
    ensure!(journal.keys().all(|place| places.contains(place)), "records are missing");
    drop(bigquery);
    runtime.shutdown_timeout(Duration::from_secs(2));
    Ok(())
}

fn read(bigquery: &EmbeddedBigQuery) -> anyhow::Result<Vec<((i32, i64), String)>> {
    let (mut rows, mut odd) = (Vec::new(), None);
    let columns = ["kafka_partition", "kafka_offset", "reference"];
    let read = bigquery.books().read_landed((PROJECT, "exact", "rows"), &columns, 0, |cells, _| match cells {
        [Cell::Int(partition), Cell::Int(offset), Cell::Text(identity)] => {
            rows.push(((i32::try_from(*partition).unwrap_or(-1), *offset), identity.clone()));
        }
        other => odd = Some(format!("{other:?}")),
    });
    read.map_err(anyhow::Error::msg)?;
    ensure!(odd.is_none(), "a row of another kind: {odd:?}");
    Ok(rows)
}

/// Two workers; one is killed, or paused until others have its partitions and then woken, again and again. What was produced meanwhile.
fn blows(servers: &Servers, name: &str, installation: &Installation, connector: &str) -> anyhow::Result<Journal> {
    let kafka = servers.kafka()?;
    kafka.create_topic(name, PARTITIONS, &[])?;
    kafka.create_topic(&format!("{name}.dead"), 1, &[])?;
    let id = servers.registry()?.register(&format!("{name}-value"), &stock_schema()?, &[])?;
    installation.connector(name, &exact(connector))?;
    let stock = Stock::new()?;
    let stream = Stream::start(Producer::new(kafka.client(), name)?, PARTITIONS, RATE, move |n| {
        (Stock::reference(n), framed(id, &stock.encode(n).expect("a stock update encodes")))
    });
    let mut fleet = vec![installation.start()?, installation.start()?];
    let mut takeovers = 0.0;
    for blow in 0..BLOWS {
        let share = f64::from(PARTITIONS) / 2.0;
        for worker in &mut fleet {
            owns(worker, name, share)?;
        }
        std::thread::sleep(Duration::from_secs(2));
        let mut struck = fleet.remove(0);
        let began = Watch::start();
        let pause = blow % 2 == 1;
        if pause {
            struck.process().signal("STOP")?;
        } else {
            struck.process().kill()?;
        }
        let other = fleet.first_mut().context("the other worker")?;
        owns(other, name, f64::from(PARTITIONS))?;
        eprintln!(
            "    {name}: one {}, the other has its partitions after {:.1} s",
            if pause { "paused" } else { "killed" },
            began.elapsed().as_secs_f64()
        );
        if pause {
            // It wakes in the middle of the other one's work, with what it had on its way.
            std::thread::sleep(Duration::from_secs(1));
            struck.process().signal("CONT")?;
            fleet.push(struck);
        } else {
            fleet.push(installation.start()?);
        }
        takeovers +=
            fleet.iter().filter_map(|worker| worker.metric("millrace_exact_takeovers_total", &[("connector", name)]).ok()).sum::<f64>();
    }
    std::thread::sleep(Duration::from_secs(2));
    let journal = stream.stop()?;
    eprintln!("    {name}: {} records, takeovers seen: {takeovers}", journal.len());
    ensure!(takeovers > 0.0, "no takeover, nothing shown");
    wait_for("all committed", SETTLED_WITHIN, || {
        let mut lag = 0.0;
        for worker in &fleet {
            lag += worker.metric("millrace_partition_lag_records", &[("connector", name)])?;
        }
        Ok((lag == 0.0).then_some(()))
    })?;
    fleet.iter_mut().try_for_each(Worker::terminate)?;
    Ok(journal)
}

fn owns(worker: &mut Worker, connector: &str, partitions: f64) -> anyhow::Result<()> {
    wait_for(&format!("{partitions} partitions of {connector}"), SETTLED_WITHIN, || {
        worker.process().check_running()?;
        Ok((worker.metric("millrace_assigned_partitions", &[("connector", connector)])? == partitions).then_some(()))
    })
}
