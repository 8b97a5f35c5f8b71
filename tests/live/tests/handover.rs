//! How long a partition stays unread when workers leave and join, on Apache Kafka, with a BigQuery (the embedded one, in this process) that
//! answers each append after half a second.
//!
//! What is measured: for each partition, the longest time in which no row of it was stored. That is never less than the time in which
//! nobody read it: what was taken before is stored after it was taken, and sent at once when the partition goes. So the drain is included.
//! Time for which the machine stood still is left out.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use millrace::embedded::bigquery::{Cell, EmbeddedBigQuery, Settings};

use crate::harness::avro::{Stock, framed, stock_schema};
use crate::harness::installation::{Installation, avro_connector};
use crate::harness::journal::{Journal, Producer, Stream};
use crate::harness::process::wait_for;
use crate::harness::servers::Servers;
use crate::harness::worker::Worker;
use crate::machine::{Watch, stood_still_between};

const PROJECT: &str = "test";
const PARTITIONS: i32 = 8;
const RATE: u32 = 800;
/// How long the sink takes to acknowledge.
const ACKNOWLEDGED_AFTER: Duration = Duration::from_millis(500);
/// What is promised.
const UNREAD_MAX: Duration = Duration::from_secs(3);
const SETTLED_WITHIN: Duration = Duration::from_secs(60);
/// Between two changes: longer than any gap that is looked for.
const APART: Duration = Duration::from_secs(5);

pub fn classic(servers: &Servers) -> anyhow::Result<()> {
    let mut installation = Installation::without_bigquery(servers, "handover::classic")?;
    installation.set("kafka", "session.timeout.ms", 10_000);
    leave_and_join(servers, "handover_classic", installation)
}

pub fn consumer(servers: &Servers) -> anyhow::Result<()> {
    let mut installation = Installation::without_bigquery(servers, "handover::consumer")?;
    installation.unset("kafka", "session.timeout.ms");
    installation.set("kafka", "group.protocol", "consumer");
    leave_and_join(servers, "handover_consumer", installation)
}

/// A change of the fleet, and when it was made, milliseconds since the epoch.
struct Change {
    what: &'static str,
    leaves: bool,
    at_ms: i64,
}

impl Change {
    fn now(what: &'static str, leaves: bool) -> Self {
        let at_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
        Self { what, leaves, at_ms }
    }
}

fn leave_and_join(servers: &Servers, name: &str, mut installation: Installation) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let settings = Settings { append_latency: ACKNOWLEDGED_AFTER, ..Settings::default() };
    let bigquery = runtime.block_on(EmbeddedBigQuery::start(settings)).context("the embedded BigQuery")?;
    bigquery.create_dataset(PROJECT, "handover").context("the embedded BigQuery")?;
    installation.set("bigquery", "project", PROJECT);
    installation.set("bigquery", "credentials", "none");
    installation.set("bigquery", "rest_endpoint", bigquery.rest_url());
    installation.set("bigquery", "grpc_endpoint", bigquery.grpc_url());

    let kafka = servers.kafka()?;
    kafka.create_topic(name, PARTITIONS, &[])?;
    kafka.create_topic(&format!("{name}.dead"), 1, &[])?;
    let id = servers.registry()?.register(&format!("{name}-value"), &stock_schema()?, &[])?;
    installation.connector(name, &avro_connector(name, "handover.rows", &format!("{name}.dead")))?;
    let stock = Stock::new()?;
    let stream = Stream::start(Producer::new(kafka.client(), name)?, PARTITIONS, RATE, move |n| {
        (Stock::reference(n), framed(id, &stock.encode(n).expect("a stock update encodes")))
    });

    let mut fleet: Vec<Worker> = (0..4).map(|_| installation.start()).collect::<anyhow::Result<_>>()?;
    settle(&mut fleet, name)?;
    std::thread::sleep(APART);
    let mut changes = Vec::new();
    let last = |fleet: &mut Vec<Worker>| fleet.pop().context("a worker");
    // One leaves, one more, two at the same time come back, two at the same time leave, as a StatefulSet with parallel pods would have it.
    for _ in 0..2 {
        for _ in 0..2 {
            let mut worker = last(&mut fleet)?;
            changes.push(Change::now("one leaves", true));
            worker.terminate()?;
            std::thread::sleep(APART);
        }
        changes.push(Change::now("two join", false));
        fleet.push(installation.start()?);
        fleet.push(installation.start()?);
        settle(&mut fleet, name)?;
        std::thread::sleep(APART);
        let mut leaving = [last(&mut fleet)?, last(&mut fleet)?];
        changes.push(Change::now("two leave", true));
        leaving.iter_mut().try_for_each(|worker| worker.process().signal("TERM"))?;
        for worker in &mut leaving {
            let status = worker.process().wait(Duration::from_secs(30))?;
            ensure!(status.success(), "a worker answered SIGTERM with {status}: {}", worker.process().log_end());
        }
        std::thread::sleep(APART);
        changes.push(Change::now("two join", false));
        fleet.push(installation.start()?);
        fleet.push(installation.start()?);
        settle(&mut fleet, name)?;
        std::thread::sleep(APART);
    }
    let end = Change::now("end", false);
    let journal = stream.stop()?;
    let rows = wait_for("all rows", SETTLED_WITHIN, || {
        let rows = landed(&bigquery)?;
        Ok((rows.iter().map(|row| row.place).collect::<std::collections::BTreeSet<_>>().len() >= journal.len()).then_some(rows))
    })?;
    reconcile(&rows, &journal)?;
    let worst = report(name, &changes, &end, &rows)?;
    ensure!(worst <= UNREAD_MAX, "a partition was unread for {worst:?} after a worker left; promised: {UNREAD_MAX:?}");
    fleet.iter_mut().try_for_each(Worker::terminate)?;
    drop(bigquery);
    runtime.shutdown_timeout(Duration::from_secs(2));
    Ok(())
}

