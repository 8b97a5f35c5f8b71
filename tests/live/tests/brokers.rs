//! A broker killed while records flow.

use std::time::Duration;

use anyhow::ensure;

use crate::harness::avro::{Stock, framed, stock_schema};
use crate::harness::installation::{Installation, avro_connector};
use crate::harness::journal::{Producer, Stream, reconcile};
use crate::harness::servers::Servers;

/// The broker that leads partition 0 is killed, is away for a while, and comes back; the worker needs no restart.
pub fn one_is_killed_while_records_flow(servers: &Servers) -> anyhow::Result<()> {
    let (kafka, reader) = (servers.kafka()?, servers.emulator()?.reader());
    kafka.create_topic("broker", 6, &[])?;
    kafka.create_topic("broker.dead", 1, &[])?;
    reader.create_dataset("broker")?;
    let id = servers.registry()?.register("broker-value", &stock_schema()?, &[])?;
    let installation = Installation::new(servers, "brokers::one_is_killed_while_records_flow")?;
    installation.connector("broker", &avro_connector("broker", "broker.rows", "broker.dead"))?;
    let mut worker = installation.start()?;
    worker.wait_for_partitions("broker", 6, Duration::from_secs(60))?;
    let stock = Stock::new()?;
    let producer = Producer::new(kafka.client(), "broker")?;
    let stream =
        Stream::start(producer, 6, 400, move |n| (Stock::reference(n), framed(id, &stock.encode(n).expect("a stock update encodes"))));
    std::thread::sleep(Duration::from_secs(4));
    let victim = kafka.leader("broker", 0)?;
    kafka.kill_broker(victim)?;
    std::thread::sleep(Duration::from_secs(8));
    let durable = worker.metric("millrace_table_rows_durable_total", &[])?;
    kafka.restart_broker(victim)?;
    std::thread::sleep(Duration::from_secs(5));
    let journal = stream.stop()?;
    let duplicates = reconcile(reader, "broker.rows", "reference", &journal, Duration::from_secs(90))?;
    eprintln!("    {} records, {durable} durable while broker {victim} was away, {duplicates} duplicates", journal.len());
    // Records flowed before the kill for 4 s at 400/s: more than these means that they flowed while the broker was away.
    ensure!(durable > 2400.0, "only {durable} rows were durable 8 s after the kill");
    // At worst the group's coordinator was on the killed broker: partitions move once, what was appended since the last commit comes again.
    ensure!(duplicates <= 800, "{duplicates} duplicates");
    ensure!(worker.metric("millrace_dead_letters_total", &[])? == 0.0, "a dead letter");
    worker.terminate()
}
