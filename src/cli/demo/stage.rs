//! Everything around the workers: broker, registry, BigQuery, topics, dataset, and the files that the workers read.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::dead_letters;
use super::faults::Profile;
use super::fleet_file::{self, FleetFile, REPORT_TOPIC, STATE_TOPIC};
use super::flows::{DATASET, FLOWS, Flow, PROJECT};
use crate::datagen::{Framing, STOCK_UPDATE_SCHEMA};
use crate::embedded::bigquery::{EmbeddedBigQuery, Settings};
use crate::embedded::broker::{BrokerSettings, EmbeddedBroker};
use crate::embedded::registry::{EmbeddedRegistry, RegistrySettings};

/// How long BigQuery takes to acknowledge an append of an exactly-once connector: the service's answers take 20 to 500 ms, and with answers
/// at once hardly a kill would meet an append that has landed and is not answered.
const APPEND_LATENCY: Duration = Duration::from_millis(150);

/// What is otherwise for exactly-once connectors, in words.
pub(super) fn setting() -> String {
    let session = fleet_file::GROUP_TIMES.session;
    format!(
        "BigQuery acknowledges appends {APPEND_LATENCY:?} after it has stored them; groups of the new protocol (KIP-848), members silent for {session:?} are out"
    )
}

/// The three embedded parts, running.
pub(super) struct Stage {
    pub(super) broker: EmbeddedBroker,
    pub(super) registry: EmbeddedRegistry,
    pub(super) bigquery: EmbeddedBigQuery,
    schema_id: u32,
}

impl Stage {
    /// Starts the parts without faults, makes topics and dataset, registers the schema; then the faults begin.
    pub(super) async fn start(profile: Profile, exact: bool, partitions: i32, brokers: u16, seed: u64) -> Result<Self> {
        let group_times = exact.then_some(fleet_file::GROUP_TIMES);
        let broker = EmbeddedBroker::start(BrokerSettings { brokers, seed, group_times, ..BrokerSettings::default() }).await?;
        let registry = EmbeddedRegistry::start(RegistrySettings { seed, ..RegistrySettings::default() }).await?;
        let append_latency = if exact { APPEND_LATENCY } else { Duration::ZERO };
        let bigquery =
            EmbeddedBigQuery::start(Settings { seed, append_latency, ..Settings::default() }).await.context("embedded BigQuery")?;
        bigquery.create_dataset(PROJECT, DATASET).context("embedded BigQuery")?;
        let mut schema_id = 0;
        for flow in FLOWS {
            broker.create_topic(flow.topic, partitions).await?;
            broker.create_topic(flow.dead_letter_topic, dead_letters::PARTITIONS).await?;
            if flow.schema_header.is_none() {
                schema_id = registry.register(&format!("{}-value", flow.topic), STOCK_UPDATE_SCHEMA, Vec::new())?;
            }
        }
        for topic in [REPORT_TOPIC, STATE_TOPIC] {
            broker.create_topic(topic, 1).await?;
        }
        broker.set_faults(profile.broker());
        registry.set_faults(profile.registry());
        bigquery.faults().set(profile.bigquery(exact));
        // A short run may give a rare class no chance: each strikes its first opportunity too.
        for class in profile.bigquery(exact).rates.keys() {
            bigquery.faults().fire_next(*class, None);
        }
        Ok(Self { broker, registry, bigquery, schema_id })
    }

    /// How a flow's records say what their schema is.
    pub(super) fn framing(&self, flow: &Flow) -> Framing {
        match flow.schema_header {
            Some(header) => Framing::Header { header: header.to_owned() },
            None => Framing::Registry { id: self.schema_id },
        }
    }

    /// Writes `millrace.toml`, `connectors/` and `schemas/`: the shipped files (with `exact`, promising that), and a fleet configuration
    /// for this stage.
    pub(super) fn write_files(&self, folder: &Path, fleet: &FleetFile, exact: bool) -> Result<()> {
        let connectors = folder.join("connectors");
        let schemas = folder.join("schemas");
        for made in [&connectors, &schemas] {
            std::fs::create_dir_all(made).with_context(|| made.display().to_string())?;
        }
        let write = |path: std::path::PathBuf, text: &str| std::fs::write(&path, text).with_context(|| path.display().to_string());
        for flow in FLOWS {
            let promise = if exact { "[delivery]\nguarantee = \"exactly-once\"\n" } else { "[delivery]\n" };
            write(connectors.join(format!("{}.toml", flow.connector)), &flow.file.replace("[delivery]\n", promise))?;
        }
        write(schemas.join("SMSPhysicalStockUpdates_values.avsc"), STOCK_UPDATE_SCHEMA)?;
        write(folder.join("millrace.toml"), &fleet.text(self))
    }
}
