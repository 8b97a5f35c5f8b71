//! The worker as everyone in this room sees it, and what it answers over HTTP.

use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusHandle;
use parking_lot::Mutex;

use super::slots::Slot;
use crate::flow::{Budget, BudgetKind, Clock, SystemClock};
use crate::http::{MemoryStatus, Status, WorkerState, WorkerStatus};
use crate::telemetry::metrics::resident_bytes;

/// A worker at work.
pub(super) struct Worker {
    pub(super) slots: Vec<Slot>,
    pub(super) state: Mutex<WorkerState>,
    pub(super) budget: Arc<Budget>,
    pub(super) clock: SystemClock,
    pub(super) started_ms: i64,
    pub(super) prometheus: PrometheusHandle,
}

impl Worker {
    /// Its clock, milliseconds since the epoch.
    pub(super) fn now_ms(&self) -> i64 {
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
