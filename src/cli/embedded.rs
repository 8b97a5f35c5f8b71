//! `millrace embedded`: broker, registry and BigQuery alone, on ports that are given.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use clap::Args;

use super::datagen::stop_on_signal;
use super::demo::Profile;
use super::stdout::say;
use super::{Exit, arguments};
use crate::embedded::bigquery::{EmbeddedBigQuery, Settings};
use crate::embedded::broker::{BrokerSettings, EmbeddedBroker};
use crate::embedded::registry::{EmbeddedRegistry, RegistrySettings};

/// Arguments of `millrace embedded`. Everything listens on 127.0.0.1; port 0 takes a free one.
#[derive(Debug, Args)]
pub struct EmbeddedArgs {
    /// The broker's port; further brokers follow on the next ones.
    #[arg(long, default_value_t = 0)]
    kafka_port: u16,
    /// How many brokers.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=16))]
    brokers: u16,
    /// The registry's port.
    #[arg(long, default_value_t = 0)]
    registry_port: u16,
    /// The port of BigQuery's REST API.
    #[arg(long, default_value_t = 0)]
    bigquery_port: u16,
    /// The port of BigQuery's Storage Write API.
    #[arg(long, default_value_t = 0)]
    bigquery_grpc_port: u16,
    /// What goes wrong: fixed rates, printed at the start.
    #[arg(long, value_enum, default_value = "none")]
    faults: Profile,
    /// A topic, as name:partitions; may come several times. (The broker takes no CreateTopics requests.)
    #[arg(long = "topic", value_parser = arguments::topic)]
    topics: Vec<(String, i32)>,
    /// A dataset, as project.dataset; may come several times.
    #[arg(long = "dataset", value_parser = dataset)]
    datasets: Vec<(String, String)>,
    /// The same seed draws the same faults.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn dataset(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('.').filter(|(p, d)| !p.is_empty() && !d.is_empty());
    parts.map(|(p, d)| (p.to_owned(), d.to_owned())).ok_or_else(|| format!("`{text}` is not project.dataset"))
}

/// Serves until a signal.
pub fn embedded(args: &EmbeddedArgs) -> Exit {
    match run(args) {
        Ok(()) => Exit::Fine,
        Err(error) => {
            eprintln!("millrace embedded: {error:#}");
            Exit::Failed
        }
    }
}

fn run(args: &EmbeddedArgs) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no runtime")?;
    runtime.block_on(Box::pin(serve(args)))
}

async fn serve(args: &EmbeddedArgs) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    tokio::spawn(stop_on_signal(stop.clone()));
    let seed = args.seed;
    let broker = EmbeddedBroker::start(BrokerSettings {
        brokers: args.brokers,
        port: args.kafka_port,
        seed,
        faults: args.faults.broker(),
        ..BrokerSettings::default()
    })
    .await?;
    for (topic, partitions) in &args.topics {
        broker.create_topic(topic, *partitions).await?;
    }
    let registry = EmbeddedRegistry::start(RegistrySettings {
        port: args.registry_port,
        seed,
        faults: args.faults.registry(),
        ..RegistrySettings::default()
    })
    .await?;
    let bigquery = EmbeddedBigQuery::start(Settings {
        rest_port: args.bigquery_port,
        grpc_port: args.bigquery_grpc_port,
        seed,
        faults: args.faults.bigquery(false),
        ..Settings::default()
    })
    .await
    .context("embedded BigQuery")?;
    for (project, dataset) in &args.datasets {
        bigquery.create_dataset(project, dataset).with_context(|| format!("dataset {project}.{dataset}"))?;
    }
    for line in args.faults.describe(false) {
        say!("fault: {line}");
    }
    say!("kafka: {}", broker.bootstrap_servers());
    say!("registry: {}", registry.url());
    say!("bigquery: {}", bigquery.rest_url());
    say!("bigquery-grpc: {}", bigquery.grpc_url());
    // Scripts wait for this line.
    say!("ready");
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    Ok(())
}