/// Until these workers own all partitions, each its share.
fn settle(fleet: &mut [Worker], connector: &str) -> anyhow::Result<()> {
    let share = f64::from(PARTITIONS) / fleet.len() as f64;
    let since = Watch::start();
    wait_for("every worker has its share", SETTLED_WITHIN, || {
        for worker in fleet.iter_mut() {
            worker.process().check_running()?;
            if worker.metric("millrace_assigned_partitions", &[("connector", connector)])? != share {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })?;
    eprintln!("    {connector}: {} workers have {share} partitions each after {:.1} s", fleet.len(), since.elapsed().as_secs_f64());
    Ok(())
}

struct Landed {
    place: (i32, i64),
    identity: String,
    at_ms: i64,
}

fn landed(bigquery: &EmbeddedBigQuery) -> anyhow::Result<Vec<Landed>> {
    let mut rows = Vec::new();
    let mut odd = None;
    let columns = ["kafka_partition", "kafka_offset", "reference"];
    let read = bigquery.books().read_landed((PROJECT, "handover", "rows"), &columns, 0, |cells, at_ms| match cells {
        [Cell::Int(partition), Cell::Int(offset), Cell::Text(identity)] => {
            rows.push(Landed { place: (i32::try_from(*partition).unwrap_or(-1), *offset), identity: identity.clone(), at_ms });
        }
        other => odd = Some(format!("{other:?}")),
    });
    read.map_err(anyhow::Error::msg)?;
    ensure!(odd.is_none(), "a row of another kind: {odd:?}");
    Ok(rows)
}

/// Every record once, and with its content: a clean drain doubles nothing.
fn reconcile(rows: &[Landed], journal: &Journal) -> anyhow::Result<()> {
    let mut copies: BTreeMap<(i32, i64), usize> = BTreeMap::new();
    for row in rows {
        *copies.entry(row.place).or_default() += 1;
        ensure!(journal.get(&row.place) == Some(&row.identity), "{:?} is there as {}", row.place, row.identity);
    }
    ensure!(journal.keys().all(|place| copies.contains_key(place)), "records are missing");
    let twice: Vec<_> = copies.iter().filter(|(_, count)| **count > 1).take(5).collect();
    ensure!(twice.is_empty(), "{} rows more than records although nothing was killed: {twice:?}", rows.len() - journal.len());
    Ok(())
}

/// Prints the longest gap of a partition after each change; gives the longest after a worker left.
fn report(name: &str, changes: &[Change], end: &Change, rows: &[Landed]) -> anyhow::Result<Duration> {
    let mut moments: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
    rows.iter().for_each(|row| moments.entry(row.place.0).or_default().push(row.at_ms));
    ensure!(moments.len() == PARTITIONS as usize, "rows of {} partitions only", moments.len());
    moments.values_mut().for_each(|moments| moments.sort_unstable());
    let mut worst = 0;
    for (index, change) in changes.iter().enumerate() {
        let until_ms = changes.get(index + 1).unwrap_or(end).at_ms;
        let gaps = moments.iter().filter_map(|(partition, moments)| {
            let gaps = moments.windows(2).filter(|pair| pair[1] > change.at_ms && pair[0] < until_ms);
            let worked = |pair: &[i64]| pair[1] - pair[0] - stood_still_between(pair[0], pair[1]).as_millis() as i64;
            Some((gaps.map(worked).max()?, *partition))
        });
        let (gap, partition) = gaps.max().with_context(|| format!("no rows after {}", change.what))?;
        eprintln!("    {name}: {}: no partition unread for more than {gap} ms (partition {partition})", change.what);
        if change.leaves {
            worst = worst.max(gap);
        }
    }
    Ok(Duration::from_millis(u64::try_from(worst)?))
}
