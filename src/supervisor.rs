//! A worker's life: start, watch, reload, drain, stop.
//!
//! Reloading a connector's file while the worker runs has its place in [`Worker`]: a slot per connector, stopped and filled on its own.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use parking_lot::Mutex;
use tokio::signal::unix::{SignalKind, signal};

use crate::bigquery::{self, BigQuery, ConnectError};
use crate::config::{ConnectorConfig, FleetConfig, Loaded, ValueFormat};
use crate::flow::{Budget, BudgetKind, Clock, SystemClock};
use crate::http::{self, ListenError, MemoryStatus, Server, Status, WorkerState, WorkerStatus};
use crate::pipeline::{Connector, ConnectorParts, ConnectorState, ConnectorStatus, WorkerShared};
use crate::schema::{FolderSource, RegistrySetupError, RegistrySource, SchemaSource};
use crate::telemetry::metrics::{ConnectorMetrics, MemoryMetrics, resident_bytes};

/// How often gauges are set and connectors are looked at. Well below [`crate::telemetry::metrics::GAUGE_IDLE`].
const TICK: Duration = Duration::from_secs(1);
/// How often the process's resident memory is held against the budget.
const MEMORY_TICK: Duration = Duration::from_millis(100);
/// The share of the memory budget that librdkafka may fetch ahead: a quarter. It is refilled within milliseconds; open buffers and bytes
/// in flight, which last as long as BigQuery takes, need the rest.
const PREFETCH_SHARE: u64 = 4;
/// What a connector's stop may take beyond `shutdown_deadline`: leaving the group, closing the consumer.
const CLOSE_MARGIN: Duration = Duration::from_secs(10);

/// Why a worker does not start, or does not end as it should.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// BigQuery's settings cannot be used.
    #[error(transparent)]
    BigQuery(#[from] ConnectError),
    /// The registry's settings cannot be used.
    #[error(transparent)]
    Registry(#[from] RegistrySetupError),
    /// Nobody could ask for health.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The system refused a signal handler or a socket's address.
    #[error("{what}: {source}")]
    System {
        /// What was asked for.
        what: &'static str,
        /// The system's words.
        source: std::io::Error,
    },
    /// Connectors that did not drain in time: what they had not committed comes again.
    #[error("not drained within the deadline: {0}; what was not committed comes again")]
    NotDrained(String),
}

/// Where schemas come from: one source for everyone who asks the same registry or folder.
pub struct SchemaSources {
    registry: Option<Arc<dyn SchemaSource>>,
    folders: Mutex<HashMap<PathBuf, Arc<dyn SchemaSource>>>,
}

impl SchemaSources {
    /// The fleet's registry, where it has one.
    ///
    /// # Errors
    /// Its settings cannot be used.
    pub fn new(fleet: &FleetConfig) -> Result<Self, RegistrySetupError> {
        let registry = match &fleet.registry {
            Some(registry) => Some(Arc::new(RegistrySource::new(registry, fleet.worker.ca_file.as_deref())?) as Arc<dyn SchemaSource>),
            None => None,
        };
        Ok(Self { registry, folders: Mutex::new(HashMap::new()) })
    }

    /// The source of a connector; none for JSON.
    pub fn of(&self, connector: &ConnectorConfig) -> Option<Arc<dyn SchemaSource>> {
        match (&connector.value.format, &connector.value.schemas) {
            (ValueFormat::Json, _) => None,
            (ValueFormat::Avro, None) => self.registry.clone(),
            (ValueFormat::Avro, Some(folder)) => {
                let mut folders = self.folders.lock();
                Some(folders.entry(folder.clone()).or_insert_with(|| Arc::new(FolderSource::new(folder.clone()))).clone())
            }
        }
    }
}

/// One connector's place.
struct Slot {
    name: String,
    phase: Mutex<Phase>,
    metrics: ConnectorMetrics,
}

enum Phase {
    Starting { since_ms: i64 },
    Running(Connector),
    Ended { state: ConnectorState, since_ms: i64, message: Option<String> },
}

impl Slot {
    fn status(&self) -> ConnectorStatus {
        let empty = |state, since_ms, message| ConnectorStatus {
            name: self.name.clone(),
            state,
            since_ms,
            message,
            partitions: Vec::new(),
            tables: Vec::new(),
            freshness: None,
            dead_letters: 0,
            skipped: 0,
        };
        match &*self.phase.lock() {
            Phase::Starting { since_ms } => empty(ConnectorState::Starting, *since_ms, None),
            Phase::Running(connector) => connector.status(),
            Phase::Ended { state, since_ms, message } => empty(*state, *since_ms, message.clone()),
        }
    }

    fn end(&self, state: ConnectorState, now_ms: i64, message: Option<String>) {
        *self.phase.lock() = Phase::Ended { state, since_ms: now_ms, message };
    }
}

/// A worker at work.
struct Worker {
    slots: Vec<Slot>,
    state: Mutex<WorkerState>,
    budget: Arc<Budget>,
    clock: SystemClock,
    started_ms: i64,
    prometheus: PrometheusHandle,
}

impl Worker {
    fn now_ms(&self) -> i64 {
        self.clock.now_wall_us() / 1000
    }
}

impl Status for Worker {
    fn worker(&self) -> WorkerStatus {
        WorkerStatus {
            version: env!("CARGO_PKG_VERSION"),
            state: *self.state.lock(),
            started_ms: self.started_ms,
            now_ms: self.now_ms(),
            memory: MemoryStatus {
                budget_bytes: self.budget.limit_bytes(),
                used_bytes: self.budget.used(),
                by_kind: BudgetKind::ALL.iter().map(|kind| (kind.as_str(), self.budget.used_by(*kind))).collect(),
                resident_bytes: resident_bytes(),
            },
            connectors: self.slots.iter().map(Slot::status).collect(),
        }
    }

    fn metrics(&self) -> String {
        self.prometheus.render()
    }
}

/// Runs the worker until SIGTERM or SIGINT, then drains it. A connector that cannot start, or fails later, is `failed` in status, health
/// and metrics; the others go on. A second signal ends the process at once.
///
/// # Errors
/// What concerns all connectors: see [`SupervisorError`].
pub async fn run(loaded: Loaded, prometheus: PrometheusHandle) -> Result<(), SupervisorError> {
    let system = |what| move |source| SupervisorError::System { what, source };
    let mut terminate = signal(SignalKind::terminate()).map_err(system("handling SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system("handling SIGINT"))?;

    let fleet = Arc::new(loaded.fleet);
    let listener = http::bind(&fleet.worker.listen).await?;
    let bigquery = bigquery::connect(&fleet.bigquery, fleet.worker.ca_file.as_deref()).await?;
    let sources = SchemaSources::new(&fleet)?;

    let clock = SystemClock::new();
    let started_ms = clock.now_wall_us() / 1000;
    let slot = |connector: &ConnectorConfig| Slot {
        name: connector.name.clone(),
        phase: Mutex::new(Phase::Starting { since_ms: started_ms }),
        metrics: ConnectorMetrics::new(&connector.name),
    };
    let worker = Arc::new(Worker {
        slots: loaded.connectors.iter().map(slot).collect(),
        state: Mutex::new(WorkerState::Starting),
        budget: Budget::new(fleet.worker.memory.bytes()),
        clock,
        started_ms,
        prometheus,
    });
    let server = Server::start(listener, http::router(worker.clone())).map_err(system("the socket's address"))?;
    tracing::info!(address = %server.address(), connectors = worker.slots.len(), memory = ?fleet.worker.memory, "worker started");
    let watch = tokio::spawn(watch(worker.clone()));
    let resident = tokio::spawn(watch_memory(worker.budget.clone()));

    let starting = tokio::spawn(start_all(worker.clone(), fleet.clone(), loaded.connectors, bigquery, sources));
    let signal = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    };
    tracing::info!(signal, deadline = ?fleet.worker.shutdown_deadline, "draining; a second signal leaves at once");
    *worker.state.lock() = WorkerState::Draining;
    let drained = tokio::select! {
        drained = drain(&worker, starting, fleet.worker.shutdown_deadline.get()) => drained,
        () = async { tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} } } => leave_at_once(),
    };
    watch.abort();
    resident.abort();
    server.stop().await;
    if drained.is_ok() {
        tracing::info!("worker stopped");
    }
    drained
}

