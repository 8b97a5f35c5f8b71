//! A slot per connector, started and stopped on its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::SupervisorError;
use super::sources::SchemaSources;
use super::worker::Worker;
use crate::bigquery::BigQuery;
use crate::config::{ConnectorConfig, FleetConfig};
use crate::http::WorkerState;
use crate::pipeline::{Connector, ConnectorParts, ConnectorState, ConnectorStatus, WorkerShared};
use crate::telemetry::metrics::ConnectorMetrics;

/// The share of the memory budget that librdkafka may fetch ahead: a quarter. It is refilled within milliseconds; open buffers and bytes
/// in flight, which last as long as BigQuery takes, need the rest.
const PREFETCH_SHARE: u64 = 4;
/// What a connector's stop may take beyond `shutdown_deadline`: leaving the group, closing the consumer.
const CLOSE_MARGIN: Duration = Duration::from_secs(10);

/// One connector's place.
pub(super) struct Slot {
    pub(super) name: String,
    pub(super) phase: Mutex<Phase>,
    pub(super) metrics: ConnectorMetrics,
}

/// Where the connector in a slot is in its life.
pub(super) enum Phase {
    Starting { since_ms: i64 },
    Running(Connector),
    Ended { state: ConnectorState, since_ms: i64, message: Option<String> },
}

impl Slot {
    /// A slot whose connector is about to be started.
    pub(super) fn new(connector: &ConnectorConfig, now_ms: i64) -> Self {
        Self {
            name: connector.name.clone(),
            phase: Mutex::new(Phase::Starting { since_ms: now_ms }),
            metrics: ConnectorMetrics::new(&connector.name),
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
            Phase::Starting { since_ms } => empty(ConnectorState::Starting, *since_ms, None),
            Phase::Running(connector) => connector.status(),
            Phase::Ended { state, since_ms, message } => empty(*state, *since_ms, message.clone()),
        }
    }

    pub(super) fn end(&self, state: ConnectorState, now_ms: i64, message: Option<String>) {
        *self.phase.lock() = Phase::Ended { state, since_ms: now_ms, message };
    }
}

/// Starts every connector, each on a thread that may block: Kafka is asked for partitions.
pub(super) async fn start_all(
    worker: Arc<Worker>,
    fleet: Arc<FleetConfig>,
    connectors: Vec<ConnectorConfig>,
    bigquery: BigQuery,
    sources: SchemaSources,
) {
    let runtime = tokio::runtime::Handle::current();
    let shared = WorkerShared::new(worker.budget.clone(), runtime, fleet.bigquery.text_literals);
    let shared = Arc::new(shared.limited_to(fleet.worker.max_records_per_s, Instant::now()));
    let prefetch_bytes = fleet.worker.memory.bytes() / PREFETCH_SHARE / connectors.len().max(1) as u64;
    let mut starts = tokio::task::JoinSet::new();
    for (i, config) in connectors.into_iter().enumerate() {
        let parts = ConnectorParts {
            schemas: sources.of(&config),
            config: Arc::new(config),
            fleet: fleet.clone(),
            tables: bigquery.tables(),
            appender: bigquery.appender(),
            worker: shared.clone(),
            prefetch_bytes,
        };
        let worker = worker.clone();
        starts.spawn_blocking(move || {
            let slot = &worker.slots[i];
            match Connector::start(parts) {
                Ok(connector) => *slot.phase.lock() = Phase::Running(connector),
                Err(error) => {
                    tracing::error!(connector = slot.name, %error, "connector failed to start");
                    slot.end(ConnectorState::Failed, worker.now_ms(), Some(error.to_string()));
                }
            }
        });
    }
    while let Some(started) = starts.join_next().await {
        if let Err(error) = started {
            tracing::error!(%error, "starting a connector panicked");
        }
    }
    // A start that panicked left its slot as it was.
    for slot in worker.slots.iter().filter(|slot| matches!(*slot.phase.lock(), Phase::Starting { .. })) {
        slot.end(ConnectorState::Failed, worker.now_ms(), Some("its start panicked; see the log".to_owned()));
    }
    let mut state = worker.state.lock();
    if *state == WorkerState::Starting {
        *state = WorkerState::Running;
    }
}

/// Stops all connectors at the same time.
pub(super) async fn drain(worker: &Arc<Worker>, starting: tokio::task::JoinHandle<()>, deadline: Duration) -> Result<(), SupervisorError> {
    let mut late = Vec::new();
    // A connector that is still starting cannot be stopped: its start has time limits of its own.
    if tokio::time::timeout(deadline, starting).await.is_err() {
        late.extend(worker.slots.iter().filter(|slot| matches!(*slot.phase.lock(), Phase::Starting { .. })).map(|slot| slot.name.clone()));
    }
    let mut stops = tokio::task::JoinSet::new();
    for (i, slot) in worker.slots.iter().enumerate() {
        let draining = Phase::Ended { state: ConnectorState::Stopped, since_ms: worker.now_ms(), message: None };
        let mut phase = slot.phase.lock();
        match std::mem::replace(&mut *phase, draining) {
            Phase::Running(connector) => {
                stops.spawn(async move { (i, tokio::time::timeout(deadline + CLOSE_MARGIN, connector.stop(deadline)).await) });
            }
            ended => *phase = ended,
        }
    }
    while let Some(stopped) = stops.join_next().await {
        match stopped {
            Ok((_, Ok(Ok(())))) => {}
            Ok((i, Ok(Err(error)))) => {
                tracing::error!(connector = worker.slots[i].name, %error, "connector did not stop cleanly");
                worker.slots[i].end(ConnectorState::Failed, worker.now_ms(), Some(error.to_string()));
                late.push(worker.slots[i].name.clone());
            }
            Ok((i, Err(_))) => late.push(worker.slots[i].name.clone()),
            Err(error) => late.push(format!("a connector whose stop panicked: {error}")),
        }
    }
    if late.is_empty() { Ok(()) } else { Err(SupervisorError::NotDrained(late.join(", "))) }
}
