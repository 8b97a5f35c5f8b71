#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "benchmarks")]
//! An hour of work with faults that come at random: nothing that a worker holds may grow.
//!
//! `cargo bench --bench soak -- [--minutes 60] [--rate 20000] [--seed 1]`
//!
//! Claims: resident memory, threads, file descriptors and metric series of the first worker are in the last quarter what they were in the
//! second one (the first is its warm-up), and afterwards every record that was acknowledged by Kafka is in the sink's journal or in the
//! dead-letter topic. Exit code 1 when one of them does not hold.

mod faults;
mod growth;
#[path = "../rig/mod.rs"]
mod rig;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Parser;
use faults::Faults;
use growth::{Growth, Sample};
use rig::dead_letters::Letters;
use rig::fleet::{Fleet, Registry};
use rig::kafka::Kafka;
use rig::load::{self, Load};
use rig::process::wait_for;
use rig::sink::Sink;

const TOPICS: usize = 4;
const PARTITIONS: i32 = 4;
/// One record of a thousand can become no row.
const BAD_SHARE: f64 = 0.001;
const LETTERS: &str = "letters";
const LETTER_PARTITIONS: i32 = 4;
const SAMPLE_EVERY: Duration = Duration::from_secs(5);
const PRINT_EVERY: Duration = Duration::from_secs(60);

#[derive(Parser)]
struct Arguments {
    #[arg(long, default_value_t = 60.0)]
    minutes: f64,
    /// Records a second, over all topics.
    #[arg(long, default_value_t = 20_000)]
    rate: u64,
    /// Draws the faults and their times.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Given by cargo bench.
    #[arg(long, hide = true)]
    bench: bool,
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
    let topics: Vec<String> = (0..TOPICS).map(|n| format!("stock-{n}")).collect();
    kafka.create_topics(&topics, PARTITIONS)?;
    kafka.create_topics(&[LETTERS.to_owned()], LETTER_PARTITIONS)?;
    let sink = Sink::start(folder.path(), true)?;
    let fleet = Fleet::new(folder.path(), kafka.bootstrap(), &registry, &sink.url, "256 MiB", "")?;
    for (n, topic) in topics.iter().enumerate() {
        let errors = format!("dead_letter_topic = \"{LETTERS}\"");
        fleet.connector(&format!("soak-{n}"), topic, &format!("bench.stock_{n}"), "[\"partition\", \"offset\"]", &errors)?;
    }
    let mut worker = fleet.start()?;
    fleet.wait_until_live(&mut worker)?;

    let values = load::stock(registry.schema_id, BAD_SHARE);
    let load = Load { topics: &topics, partitions: PARTITIONS, values: &values, batch: 100, rate: Some(arguments.rate) };
    let (stop, coming) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut growth = Growth::default();
    let produced = std::thread::scope(|scope| -> Result<u64> {
        let producer = scope.spawn({
            let (stop, coming, mut client) = (&stop, &coming, kafka.client());
            move || load.produce(&mut client, u64::MAX, stop, coming)
        });
        let outcome = (|| -> Result<()> {
            let mut faults = Faults::new(arguments.seed, &kafka, &sink, &fleet);
            let (start, length) = (Instant::now(), Duration::from_secs_f64(arguments.minutes * 60.0));
            let mut printed = start;
            while start.elapsed() < length {
                worker.check_running()?;
                faults.turn(&worker, length.saturating_sub(start.elapsed()))?;
                let usage = worker.usage()?;
                // A busy machine is no growth: the page may be late, not gone.
                let series = wait_for("the metrics page", Duration::from_secs(60), || Ok(fleet.series().ok()))?;
                growth.add(Sample {
                    rss_mib: usage.rss_mib,
                    threads: usage.threads as f64,
                    descriptors: usage.descriptors as f64,
                    series: series as f64,
                });
                if printed.elapsed() >= PRINT_EVERY {
                    printed = Instant::now();
                    println!(
                        "{:>3.0} min: {:.0} MiB, {} threads, {} descriptors, {series} series, {} records produced",
                        start.elapsed().as_secs_f64() / 60.0,
                        usage.rss_mib,
                        usage.threads,
                        usage.descriptors,
                        coming.load(Ordering::Relaxed)
                    );
                }
                std::thread::sleep(SAMPLE_EVERY);
            }
            faults.end()
        })();
        stop.store(true, Ordering::Relaxed);
        let produced = producer.join().map_err(|_| anyhow::anyhow!("the producer panicked"))?;
        outcome?;
        produced
    })?;
    let in_kafka = topics.iter().try_fold(0, |sum, topic| Ok::<_, anyhow::Error>(sum + kafka.records(topic, PARTITIONS)?))?;
    assert_eq!(in_kafka, produced, "Kafka holds what was acknowledged");
    let drained = wait_for("every record at the sink or in the dead-letter topic", Duration::from_secs(300), || {
        worker.check_running()?;
        Ok((sink.counts()?.distinct + kafka.records(LETTERS, LETTER_PARTITIONS)? >= in_kafka).then_some(()))
    });
    let (counts, usage, letters) = (sink.counts()?, worker.usage()?, Letters::read(&kafka, LETTERS, LETTER_PARTITIONS)?);
    let missing = in_kafka.saturating_sub(counts.distinct + letters.records.len() as u64);
    println!(
        "{in_kafka} records, {} distinct at the sink, {} distinct dead letters, {missing} missing, {} rows and {} letters twice",
        counts.distinct,
        letters.records.len(),
        counts.rows - counts.distinct,
        letters.count - letters.records.len() as u64,
    );
    println!("peak of the whole run: {:.0} MiB; {:.0} s of CPU", usage.peak_rss_mib, usage.cpu_s);
    let grown = growth.verdict();
    drained?;
    worker.terminate(Duration::from_secs(30))?;
    if missing > 0 || !grown.is_empty() {
        bail!("MISSED: {missing} missing; grown: {grown:?}");
    }
    println!("met");
    Ok(())
}
