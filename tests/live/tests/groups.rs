//! Several workers of one group: one is killed, one joins, one leaves, under both group protocols.

use std::time::Duration;

use anyhow::{Context, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::harness::avro::{Stock, framed, stock_schema};
use crate::harness::installation::{Installation, avro_connector, patient};
use crate::harness::journal::{Producer, Stream, reconcile, rows};
use crate::harness::process::wait_for;
use crate::harness::servers::Servers;
use crate::machine::Watch;

const PARTITIONS: i32 = 4;
const RATE: u32 = 200;
/// What the issue promises at a session timeout of 10 s.
const MOVED_WITHIN: Duration = Duration::from_secs(15);
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

pub fn classic(servers: &Servers) -> anyhow::Result<()> {
    let mut installation = Installation::new(servers, "groups::classic")?;
    installation.set("kafka", "session.timeout.ms", 10_000);
    killed_joined_left(servers, "classic", &installation)
}

pub fn consumer(servers: &Servers) -> anyhow::Result<()> {
    let mut installation = Installation::new(servers, "groups::consumer")?;
    // The session timeout of this protocol is the brokers': group.consumer.session.timeout.ms, 10 s here too.
    installation.unset("kafka", "session.timeout.ms");
    installation.set("kafka", "group.protocol", "consumer");
    killed_joined_left(servers, "consumer", &installation)
}

fn killed_joined_left(servers: &Servers, name: &str, installation: &Installation) -> anyhow::Result<()> {
    let (kafka, reader) = (servers.kafka()?, servers.emulator()?.reader());
    kafka.create_topic(name, PARTITIONS, &[])?;
    kafka.create_topic(&format!("{name}.dead"), 1, &[])?;
    let dataset = format!("group_{name}");
    reader.create_dataset(&dataset)?;
    let id = servers.registry()?.register(&format!("{name}-value"), &stock_schema()?, &[])?;
    let table = format!("{dataset}.rows");
    installation.connector(name, &patient(&avro_connector(name, &table, &format!("{name}.dead"))))?;

    let stock = Stock::new()?;
    let producer = Producer::new(kafka.client(), name)?;
    let stream = Stream::start(producer, PARTITIONS, RATE, move |n| {
        (Stock::reference(n), framed(id, &stock.encode(n).expect("a stock update encodes")))
    });
    let (mut first, mut second) = (installation.start()?, installation.start()?);
    first.wait_for_partitions(name, 2, SETTLED_WITHIN)?;
    second.wait_for_partitions(name, 2, SETTLED_WITHIN)?;
    wait_for("rows of every partition", SETTLED_WITHIN, || {
        let rows = rows(reader, &table, "reference")?;
        Ok((0..PARTITIONS).all(|p| rows.keys().any(|(partition, _)| *partition == p)).then_some(()))
    })?;

    // Killed: the records that every partition had at that moment must be taken within the limit and become rows, so all four flow again.
    first.process().kill()?;
    let killed = Watch::start();
    let probe: BaseConsumer = kafka.client().create()?;
    let ends: Vec<i64> =
        (0..PARTITIONS).map(|p| Ok(probe.fetch_watermarks(name, p, Duration::from_secs(60))?.1)).collect::<anyhow::Result<_>>()?;
    // What comes again at most: records that it may have appended and had not committed.
    let mut uncommitted = 0;
    for (p, end) in (0..PARTITIONS).zip(&ends) {
        uncommitted += end - kafka.committed(&format!("connect-{name}"), name, p)?.unwrap_or(0);
    }
    // Taken by the other one within what is promised. How soon the emulator, which others wrote, makes rows of them on a busy machine is
    // not: `faults` shows the same to the rows on the embedded BigQuery.
    let mut taken = Vec::new();
    let moved = wait_for("the other worker has taken what there was", MOVED_WITHIN.saturating_sub(killed.elapsed()), || {
        let status = second.status()?;
        let partitions = status["connectors"][0]["partitions"].as_array().cloned().unwrap_or_default();
        taken = partitions.iter().map(|of| (of["partition"].as_i64(), of["position"].as_i64())).collect();
        let has = |p: i32| taken.iter().any(|(partition, next)| *partition == Some(p.into()) && *next >= Some(ends[p as usize]));
        Ok((0..PARTITIONS).all(has).then_some(()))
    });
    moved.with_context(|| format!("{MOVED_WITHIN:?} after the kill; ends at the kill: {ends:?}, taken (partition, next): {taken:?}"))?;
    let mut reached = Vec::new();
    let flows = wait_for("all partitions flow again", MOVED_WITHIN, || {
        std::thread::sleep(Duration::from_millis(300)); // the emulator answers one question at a time, and rows are to come in meanwhile
        reached =
            reader.query(&format!("SELECT kafka_partition AS p, MAX(kafka_offset) + 1 AS next FROM {table} GROUP BY 1 ORDER BY 1"))?;
        let flows = |p: i32| reached.iter().any(|row| row["p"] == p && row["next"].as_i64() >= Some(ends[p as usize]));
        Ok((0..PARTITIONS).all(flows).then_some(()))
    });
    flows.with_context(|| format!("ends at the kill: {ends:?}, reached: {reached:?}"))?;
    eprintln!("    {name}: flowing again {:.1} s after the kill", killed.elapsed().as_secs_f64());

    // Another joins and gets its share; then one leaves in order.
    let mut third = installation.start()?;
    third.wait_for_partitions(name, 2, SETTLED_WITHIN)?;
    second.wait_for_partitions(name, 2, SETTLED_WITHIN)?;
    std::thread::sleep(Duration::from_secs(3));
    second.terminate().context("the clean leave")?;
    third.wait_for_partitions(name, 4, SETTLED_WITHIN)?;
    let journal = stream.stop()?;
    let duplicates = reconcile(reader, &table, "reference", &journal, SETTLED_WITHIN)?;
    eprintln!("    {name}: {} records, {duplicates} duplicates", journal.len());
    // Commits and appends come once a second each, half of the partitions were the killed one's: RATE, doubled; more only where more was due.
    let most = uncommitted.max(2 * i64::from(RATE));
    ensure!(duplicates as i64 <= most, "{duplicates} duplicates, at most {most} may come of the kill");
    // All of them lie below the kill: joining and leaving add none.
    let later =
        rows(reader, &table, "reference")?.into_iter().find(|((p, offset), copies)| copies.len() > 1 && *offset >= ends[*p as usize]);
    ensure!(later.is_none(), "a duplicate of a record that came after the kill: {later:?}");
    third.terminate()
}
