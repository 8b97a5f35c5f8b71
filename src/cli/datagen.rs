//! `millrace datagen`: stock updates to any broker, at a rate that can be changed while it runs.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use super::Exit;
use super::arguments;
use super::keys::{Key, Keys};
use super::stdout::{self, say};
use crate::datagen::{Brake, Framing, Generator, GeneratorSettings, Journal, Rate, STOCK_UPDATE_SCHEMA, serve_rate};

/// How a record says what its schema is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FramingName {
    /// Confluent's: magic byte 0, the registry's id, Avro.
    Registry,
    /// Plain Avro; a header names the schema.
    Header,
    /// A JSON object.
    Json,
}

/// Arguments of `millrace datagen`.
#[derive(Debug, Args)]
pub struct DatagenArgs {
    /// bootstrap.servers.
    #[arg(long)]
    brokers: String,
    /// The topic; it must exist or be created by the broker.
    #[arg(long, default_value = "sms_physical_stock_updated_topic")]
    topic: String,
    /// How a record says what its schema is.
    #[arg(long, value_enum, default_value = "header")]
    framing: FramingName,
    /// The header that names the schema.
    #[arg(long, default_value = "schema")]
    schema_header: String,
    /// The registry's address; the schema is registered there.
    #[arg(long, required_if_eq("framing", "registry"))]
    registry: Option<String>,
    /// The registry's subject [default: <topic>-value].
    #[arg(long)]
    subject: Option<String>,
    /// Records a second. Keys `+` `-` `*` `/` change it, and POST /rate on --rate-port.
    #[arg(long, default_value_t = 1000)]
    rate: u64,
    /// Serve GET and POST /rate on this port of 127.0.0.1; 0 takes a free one.
    #[arg(long)]
    rate_port: Option<u16>,
    /// Stop after so many records.
    #[arg(long)]
    count: Option<u64>,
    /// Stop after so long.
    #[arg(long = "for", value_parser = arguments::duration)]
    duration: Option<Duration>,
    /// The share of bad records, of each kind in turn.
    #[arg(long, value_parser = arguments::share, default_value = "0%")]
    bad_records: f64,
    /// The same seed gives the same records (but for their times).
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Write what was acknowledged to this file at the end: partition,offset,hash,kind.
    #[arg(long)]
    journal: Option<PathBuf>,
    /// A librdkafka property, such as security.protocol=SSL; may come several times.
    #[arg(short = 'X', value_parser = arguments::property)]
    properties: Vec<(String, String)>,
}

/// Produces until the count, the time, `q` or a signal.
pub fn datagen(args: DatagenArgs) -> Exit {
    match run(args) {
        Ok(failed) => {
            if failed {
                Exit::Failed
            } else {
                Exit::Fine
            }
        }
        Err(error) => {
            eprintln!("millrace datagen: {error:#}");
            Exit::Failed
        }
    }
}

fn run(args: DatagenArgs) -> Result<bool> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().context("no runtime")?;
    let stop = Arc::new(AtomicBool::new(false));
    let rate = Arc::new(Rate::new(args.rate));
    runtime.spawn(stop_on_signal(stop.clone()));
    if let Some(port) = args.rate_port {
        let (address, _) = runtime.block_on(serve_rate(rate.clone(), port)).with_context(|| format!("--rate-port {port}"))?;
        say!("rate at http://{address}/rate");
    }
    let framing = match (args.framing, &args.registry) {
        (FramingName::Json, _) => Framing::Json,
        (FramingName::Header, _) => Framing::Header { header: args.schema_header },
        (FramingName::Registry, None) => bail!("--framing registry needs --registry"),
        (FramingName::Registry, Some(url)) => {
            let subject = args.subject.unwrap_or_else(|| format!("{}-value", args.topic));
            Framing::Registry { id: runtime.block_on(register(url, &subject))? }
        }
    };
    let settings = GeneratorSettings {
        brokers: args.brokers,
        topic: args.topic,
        framing,
        rate: rate.clone(),
        brake: Arc::new(Brake::default()),
        bad_share: args.bad_records,
        seed: args.seed,
        count: args.count,
        properties: args.properties,
    };
    let generator = Generator::start(settings, Arc::new(Journal::default()))?;
    watch(&generator, &rate, args.duration, &stop);
    let journal = generator.stop()?;
    if let Some(path) = &args.journal {
        write_journal(path, &journal).with_context(|| format!("--journal {}", path.display()))?;
    }
    say!("{} records acknowledged, {} of them bad, {} not acknowledged", journal.records(), journal.bad(), journal.failed());
    if let Some(failure) = journal.last_failure() {
        eprintln!("millrace datagen: the last record that was not acknowledged: {failure}");
    }
    Ok(journal.failed() > 0)
}

