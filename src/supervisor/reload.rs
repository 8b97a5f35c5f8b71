//! Connector files are followed while the worker runs: only connectors whose files changed restart.
//!
//! A mounted ConfigMap changes by a swapped link, an editor writes in pieces, a folder may be away for a moment: so contents are compared, a
//! change counts when two looks saw the same, and a folder that cannot be read changes nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;

use super::launch::Launcher;
use super::reload_plan::{ReloadPlan, plan};
use super::slots::{NotStopped, Slot, Turn};
use super::worker::Worker;
use crate::config::{ConnectorConfig, ConnectorFolder, Loaded, Look, load_folder};
use crate::http::FileMistake;
use crate::telemetry::reload::{ReloadMetrics, ReloadOutcome};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// After SIGHUP the second look comes sooner.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Follows the files of a worker.
pub(super) struct Reload {
    worker: Arc<Worker>,
    launcher: Arc<Launcher>,
    files: Files,
    /// The look that was taken in last.
    taken: Option<Look>,
    /// Asked for by SIGHUP and not done yet: a file that is being written puts it off, no more.
    asked: bool,
    metrics: ReloadMetrics,
}

/// Where the files are.
#[derive(Clone)]
struct Files {
    config: PathBuf,
    connectors: PathBuf,
}

impl Files {
    /// Blocking work on a thread that may block; `None` when it panicked.
    async fn ask<T: Send + 'static>(&self, question: impl FnOnce(&Self) -> T + Send + 'static) -> Option<T> {
        let files = self.clone();
        tokio::task::spawn_blocking(move || question(&files))
            .await
            .map_err(|error| tracing::error!(error = crate::telemetry::panics::join_words(error), "looking at files panicked"))
            .ok()
    }

    async fn look(&self) -> Option<Look> {
        self.ask(|files| Look::now(&files.config, &files.connectors)).await
    }
}

impl Reload {
    /// For what was loaded.
    pub(super) fn new(worker: Arc<Worker>, launcher: Arc<Launcher>, loaded: &Loaded) -> Self {
        let files = Files { config: loaded.config_file.clone(), connectors: loaded.connectors_folder.clone() };
        Self { worker, launcher, files, taken: None, asked: false, metrics: ReloadMetrics::new() }
    }

