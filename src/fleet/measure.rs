//! What the leader measured at the brokers, as it stands in the report topic: so that any worker can show it.

use serde::{Deserialize, Serialize};

use super::state::PublishedDecision;

/// One look of the leader at all connectors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FleetMeasure {
    /// The shapes' version.
    pub v: u32,
    /// The fleet's name; empty in an older version's.
    #[serde(default)]
    pub fleet: String,
    /// The leader's name.
    pub leader: String,
    /// Its term.
    pub term: u64,
    /// Its clock, milliseconds since the epoch. For people.
    pub at_ms: i64,
    /// How often it looks, milliseconds.
    pub interval_ms: u64,
    /// What rates are means over, milliseconds.
    pub window_ms: u64,
    /// One for each connector.
    pub connectors: Vec<ConnectorMeasure>,
    /// What was noticed and is nobody's decision: an open transaction, a partition whose leader does not answer.
    #[serde(default)]
    pub remarks: Vec<String>,
    /// What was decided from it; `None` while nothing may be decided, and `remarks` say why.
    #[serde(default)]
    pub decided: Option<Decided>,
}

/// A decision and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decided {
    /// Workers that were asked for before.
    pub replicas_before: u32,
    /// Workers that are to be there.
    pub replicas: u32,
    /// Workers that are members of their groups; `None` where that was not noted.
    #[serde(default)]
    pub ready_workers: Option<u32>,
    /// Why, in words.
    pub reason: String,
    /// What was done about it: `asked for 4`, `only said`, `not done: ...`; empty while it is not known.
    #[serde(default)]
    pub outcome: String,
    /// The whole decision with the numbers behind it, as `millrace decide` prints it.
    #[serde(default)]
    pub decision: serde_json::Value,
}

impl Decided {
    /// A decision as it was published.
    pub(super) fn of(published: &PublishedDecision) -> Self {
        Self {
            replicas_before: published.replicas_before,
            replicas: published.replicas,
            ready_workers: None,
            reason: published.reason.clone(),
            outcome: String::new(),
            decision: published.decision.clone(),
        }
    }
}

/// A connector's group at the brokers.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ConnectorMeasure {
    /// The connector's name.
    pub connector: String,
    /// The group's name.
    pub group: String,
    /// Why nothing could be measured, where that is so; `partitions` is empty then.
    #[serde(default)]
    pub trouble: Option<String>,
    /// Every partition of its topics.
    #[serde(default)]
    pub partitions: Vec<PartitionMeasure>,
}

/// A partition at the brokers. What is missing is unknown, never zero.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PartitionMeasure {
    /// Its topic.
    pub topic: String,
    /// Its number.
    pub partition: i32,
    /// The worker that reports it as its own.
    #[serde(default)]
    pub owner: Option<String>,
    /// The last stable offset: where a reader without lag stands.
    #[serde(default)]
    pub end_offset: Option<i64>,
    /// The end for those who write: beyond `end_offset` while a transaction is open.
    #[serde(default)]
    pub high_watermark: Option<i64>,
    /// The group's committed offset.
    #[serde(default)]
    pub committed_offset: Option<i64>,
    /// Records not durable yet: the end less the committed offset, or less the first one that is left where the commit lies below it (what
    /// retention deleted is lost, not late) or where there is none. Transaction markers and compacted records count: an upper bound.
    #[serde(default)]
    pub lag_records: Option<i64>,
    /// The same in bytes, by the mean size of a record.
    #[serde(default)]
    pub lag_bytes: Option<f64>,
    /// How long ago the end stood where the commit stands, milliseconds.
    #[serde(default)]
    pub lag_ms: Option<i64>,
    /// `lag_ms` is a lower bound: the leader has not looked for so long yet.
    #[serde(default)]
    pub lag_at_least: bool,
    /// Records produced each second, by differences of end offsets.
    #[serde(default)]
    pub produced_records_per_s: Option<f64>,
    /// Bytes produced each second.
    #[serde(default)]
    pub produced_bytes_per_s: Option<f64>,
    /// Records consumed each second: as its owner says, or by differences of commits.
    #[serde(default)]
    pub consumed_records_per_s: Option<f64>,
    /// Bytes consumed each second.
    #[serde(default)]
    pub consumed_bytes_per_s: Option<f64>,
    /// Mean bytes of key and value of a record.
    #[serde(default)]
    pub bytes_per_record: Option<f64>,
    /// How long an open transaction has kept the end from moving on, milliseconds.
    #[serde(default)]
    pub open_transaction_ms: Option<i64>,
}
