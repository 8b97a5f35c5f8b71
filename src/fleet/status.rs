//! The answer to `GET /fleet`, from any worker.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::desired::DesiredConnector;
use super::measure::{ConnectorMeasure, Decided};
use super::report::WorkerReport;
use super::state::PublishedDecision;
use crate::config::ScalingMode;

/// The fleet as one worker sees it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FleetStatus {
    /// The worker that answers.
    pub answered_by: String,
    /// Its clock, milliseconds since the epoch.
    pub now_ms: i64,
    /// The fleet's name.
    pub fleet_id: String,
    /// Who resizes the fleet.
    pub mode: ScalingMode,
    /// Why this answer may be old or incomplete, where that is so: the topics cannot be read, own reports do not arrive.
    pub trouble: Option<String>,
    /// Who decides, as far as it is known here.
    pub leader: Option<LeaderSeen>,
    /// The leader's last decision: how many workers are to be there, and why.
    pub decided: Option<Decided>,
    /// What connectors are wished to do, where somebody wished something: by `millrace connectors` or over HTTP.
    pub wishes: BTreeMap<String, DesiredConnector>,
    /// Until when workers that have started wait, so that they join together, milliseconds since the epoch by the leader's clock; `None`:
    /// they join at once.
    pub joins_held_until_ms: Option<i64>,
    /// Workers whose reports come.
    pub live_workers: usize,
    /// Workers that missed three reports.
    pub stale_workers: usize,
    /// All of them, by name.
    pub workers: Vec<WorkerSeen>,
    /// What the leader measured, by connector; empty without a leader.
    pub connectors: Vec<ConnectorSeen>,
    /// What the leader noticed besides.
    pub remarks: Vec<String>,
    /// The last decisions that changed something, the newest first.
    pub decisions: Vec<Arc<PublishedDecision>>,
}

/// Who leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeaderSeen {
    /// Its name.
    pub worker: String,
    /// Its term.
    pub term: u64,
    /// How long ago its last measure arrived here, milliseconds.
    pub age_ms: u64,
    /// It missed three measures: nobody decides now, or it cannot be heard.
    pub stale: bool,
}

/// How a worker is, as it looks from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkerPresence {
    /// Its reports come.
    Live,
    /// A report lay in the topic when this worker began to read, and none came since.
    Unconfirmed,
    /// It missed three reports.
    Stale,
    /// It said that it leaves.
    Leaving,
}

/// A worker as it was heard last.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WorkerSeen {
    /// How it is.
    pub presence: WorkerPresence,
    /// How long ago its last report arrived here, milliseconds.
    pub age_ms: u64,
    /// What it said.
    pub report: Arc<WorkerReport>,
}

/// A connector over the whole fleet. Sums are over the partitions where the number is known; `None` when it is known for none.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ConnectorSeen {
    /// What it is wished to do: `running` unless somebody said otherwise.
    pub desired: String,
    /// Records not durable yet.
    pub lag_records: Option<i64>,
    /// Their bytes.
    pub lag_bytes: Option<f64>,
    /// The lag of the partition that is worst, milliseconds.
    pub lag_ms: Option<i64>,
    /// Records produced each second.
    pub produced_records_per_s: Option<f64>,
    /// Bytes produced each second.
    pub produced_bytes_per_s: Option<f64>,
    /// Records consumed each second.
    pub consumed_records_per_s: Option<f64>,
    /// Bytes consumed each second.
    pub consumed_bytes_per_s: Option<f64>,
    /// The partitions, and what is wrong where something is.
    #[serde(flatten)]
    pub measure: ConnectorMeasure,
}

impl ConnectorSeen {
    /// Sums a measure up.
    pub(super) fn of(measure: &ConnectorMeasure, desired: &str) -> Self {
        let sum = |of: fn(&super::measure::PartitionMeasure) -> Option<f64>| {
            measure.partitions.iter().filter_map(of).fold(None, |sum: Option<f64>, one| Some(sum.unwrap_or(0.0) + one))
        };
        Self {
            desired: desired.to_owned(),
            lag_records: measure.partitions.iter().filter_map(|p| p.lag_records).fold(None, |sum, one| Some(sum.unwrap_or(0) + one)),
            lag_bytes: sum(|p| p.lag_bytes),
            lag_ms: measure.partitions.iter().filter_map(|p| p.lag_ms).max(),
            produced_records_per_s: sum(|p| p.produced_records_per_s),
            produced_bytes_per_s: sum(|p| p.produced_bytes_per_s),
            consumed_records_per_s: sum(|p| p.consumed_records_per_s),
            consumed_bytes_per_s: sum(|p| p.consumed_bytes_per_s),
            measure: measure.clone(),
        }
    }
}
