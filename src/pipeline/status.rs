//! What a connector says about itself: `GET /status`, health, the web page.

use serde::Serialize;

use super::work::ShardWork;

/// Where a connector is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ConnectorState {
    /// Connecting, joining its group.
    Starting,
    /// Ready and no member of its group yet: it waits to join together with other workers, for a time that has an end.
    Waiting,
    /// All of its partitions move.
    Running,
    /// A member of its group that owns no partition: there are more members than partitions. As it should be.
    Idle,
    /// At least one partition holds; the others move.
    Holding,
    /// Records wait and none was finished for too long.
    Stalled,
    /// The brokers do not answer: whether records wait cannot be known.
    Unreachable,
    /// A member of its group that takes nothing, because it was told to.
    Paused,
    /// Drained and left its group, because it was told to.
    Stopped,
    /// Ended by an error that only a person can mend.
    Failed,
}

impl ConnectorState {
    /// The name in logs and on the page.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Idle => "idle",
            Self::Holding => "holding",
            Self::Stalled => "stalled",
            Self::Unreachable => "unreachable",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }
}

/// One connector in this worker.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ConnectorStatus {
    /// Its name: the file's.
    pub name: String,
    /// Where it is in its life.
    pub state: ConnectorState,
    /// Since when it is there, milliseconds since the epoch.
    pub since_ms: i64,
    /// What is wrong and what to do, where something is.
    pub message: Option<String>,
    /// The partitions that this worker owns.
    pub partitions: Vec<PartitionStatus>,
    /// The tables that this worker wrote to or tried to.
    pub tables: Vec<TableStatus>,
    /// Time from Kafka timestamp to durable row over the last minutes; `None` before the first row.
    pub freshness: Option<FreshnessStatus>,
    /// How its shards' threads spent their time.
    pub shards: Vec<ShardWork>,
    /// Dead letters written by this worker since it started.
    pub dead_letters: u64,
    /// Bad records skipped by this worker since it started.
    pub skipped: u64,
}

/// One partition that a worker owns.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PartitionStatus {
    /// Its topic.
    pub topic: String,
    /// Its number.
    pub partition: i32,
    /// The offset of the next record to take.
    pub position: i64,
    /// Records taken from Kafka since the partition was assigned.
    pub records: u64,
    /// Their bytes of keys and values.
    pub bytes: u64,
    /// The offset that was committed last: every record below it is finished.
    pub committed: Option<i64>,
    /// Records on the broker that are not durable yet; `None` while the broker does not say.
    pub lag_records: Option<i64>,
    /// At rest since then, milliseconds since the epoch: memory is near its limit, and partitions fetch in turn.
    pub resting_since_ms: Option<i64>,
    /// Why it does not move, where it does not.
    pub hold: Option<HoldStatus>,
    /// Exactly once: its stream, and what may be on its way there.
    pub stream: Option<StreamStatus>,
}

/// What a partition's owner has announced (docs/durability.md).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StreamStatus {
    /// The stream's full name; none before the first append.
    pub name: Option<String>,
    /// Rows that are known to have landed in it.
    pub rows: u64,
    /// Appends that may be on their way.
    pub announced_appends: usize,
    /// Their rows.
    pub announced_rows: u64,
}

/// Why a partition does not move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HoldStatus {
    /// The cause: [`HoldCause::as_str`](crate::flow::HoldCause::as_str).
    pub cause: &'static str,
    /// What is wrong with what, and what to do about it.
    pub message: String,
    /// Since when, milliseconds since the epoch.
    pub since_ms: i64,
}

/// One table that a worker writes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableStatus {
    /// `project.dataset.table`.
    pub name: String,
    /// Rows acknowledged since the worker started.
    pub rows_durable: u64,
    /// Their encoded bytes.
    pub bytes_durable: u64,
    /// The last append's error, while no later one was acknowledged.
    pub last_error: Option<String>,
}

/// Time from a record's Kafka timestamp to its row being durable, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct FreshnessStatus {
    /// Half of the rows were faster.
    pub p50_ms: u64,
    /// 99 of 100 rows were faster.
    pub p99_ms: u64,
}