    /// Looks again and again, at once at every SIGHUP; ends when the worker drains.
    ///
    /// The first steady look is held against what was loaded at the start, so a file that changed in between is seen too. SIGHUP reads all
    /// files anew even when their texts did not change: what stands behind `${file:...}` may have.
    pub(super) async fn follow(mut self, mut hangup: Signal) {
        let mut seen = self.files.look().await;
        let begun_with = seen.as_ref().and_then(|look| look.fleet);
        loop {
            let hung_up = tokio::select! {
                () = self.worker.draining.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => false,
                Some(()) = hangup.recv() => true,
            };
            if hung_up {
                self.asked = true;
                tracing::info!("SIGHUP: looking at the connector files");
                seen = self.files.look().await;
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            let Some(now) = self.files.look().await else { continue };
            let steady = seen.replace(now.clone()).is_some_and(|before| before == now);
            if steady && (self.asked || self.taken.as_ref() != Some(&now)) {
                let why =
                    (now.fleet != begun_with).then(|| format!("{} changed: it is taken at a restart only", self.files.config.display()));
                if self.worker.configuration.set_restart_needed(why.clone())
                    && let Some(why) = why
                {
                    tracing::warn!("{why}");
                }
                self.take(now).await;
            }
            self.show();
        }
    }

    /// Takes in what two looks saw alike.
    async fn take(&mut self, now: Look) {
        let worker = self.worker.clone();
        let error = now.connectors.as_ref().err().map(String::as_str);
        if worker.configuration.set_folder(error, worker.now_ms())
            && let Some(error) = error
        {
            tracing::error!(error, "nothing changes until the folder of connectors can be read");
        }
        if error.is_some() {
            (self.taken, self.asked) = (Some(now), false);
            return;
        }
        let fleet = self.launcher.fleet.clone();
        let Some(Ok(folder)) = self.files.ask(move |files| load_folder(&files.connectors, &fleet)).await else { return };
        // Written between the look and the reading: the next looks will see what came of it.
        if self.files.look().await.as_ref() != Some(&now) {
            return;
        }
        (self.taken, self.asked) = (Some(now), false);
        // Held before the question, so that a drain that begins now waits for what follows.
        let held = worker.changes.token();
        if worker.draining.is_cancelled() {
            return;
        }
        let change = change(worker, self.launcher.clone(), self.metrics.clone(), folder);
        let changed = tokio::spawn(async move {
            change.await;
            drop(held);
        });
        if let Err(error) = changed.await {
            tracing::error!(error = crate::telemetry::panics::join_words(error), "taking in connector files panicked");
        }
    }

    fn show(&self) {
        let status = self.worker.configuration.status();
        let is_folder = |mistake: &FileMistake| mistake.connector.is_none();
        self.metrics.folder_readable.set(if status.mistakes.iter().any(is_folder) { 0.0 } else { 1.0 });
        self.metrics.restart_needed.set(if status.restart_needed.is_some() { 1.0 } else { 0.0 });
        for connector in status.mistakes.iter().filter_map(|mistake| mistake.connector.as_deref()) {
            self.metrics.refused(connector);
        }
    }
}

/// Makes the running connectors what the folder says.
async fn change(worker: Arc<Worker>, launcher: Arc<Launcher>, metrics: ReloadMetrics, folder: ConnectorFolder) {
    let running: BTreeMap<String, Arc<ConnectorConfig>> =
        worker.slots().iter().map(|slot| (slot.name.clone(), slot.config.lock().clone())).collect();
    let ReloadPlan { remove, restart, start, refused } = plan(&running, folder, &launcher.fleet.worker);
    for (connector, mistakes) in worker.configuration.refuse(refused, worker.now_ms()) {
        tracing::error!(connector, mistakes, "connector file refused: what it said before goes on");
        metrics.count(&connector, ReloadOutcome::Refused);
    }
    let deadline = launcher.fleet.worker.shutdown_deadline.get();
    let slots: BTreeMap<String, Arc<Slot>> = worker.slots().into_iter().map(|slot| (slot.name.clone(), slot)).collect();

    // In the order of their names: nobody else waits for two of them.
    let concerned = slots.values().filter(|slot| remove.contains(&slot.name) || restart.iter().any(|config| config.name == slot.name));
    let mut turns: BTreeMap<String, Turn> = BTreeMap::new();
    for slot in concerned {
        turns.insert(slot.name.clone(), slot.turn().await);
    }

    // All of the stops first: a file that was renamed, or two that swapped their topics, must not meet in one group.
    let removals = remove.iter().filter_map(|name| slots.get(name)).map(|slot| {
        tracing::info!(connector = slot.name, "connector file removed: draining");
        slot.stop(&worker, deadline, false, Some("its file was removed"))
    });
    let restarts = restart.iter().filter_map(|config| slots.get(&config.name)).map(|slot| {
        tracing::info!(connector = slot.name, "connector file changed: draining before it starts anew");
        slot.stop(&worker, deadline, true, Some("its file changed: it drains, then starts anew"))
    });
    let (removed, restarted) = tokio::join!(futures::future::join_all(removals), futures::future::join_all(restarts));
    if worker.draining.is_cancelled() {
        return;
    }
    // One that hangs stays visible as failed. Of one that only left its group late nothing runs any more.
    let gone = |stopped: &Result<(), NotStopped>| !matches!(stopped, Err(NotStopped::Hangs(_)));
    for (name, stopped) in remove.iter().zip(removed) {
        if gone(&stopped) {
            worker.remove(name);
            metrics.count(name, ReloadOutcome::Stopped);
        }
    }
    let mut starts = Vec::new();
    for (config, stopped) in restart.into_iter().zip(restarted) {
        let Some(slot) = slots.get(&config.name).filter(|_| gone(&stopped)) else { continue };
        metrics.count(&config.name, ReloadOutcome::Restarted);
        *slot.config.lock() = Arc::new(config.clone());
        starts.extend(turns.remove(&config.name).map(|turn| (slot.clone(), turn)));
    }
    for config in start {
        tracing::info!(connector = config.name, "new connector file: starting");
        metrics.count(&config.name, ReloadOutcome::Started);
        let slot = launcher.slot(config);
        let turn = slot.turn().await;
        starts.push((worker.add(slot), turn));
    }
    drop(turns);
    let launcher = &launcher;
    futures::future::join_all(starts.into_iter().map(|(slot, turn)| async move {
        launcher.start(slot, &turn).await;
    }))
    .await;
}
