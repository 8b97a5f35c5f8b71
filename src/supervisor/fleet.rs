//! The worker's part in the fleet: it reports, it hears the others, it stands for election, and decides where it is elected. None of it is
//! needed for moving records: what goes wrong here is said, and tried again.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

use super::worker::Worker;
use crate::config::{FleetConfig, ScalingMode};
use crate::fleet::{DesiredConnector, Exchange, FleetStatus, FleetView, Identity, MemoryReport, Order, Reporter, Verb, WorkerLook};
use crate::flow::{Clock, SystemClock};
use crate::http::{Refusal, WorkerState};
use crate::kafka::{ClusterSettings, KafkaError};
use crate::leader::{Election, Ended, Leadership, Monitor, SystemTimer};
use crate::pipeline::WorkerShared;
use crate::telemetry::leader_page::LeaderPage;
use crate::telemetry::metrics::resident_bytes;
use crate::watchdog;

/// Between two tries of what could not be started.
const AGAIN: Duration = Duration::from_secs(15);
/// How long a worker that was elected and could not decide leaves leading to others.
const STAND_BACK: Duration = Duration::from_secs(60);
/// How long the end may take: a resize on its way, handing leadership over, the last report, the reader's thread.
const STOP_MAX: Duration = Duration::from_secs(8);

/// What is asked of it while it runs.
pub(super) struct FleetPart {
    view: Arc<FleetView>,
    page: Arc<Mutex<Option<Arc<LeaderPage>>>>,
    /// Why the last report was not sent.
    reporting: Arc<Mutex<Option<String>>>,
    /// Told when something is to be reported at once.
    report_now: Arc<Notify>,
    /// Why there is no election.
    electing: Mutex<Option<String>>,
    leadership: Mutex<Option<watch::Receiver<Leadership>>>,
    /// Writes to the fleet's topics, while it runs.
    exchange: Mutex<Weak<Exchange>>,
    /// Held by whoever tells a connector something, from reading what was wished before to having written what is wished now.
    telling: tokio::sync::Mutex<()>,
}

impl FleetPart {
    /// Tells a connector something; gives what is wished of it now, others' orders of the same moment included.
    pub async fn tell(&self, connector: &str, verb: Verb, now_ms: i64) -> Result<DesiredConnector, Refusal> {
        let exchange = self.exchange.lock().upgrade().filter(|exchange| exchange.is_ready());
        // What stood there before is part of what is written: without it a restart would be forgotten.
        let known = self.view.wishes().borrow().known;
        let Some(exchange) = exchange.filter(|_| known) else {
            let why = self.view.status().trouble.unwrap_or_default();
            return Err(Refusal::Unavailable(format!("the fleet's state topic is not there yet: {why}")));
        };
        let unavailable = |error: KafkaError| Refusal::Unavailable(error.to_string());
        let _telling = self.telling.lock().await;
        // What was told a moment ago, here or at another worker, may not have come here yet.
        exchange.catch_up().await.map_err(unavailable)?;
        let before = self.view.desired(connector);
        let order = Order::new(connector, verb, before.as_ref(), now_ms, rand::random()).map_err(Refusal::Conflict)?;
        exchange.order(&order).await.map_err(|error| Refusal::Unavailable(format!("{error}; it may hold all the same: see `/fleet`")))?;
        // Another worker may have been told something else since.
        exchange
            .catch_up()
            .await
            .map_err(|error| Refusal::Unavailable(format!("written, and whether it holds is not known: {error}; see `/fleet`")))?;
        order.held(self.view.desired(connector)).map_err(|overtaken| Refusal::Conflict(overtaken.to_string()))
    }

    /// The fleet as it is seen here.
    pub fn view(&self) -> &Arc<FleetView> {
        &self.view
    }

