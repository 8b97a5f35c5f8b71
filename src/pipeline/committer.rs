//! Commits heads every second, and nothing else. Lowers the fence when the broker accepted one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::flow::Tasks;
use crate::kafka::{GroupControl, GroupError};
use crate::telemetry::metrics::ConnectorMetrics;

use super::fence::Fence;
use super::progress::Ownership;
use super::trouble::{Trouble, panic_words};
use super::whereabouts::of_committer;
use crate::watchdog;

/// How long a commit may take. A revocation waits for it.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(2);

/// An interval may be longer than a thread may stand still: it is slept in pieces.
const NAP_MAX: Duration = Duration::from_secs(1);

/// What the committer needs.
pub struct CommitterParts {
    /// The connector's name.
    pub connector: String,
    /// The consumer.
    pub control: Arc<dyn GroupControl>,
    /// What is owned, with heads.
    pub ownership: Arc<Ownership>,
    /// Raised after a pause.
    pub fence: Arc<Fence>,
    /// Told when the thread panics: a connector that commits nothing must not seem well.
    pub trouble: Arc<Trouble>,
    /// What the connector counts.
    pub metrics: Arc<ConnectorMetrics>,
    /// What time it is.
    pub tasks: Arc<dyn Tasks>,
    /// How often.
    pub interval: Duration,
}

/// A running committer.
pub struct Committer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Committer {
    /// Starts its thread.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(parts: CommitterParts) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let beat = watchdog::watch_at(format!("thread commit-{}", parts.connector), of_committer(&parts.connector, &parts.ownership));
        let thread = std::thread::Builder::new().name(format!("commit-{}", parts.connector)).spawn(move || {
            let ended = catch_unwind(AssertUnwindSafe(|| {
                while !stopped.load(SeqCst) {
                    let mut left = parts.interval;
                    while !left.is_zero() && !stopped.load(SeqCst) {
                        beat.beat();
                        let nap = left.min(NAP_MAX);
                        std::thread::park_timeout(nap);
                        left -= nap;
                    }
                    parts.turn();
                }
            }));
            if let Err(panic) = ended {
                let words = panic_words(panic.as_ref());
                parts.trouble.fail(format!("thread commit-{} panicked ({words}): please report it; restart the worker", parts.connector));
            }
        })?;
        Ok(Self { stop, thread })
    }

    /// Whether its thread has ended.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends its thread, after the commit that is on its way.
    pub fn stop(self) {
        self.stop.store(true, SeqCst);
        self.thread.thread().unpark();
        if self.thread.join().is_err() {
            tracing::error!("the committer's thread panicked");
        }
    }
}

impl CommitterParts {
    /// What the thread does at each interval.
    pub fn turn(&self) {
        self.fence.beat(self.tasks.now());
        commit_once(self);
    }
}

fn commit_once(parts: &CommitterParts) {
    let fenced = parts.fence.is_up();
    parts.ownership.with_commits(fenced, |offsets, owned| {
        if offsets.is_empty() {
            if fenced && owned.is_empty() {
                // The partitions went; what was taken in their epochs is not sent any more.
                parts.fence.lower();
            }
            return;
        }
        match parts.control.commit(offsets, COMMIT_TIMEOUT) {
            Ok(failed) => {
                parts.metrics.commits.increment(1);
                for (partition, error) in &failed {
                    parts.metrics.commit_failures.increment(1);
                    tracing::warn!(connector = parts.connector, %partition, %error, "commit refused; tried again at the next tick");
                }
                for next in offsets {
                    if failed.iter().all(|(partition, _)| *partition != next.partition)
                        && let Some(progress) = owned.get(&next.partition)
                    {
                        progress.set_committed(next.offset);
                    }
                }
                // Membership is proved by one partition's commit, but not by one that may have been sent before the pause.
                if fenced && failed.len() < offsets.len() {
                    parts.fence.lower();
                }
            }
            Err(error) => {
                parts.metrics.commit_failures.increment(1);
                match error {
                    GroupError::Rebalancing(_) => tracing::debug!(connector = parts.connector, %error, "commit waits for the rebalance"),
                    _ => tracing::warn!(connector = parts.connector, %error, "commit failed; tried again at the next tick"),
                }
            }
        }
    });
}