/// The second signal: nothing is awaited, not even threads of librdkafka, which a plain return would do.
fn leave_at_once() -> ! {
    eprintln!("millrace: second signal: leaving at once; what was not committed comes again");
    std::process::exit(1)
}

/// Starts every connector, each on a thread that may block: Kafka is asked for partitions.
async fn start_all(
    worker: Arc<Worker>,
    fleet: Arc<FleetConfig>,
    connectors: Vec<ConnectorConfig>,
    bigquery: BigQuery,
    sources: SchemaSources,
) {
    let runtime = tokio::runtime::Handle::current();
    let shared = Arc::new(WorkerShared::new(worker.budget.clone(), runtime, fleet.bigquery.text_literals));
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

/// Holds what the system sees of this process against the budget.
async fn watch_memory(budget: Arc<Budget>) {
    let mut tick = tokio::time::interval(MEMORY_TICK);
    loop {
        tick.tick().await;
        if let Some(resident) = resident_bytes() {
            budget.observe_resident(resident);
        }
    }
}

/// Sets gauges and says in the log when a connector's state changes.
async fn watch(worker: Arc<Worker>) {
    let memory = MemoryMetrics::new();
    let mut known: HashMap<String, (ConnectorState, Option<String>)> = HashMap::new();
    let mut tick = tokio::time::interval(TICK);
    loop {
        tick.tick().await;
        memory.budget.set(worker.budget.limit_bytes() as f64);
        for (kind, gauge) in [
            (BudgetKind::Prefetch, &memory.prefetch),
            (BudgetKind::OpenBuffers, &memory.open_buffers),
            (BudgetKind::InFlight, &memory.in_flight),
            (BudgetKind::DeadLetters, &memory.dead_letters),
            (BudgetKind::Plans, &memory.plans),
            (BudgetKind::Unaccounted, &memory.unaccounted),
        ] {
            gauge.set(worker.budget.used_by(kind) as f64);
        }
        memory.tick();
        for slot in &worker.slots {
            let status = slot.status();
            let runs = !matches!(status.state, ConnectorState::Failed | ConnectorState::Stopped);
            slot.metrics.running.set(if runs { 1.0 } else { 0.0 });
            let now = (status.state, status.message);
            if known.get(&slot.name) != Some(&now) {
                log_state(&slot.name, now.0, now.1.as_deref());
                known.insert(slot.name.clone(), now);
            }
        }
        worker.prometheus.run_upkeep();
    }
}

fn log_state(connector: &str, state: ConnectorState, message: Option<&str>) {
    let (state_name, message) = (state.as_str(), message.unwrap_or_default());
    match state {
        ConnectorState::Failed | ConnectorState::Stalled => tracing::error!(connector, state = state_name, message, "connector state"),
        ConnectorState::Holding => tracing::warn!(connector, state = state_name, message, "connector state"),
        _ => tracing::info!(connector, state = state_name, message, "connector state"),
    }
}

/// Stops all connectors at the same time.
async fn drain(worker: &Arc<Worker>, starting: tokio::task::JoinHandle<()>, deadline: Duration) -> Result<(), SupervisorError> {
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
