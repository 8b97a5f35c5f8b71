//! A worker's life: start, watch, reload, drain, stop.
//!
//! Belongs here: what is started when and stopped when, and the answers that `http/` asks for. Does not belong here: how a connector works
//! (`pipeline/`), who decides about the fleet (`leader/`).

mod configuration;
mod desired;
mod drain;
mod fleet;
mod joining;
mod lasting;
mod launch;
mod reload;
mod reload_plan;
mod slots;
mod sources;
mod watch;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod wedges;
mod worker;

use std::sync::{Arc, OnceLock};

use metrics_exporter_prometheus::PrometheusHandle;
use parking_lot::{Mutex, RwLock};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bigquery::{self, ConnectError};
use crate::config::{ConnectorConfig, Loaded};
use crate::flow::{Budget, Clock, SystemClock};
use crate::http::{self, ApiToken, ListenError, Server, WorkerState};
use crate::schema::RegistrySetupError;
use crate::watchdog;
use configuration::Configuration;
use lasting::Lasting;
use launch::Launcher;
use reload::Reload;
pub use slots::CLOSE_MARGIN;
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
    /// A part of the worker that must last as long as it does; connectors were drained.
    #[error("{0}: please report it; the worker has ended, for a new one to do what this one no longer does")]
    Broken(String),
    /// Connectors that did not drain in time: what they had not committed comes again.
    #[error("not drained within the deadline: {0}; what was not committed comes again")]
    NotDrained(String),
}

/// Runs the worker until SIGTERM or SIGINT, then drains it. A connector that cannot start, or fails later, is `failed` in status, health
/// and metrics; the others go on. A second signal ends the process at once.
///
/// Connector files are followed meanwhile (at once at SIGHUP): only connectors whose files changed restart; a file with a mistake changes
/// nothing and is shown. A changed `millrace.toml` waits for a restart.
///
/// # Errors
/// What concerns all connectors: see [`SupervisorError`].
pub async fn run(loaded: Loaded, prometheus: PrometheusHandle) -> Result<(), SupervisorError> {
    let system = |what| move |source| SupervisorError::System { what, source };
    let mut terminate = signal(SignalKind::terminate()).map_err(system("handling SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system("handling SIGINT"))?;
    let hangup = signal(SignalKind::hangup()).map_err(system("handling SIGHUP"))?;

    let fleet = Arc::new(loaded.fleet.clone());
    let listener = http::bind(&fleet.worker.listen).await?;
    let bigquery = bigquery::connect(&fleet.bigquery, fleet.worker.ca_file.as_deref()).await?;
    let sources = SchemaSources::new(&fleet)?;

    let clock = SystemClock::new();
    let started_ms = clock.now_wall_us() / 1000;
    let prefetch_bytes = launch::prefetch_bytes(fleet.worker.memory.bytes(), loaded.connectors.len());
    let slot = |config: &ConnectorConfig| Arc::new(Slot::new(Arc::new(config.clone()), prefetch_bytes, started_ms));
    let worker = Arc::new(Worker {
        slots: RwLock::new(loaded.connectors.iter().map(slot).collect()),
        state: Mutex::new(WorkerState::Starting),
        configuration: Configuration::new(&loaded.refused, started_ms),
        changes: TaskTracker::new(),
        draining: CancellationToken::new(),
        budget: Budget::new(fleet.worker.memory.bytes()),
        clock,
        started_ms,
        prometheus,
        fleet: OnceLock::new(),
    });
    let server = Server::start(listener, http::router(worker.clone(), worker.clone(), ApiToken::new(fleet.worker.api_token.as_ref())))
        .map_err(system("the socket's address"))?;
    tracing::info!(address = %server.address(), connectors = loaded.connectors.len(), memory = ?fleet.worker.memory, "worker started");
    let mut lasting = Lasting::default();
    lasting.spawn("the beat of the runtime", watch::beat_of_runtime());
    lasting.spawn("the look at connectors", watch::watch(worker.clone()));
    lasting.spawn("the look at memory", watch::watch_memory(worker.budget.clone()));

    let launcher = Arc::new(Launcher::new(worker.clone(), fleet.clone(), bigquery, sources));
    let fleet_life = fleet::start(&fleet, &worker, launcher.shared.clone());
    let reload = Reload::new(worker.clone(), launcher.clone(), &loaded);
    let (following, starting) = (worker.clone(), worker.changes.token());
    lasting.spawn("the start of connectors, and the following of wishes and files", async move {
        launcher.start_all().await;
        drop(starting);
        let wishes = watchdog::watch("the following of the fleet's wishes").polls(desired::follow(following, launcher));
        let files = watchdog::watch("the following of connector files").polls(reload.follow(hangup));
        tokio::join!(wishes, files);
    });
    let (why, broken) = tokio::select! {
        _ = terminate.recv() => ("SIGTERM", None),
        _ = interrupt.recv() => ("SIGINT", None),
        broken = lasting.broken() => ("a part of the worker panicked", Some(broken)),
    };
    if let Some(broken) = &broken {
        tracing::error!("{broken}: please report it; the worker drains and ends");
    }
    tracing::info!(why, deadline = ?fleet.worker.shutdown_deadline, "draining; a second signal leaves at once");
    *worker.state.lock() = WorkerState::Draining;
    worker.draining.cancel();
    if let Some(life) = &fleet_life {
        life.stop_deciding();
    }
    let drained = tokio::select! {
        drained = drain::drain(&worker, fleet.worker.shutdown_deadline.get()) => drained,
        () = async { tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} } } => leave_at_once(),
    };
    if let Some(life) = fleet_life {
        life.stop().await;
    }
    drop(lasting);
    server.stop().await;
    drained?;
    if let Some(broken) = broken {
        return Err(SupervisorError::Broken(broken));
    }
    tracing::info!("worker stopped");
    Ok(())
}

/// The second signal: nothing is awaited, not even threads of librdkafka, which a plain return would do.
fn leave_at_once() -> ! {
    eprintln!("millrace: second signal: leaving at once; what was not committed comes again");
    std::process::exit(1)
}
