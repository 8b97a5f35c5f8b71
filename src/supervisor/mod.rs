//! A worker's life: start, watch, reload, drain, stop.
//!
//! Belongs here: what is started when and stopped when, and the answers that `http/` asks for. Does not belong here: how a connector works
//! (`pipeline/`), who decides about the fleet (`leader/`).

mod slots;
mod sources;
mod watch;
mod worker;

use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusHandle;
use parking_lot::Mutex;
use tokio::signal::unix::{SignalKind, signal};

use crate::bigquery::{self, ConnectError};
use crate::config::Loaded;
use crate::flow::{Budget, Clock, SystemClock};
use crate::http::{self, ListenError, Server, WorkerState};
use crate::schema::RegistrySetupError;
use slots::Slot;
pub use sources::SchemaSources;
use worker::Worker;

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
    let worker = Arc::new(Worker {
        slots: loaded.connectors.iter().map(|connector| Slot::new(connector, started_ms)).collect(),
        state: Mutex::new(WorkerState::Starting),
        budget: Budget::new(fleet.worker.memory.bytes()),
        clock,
        started_ms,
        prometheus,
    });
    let server = Server::start(listener, http::router(worker.clone())).map_err(system("the socket's address"))?;
    tracing::info!(address = %server.address(), connectors = worker.slots.len(), memory = ?fleet.worker.memory, "worker started");
    let watch = tokio::spawn(watch::watch(worker.clone()));
    let resident = tokio::spawn(watch::watch_memory(worker.budget.clone()));

    let starting = tokio::spawn(slots::start_all(worker.clone(), fleet.clone(), loaded.connectors, bigquery, sources));
    let signal = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    };
    tracing::info!(signal, deadline = ?fleet.worker.shutdown_deadline, "draining; a second signal leaves at once");
    *worker.state.lock() = WorkerState::Draining;
    let drained = tokio::select! {
        drained = slots::drain(&worker, starting, fleet.worker.shutdown_deadline.get()) => drained,
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
