//! What is asked of a worker, and the shape of the answers.

use serde::Serialize;

use crate::fleet::FleetStatus;
use crate::pipeline::{ConnectorState, ConnectorStatus};

/// Asked by the router, answered by the worker. Answers come at once: nothing here waits for Kafka or BigQuery.
pub trait Status: Send + Sync + 'static {
    /// The worker as it is now.
    fn worker(&self) -> WorkerStatus;
    /// Whether a restart would help: an error, in words, where something is wedged; never for what is away or held.
    fn live(&self) -> Result<(), String>;
    /// The metrics in Prometheus' text format.
    fn metrics(&self) -> String;
    /// The fleet as this worker sees it; `None` with `[scaling] mode = "off"`.
    fn fleet(&self) -> Option<FleetStatus>;
}

/// Where a worker is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkerState {
    /// Connectors are being started.
    Starting,
    /// As it should be.
    Running,
    /// Told to stop: appends in flight are awaited, then it leaves.
    Draining,
}

/// `GET /status`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WorkerStatus {
    /// The program's version.
    pub version: &'static str,
    /// Where it is in its life.
    pub state: WorkerState,
    /// When it started, milliseconds since the epoch.
    pub started_ms: i64,
    /// Its clock now, milliseconds since the epoch.
    pub now_ms: i64,
    /// Memory of records and rows, against the budget.
    pub memory: MemoryStatus,
    /// Its connectors, by name.
    pub connectors: Vec<ConnectorStatus>,
    /// Its files, where they are not what runs.
    pub configuration: ConfigurationStatus,
}

/// Files that are not what runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ConfigurationStatus {
    /// Connector files that cannot be taken: what they said before, if anything, goes on.
    pub mistakes: Vec<FileMistake>,
    /// What was changed and is taken at a restart only.
    pub restart_needed: Option<String>,
}

/// Why a file is not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileMistake {
    /// The connector; `None`: the folder cannot be read.
    pub connector: Option<String>,
    /// Since when, milliseconds since the epoch.
    pub since_ms: i64,
    /// Every mistake with its place, one a line.
    pub message: String,
}

/// Memory in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MemoryStatus {
    /// What the user allowed.
    pub budget_bytes: u64,
    /// What is in use of it.
    pub used_bytes: u64,
    /// The same by kind.
    pub by_kind: Vec<(&'static str, u64)>,
    /// The whole process, as the kernel counts it.
    pub resident_bytes: Option<u64>,
}

/// `GET /health/ready`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// Whether the worker does what it should.
    pub ready: bool,
    /// Why it is not ready.
    pub reasons: Vec<String>,
    /// What is held and does not make the worker unready, for no restart and no other worker would mend it.
    pub holds: Vec<String>,
    /// What is wrong with files while their connectors go on as before. It does not make the worker unready either.
    pub mistakes: Vec<String>,
}

impl Readiness {
    /// What a worker's status means for its readiness.
    pub fn of(worker: &WorkerStatus) -> Self {
        let (mut reasons, mut holds) = (Vec::new(), Vec::new());
        match worker.state {
            WorkerState::Starting => reasons.push("the worker is starting".to_owned()),
            WorkerState::Draining => reasons.push("the worker was told to stop".to_owned()),
            WorkerState::Running => {}
        }
        for connector in &worker.connectors {
            let message = connector.message.as_deref().unwrap_or("no more is known");
            let line = format!("connector `{}` is {}: {message}", connector.name, connector.state.as_str());
            match connector.state {
                // What was told to rest, or to wait for others, does what it should; a rolling upgrade goes on meanwhile.
                ConnectorState::Running
                | ConnectorState::Idle
                | ConnectorState::Paused
                | ConnectorState::Stopped
                | ConnectorState::Waiting => {}
                ConnectorState::Holding => holds.extend(holds_of(connector)),
                ConnectorState::Starting | ConnectorState::Stalled | ConnectorState::Unreachable | ConnectorState::Failed => {
                    reasons.push(line)
                }
            }
        }
        let configuration = &worker.configuration;
        let mistakes =
            configuration.mistakes.iter().map(|mistake| &mistake.message).chain(&configuration.restart_needed).cloned().collect();
        Self { ready: reasons.is_empty(), reasons, holds, mistakes }
    }
}

/// A line for each cause and message: many partitions hold for the same reason.
fn holds_of(connector: &ConnectorStatus) -> Vec<String> {
    let mut lines: Vec<(String, Vec<String>)> = Vec::new();
    for partition in &connector.partitions {
        let Some(hold) = &partition.hold else { continue };
        let why = format!("{}: {}", hold.cause, hold.message);
        let which = format!("{}[{}]", partition.topic, partition.partition);
        match lines.iter_mut().find(|(line, _)| *line == why) {
            Some((_, partitions)) => partitions.push(which),
            None => lines.push((why, vec![which])),
        }
    }
    lines.into_iter().map(|(why, partitions)| format!("connector `{}` holds {}: {why}", connector.name, partitions.join(", "))).collect()
}
