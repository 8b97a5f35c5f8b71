//! What a connector's consumer, its producer and its queries are made of.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::{ConnectorConfig, FleetConfig, KafkaValue, StartAt};

/// The cluster and how it is reached: `[kafka]` of `millrace.toml` and the authorities that TLS trusts.
#[derive(Debug, Clone, Default)]
pub struct ClusterSettings {
    /// librdkafka properties of `millrace.toml`.
    pub kafka: BTreeMap<String, KafkaValue>,
    /// librdkafka properties of the connector's file; they win.
    pub overrides: BTreeMap<String, KafkaValue>,
    /// The connector's name, for `client.id` and messages; empty for a client that serves none in particular.
    pub connector: String,
    /// PEM file of authorities that are trusted beside the system's.
    pub ca_file: Option<PathBuf>,
}

impl ClusterSettings {
    /// The fleet's cluster as this connector sees it.
    pub fn of(fleet: &FleetConfig, connector: &ConnectorConfig) -> Self {
        Self {
            kafka: fleet.kafka.clone(),
            overrides: connector.kafka.clone(),
            connector: connector.name.clone(),
            ca_file: fleet.worker.ca_file.clone(),
        }
    }

    /// The fleet's cluster, for a client that serves no connector in particular.
    pub fn of_fleet(fleet: &FleetConfig) -> Self {
        Self { kafka: fleet.kafka.clone(), ca_file: fleet.worker.ca_file.clone(), ..Self::default() }
    }
}

/// Which topics a connector takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topics {
    /// These.
    List(Vec<String>),
    /// All whose whole name matches, also those that are made later.
    Regex(String),
}

impl Topics {
    /// A connector's topics.
    pub fn of(connector: &ConnectorConfig) -> Self {
        match &connector.topics_regex {
            Some(regex) => Self::Regex(regex.clone()),
            None => Self::List(connector.topics.clone()),
        }
    }

    /// The subscription in librdkafka's terms: names, or one regular expression anchored at both ends (librdkafka takes a name that begins
    /// with `^` for one).
    pub fn subscription(&self) -> Vec<String> {
        match self {
            Self::List(names) => names.clone(),
            Self::Regex(regex) => vec![format!("^({})$", regex.trim_start_matches('^').trim_end_matches('$'))],
        }
    }
}

/// A consumer group's member.
#[derive(Debug, Clone)]
pub struct GroupSettings {
    /// The cluster.
    pub cluster: ClusterSettings,
    /// The group's name.
    pub group_id: String,
    /// The topics.
    pub topics: Topics,
    /// Where a partition without a committed offset starts. See [`super::start_group`] for partitions that appear later.
    pub start: StartAt,
    /// The memory that records fetched but not taken may use, in bytes: this member's share of `worker.memory`.
    pub prefetch_bytes: u64,
    /// The most partitions this member may be given; `None` asks the brokers for the topics' partitions when the member starts.
    pub partitions_max: Option<u32>,
    /// How long the commit at a revocation may take.
    pub revoke_commit_timeout: Duration,
}

impl GroupSettings {
    /// A connector's member of its group.
    pub fn of(fleet: &FleetConfig, connector: &ConnectorConfig, prefetch_bytes: u64) -> Self {
        Self {
            cluster: ClusterSettings::of(fleet, connector),
            group_id: connector.group_id(),
            topics: Topics::of(connector),
            start: connector.start,
            prefetch_bytes,
            partitions_max: None,
            revoke_commit_timeout: Duration::from_secs(3),
        }
    }
}
