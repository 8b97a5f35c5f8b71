#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "benchmarks")]
//! The whole worker on a real broker: CPU per record and records per second, beside a bare librdkafka consumer on the same topic.
//!
//! `cargo bench --bench worker -- [--guarantee exactly-once] [--records 8000000] [--rounds 3] [--partitions 4] [--memory "512 MiB"] [--perf
//! FILE]`

#[path = "bare.rs"]
mod bare;
#[path = "../rig/mod.rs"]
mod rig;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Parser;
use rig::fleet::{Fleet, Registry, SKIP};
use rig::kafka::Kafka;
use rig::load::Load;
use rig::process::{Process, median, wait_for};
use rig::sink::Sink;

/// What the bare consumer is given beside librdkafka's defaults: what makes it fastest (`reference`: fetch back-off, prefetch).
const BARE_SETTINGS: &str = "fetch.queue.backoff.ms=10,queued.min.messages=20000";

const AT_LEAST_ONCE: &str = "at-least-once";
const EXACTLY_ONCE: &str = "exactly-once";

#[derive(Parser)]
struct Arguments {
    /// Records in the topic.
    #[arg(long, default_value_t = 8_000_000)]
    records: u64,
    /// How often each is measured; medians are reported.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    #[arg(long, default_value_t = 4)]
    partitions: i32,
    #[arg(long, default_value = "512 MiB")]
    memory: String,
    /// Metadata columns of the table.
    #[arg(long, default_value = "[]")]
    metadata: String,
    /// `exactly-once` measures a worker that promises this too, beside one at least once.
    #[arg(long, default_value = AT_LEAST_ONCE, value_parser = [AT_LEAST_ONCE, EXACTLY_ONCE])]
    guarantee: String,
    /// Have `perf record` watch the worker, and leave its file here (of the last round).
    #[arg(long)]
    perf: Option<String>,
    /// Given by cargo bench.
    #[arg(long, hide = true)]
    bench: bool,
}

struct Figures {
    records_per_s: f64,
    cpu_ns: f64,
    peak_rss_mib: f64,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("sink") => return rig::sink::serve(arguments.get(2).is_some_and(|kind| kind == "journal")),
        Some("bare") => {
            let settings: Vec<(String, String)> =
                BARE_SETTINGS.split(',').filter_map(|s| s.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
            return bare::consume(&arguments[2], &arguments[3], arguments[4].parse()?, arguments[5].parse()?, &settings);
        }
        _ => {}
    }
    let arguments = Arguments::parse();
    let folder = tempfile::tempdir()?;
    let kafka = Kafka::start(folder.path())?;
    let registry = Registry::start()?;
    let topic = "stock".to_owned();
    kafka.create_topics(std::slice::from_ref(&topic), arguments.partitions)?;
    let start = Instant::now();
    let load = Load {
        topics: std::slice::from_ref(&topic),
        partitions: arguments.partitions,
        values: &rig::load::stock(registry.schema_id, 0.0),
        batch: 500,
        rate: None,
    };
    load.produce(&mut kafka.client(), arguments.records, &AtomicBool::new(false), &AtomicU64::new(0))?;
    println!("loaded {} records in {:.1} s", arguments.records, start.elapsed().as_secs_f64());

