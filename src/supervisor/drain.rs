//! All of a worker's connectors end.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use super::SupervisorError;
use super::worker::Worker;

/// Stops all connectors at the same time, those included whose start or restart is under way: `worker.changes` counts these.
pub(super) async fn drain(worker: &Arc<Worker>, deadline: Duration) -> Result<(), SupervisorError> {
    worker.changes.close();
    let mut late = stop_all(worker, deadline).await;
    // A connector that is still starting cannot be stopped: its start has time limits of its own.
    if tokio::time::timeout(deadline, worker.changes.wait()).await.is_err() {
        late.extend(worker.slots().iter().filter(|slot| slot.is_starting()).map(|slot| slot.name.clone()));
    }
    late.extend(stop_all(worker, deadline).await);
    // Stops that were under way by a wish of the fleet or a changed file.
    late.extend(worker.slots().iter().filter(|slot| slot.undrained.load(SeqCst)).map(|slot| slot.name.clone()));
    late.sort();
    late.dedup();
    if late.is_empty() { Ok(()) } else { Err(SupervisorError::NotDrained(late.join(", "))) }
}

/// Gives the names of those that did not stop in time.
async fn stop_all(worker: &Arc<Worker>, deadline: Duration) -> Vec<String> {
    let mut stops = tokio::task::JoinSet::new();
    for slot in worker.slots() {
        let worker = worker.clone();
        stops.spawn(async move { slot.stop(&worker, deadline, false, None).await.map_err(|_| slot.name.clone()) });
    }
    let mut late = Vec::new();
    while let Some(stopped) = stops.join_next().await {
        match stopped {
            Ok(Ok(())) => {}
            Ok(Err(name)) => late.push(name),
            Err(error) => late.push(format!("a connector whose stop panicked: {}", crate::telemetry::panics::join_words(error))),
        }
    }
    late
}
