//! The worker's part in the fleet: it reports, it hears the others, it stands for election, and decides where it is elected. None of it is
//! needed for moving records: what goes wrong here is said, and tried again.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::worker::Worker;
use crate::config::{FleetConfig, ScalingMode};
use crate::fleet::{Exchange, FleetStatus, FleetView, Identity, MemoryReport, Reporter, WorkerLook};
use crate::flow::{Clock, SystemClock};
use crate::http::WorkerState;
use crate::kafka::ClusterSettings;
use crate::leader::{Election, Leadership, Monitor, SystemTimer};
use crate::pipeline::WorkerShared;
use crate::telemetry::leader_page::LeaderPage;
use crate::telemetry::metrics::resident_bytes;

/// Between two tries of what could not be started.
const AGAIN: Duration = Duration::from_secs(15);
/// How long the end may take: a resize on its way, handing leadership over, the last report, the reader's thread.
const STOP_MAX: Duration = Duration::from_secs(8);

/// What is asked of it while it runs.
pub(super) struct FleetPart {
    view: Arc<FleetView>,
    page: Arc<Mutex<Option<Arc<LeaderPage>>>>,
    /// Why the last report was not sent.
    reporting: Arc<Mutex<Option<String>>>,
    /// Why there is no election.
    electing: Mutex<Option<String>>,
    leadership: Mutex<Option<watch::Receiver<Leadership>>>,
}

impl FleetPart {
    /// `GET /fleet`.
    pub fn status(&self) -> FleetStatus {
        let mut status = self.view.status();
        let election = self.leadership.lock().as_ref().and_then(|leadership| match &*leadership.borrow() {
            Leadership::Follower { trouble, .. } => trouble.clone(),
            Leadership::Leader(_) => None,
        });
        let more = [self.reporting.lock().clone(), self.electing.lock().clone(), election.map(|why| format!("election: {why}"))];
        let all: Vec<String> = status.trouble.take().into_iter().chain(more.into_iter().flatten()).collect();
        status.trouble = (!all.is_empty()).then(|| all.join("; "));
        status
    }

    /// The gauges of a leader, where this worker is one.
    pub fn leader_metrics(&self) -> Option<String> {
        let page = self.page.lock().clone();
        page.map(|page| page.render())
    }

    /// Whether this worker decides.
    pub fn leads(&self) -> bool {
        self.page.lock().is_some()
    }
}

/// The running part.
pub(super) struct FleetLife {
    deciding: CancellationToken,
    reporting: CancellationToken,
    task: JoinHandle<()>,
}

/// Starts it, unless `[scaling] mode` is `off`. `worker` answers for it from then on.
pub(super) fn start(fleet: &Arc<FleetConfig>, worker: &Arc<Worker>, shared: Arc<WorkerShared>) -> Option<FleetLife> {
    let scaling = &fleet.scaling;
    if scaling.mode == ScalingMode::Off {
        return None;
    }
    let identity = Identity::from_environment(|name| std::env::var(name).ok());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    tracing::info!(worker = identity.name, mode = ?scaling.mode, reports = scaling.report_topic, "this worker reports to its fleet");
    let part = Arc::new(FleetPart {
        view: Arc::new(FleetView::new(identity, scaling, clock.clone())),
        page: Arc::default(),
        reporting: Arc::default(),
        electing: Mutex::new(None),
        leadership: Mutex::new(None),
    });
    if worker.fleet.set(part.clone()).is_err() {
        tracing::error!("the worker's part in its fleet is started already");
        return None;
    }
    let (deciding, reporting) = (CancellationToken::new(), CancellationToken::new());
    let life = live(fleet.clone(), worker.clone(), shared, part, clock, deciding.clone(), reporting.clone());
    Some(FleetLife { deciding, reporting, task: tokio::spawn(life) })
}

impl FleetLife {
    /// Stops deciding and hands leadership over, without waiting for it. Reports go on: they say that the worker leaves.
    pub fn stop_deciding(&self) {
        self.deciding.cancel();
    }