    let (mut bare, mut worker, mut exact) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=arguments.rounds {
        let figures = run_bare(folder.path(), &kafka, &topic, &arguments)?;
        print("bare consumer", round, &figures);
        bare.push(figures);
        let figures = run_worker(folder.path(), &kafka, &registry, &topic, &arguments, (round, AT_LEAST_ONCE))?;
        print("worker", round, &figures);
        worker.push(figures);
        if arguments.guarantee == EXACTLY_ONCE {
            let figures = run_worker(folder.path(), &kafka, &registry, &topic, &arguments, (round, EXACTLY_ONCE))?;
            print(EXACTLY_ONCE, round, &figures);
            exact.push(figures);
        }
    }
    let of = |figures: &[Figures], part: fn(&Figures) -> f64| median(figures.iter().map(part).collect());
    let ratio = of(&worker, |f| f.cpu_ns) / of(&bare, |f| f.cpu_ns);
    for (name, figures) in
        [("bare consumer", &bare), ("worker", &worker), (EXACTLY_ONCE, &exact)].into_iter().filter(|(_, f)| !f.is_empty())
    {
        println!(
            "median {name:14} {:>10.0} records/s {:>7.0} ns CPU/record {:>6.0} MiB peak",
            of(figures, |f| f.records_per_s),
            of(figures, |f| f.cpu_ns),
            of(figures, |f| f.peak_rss_mib)
        );
    }
    let rate = of(&worker, |f| f.records_per_s);
    println!("CPU per record: {ratio:.2} times the bare consumer's (goal: at most 2.5) {}", if ratio <= 2.5 { "met" } else { "MISSED" });
    println!("records/s: {rate:.0} (goal: at least 700000) {}", if rate >= 700_000.0 { "met" } else { "MISSED" });
    if !exact.is_empty() {
        let (cpu, speed) = (of(&exact, |f| f.cpu_ns) / of(&worker, |f| f.cpu_ns), of(&exact, |f| f.records_per_s) / rate);
        println!("exactly once: {cpu:.2} times the CPU per record of at least once, {speed:.2} times its records/s");
    }
    Ok(())
}

fn print(name: &str, round: usize, f: &Figures) {
    println!(
        "round {round} {name:14} {:>10.0} records/s {:>7.0} ns CPU/record {:>6.0} MiB peak",
        f.records_per_s, f.cpu_ns, f.peak_rss_mib
    );
}

fn run_bare(folder: &Path, kafka: &Kafka, topic: &str, arguments: &Arguments) -> Result<Figures> {
    let command = [
        "bare".to_owned(),
        kafka.bootstrap().to_owned(),
        topic.to_owned(),
        arguments.partitions.to_string(),
        arguments.records.to_string(),
    ];
    let mut process = Process::start(&std::env::current_exe()?, &command, &folder.join("bare.log"))?;
    let line = process.wait_for_line("took ", Duration::from_secs(600))?;
    let usage = process.usage()?;
    let seconds: f64 = line.rsplit(' ').nth(1).unwrap_or_default().parse()?;
    let records = arguments.records as f64;
    Ok(Figures { records_per_s: records / seconds, cpu_ns: usage.cpu_s * 1e9 / records, peak_rss_mib: usage.peak_rss_mib })
}

/// `run`: which round, and what the connector promises.
fn run_worker(
    folder: &Path,
    kafka: &Kafka,
    registry: &Registry,
    topic: &str,
    arguments: &Arguments,
    run: (usize, &str),
) -> Result<Figures> {
    let (round, guarantee) = run;
    let name = format!("round-{round}-{guarantee}");
    let own = folder.join(&name);
    std::fs::create_dir_all(&own)?;
    let sink = Sink::start(&own, false)?;
    let fleet = Fleet::new(&own, kafka.bootstrap(), registry, &sink.url, &arguments.memory, "")?;
    fleet.promising_connector(&name, topic, "bench.stock", &arguments.metadata, SKIP, guarantee)?;
    let mut worker = fleet.start()?;
    let perf = arguments.perf.as_ref().map(|file| {
        let command = ["record", "-F", "499", "--call-graph", "fp", "-o", file, "-p", &worker.id().to_string()].map(str::to_owned);
        Process::start(Path::new("perf"), &command, &own.join("perf.log"))
    });
    let mut perf = perf.transpose()?;
    let counts = wait_for("all rows at the sink", Duration::from_secs(600), || {
        worker.check_running()?;
        Ok(Some(sink.counts()?).filter(|counts| counts.rows >= arguments.records))
    })?;
    let usage = worker.usage()?;
    if let Some(perf) = &mut perf {
        perf.terminate(Duration::from_secs(30))?;
    }
    worker.terminate(Duration::from_secs(30))?;
    let (records, sunk) = (arguments.records as f64, sink.process.usage()?);
    println!(
        "round {round} sink           {} rows in {} appends of {:.0} KiB, {:.0} ns CPU a row",
        counts.rows,
        counts.appends,
        counts.bytes as f64 / counts.appends as f64 / 1024.0,
        sunk.cpu_s * 1e9 / records
    );
    Ok(Figures { records_per_s: records / counts.seconds, cpu_ns: usage.cpu_s * 1e9 / records, peak_rss_mib: usage.peak_rss_mib })
}
