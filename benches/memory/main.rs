#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "benchmarks")]
//! Memory under a sink that answers nothing: 20 connectors with 500 partitions in all, `memory = "256 MiB"`, records keep coming.
//!
//! `cargo bench --bench memory -- [--connectors 20] [--partitions 25] [--silence 60] [--rate 50000] [--backlog 4000000]`
//! `cargo bench --bench memory -- --case large-rows`: records of 1 MB each, the same silence.
//! `cargo bench --bench memory -- --case slow-letters`: three of ten records are bad, and their topic takes 50 kB/s of each producer
//! meanwhile.
//!
//! Claims: the process stays below 400 MiB (the other cases: below its budget and 150 MiB), every group keeps its member, and afterwards
//! every record that was acknowledged by Kafka is in the sink's journal or in the dead-letter topic. Exit code 1 when one of them does not
//! hold.

#[path = "../rig/mod.rs"]
mod rig;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::{Parser, ValueEnum};
use rig::dead_letters::Letters;
use rig::fleet::{Fleet, Registry, SKIP};
use rig::kafka::Kafka;
use rig::load::{self, Load};
use rig::process::{Process, wait_for};
use rig::sink::Sink;

/// The goal for the silent sink at 256 MiB.
const SILENT_SINK_MAX_MIB: f64 = 400.0;
/// What the process may take beyond its budget in any case.
const BEYOND_BUDGET_MAX_MIB: f64 = 150.0;
/// Where dead letters go.
const LETTERS: &str = "letters";
const LETTER_PARTITIONS: i32 = 8;
/// What the dead-letter topic takes of each producer while it is slow.
const SLOW_BYTES_PER_S: u64 = 50_000;

/// What makes memory scarce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Case {
    /// Small records, and a sink that answers nothing.
    SilentSink,
    /// Records of 1 MB, and a sink that answers nothing.
    LargeRows,
    /// Bad records faster than their topic takes them.
    SlowLetters,
}

impl Case {
    /// Connectors, partitions of each, records a second, backlog.
    fn size(self) -> (usize, i32, u64, u64) {
        match self {
            Self::SilentSink => (20, 25, 50_000, 4_000_000),
            Self::LargeRows => (4, 5, 20, 600),
            Self::SlowLetters => (4, 5, 2_000, 300_000),
        }
    }

    fn values(self, schema_id: u32) -> Vec<Vec<u8>> {
        match self {
            Self::SilentSink => load::stock(schema_id, 0.0),
            Self::LargeRows => load::large(schema_id, 1_000_000),
            Self::SlowLetters => load::stock(schema_id, 0.3),
        }
    }

    fn errors(self) -> String {
        match self {
            Self::SilentSink | Self::LargeRows => SKIP.to_owned(),
            Self::SlowLetters => format!("dead_letter_topic = \"{LETTERS}\""),
        }
    }
}

#[derive(Parser)]
struct Arguments {
    #[arg(long, default_value = "silent-sink")]
    case: Case,
    #[arg(long)]
    connectors: Option<usize>,
    /// Partitions of each connector's topic.
    #[arg(long)]
    partitions: Option<i32>,
    /// How long the sink says nothing (the dead-letter topic is slow), seconds.
    #[arg(long, default_value_t = 60)]
    silence: u64,
    /// Records a second, before, during and after the silence.
    #[arg(long)]
    rate: Option<u64>,
    /// Records in the topics when the worker starts.
    #[arg(long)]
    backlog: Option<u64>,
    /// Records in a batch on the broker. librdkafka holds at least one batch of every partition, about 440 bytes a record.
    #[arg(long, default_value_t = 500)]
    batch: u64,
    /// The worker's budget, MiB.
    #[arg(long, default_value_t = 256)]
    memory: u32,
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
    let case = arguments.case;
    let (connectors, partitions, rate, backlog) = case.size();
    let connectors = arguments.connectors.unwrap_or(connectors);
    let partitions = arguments.partitions.unwrap_or(partitions);
    let (rate, backlog) = (arguments.rate.unwrap_or(rate), arguments.backlog.unwrap_or(backlog));
    let folder = tempfile::tempdir()?;
    let kafka = Kafka::start(folder.path())?;
    let registry = Registry::start()?;
    let topics: Vec<String> = (0..connectors).map(|n| format!("stock-{n}")).collect();
    kafka.create_topics(&topics, partitions)?;
    kafka.create_topics(&[LETTERS.to_owned()], LETTER_PARTITIONS)?;
    let values = case.values(registry.schema_id);
    let load = |rate| Load { topics: &topics, partitions, values: &values, batch: arguments.batch, rate };
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    load(None).produce(&mut kafka.client(), backlog, &stop, &done)?;
    println!("{case:?}: {connectors} topics, {} partitions, backlog of {backlog} records", connectors * partitions as usize);

