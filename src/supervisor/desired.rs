//! Following what connectors are wished to do for the whole fleet: paused, stopped, restarted, resumed.
//!
//! A wish stands in the state topic, so it outlives restarts, and a worker that starts later reads it before it starts a connector. What cannot be read
//! is no wish: after [`READ_MAX`] connectors start all the same, for records are to move whatever becomes of the fleet's own topics.

use std::sync::Arc;
use std::time::Duration;

use super::launch::Launcher;
use super::slots::{NotStopped, Slot};
use super::worker::Worker;
use crate::fleet::{DesiredConnector, DesiredState};
use crate::pipeline::ConnectorState;

/// How long a start waits for the fleet's wishes.
const READ_MAX: Duration = Duration::from_secs(10);
/// How long it waits before it says so.
const SAY_AFTER: Duration = Duration::from_secs(2);

/// What the fleet wishes of a connector, as a slot keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Wish {
    /// What it is to do.
    pub state: DesiredState,
    /// Another number than at its last start: it is to start anew.
    pub restart: u64,
}

impl Wish {
    fn of(desired: Option<&DesiredConnector>) -> Self {
        desired.map(|desired| Self { state: desired.desired(), restart: desired.restart }).unwrap_or_default()
    }
}

impl Worker {
    /// What the fleet wishes of a connector; `None` while its wishes are not known. Without a fleet there are none.
    pub(super) fn wish(&self, connector: &str) -> Option<Wish> {
        let Some(fleet) = self.fleet.get() else { return Some(Wish::default()) };
        fleet.view().wishes().borrow().known.then(|| Wish::of(fleet.view().desired(connector).as_ref()))
    }
}

/// Waits until the fleet's wishes are known: at once without a fleet, else for [`READ_MAX`] at most.
pub(super) async fn until_known(worker: &Worker) {
    let Some(fleet) = worker.fleet.get() else { return };
    let mut wishes = fleet.view().wishes();
    if tokio::time::timeout(SAY_AFTER, wishes.wait_for(|wishes| wishes.known)).await.is_ok() {
        return;
    }
    tracing::info!("waiting for the fleet's state topic: it says which connectors are paused or stopped");
    tokio::select! {
        () = worker.draining.cancelled() => {}
        waited = tokio::time::timeout(READ_MAX - SAY_AFTER, wishes.wait_for(|wishes| wishes.known)) => if waited.is_err() {
            let why = fleet.status().trouble.unwrap_or_default();
            tracing::warn!(why, "the fleet's state topic was not read: connectors start, and wishes are followed when it is");
        },
    }
}

/// Follows wishes until the worker drains. A pause takes effect at once; what starts or stops takes its turn in the connector's slot.
pub(super) async fn follow(worker: Arc<Worker>, launcher: Arc<Launcher>) {
    let Some(fleet) = worker.fleet.get().cloned() else { return };
    let mut wishes = fleet.view().wishes();
    wishes.mark_changed();
    loop {
        tokio::select! {
            () = worker.draining.cancelled() => return,
            changed = wishes.changed() => if changed.is_err() { return },
        }
        for slot in worker.slots() {
            let Some(wish) = slot.wished(|| worker.wish(&slot.name)) else { continue };
            if slot.needs_change(wish) && slot.queue_for_change() {
                worker.changes.spawn(change(worker.clone(), launcher.clone(), slot));
            }
        }
    }
}

/// Makes one connector what is wished now.
async fn change(worker: Arc<Worker>, launcher: Arc<Launcher>, slot: Arc<Slot>) {
    let turn = slot.turn().await;
    let Some(wish) = worker.wish(&slot.name) else { return };
    // A reload may have removed it, or done what was wished, while this waited.
    let present = worker.slots().iter().any(|other| Arc::ptr_eq(other, &slot));
    if !present || worker.draining.is_cancelled() || !slot.needs_change(wish) {
        return;
    }
    let deadline = launcher.fleet.worker.shutdown_deadline.get();
    let stops = wish.state == DesiredState::Stopped;
    let why = if stops { stopped_words(&slot.name) } else { "told to start anew for the whole fleet: it drains first".to_owned() };
    tracing::info!(connector = slot.name, state = wish.state.as_str(), restart = wish.restart, "the fleet wishes otherwise: draining");
    let begun_ms = worker.now_ms();
    // From here on, not from its end: what is wished while it drains is another change, which queues for the next turn.
    slot.follows(wish);
    let stopped = slot.stop(&worker, deadline, !stops, Some(&why)).await;
    if matches!(stopped, Err(NotStopped::Hangs(_))) || worker.draining.is_cancelled() {
        return;
    }
    if stops {
        // It takes nothing since it was told, however long what it had taken needed to become durable.
        slot.end(ConnectorState::Stopped, begun_ms, Some(why));
    } else {
        launcher.start(slot.clone(), &turn).await;
    }
}

/// What a stopped connector says.
pub(super) fn stopped_words(connector: &str) -> String {
    format!("told to stop: it has left its group; `millrace connectors resume {connector}`")
}
