//! What a decision is made from: one look at the whole fleet. The JSON form is the input of `millrace decide`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::numbers::{some_whole, whole};

/// The whole fleet at one moment. Rates are means over `window_ms`. What is missing is unknown, never zero.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Snapshot {
    /// When it was taken, milliseconds since any epoch that does not move. The only time that a decision knows.
    #[serde(deserialize_with = "whole")]
    pub now_ms: i64,
    /// How long a time the rates are means over, milliseconds.
    #[serde(deserialize_with = "whole")]
    pub window_ms: u64,
    /// Workers that were asked for (the StatefulSet's `spec.replicas`).
    #[serde(deserialize_with = "whole")]
    pub replicas: u32,
    /// Workers that are there and members of their groups. Unknown: as many as `workers` lists.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "some_whole")]
    pub ready_workers: Option<u32>,
    /// Those of the workers that are there, but no members yet because they wait for others to join with ([`Decision::hold_joins_ms`](super::Decision)). Unknown: the fleet
    /// does not wait, whoever has started joins.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "some_whole")]
    pub waiting_workers: Option<u32>,
    /// One for each connector; an empty list says that there is none. Missing: nothing is known of any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<ConnectorGroup>>,
    /// What the workers said of themselves.
    #[serde(default)]
    pub workers: Vec<WorkerLoad>,
    /// What the user promised and allows.
    pub limits: Limits,
}

/// A connector's consumer group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ConnectorGroup {
    /// The connector's name.
    pub connector: String,
    /// Who gives partitions to members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assignor: Option<Assignor>,
    /// Whether a rebalance stops all members or only what moves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<RebalanceProtocol>,
    /// What the coordinator says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<GroupState>,
    /// Why its partitions could not be asked for, where that is so: then nothing is concluded from those that are listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// Every partition of its topics, also those that nobody consumes yet.
    #[serde(default)]
    pub partitions: Vec<PartitionLoad>,
}

/// Kafka's assignors, as far as the fleet's groups use them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Assignor {
    /// Balanced by count, moves as little as it can (classic protocol).
    CooperativeSticky,
    /// By ranges of each topic (classic protocol).
    Range,
    /// Balanced by count, made by the coordinator (KIP-848).
    Uniform,
}

/// What a rebalance stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RebalanceProtocol {
    /// Only what moves.
    Cooperative,
    /// Everything.
    Eager,
}

/// A group as its coordinator sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum GroupState {
    /// All members have what they should have.
    Stable,
    /// Partitions are moving.
    Rebalancing,
}

/// A partition's load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PartitionLoad {
    /// Its topic.
    pub topic: String,
    /// Its number.
    #[serde(deserialize_with = "whole")]
    pub partition: i32,
    /// The last stable offset: where a reader without lag stands.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "some_whole")]
    pub end_offset: Option<i64>,
    /// The end of the log, open transactions included. Beyond `end_offset` for long: an open transaction, which no worker can help.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "some_whole")]
    pub high_watermark: Option<i64>,
    /// What the group committed; unknown for a partition without a commit.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "some_whole")]
    pub committed_offset: Option<i64>,
    /// Records produced each second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub produced_records_per_s: Option<f64>,
    /// Bytes produced each second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub produced_bytes_per_s: Option<f64>,
    /// How long ago the oldest record that is not committed was produced, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "some_whole")]
    pub lag_ms: Option<i64>,
}

/// What a worker said of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WorkerLoad {
    /// Its name: the pod's.
    pub id: String,
    /// Its number in the StatefulSet: the highest goes first.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "some_whole")]
    pub ordinal: Option<u32>,
    /// Whether it is a member of its groups. Unknown: it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<bool>,
    /// The share of the window in which its busiest shard worked, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub busy_fraction: Option<f64>,
    /// The share of the window in which it waited for the sink with records at hand, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sink_wait_fraction: Option<f64>,
    /// What it owns and consumed, by connector.
    #[serde(default)]
    pub groups: Vec<WorkerGroup>,
}

/// A worker's part of one connector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WorkerGroup {
    /// The connector's name.
    pub connector: String,
    /// What it owns.
    #[serde(default)]
    pub partitions: Vec<Owned>,
    /// Records consumed each second over all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumed_records_per_s: Option<f64>,
}

/// A partition that a worker owns.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Owned {
    /// Its topic.
    pub topic: String,
    /// Its number.
    #[serde(deserialize_with = "whole")]
    pub partition: i32,
}

/// What the user promised and allows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Limits {
    /// Never fewer workers.
    #[serde(deserialize_with = "whole")]
    pub min: u32,
    /// Never more workers.
    #[serde(deserialize_with = "whole")]
    pub max: u32,
    /// A record is to be durable this many milliseconds after it was produced.
    #[serde(deserialize_with = "whole")]
    pub freshness_target_ms: u64,
    /// After an interruption the backlog is to be gone within this many milliseconds.
    #[serde(deserialize_with = "whole")]
    pub recovery_target_ms: u64,
    /// How long a worker that was asked for may take to become a member before it counts as absent. Unknown: [`Limits::STARTUP_DEADLINE_MS`].
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "some_whole")]
    pub startup_deadline_ms: Option<u64>,
    /// What a worker costs in an hour, in any currency: the decision then says what it costs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_cost_per_hour: Option<f64>,
}

impl Limits {
    /// The start-up deadline of a snapshot that names none: beyond the slowest start-ups that were seen (500 s were, but 120 s covers 88 + 12 %).
    pub const STARTUP_DEADLINE_MS: u64 = 180_000;

    /// How long a worker may take to start.
    pub fn startup_deadline_ms(&self) -> u64 {
        self.startup_deadline_ms.unwrap_or(Self::STARTUP_DEADLINE_MS)
    }
}