    /// Ends everything.
    pub async fn stop(self) {
        self.deciding.cancel();
        self.reporting.cancel();
        if tokio::time::timeout(STOP_MAX, self.task).await.is_err() {
            tracing::warn!("the worker's part in its fleet did not end in time; leadership, if it had it, ends by itself");
        }
    }
}

async fn live(
    fleet: Arc<FleetConfig>,
    worker: Arc<Worker>,
    shared: Arc<WorkerShared>,
    part: Arc<FleetPart>,
    clock: Arc<dyn Clock>,
    deciding: CancellationToken,
    reporting: CancellationToken,
) {
    let cluster = ClusterSettings::of_fleet(&fleet);
    let exchange = loop {
        match Exchange::start(&cluster, &fleet.scaling, part.view.clone()) {
            Ok(exchange) => break Arc::new(exchange),
            Err(error) => {
                tracing::error!(%error, "the fleet's topics cannot be used; records move on, and it is tried again");
                part.view.deaf(error.to_string());
            }
        }
        tokio::select! {
            () = reporting.cancelled() => return,
            () = tokio::time::sleep(AGAIN) => {}
        }
    };
    let asked = worker.clone();
    let look = move || look(&asked, &shared);
    let reporter = Reporter::new(part.view.identity().clone(), &fleet.scaling, exchange.clone(), clock, look, part.reporting.clone());
    let reports = tokio::spawn(reporter.run(reporting));
    lead(&fleet, &worker, &part, &exchange, deciding).await;
    if let Err(error) = reports.await {
        tracing::error!(%error, "reporting panicked");
    }
    // The monitor had the only other hold on it.
    if let Some(exchange) = Arc::into_inner(exchange) {
        let stopped = tokio::task::spawn_blocking(move || exchange.stop());
        if let Err(error) = stopped.await {
            tracing::error!(%error, "ending the reading of the fleet's topics panicked");
        }
    }
}

/// Stands for election and decides when elected, until it is told to stop.
async fn lead(fleet: &Arc<FleetConfig>, worker: &Arc<Worker>, part: &Arc<FleetPart>, exchange: &Arc<Exchange>, stop: CancellationToken) {
    let timer = Arc::new(SystemTimer::default());
    let election = loop {
        match Election::start(&fleet.scaling, &part.view.identity().name, timer.clone()).await {
            Ok(Some(election)) => break election,
            Ok(None) => return,
            Err(error) => {
                let why = error.to_string();
                let news = part.electing.lock().replace(why.clone()).is_none_or(|before| before != why);
                if news {
                    tracing::error!("this worker cannot stand for election: {why}; records move on, and it is tried again");
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(AGAIN) => {}
        }
    };
    *part.electing.lock() = None;
    *part.leadership.lock() = Some(election.leadership.clone());
    let asked = worker.clone();
    let monitor = Monitor {
        fleet: fleet.clone(),
        connectors: Box::new(move || asked.slots().iter().map(|slot| slot.config.lock().clone()).collect()),
        view: part.view.clone(),
        exchange: exchange.clone(),
        leadership: election.leadership.clone(),
        replicas: election.replicas.clone(),
        page: part.page.clone(),
        timer,
    };
    // First it decides nothing any more, then another may.
    monitor.run(stop).await;
    election.stop().await;
}

fn look(worker: &Worker, shared: &WorkerShared) -> WorkerLook {
    WorkerLook {
        leaving: *worker.state.lock() == WorkerState::Draining,
        memory: MemoryReport {
            budget_bytes: worker.budget.limit_bytes(),
            used_bytes: worker.budget.used(),
            resident_bytes: resident_bytes(),
        },
        connectors: worker.slots().iter().map(|slot| slot.status()).collect(),
        paced_s: shared.pace.as_ref().map(|pace| pace.busy().as_secs_f64()),
    }
}
