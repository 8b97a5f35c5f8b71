//! `[scaling]` in `millrace.toml`: who sizes the fleet, within which limits, for which promise.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::HumanDuration;

/// `[scaling]`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ScalingConfig {
    /// Who resizes the fleet.
    pub mode: ScalingMode,
    /// Never fewer workers.
    pub min: u32,
    /// Never more workers.
    pub max: u32,
    /// A record is to be durable this long after it was produced.
    pub freshness_target: HumanDuration,
    /// After an interruption the backlog is to be gone within this time.
    pub recovery_target: HumanDuration,
    /// The fleet shrinks only to what it would have needed at every moment of this time: a longer one costs more and resizes less.
    pub scale_down_window: HumanDuration,
    /// What a worker costs in an hour, in any currency: decisions then say what they cost.
    pub worker_cost_per_hour: Option<f64>,
    /// How long a worker that was asked for may take to become a member; after it, it counts as absent.
    pub startup_deadline: HumanDuration,
    /// How often every worker reports what it does.
    pub report_interval: HumanDuration,
    /// How often the leader looks and decides.
    pub decide_interval: HumanDuration,
    /// The fleet's name. Two fleets on one Kafka need two names, for both topics are called by it. The chart takes the StatefulSet's.
    pub fleet_id: String,
    /// Where workers report: `<fleet_id>.reports` unless it is set. Made when missing, with an hour's retention.
    pub report_topic: Option<String>,
    /// Where desired states and decisions stand: `<fleet_id>.state` unless it is set. Made when missing, compacted.
    pub state_topic: Option<String>,
    /// `local` only: who holds the lock on this file leads.
    pub lock_file: Option<PathBuf>,
    /// `local` only: the leader writes the wished number of workers here, and whoever started them follows it.
    pub replicas_file: Option<PathBuf>,
}

impl Default for ScalingConfig {
    fn default() -> Self {
        Self {
            mode: ScalingMode::Off,
            min: 1,
            max: 10,
            freshness_target: HumanDuration::from_secs(30),
            recovery_target: HumanDuration::from_secs(300),
            scale_down_window: HumanDuration::from_secs(240),
            worker_cost_per_hour: None,
            startup_deadline: HumanDuration::from_secs(180),
            report_interval: HumanDuration::from_secs(2),
            decide_interval: HumanDuration::from_secs(5),
            fleet_id: "millrace".to_owned(),
            report_topic: None,
            state_topic: None,
            lock_file: None,
            replicas_file: None,
        }
    }
}

impl ScalingConfig {
    /// The topic that workers report to.
    pub fn report_topic_name(&self) -> String {
        self.report_topic.clone().unwrap_or_else(|| format!("{}.reports", self.fleet_id))
    }

    /// The topic of desired states and decisions.
    pub fn state_topic_name(&self) -> String {
        self.state_topic.clone().unwrap_or_else(|| format!("{}.state", self.fleet_id))
    }

    /// What rates of production and consumption are means over: three decisions, for one missed answer must not blind the next decision.
    pub fn rate_window(&self) -> Duration {
        self.decide_interval.get().max(self.report_interval.get()) * 3
    }
}

/// Who resizes the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ScalingMode {
    /// Nobody, and nothing is measured for it: no reports, no leader.
    Off,
    /// A leader measures, decides and says so; nobody acts. `millrace_workers_desired` then feeds another scaler.
    Observe,
    /// The holder of a lock on a file writes the number to a file.
    Local,
    /// The holder of a Lease sets the scale of the worker's own StatefulSet.
    Kubernetes,
}
