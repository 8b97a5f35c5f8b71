//! What stands in the report topic: JSON with a version. Fields that a later version adds are passed over; fields that an earlier one lacked
//! have defaults.

use serde::{Deserialize, Serialize};

use super::measure::FleetMeasure;

/// The version of the shapes in this room. Raised when an older worker would misread a newer one's notes.
pub const VERSION: u32 = 1;

/// What every note begins with, in both topics: enough to know whether the rest may be read.
#[derive(Debug, Default, Deserialize)]
struct Head {
    #[serde(default)]
    v: u32,
    #[serde(default)]
    fleet: String,
}

/// Whose a note is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// This fleet's, in a shape that this version reads.
    Ours,
    /// Of a later version, which this one would misread.
    Newer(u32),
    /// Of another fleet, of this name.
    Foreign(String),
}

impl Origin {
    /// Whose this note is to a worker of the fleet `own`. One that names no fleet is taken for ours (older versions named none), and so is what
    /// is no note at all: reading it says that.
    pub fn of(value: &[u8], own: &str) -> Self {
        let head: Head = serde_json::from_slice(value).unwrap_or_default();
        match () {
            () if !head.fleet.is_empty() && head.fleet != own => Self::Foreign(head.fleet),
            () if head.v > VERSION => Self::Newer(head.v),
            () => Self::Ours,
        }
    }
}

/// A note in the report topic; its key is the worker's name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Note {
    /// What a worker says of itself.
    Worker(WorkerReport),
    /// What the leader measured.
    Measure(FleetMeasure),
}

/// What a worker says of itself, every `interval_ms`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerReport {
    /// [`VERSION`].
    pub v: u32,
    /// Its fleet's name; empty in an older version's.
    #[serde(default)]
    pub fleet: String,
    /// Its name.
    pub worker: String,
    /// Its number in the StatefulSet.
    #[serde(default)]
    pub ordinal: Option<u32>,
    /// Differs between two processes of the same name.
    pub run: u64,
    /// Counts this process's reports, from 1.
    pub number: u64,
    /// How often it reports, milliseconds.
    pub interval_ms: u64,
    /// When it started, by its clock, milliseconds since the epoch. For people.
    pub started_ms: i64,
    /// Its clock when it made the report, milliseconds since the epoch. For people.
    pub at_ms: i64,
    /// It has left its groups, or is about to: no more reports follow.
    #[serde(default)]
    pub leaving: bool,
    /// The program's version.
    #[serde(default)]
    pub program: String,
    /// What its rates and fractions are means over, milliseconds; 0 while nothing is known.
    #[serde(default)]
    pub window_ms: u64,
    /// The share of the window in which its busiest thread worked: a shard's, or one of librdkafka's (CPU time); or the share that it used of
    /// its `max_records_per_s`. 0 to 1.
    #[serde(default)]
    pub busy_fraction: Option<f64>,
    /// The share of the window in which its most held-up shard slept because the sink took no more, with records at hand. 0 to 1.
    #[serde(default)]
    pub sink_wait_fraction: Option<f64>,
    /// Its memory.
    #[serde(default)]
    pub memory: MemoryReport,
    /// Its connectors.
    #[serde(default)]
    pub connectors: Vec<ConnectorReport>,
}

/// Memory in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MemoryReport {
    /// What the user allowed.
    pub budget_bytes: u64,
    /// What is in use of it.
    pub used_bytes: u64,
    /// The whole process.
    #[serde(default)]
    pub resident_bytes: Option<u64>,
}

/// A connector in a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConnectorReport {
    /// Its name.
    pub connector: String,
    /// `starting`, `waiting`, `running`, `idle`, `holding`, `stalled`, `stopped`, `failed`; a later version may say more.
    pub state: String,
    /// What is wrong, where something is.
    #[serde(default)]
    pub message: Option<String>,
    /// Half of the rows were durable this soon after their record's timestamp, milliseconds.
    #[serde(default)]
    pub freshness_p50_ms: Option<u64>,
    /// 99 of 100 rows were.
    #[serde(default)]
    pub freshness_p99_ms: Option<u64>,
    /// What it owns.
    #[serde(default)]
    pub partitions: Vec<PartitionReport>,
}

/// A partition that a worker owns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PartitionReport {
    /// Its topic.
    pub topic: String,
    /// Its number.
    pub partition: i32,
    /// The next offset to take; `None` before the first record of a partition without a committed offset.
    #[serde(default)]
    pub position: Option<i64>,
    /// The group's offset, as this worker knows it.
    #[serde(default)]
    pub committed: Option<i64>,
    /// Records that the broker has beyond what is durable.
    #[serde(default)]
    pub lag_records: Option<i64>,
    /// Records taken since it was assigned.
    #[serde(default)]
    pub records: u64,
    /// Their bytes of keys and values.
    #[serde(default)]
    pub bytes: u64,
    /// Records taken each second, over the window; `None` while that is not known.
    #[serde(default)]
    pub records_per_s: Option<f64>,
    /// Bytes taken each second, over the window.
    #[serde(default)]
    pub bytes_per_s: Option<f64>,
    /// Why it does not move: the hold's cause.
    #[serde(default)]
    pub hold: Option<String>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_later_version_may_say_more_and_an_earlier_one_less() {
        let text = r#"{"kind":"worker","v":1,"worker":"w-0","run":7,"number":1,"interval_ms":2000,"started_ms":1,"at_ms":2,"novel":{"a":1},
            "connectors":[{"connector":"c","state":"levitating","partitions":[{"topic":"t","partition":0,"height":3}]}]}"#;
        let Note::Worker(report) = serde_json::from_str(text).unwrap() else { panic!("no report") };
        assert_eq!((report.worker.as_str(), report.connectors[0].state.as_str(), report.busy_fraction), ("w-0", "levitating", None));
        let again: Note = serde_json::from_str(&serde_json::to_string(&Note::Worker(report.clone())).unwrap()).unwrap();
        assert_eq!(again, Note::Worker(report));
        assert!(
            serde_json::from_str::<Note>(r#"{"kind":"rumour","v":1}"#).is_err(),
            "kinds that are not known are for the view to pass over"
        );
    }
}
