#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "benchmarks")]
//! Memory under a sink that answers nothing: 20 connectors with 500 partitions in all, `memory = "256 MiB"`, records keep coming.
//!
//! `cargo bench --bench memory -- [--connectors 20] [--partitions 25] [--silence 60] [--rate 100000] [--backlog 4000000]`
//!
//! Claims: the process stays below 400 MiB, every group keeps its member, and afterwards every record that was acknowledged by Kafka is in
//! the sink's journal. Exit code 1 when one of them does not hold.

#[path = "../rig/mod.rs"]
mod rig;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Parser;
use rig::fleet::{Fleet, Registry};
use rig::kafka::Kafka;
use rig::load::Load;
use rig::process::{Process, wait_for};
use rig::sink::Sink;

/// The goal of issue 3, section 4.
const RSS_MAX_MIB: f64 = 400.0;

#[derive(Parser)]
struct Arguments {
    #[arg(long, default_value_t = 20)]
    connectors: usize,
    /// Partitions of each connector's topic.
    #[arg(long, default_value_t = 25)]
    partitions: i32,
    /// How long the sink says nothing, seconds.
    #[arg(long, default_value_t = 60)]
    silence: u64,
    /// Records a second, before, during and after the silence.
    #[arg(long, default_value_t = 50_000)]
    rate: u64,
    /// Records in the topics when the worker starts.
    #[arg(long, default_value_t = 4_000_000)]
    backlog: u64,
    /// Records in a batch on the broker. librdkafka holds at least one batch of every partition, about 440 bytes a record.
    #[arg(long, default_value_t = 500)]
    batch: u64,
    #[arg(long, default_value = "256 MiB")]
    memory: String,
    /// Print every second what the process holds and what its books say.
    #[arg(long)]
    trace: bool,
    /// Given by cargo bench.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Watches the worker while something happens: samples its memory every 100 ms.
fn watch(worker: &mut Process, length: Duration) -> Result<f64> {
    let (end, mut most) = (Instant::now() + length, 0.0_f64);
    while Instant::now() < end {
        worker.check_running()?;
        most = most.max(worker.usage()?.rss_mib);
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(most)
}

/// A line a second until the process ends.
fn trace(worker: u32, fleet: Fleet) {
    let start = Instant::now();
    std::thread::spawn(move || {
        while let Ok(status) = std::fs::read_to_string(format!("/proc/{worker}/status")) {
            let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default().trim().to_owned();
            let kinds = ["prefetch", "open_buffers", "in_flight", "unaccounted"].map(|kind| {
                let series = format!("millrace_memory_used_bytes{{kind=\"{kind}\"}}");
                (kind, fleet.metric(&series).unwrap_or(f64::NAN) / 1024.0 / 1024.0)
            });
            println!("{:>4.0} s resident {resident} {kinds:.0?}", start.elapsed().as_secs_f64());
            std::thread::sleep(Duration::from_secs(1));
        }
    });
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|first| first == "sink") {
        return rig::sink::serve(arguments.get(2).is_some_and(|kind| kind == "journal"));
    }
    let arguments = Arguments::parse();
    let folder = tempfile::tempdir()?;
    let kafka = Kafka::start(folder.path())?;
    let registry = Registry::start()?;
    let topics: Vec<String> = (0..arguments.connectors).map(|n| format!("stock-{n}")).collect();
    kafka.create_topics(&topics, arguments.partitions)?;
    let load =
        |rate| Load { topics: &topics, partitions: arguments.partitions, schema_id: registry.schema_id, batch: arguments.batch, rate };
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    load(None).produce(&mut kafka.client(), arguments.backlog, &stop, &done)?;
    println!(
        "{} topics, {} partitions, backlog of {} records",
        topics.len(),
        topics.len() * arguments.partitions as usize,
        arguments.backlog
    );

    let sink = Sink::start(folder.path(), true)?;
    let fleet = Fleet::new(folder.path(), kafka.bootstrap(), &registry, &sink.url, &arguments.memory, "")?;
    for (n, topic) in topics.iter().enumerate() {
        fleet.connector(&format!("memory-{n}"), topic, &format!("bench.stock_{n}"), "[\"partition\", \"offset\"]")?;
    }
    let mut worker = fleet.start()?;
    if arguments.trace {
        trace(worker.id(), fleet.clone());
    }
    let coming = Arc::new(AtomicU64::new(0));
    let produced = std::thread::scope(|scope| -> Result<u64> {
        let producer = scope.spawn({
            let (stop, coming, load) = (&stop, Arc::clone(&coming), load(Some(arguments.rate)));
            let mut client = kafka.client();
            move || load.produce(&mut client, u64::MAX, stop, &coming)
        });
        let outcome = silence(&arguments, &kafka, &sink, &fleet, &mut worker, &coming);
        stop.store(true, Ordering::Relaxed);
        let produced = producer.join().map_err(|_| anyhow::anyhow!("the producer panicked"))?;
        outcome?;
        produced
    })?;
    let in_kafka = topics.iter().try_fold(0, |sum, topic| Ok::<_, anyhow::Error>(sum + kafka.records(topic, arguments.partitions)?))?;
    assert_eq!(in_kafka, arguments.backlog + produced, "Kafka holds what was acknowledged");
    let drained = wait_for("every record at the sink", Duration::from_secs(300), || {
        worker.check_running()?;
        Ok(Some(sink.counts()?).filter(|counts| counts.distinct >= in_kafka))
    });
    let (counts, usage) = (sink.counts()?, worker.usage()?);
    let missing = in_kafka - counts.distinct;
    println!(
        "{in_kafka} records acknowledged by Kafka, {} distinct at the sink, {missing} missing, {} twice",
        counts.distinct,
        counts.rows - counts.distinct
    );
    println!("peak of the whole run: {:.0} MiB (goal: below {RSS_MAX_MIB})", usage.peak_rss_mib);
    drained?;
    worker.terminate(Duration::from_secs(30))?;
    if usage.peak_rss_mib >= RSS_MAX_MIB {
        bail!("MISSED: {:.0} MiB", usage.peak_rss_mib);
    }
    println!("met");
    Ok(())
}

/// Rows flow, the sink falls silent, rows flow again.
fn silence(arguments: &Arguments, kafka: &Kafka, sink: &Sink, fleet: &Fleet, worker: &mut Process, coming: &AtomicU64) -> Result<()> {
    let flowing = |least: u64, worker: &mut Process| {
        wait_for("rows at the sink", Duration::from_secs(120), || {
            worker.check_running()?;
            Ok((sink.counts()?.rows >= least).then_some(()))
        })
    };
    let groups =
        || -> Result<Vec<Vec<String>>> { Ok(kafka.groups("connect-memory-")?.into_iter().map(|(_, _, members)| members).collect()) };
    flowing(1, worker)?;
    let expected = wait_for("a member in every group", Duration::from_secs(60), || {
        worker.check_running()?;
        let members = groups()?;
        Ok((members.len() == arguments.connectors && members.iter().all(|m| m.len() == 1)).then_some(members))
    })?;
    sink.silent(true)?;
    let (before, came_before) = (sink.counts()?, coming.load(Ordering::Relaxed));
    let most = watch(worker, Duration::from_secs(arguments.silence))?;
    let (after, came_after) = (sink.counts()?, coming.load(Ordering::Relaxed));
    println!(
        "silence of {} s: {} records came, {} rows went into it, at most {most:.0} MiB resident",
        arguments.silence,
        came_after - came_before,
        after.rows - before.rows
    );
    println!("memory by its own books: {:.0} MiB", fleet.metric("millrace_memory_used_bytes")? / 1024.0 / 1024.0);
    if came_after == came_before {
        bail!("no record came during the silence: this shows nothing");
    }
    if groups()? != expected {
        bail!("members changed during the silence: {expected:?}, now {:?}", groups()?);
    }
    println!("every group kept its member");
    sink.silent(false)?;
    flowing(after.rows + 100_000, worker)
}
