//! The worker as everyone in this room sees it, and what it answers over HTTP.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use metrics_exporter_prometheus::PrometheusHandle;
use parking_lot::{Mutex, RwLock};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::configuration::Configuration;
use super::fleet::FleetPart;
use super::slots::Slot;
use crate::fleet::{DesiredConnector, FleetStatus, Verb};
use crate::flow::{Budget, BudgetKind, Clock, SystemClock};
use crate::http::{Control, MemoryStatus, Refusal, Status, WorkerState, WorkerStatus};
use crate::telemetry::metrics::resident_bytes;
use crate::watchdog;

/// A worker at work.
pub(super) struct Worker {
    /// By name. Read through [`Worker::slots`].
    pub(super) slots: RwLock<Vec<Arc<Slot>>>,
    /// Its files, where they are not what runs.
    pub(super) configuration: Configuration,
    /// Starts and restarts under way: a drain waits for them.
    pub(super) changes: TaskTracker,
    /// Cancelled when the worker is told to stop: no connector is started any more.
    pub(super) draining: CancellationToken,
    pub(super) state: Mutex<WorkerState>,
    pub(super) budget: Arc<Budget>,
    pub(super) clock: SystemClock,
    pub(super) started_ms: i64,
    pub(super) prometheus: PrometheusHandle,
    /// Its part in the fleet; none with `[scaling] mode = "off"`.
    pub(super) fleet: OnceLock<Arc<FleetPart>>,
}

impl Worker {
    /// The slots as they are now.
    pub(super) fn slots(&self) -> Vec<Arc<Slot>> {
        self.slots.read().clone()
    }

    /// A slot more, in its place by name; in place of one of the same name.
    pub(super) fn add(&self, slot: Slot) -> Arc<Slot> {
        let slot = Arc::new(slot);
        let mut slots = self.slots.write();
        slots.retain(|other| other.name != slot.name);
        let at = slots.partition_point(|other| other.name < slot.name);
        slots.insert(at, slot.clone());
        slot
    }

    /// A slot less.
    pub(super) fn remove(&self, name: &str) {
        self.slots.write().retain(|slot| slot.name != name);
    }

    /// Its clock, milliseconds since the epoch.
    pub(super) fn now_ms(&self) -> i64 {
        self.clock.now_wall_us() / 1000
    }
}

#[async_trait]
impl Control for Worker {
    async fn tell(&self, connector: &str, verb: Verb) -> Result<DesiredConnector, Refusal> {
        let Some(fleet) = self.fleet.get() else {
            return Err(Refusal::Conflict(
                "[scaling] mode = \"off\": workers follow no wishes; \"observe\" resizes nothing and does".to_owned(),
            ));
        };
        let known = self.slots().iter().any(|slot| slot.name == connector) || fleet.view().knows(connector);
        if !known {
            return Err(Refusal::Unknown(connector.to_owned()));
        }
        fleet.tell(connector, verb, self.now_ms()).await
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
            connectors: self.slots().iter().map(|slot| slot.status()).collect(),
            configuration: self.configuration.status(),
        }
    }

    fn live(&self) -> Result<(), String> {
        watchdog::liveness()
    }

    fn metrics(&self) -> String {
        let mut page = self.prometheus.render();
        page.extend(self.fleet.get().and_then(|fleet| fleet.leader_metrics()));
        page
    }

    fn fleet(&self) -> Option<FleetStatus> {
        self.fleet.get().map(|fleet| fleet.status())
    }
}
