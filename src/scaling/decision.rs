//! What was decided, in words and numbers. The JSON form is the output of `millrace decide`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How many workers the fleet is to have, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Decision {
    /// Workers to ask for.
    pub replicas: u32,
    /// Why, in a sentence with numbers.
    pub reason: String,
    /// What that means for the fleet.
    pub action: Action,
    /// What each connector needs, or why it holds.
    #[serde(default)]
    pub connectors: Vec<ConnectorNeed>,
    /// Workers that were asked for, but are not members of their groups (yet).
    #[serde(default)]
    pub missing_workers: u32,
    /// The missing ones are past the start-up deadline: they are counted as absent.
    #[serde(default)]
    pub absent: bool,
    /// Workers that have started wait this long, from this decision on, before they join groups whose rebalance stops all: so that those which were asked
    /// for together join together. 0: whoever waits joins now.
    #[serde(default)]
    pub hold_joins_ms: u64,
    /// What the fleet costs, when the cost of a worker is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_per_hour: Option<CostPerHour>,
}

/// What a decision does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// The number stays.
    Hold,
    /// More workers.
    Up,
    /// Fewer workers.
    Down,
}

/// What one connector needs of the fleet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ConnectorNeed {
    /// The connector's name.
    pub connector: String,
    /// The least workers that would do for it alone. Unknown while it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// Why it has no say in this decision: unknown data, a rebalance, a limit that workers cannot lift.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holds: Option<String>,
    /// Records produced each second, all partitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub produced_records_per_s: Option<f64>,
    /// Records consumed each second, all workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumed_records_per_s: Option<f64>,
    /// What one worker can consume each second, as far as it was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_capacity_records_per_s: Option<f64>,
    /// Records not yet committed, all partitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_records: Option<i64>,
    /// The lag of the partition that is latest, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_s: Option<f64>,
}

/// What the fleet costs in an hour, in the currency of `worker_cost_per_hour`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CostPerHour {
    /// As many workers as now.
    pub now: f64,
    /// As many as chosen.
    pub chosen: f64,
    /// One worker for each partition.
    pub one_per_partition: f64,
}
