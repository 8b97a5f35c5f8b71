//! A broker killed while records flow.

use std::time::Duration;

use anyhow::{Context, ensure};

use crate::harness::avro::{Stock, framed, stock_schema};
use crate::harness::installation::{Installation, avro_connector, patient};
use crate::harness::journal::{Producer, Stream, reconcile};
use crate::harness::servers::Servers;

const DURABLE: &str = "millrace_table_rows_durable_total";

/// The broker that leads partition 0 is killed, is away for a while, and comes back; the worker needs no restart.
pub fn one_is_killed_while_records_flow(servers: &Servers) -> anyhow::Result<()> {
    let (kafka, reader) = (servers.kafka()?, servers.emulator()?.reader());
    kafka.create_topic("broker", 6, &[])?;
    kafka.create_topic("broker.dead", 1, &[])?;
    reader.create_dataset("broker")?;
    let id = servers.registry()?.register("broker-value", &stock_schema()?, &[])?;
    let installation = Installation::new(servers, "brokers::one_is_killed_while_records_flow")?;
    installation.connector("broker", &patient(&avro_connector("broker", "broker.rows", "broker.dead")))?;
    let mut worker = installation.start()?;
    worker.wait_for_partitions("broker", 6, Duration::from_secs(60))?;
    let stock = Stock::new()?;
    let producer = Producer::new(kafka.client(), "broker")?;
    let stream =
        Stream::start(producer, 6, 200, move |n| (Stock::reference(n), framed(id, &stock.encode(n).expect("a stock update encodes"))));
    worker.wait_for_metric(DURABLE, &[], 1000.0, Duration::from_secs(60))?;
    let victim = kafka.leader("broker", 0)?;
    let before = worker.metric(DURABLE, &[])?;
    kafka.kill_broker(victim)?;
    std::thread::sleep(Duration::from_secs(7)); // leaders move after broker.session.timeout.ms, 4 s
    let moved = worker.metric(DURABLE, &[])?;
    worker.wait_for_metric(DURABLE, &[], moved + 500.0, Duration::from_secs(60)).context("while the broker is away")?;
    kafka.restart_broker(victim)?;
    std::thread::sleep(Duration::from_secs(3));
    let journal = stream.stop()?;
    let duplicates = reconcile(reader, "broker.rows", "reference", &journal, Duration::from_secs(90))?;
    eprintln!("    {} records, {before} durable at the kill of broker {victim}, {moved} 7 s later, {duplicates} duplicates", journal.len());
    ensure!(duplicates <= 400, "{duplicates} duplicates");
    ensure!(worker.metric("millrace_dead_letters_total", &[])? == 0.0, "a dead letter");
    worker.terminate()
}
