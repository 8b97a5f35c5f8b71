//! A slot per connector: what runs in it, what it says about itself, started and stopped on its own.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::SupervisorError;
use super::worker::Worker;
use crate::config::ConnectorConfig;
use crate::pipeline::{Connector, ConnectorState, ConnectorStatus};
use crate::telemetry::metrics::ConnectorMetrics;

/// What a connector's stop may take beyond `shutdown_deadline`: leaving the group, closing the consumer. The chart's
/// `terminationGracePeriodSeconds` counts with it.
pub const CLOSE_MARGIN: Duration = Duration::from_secs(10);

/// One connector's place.
pub(super) struct Slot {
    pub(super) name: String,
    /// What it runs, or would run.
    pub(super) config: Mutex<Arc<ConnectorConfig>>,
    /// The memory that its consumer's queues may take.
    pub(super) prefetch_bytes: u64,
    phase: Mutex<Phase>,
    pub(super) metrics: ConnectorMetrics,
}

/// How a connector did not stop as it should.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotStopped {
    /// Its threads ended, its consumer is still leaving the group.
    #[error("{0}")]
    Late(String),
    /// Its threads still run: another one beside them would append the same records.
    #[error("{0}")]
    Hangs(String),
}

/// Where the connector in a slot is in its life.
enum Phase {
    Starting { since_ms: i64, message: Option<String> },
    Running(Connector),
    Ended { state: ConnectorState, since_ms: i64, message: Option<String> },
}

impl Slot {
    /// A slot whose connector is about to be started.
    pub(super) fn new(config: Arc<ConnectorConfig>, prefetch_bytes: u64, now_ms: i64) -> Self {
        Self {
            name: config.name.clone(),
            metrics: ConnectorMetrics::new(&config.name),
            config: Mutex::new(config),
            prefetch_bytes,
            phase: Mutex::new(Phase::Starting { since_ms: now_ms, message: None }),
        }
    }

    /// What the connector says about itself, or what is known when it does not run.
    pub(super) fn status(&self) -> ConnectorStatus {
        let empty = |state, since_ms, message| ConnectorStatus {
            name: self.name.clone(),
            state,
            since_ms,
            message,
            partitions: Vec::new(),
            tables: Vec::new(),
            freshness: None,
            shards: Vec::new(),
            dead_letters: 0,
            skipped: 0,
        };
        match &*self.phase.lock() {
            Phase::Starting { since_ms, message } => empty(ConnectorState::Starting, *since_ms, message.clone()),
            Phase::Running(connector) => connector.status(),
            Phase::Ended { state, since_ms, message } => empty(*state, *since_ms, message.clone()),
        }
    }

    pub(super) fn is_starting(&self) -> bool {
        matches!(*self.phase.lock(), Phase::Starting { .. })
    }

    pub(super) fn run(&self, connector: Connector) {
        *self.phase.lock() = Phase::Running(connector);
    }

    pub(super) fn end(&self, state: ConnectorState, now_ms: i64, message: Option<String>) {
        *self.phase.lock() = Phase::Ended { state, since_ms: now_ms, message };
    }

    /// Takes the connector out, if one runs, and shows `starting` (it will be started anew) or `stopped` from now on.
    fn take(&self, now_ms: i64, again: bool, why: Option<&str>) -> Option<Connector> {
        let message = why.map(str::to_owned);
        let mut phase = self.phase.lock();
        let next = if again {
            Phase::Starting { since_ms: now_ms, message }
        } else {
            Phase::Ended { state: ConnectorState::Stopped, since_ms: now_ms, message }
        };
        match std::mem::replace(&mut *phase, next) {
            Phase::Running(connector) => Some(connector),
            // What ended by itself keeps its reason, unless something new is about to begin.
            ended if !again => {
                *phase = ended;
                None
            }
            _ => None,
        }
    }

    /// Drains the connector of this slot, if one runs: it leaves its group with everything committed that is durable. `again`: it is shown as
    /// starting meanwhile.
    ///
    /// # Errors
    /// It did not stop as it should and is `failed` now; what was not committed comes again.
    pub(super) async fn stop(&self, worker: &Worker, deadline: Duration, again: bool, why: Option<&str>) -> Result<(), NotStopped> {
        let Some(connector) = self.take(worker.now_ms(), again, why) else { return Ok(()) };
        let failed = match tokio::time::timeout(deadline + CLOSE_MARGIN, connector.stop(deadline)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => NotStopped::Late(error.to_string()),
            Err(_) => NotStopped::Hangs(format!("it did not stop within {:?}: restart the worker", deadline + CLOSE_MARGIN)),
        };
        tracing::error!(connector = self.name, error = %failed, "connector did not stop cleanly");
        self.end(ConnectorState::Failed, worker.now_ms(), Some(failed.to_string()));
        Err(failed)
    }
}

/// Stops all connectors at the same time, those included whose start or restart is under way: `worker.changes` counts these.
pub(super) async fn drain(worker: &Arc<Worker>, deadline: Duration) -> Result<(), SupervisorError> {
    worker.changes.close();
    let mut late = stop_all(worker, deadline).await;
    // A connector that is still starting cannot be stopped: its start has time limits of its own.
    if tokio::time::timeout(deadline, worker.changes.wait()).await.is_err() {
        late.extend(worker.slots().iter().filter(|slot| slot.is_starting()).map(|slot| slot.name.clone()));
    }
    late.extend(stop_all(worker, deadline).await);
    late.sort();
    late.dedup();
    if late.is_empty() { Ok(()) } else { Err(SupervisorError::NotDrained(late.join(", "))) }
}

/// Gives the names of those that did not stop in time.
async fn stop_all(worker: &Arc<Worker>, deadline: Duration) -> Vec<String> {
    let mut stops = tokio::task::JoinSet::new();
    for slot in worker.slots() {
        let worker = worker.clone();
        stops.spawn(async move { slot.stop(&worker, deadline, false, None).await.map_err(|_| slot.name.clone()) });
    }
    let mut late = Vec::new();
    while let Some(stopped) = stops.join_next().await {
        match stopped {
            Ok(Ok(())) => {}
            Ok(Err(name)) => late.push(name),
            Err(error) => late.push(format!("a connector whose stop panicked: {error}")),
        }
    }
    late
}
