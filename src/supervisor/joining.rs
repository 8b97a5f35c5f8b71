//! A connector waits to join its group together with other workers: at the first start in a process's life, where each arrival stops all,
//! while the leader says so.
//!
//! Whatever starts a connector later (a wish, a changed file) starts it at once. What is not heard is not waited for, and nobody waits
//! longer than [`crate::fleet::JOIN_WAIT_MAX`].

use std::sync::Arc;
use std::time::Duration;

use super::fleet::FleetPart;
use super::launch::Launcher;
use super::slots::{Slot, Turn};
use super::worker::Worker;
use crate::config::FleetConfig;
use crate::fleet::{DesiredState, Joiner, Verdict};
use crate::leader::{Election, each_arrival_stops_all};

/// What is left is looked at anew this often: a clock may be set meanwhile.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// One connector that waits.
pub(super) struct Waiting {
    part: Arc<FleetPart>,
    slot: Arc<Slot>,
    joiner: Joiner,
}

/// Begins to wait with this slot, if it is to. `None`: it is to be started now. To be asked when the fleet's wishes are known, or were
/// waited for.
pub(super) fn begin(worker: &Worker, fleet: &FleetConfig, slot: &Arc<Slot>, _turn: &Turn) -> Option<Waiting> {
    let part = worker.fleet.get()?.clone();
    // Not known: the state topic could not be read, so no leader can be heard. What is to be stopped joins nothing.
    let runs = worker.wish(&slot.name)?.state != DesiredState::Stopped;
    let stops_all = each_arrival_stops_all(&fleet.kafka, &slot.config.lock().kafka);
    if !(runs && stops_all && Election::is_held(&fleet.scaling)) {
        return None;
    }
    let joiner = part.view().joiner();
    let Verdict::Wait { left, at_most } = part.view().may_join(&joiner) else { return None };
    let message = words(worker.now_ms(), left, at_most);
    tracing::info!(connector = slot.name, "{message}");
    slot.begin_wait(worker.now_ms(), message);
    part.report_now();
    Some(Waiting { part, slot: slot.clone(), joiner })
}

impl Waiting {
    /// Waits, then starts the connector; ends without when the worker drains, or when somebody else did something with the connector.
    pub(super) async fn then_start(self, worker: Arc<Worker>, launcher: Arc<Launcher>) {
        let Some(why) = self.over(&worker).await else { return };
        let turn = self.slot.turn().await;
        let present = worker.slots().iter().any(|other| Arc::ptr_eq(other, &self.slot));
        if !present || worker.draining.is_cancelled() || !self.slot.end_wait(worker.now_ms()) {
            tracing::info!(connector = self.slot.name, "it waits no more: the worker drains, or its file or a wish says otherwise");
            return;
        }
        tracing::info!(connector = self.slot.name, why, "joins its group: waited for others long enough");
        self.part.report_now();
        launcher.start(self.slot, &turn).await;
    }

    /// Why the wait is over; `None` when somebody else saw to the connector, or the worker drains.
    async fn over(&self, worker: &Worker) -> Option<&'static str> {
        let mut said = self.part.view().join_holds();
        loop {
            let (left, at_most) = match self.part.view().may_join(&self.joiner) {
                Verdict::Join(why) => return Some(why.as_str()),
                Verdict::Wait { left, at_most } => (left, at_most),
            };
            if !self.slot.still_waits(words(worker.now_ms(), left, at_most)) {
                tracing::info!(connector = self.slot.name, "it waits no more: its file or a wish says otherwise");
                return None;
            }
            tokio::select! {
                () = worker.draining.cancelled() => {
                    tracing::info!(connector = self.slot.name, "it waits no more: the worker drains");
                    return None;
                }
                () = tokio::time::sleep(left.min(LOOK_AGAIN)) => {}
                // The view lives as long as its part: its channel does not end before.
                Ok(()) = said.changed() => {}
            }
        }
    }
}

fn words(now_ms: i64, left: Duration, at_most: Duration) -> String {
    let at = |span: Duration| {
        let ms = now_ms.saturating_add(i64::try_from(span.as_millis()).unwrap_or(i64::MAX));
        chrono::DateTime::from_timestamp_millis(ms).map(|at| at.format("%H:%M:%S UTC").to_string()).unwrap_or_default()
    };
    format!("waits to join its group together with workers that are still on their way: until {}, {} at the latest", at(left), at(at_most))
}