/// Shows the progress once a second and listens to keys until it is time to stop.
fn watch(generator: &Generator, rate: &Rate, duration: Option<Duration>, stop: &AtomicBool) {
    let keys = Keys::open();
    let started = Instant::now();
    let (mut shown_at, mut shown) = (started, 0);
    let running = |stop: &AtomicBool| !stop.load(Ordering::Relaxed) && duration.is_none_or(|d| started.elapsed() < d);
    while running(stop) && !generator.is_finished() {
        match keys.as_ref().map(|k| k.next(Duration::from_millis(50))) {
            Some(Some(Key::Faster)) => rate.faster(),
            Some(Some(Key::Slower)) => rate.slower(),
            Some(Some(Key::Tenfold)) => rate.tenfold(),
            Some(Some(Key::Tenth)) => rate.tenth(),
            Some(Some(Key::Quit)) => return,
            Some(None) => {}
            None => std::thread::sleep(Duration::from_millis(50)),
        }
        if shown_at.elapsed() >= Duration::from_secs(1) {
            let records = generator.journal().records();
            let per_second = (records - shown) as f64 / shown_at.elapsed().as_secs_f64();
            let (asked, bad) = (rate.get(), generator.journal().bad());
            // Keys are read in raw mode, where a line feed goes straight down.
            stdout::write(format_args!("{records} records, {per_second:.0}/s of {asked}/s asked, {bad} bad\r\n"));
            (shown_at, shown) = (Instant::now(), records);
        }
    }
}

fn write_journal(path: &std::path::Path, journal: &Journal) -> std::io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    journal.write_csv(&mut file)?;
    file.flush()
}

/// Sets the flag at SIGINT and SIGTERM.
pub(super) async fn stop_on_signal(stop: Arc<AtomicBool>) {
    let terminated = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => signal.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated => {}
    }
    stop.store(true, Ordering::Relaxed);
}

/// Registers the stock update's schema; gives its id. Tries for some seconds: a registry may be starting.
async fn register(url: &str, subject: &str) -> Result<u32> {
    let url = format!("{}/subjects/{subject}/versions", url.trim_end_matches('/'));
    let client = reqwest::Client::new();
    let mut tries = 0;
    loop {
        tries += 1;
        match register_once(&client, &url).await {
            Err(_) if tries < REGISTER_TRIES => tokio::time::sleep(Duration::from_millis(500)).await,
            outcome => return outcome,
        }
    }
}

/// Twenty tries, half a second apart.
const REGISTER_TRIES: u32 = 20;

async fn register_once(client: &reqwest::Client, url: &str) -> Result<u32> {
    let body = serde_json::json!({ "schema": STOCK_UPDATE_SCHEMA });
    let answer = client.post(url).json(&body).timeout(Duration::from_secs(10)).send().await.with_context(|| url.to_owned())?;
    let status = answer.status();
    let text = answer.text().await.with_context(|| url.to_owned())?;
    let id = serde_json::from_str::<serde_json::Value>(&text).ok().and_then(|v| u32::try_from(v["id"].as_u64()?).ok());
    id.with_context(|| format!("{url}: {status}: {text}"))
}
