//! What is looked at all the time: gauges, states of connectors, memory.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::worker::Worker;
use crate::flow::{Budget, BudgetKind};
use crate::pipeline::ConnectorState;
use crate::telemetry::metrics::{self, MemoryMetrics, resident_bytes};
use crate::telemetry::{levels, wishes};
use crate::watchdog;

/// How often gauges are set and connectors are looked at. Well below [`crate::telemetry::metrics::GAUGE_IDLE`].
const TICK: Duration = Duration::from_secs(1);
/// How often the process's resident memory is held against the budget.
const MEMORY_TICK: Duration = Duration::from_millis(100);

/// The runtime's own beat: where no thread of it is free to run this, whatever waits on it waits for good.
pub(super) async fn beat_of_runtime() {
    let beat = watchdog::watch("the tokio runtime");
    let mut tick = tokio::time::interval(TICK);
    loop {
        tick.tick().await;
        beat.beat();
    }
}

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
    let beat = watchdog::watch("the supervisor's look at its connectors");
    loop {
        tick.tick().await;
        beat.beat();
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
        levels::show();
        if let Some(fleet) = worker.fleet.get() {
            metrics::leading(fleet.leads());
        }
        for slot in worker.slots() {
            let status = slot.status();
            let runs = !matches!(status.state, ConnectorState::Failed | ConnectorState::Stopped);
            slot.metrics.running.set(if runs { 1.0 } else { 0.0 });
            wishes::asked_to_rest(&slot.name, slot.asked_to_rest());
            // Whoever waits says itself when it begins and ends; its words change with the leader's.
            let now = (status.state, status.message.filter(|_| status.state != ConnectorState::Waiting));
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
        ConnectorState::Waiting => {}
        ConnectorState::Holding => tracing::warn!(connector, state = state_name, message, "connector state"),
        _ => tracing::info!(connector, state = state_name, message, "connector state"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::watchdog::{Limits, last_words};

    /// A task that never lets go of the runtime's only thread: what blocks in async code, as the worst bug does it.
    #[test]
    fn a_runtime_without_a_free_thread_ends_the_process() {
        let limits =
            Limits { stand_still: Duration::from_millis(2500), long_step: Duration::from_secs(20), tick: Duration::from_millis(50) };
        let heard = last_words("the tokio runtime", limits);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(beat_of_runtime());
        assert!(heard.recv_timeout(Duration::from_secs(4)).is_err(), "it turns once a second");
        let (release, released) = std::sync::mpsc::channel::<()>();
        runtime.spawn(async move { released.recv() });
        let words = heard.recv_timeout(Duration::from_secs(10)).unwrap();
        assert!(words.starts_with("wedged: no progress for ") && words.contains("the tokio runtime"), "{words}");
        drop(release);
    }
}