    let sink = Sink::start(folder.path(), true)?;
    let fleet = Fleet::new(folder.path(), kafka.bootstrap(), &registry, &sink.url, &format!("{} MiB", arguments.memory), "")?;
    for (n, topic) in topics.iter().enumerate() {
        fleet.connector(&format!("memory-{n}"), topic, &format!("bench.stock_{n}"), "[\"partition\", \"offset\"]", &case.errors())?;
    }
    if case == Case::SlowLetters {
        kafka.limit_producers(Some(SLOW_BYTES_PER_S))?;
    }
    let mut worker = fleet.start()?;
    if arguments.trace {
        trace(worker.id(), fleet.clone());
    }
    let coming = Arc::new(AtomicU64::new(0));
    let produced = std::thread::scope(|scope| -> Result<u64> {
        let producer = scope.spawn({
            let (stop, coming, load) = (&stop, Arc::clone(&coming), load(Some(rate)));
            let mut client = kafka.client();
            move || load.produce(&mut client, u64::MAX, stop, &coming)
        });
        let outcome = scarcity(&arguments, connectors, &kafka, &sink, &fleet, &mut worker, &coming);
        stop.store(true, Ordering::Relaxed);
        let produced = producer.join().map_err(|_| anyhow::anyhow!("the producer panicked"))?;
        outcome?;
        produced
    })?;
    let in_kafka = topics.iter().try_fold(0, |sum, topic| Ok::<_, anyhow::Error>(sum + kafka.records(topic, partitions)?))?;
    assert_eq!(in_kafka, backlog + produced, "Kafka holds what was acknowledged");
    let drained = wait_for("every record at the sink or in the dead-letter topic", Duration::from_secs(300), || {
        worker.check_running()?;
        let finished = sink.counts()?.distinct + kafka.records(LETTERS, LETTER_PARTITIONS)?;
        Ok((finished >= in_kafka).then_some(()))
    });
    let (counts, usage) = (sink.counts()?, worker.usage()?);
    let letters = Letters::read(&kafka, LETTERS, LETTER_PARTITIONS)?;
    let missing = in_kafka.saturating_sub(counts.distinct + letters.records.len() as u64);
    println!(
        "{in_kafka} records acknowledged by Kafka, {} distinct at the sink, {} distinct dead letters, {missing} missing, {} rows and {} letters twice",
        counts.distinct,
        letters.records.len(),
        counts.rows - counts.distinct,
        letters.count - letters.records.len() as u64,
    );
    let goal = if case == Case::SilentSink { SILENT_SINK_MAX_MIB } else { f64::from(arguments.memory) + BEYOND_BUDGET_MAX_MIB };
    println!("peak of the whole run: {:.0} MiB (goal: below {goal})", usage.peak_rss_mib);
    drained?;
    worker.terminate(Duration::from_secs(30))?;
    if usage.peak_rss_mib >= goal || missing > 0 {
        bail!("MISSED: {:.0} MiB, {missing} missing", usage.peak_rss_mib);
    }
    println!("met");
    Ok(())
}

/// Rows flow, then the sink falls silent (or the dead-letter topic is slow as it was), then all is well again.
fn scarcity(
    arguments: &Arguments,
    connectors: usize,
    kafka: &Kafka,
    sink: &Sink,
    fleet: &Fleet,
    worker: &mut Process,
    coming: &AtomicU64,
) -> Result<()> {
    let flowing = |least: u64, worker: &mut Process| {
        wait_for("rows at the sink", Duration::from_secs(120), || {
            worker.check_running()?;
            Ok((sink.counts()?.rows >= least).then_some(()))
        })
    };
    let groups =
        || -> Result<Vec<Vec<String>>> { Ok(kafka.groups("connect-memory-")?.into_iter().map(|(_, _, members)| members).collect()) };
    let letters = || kafka.records(LETTERS, LETTER_PARTITIONS);
    flowing(1, worker)?;
    let expected = wait_for("a member in every group", Duration::from_secs(60), || {
        worker.check_running()?;
        let members = groups()?;
        Ok((members.len() == connectors && members.iter().all(|m| m.len() == 1)).then_some(members))
    })?;
    let slow_letters = arguments.case == Case::SlowLetters;
    sink.silent(!slow_letters)?;
    let (before, came_before, letters_before) = (sink.counts()?, coming.load(Ordering::Relaxed), letters()?);
    let most = watch(worker, Duration::from_secs(arguments.silence))?;
    let (after, came_after, letters_after) = (sink.counts()?, coming.load(Ordering::Relaxed), letters()?);
    println!(
        "{} s of it: {} records came, {} rows went to the sink, {} letters to their topic, at most {most:.0} MiB resident",
        arguments.silence,
        came_after - came_before,
        after.rows - before.rows,
        letters_after - letters_before,
    );
    println!("memory by its own books: {:.0} MiB", fleet.metric("millrace_memory_used_bytes")? / 1024.0 / 1024.0);
    if came_after == came_before {
        bail!("no record came meanwhile: this shows nothing");
    }
    if groups()? != expected {
        bail!("members changed meanwhile: {expected:?}, now {:?}", groups()?);
    }
    println!("every group kept its member");
    if slow_letters {
        return kafka.limit_producers(None);
    }
    sink.silent(false)?;
    flowing(after.rows + 1, worker)
}