    /// Has this worker's state reported now, not only when the next report is due.
    pub fn report_now(&self) {
        self.report_now.notify_one();
    }

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
    tracing::info!(worker = identity.name, mode = ?scaling.mode, fleet = scaling.fleet_id, reports = scaling.report_topic_name(), "this worker reports to its fleet");
    let part = Arc::new(FleetPart {
        view: Arc::new(FleetView::new(identity, scaling, clock.clone())),
        page: Arc::default(),
        reporting: Arc::default(),
        report_now: Arc::default(),
        electing: Mutex::new(None),
        leadership: Mutex::new(None),
        exchange: Mutex::default(),
        telling: tokio::sync::Mutex::default(),
    });
    if worker.fleet.set(part.clone()).is_err() {
        tracing::error!("the worker's part in its fleet is started already");
        return None;
    }
    let (deciding, reporting) = (CancellationToken::new(), CancellationToken::new());
    let (fleet, worker, ending, last) = (fleet.clone(), worker.clone(), deciding.clone(), reporting.clone());
    let own = part.clone();
    let life = move || live(fleet.clone(), worker.clone(), shared.clone(), own.clone(), clock.clone(), ending.clone(), last.child_token());
    let again = again(life, part, reporting.clone());
    Some(FleetLife { deciding, reporting, task: tokio::spawn(again) })
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

/// Starts a worker's part in its fleet anew when it panics: a worker that stays silent would never be noticed.
async fn again<F: Future<Output = Result<(), JoinError>> + Send + 'static>(
    start: impl Fn() -> F,
    part: Arc<FleetPart>,
    stop: CancellationToken,
) {
    loop {
        let Err(error) = tokio::spawn(start()).await.and_then(|ended| ended) else { return };
        tracing::error!(
            error = crate::telemetry::panics::join_words(error),
            "the worker's part in its fleet panicked: it is started anew; records move on"
        );
        *part.page.lock() = None;
        *part.leadership.lock() = None;
        *part.electing.lock() = Some("the worker's part in its fleet panicked and is started anew".to_owned());
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(AGAIN) => {}
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
) -> Result<(), JoinError> {
    // What is left of this one when it panics ends too.
    let _ends = reporting.clone().drop_guard();
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
            () = reporting.cancelled() => return Ok(()),
            () = tokio::time::sleep(AGAIN) => {}
        }
    };
    *part.exchange.lock() = Arc::downgrade(&exchange);
    let asked = worker.clone();
    let look = move || look(&asked, &shared);
    let (identity, trouble, now) = (part.view.identity().clone(), part.reporting.clone(), part.report_now.clone());
    let reporter = Reporter::new(identity, &fleet.scaling, exchange.clone(), clock, look, trouble, now);
    let mut reports = tokio::spawn(watchdog::watch("the reports to the fleet").polls(reporter.run(reporting)));
    {
        let mut leading =
            std::pin::pin!(watchdog::watch("the election and the leader's task").polls(lead(&fleet, &worker, &part, &exchange, deciding)));
        tokio::select! {
            () = &mut leading => reports.await?,
            reported = &mut reports => {
                reported?;
                leading.await;
            }
        }
    }
    // The monitor had the only other hold on it.
    if let Some(exchange) = Arc::into_inner(exchange) {
        let stopped = tokio::task::spawn_blocking(move || exchange.stop());
        if let Err(error) = stopped.await {
            tracing::error!(error = crate::telemetry::panics::join_words(error), "ending the reading of the fleet's topics panicked");
        }
    }
    Ok(())
}

/// Stands for election and decides when elected, until it is told to stop; stands back for a minute when it was elected and could not decide.
async fn lead(fleet: &Arc<FleetConfig>, worker: &Arc<Worker>, part: &Arc<FleetPart>, exchange: &Arc<Exchange>, stop: CancellationToken) {
    while let Ended::Unfit(why) = stand(fleet, worker, part, exchange, stop.clone()).await {
        let words = format!("this worker leaves leading to others for {} s: {why}", STAND_BACK.as_secs());
        tracing::warn!("{words}");
        *part.electing.lock() = Some(words);
        *part.leadership.lock() = None;
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(STAND_BACK) => {}
        }
    }
}

async fn stand(
    fleet: &Arc<FleetConfig>,
    worker: &Arc<Worker>,
    part: &Arc<FleetPart>,
    exchange: &Arc<Exchange>,
    stop: CancellationToken,
) -> Ended {
    let timer = Arc::new(SystemTimer::default());
    let mut election = loop {
        match Election::start(&fleet.scaling, &part.view.identity().name, timer.clone()).await {
            Ok(Some(election)) => break election,
            Ok(None) => return Ended::Stopped,
            Err(error) => {
                let why = error.to_string();
                let news = part.electing.lock().replace(why.clone()).is_none_or(|before| before != why);
                if news {
                    tracing::error!("this worker cannot stand for election: {why}; records move on, and it is tried again");
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => return Ended::Stopped,
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
        sizing: election.sizing.clone(),
        page: part.page.clone(),
        timer,
    };
    let ended = tokio::select! {
        biased;
        why = election.broken() => Err(why),
        ended = monitor.run(stop) => Ok(ended),
    };
    // First it decides nothing any more, then another may.
    election.stop().await;
    ended.unwrap_or_else(|why| {
        // The monitor was dropped where it stood.
        *part.page.lock() = None;
        Ended::Unfit(why)
    })
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
