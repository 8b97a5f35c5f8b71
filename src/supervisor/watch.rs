//! What is looked at all the time: gauges, states of connectors, memory.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::worker::Worker;
use crate::flow::{Budget, BudgetKind};
use crate::pipeline::ConnectorState;
use crate::telemetry::metrics::{self, MemoryMetrics, resident_bytes};

/// How often gauges are set and connectors are looked at. Well below [`crate::telemetry::metrics::GAUGE_IDLE`].
const TICK: Duration = Duration::from_secs(1);
/// How often the process's resident memory is held against the budget.
const MEMORY_TICK: Duration = Duration::from_millis(100);

/// Holds what the system sees of this process against the budget.
pub(super) async fn watch_memory(budget: Arc<Budget>) {
    let mut tick = tokio::time::interval(MEMORY_TICK);
    loop {
        tick.tick().await;
        if let Some(resident) = resident_bytes() {
            budget.observe_resident(resident);
        }
    }
}

/// Sets gauges and says in the log when a connector's state changes.
pub(super) async fn watch(worker: Arc<Worker>) {
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
        if let Some(fleet) = worker.fleet.get() {
            metrics::leading(fleet.leads());
        }
        for slot in worker.slots() {
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
        ConnectorState::Failed | ConnectorState::Stalled | ConnectorState::Unreachable => {
            tracing::error!(connector, state = state_name, message, "connector state");
        }
        ConnectorState::Holding => tracing::warn!(connector, state = state_name, message, "connector state"),
        _ => tracing::info!(connector, state = state_name, message, "connector state"),
    }
}
