//! Commits the ledgers' heads at each interval, and at once when appends wait for a commit. Lowers the fence when the broker has accepted
//! one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::task::Waker;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::flow::Tasks;
use crate::kafka::{GroupControl, GroupError, NextOffset};
use crate::record::TopicPartition;
use crate::telemetry::metrics::ConnectorMetrics;

use super::exact::CommitBell;
use super::fence::Fence;
use super::progress::Ownership;
use super::shard_thread::Unpark;
use super::trouble::{Trouble, panic_words};
use super::whereabouts::of_committer;
use crate::watchdog;

/// How long a commit may take. A revocation waits for it.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(2);

/// An interval may be longer than a thread may stand still: it is slept in pieces.
const NAP_MAX: Duration = Duration::from_secs(1);
/// Appends wait for a commit that failed: tried again so soon, then after twice as long each time.
const AGAIN_AFTER: Duration = Duration::from_millis(20);
/// How often that wait is doubled: up to a third of a second. Brokers refuse commits for seconds in a rebalance, and appends that wait
/// should leave soon after it.
const DOUBLED_MAX: u32 = 4;

/// The least time between two commits, however often appends ask for one: bounds the load of many workers on a group's coordinator.
const COMMITS_APART: Duration = Duration::from_millis(10);

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
    /// Told when the thread panics: a connector that commits nothing must not look healthy.
    pub trouble: Arc<Trouble>,
    /// What the connector counts.
    pub metrics: Arc<ConnectorMetrics>,
    /// What time it is.
    pub tasks: Arc<dyn Tasks>,
    /// How often heads are committed.
    pub interval: Duration,
    /// Rings when appends wait for a commit.
    pub bell: Arc<CommitBell>,
    /// How often in a row a commit was refused that appends wait for.
    pub tries: AtomicU32,
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
            parts.bell.set_waker(Waker::from(Arc::new(Unpark(std::thread::current()))));
            let mut wait = parts.interval;
            let ended = catch_unwind(AssertUnwindSafe(|| {
                while !stopped.load(SeqCst) {
                    // Here too: it does not sleep at all while its bell rings all the time.
                    beat.beat();
                    let mut left = wait;
                    while !left.is_zero() && !stopped.load(SeqCst) && !parts.bell.has_rung() {
                        beat.beat();
                        let nap = left.min(NAP_MAX);
                        std::thread::park_timeout(nap);
                        left -= nap;
                    }
                    let began = std::time::Instant::now();
                    wait = parts.turn();
                    // Appends that are announced meanwhile share the next commit.
                    std::thread::sleep(COMMITS_APART.saturating_sub(began.elapsed()));
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
    /// What the thread does at each interval, and whenever its bell rings. Returns how long to wait for either.
    pub fn turn(&self) -> Duration {
        self.fence.beat(self.tasks.now());
        commit_once(self);
        if !self.ownership.snapshot().iter().any(|progress| progress.published.is_wanted()) {
            self.tries.store(0, SeqCst);
            return self.interval;
        }
        let tries = self.tries.fetch_add(1, SeqCst).min(DOUBLED_MAX);
        self.interval.min(AGAIN_AFTER * 2_u32.pow(tries))
    }
}

fn commit_once(parts: &CommitterParts) {
    let risen = parts.fence.risen();
    parts.ownership.with_commits(risen.is_some(), |offsets, whose, owns_none| {
        if offsets.is_empty() {
            if let Some(risen) = risen.filter(|_| owns_none) {
                // The partitions went; what was taken in their epochs is not sent any more.
                parts.fence.lower(risen);
            }
            return;
        }
        let answer = parts
            .control
            .commit(offsets, COMMIT_TIMEOUT)
            .map(|failed| one_by_one(offsets, failed, |one| parts.control.commit(one, COMMIT_TIMEOUT)));
        match answer {
            Ok(failed) => {
                parts.metrics.commits.increment(1);
                for (partition, error) in &failed {
                    parts.metrics.commit_failures.increment(1);
                    // Said once, where the partition holds for it (`exact/stream.rs`).
                    if !matches!(error, GroupError::MetadataTooLarge(_)) {
                        tracing::warn!(connector = parts.connector, %partition, %error, "commit refused; tried again at the next tick");
                    }
                }
                for (next, (progress, version)) in offsets.iter().zip(whose) {
                    match failed.iter().find(|(partition, _)| *partition == next.partition) {
                        None => {
                            progress.set_committed(next.offset);
                            progress.published.set_committed(*version);
                        }
                        Some((_, GroupError::MetadataTooLarge(_))) => {
                            progress.published.set_refused(next.metadata.as_ref().map_or(0, |metadata| metadata.len()));
                        }
                        Some(_) => {}
                    }
                }
                // Membership is proved by one partition's commit, but not by one that may have been sent before the pause.
                if failed.len() < offsets.len() {
                    parts.tries.store(0, SeqCst);
                    if let Some(risen) = risen {
                        parts.fence.lower(risen);
                    }
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

/// Where metadata were too large librdkafka reports every partition of the call as refused, those that were committed too: `commit` is
/// asked for each by itself, so that one partition's metadata do not stop the others.
fn one_by_one(
    offsets: &[NextOffset],
    failed: Vec<(TopicPartition, GroupError)>,
    commit: impl Fn(&[NextOffset]) -> Result<Vec<(TopicPartition, GroupError)>, GroupError>,
) -> Vec<(TopicPartition, GroupError)> {
    let too_large = |(_, error): &(TopicPartition, GroupError)| matches!(error, GroupError::MetadataTooLarge(_));
    if offsets.len() < 2 || !failed.iter().any(too_large) {
        return failed;
    }
    // What fails a whole call would fail the next one too, each for as long as a call may take.
    let mut ended: Option<GroupError> = None;
    let alone = |(partition, error): (TopicPartition, GroupError)| {
        if let Some(why) = &ended {
            return Some((partition, why.clone()));
        }
        let next = offsets.iter().find(|next| next.partition == partition);
        match next.map(|next| commit(std::slice::from_ref(next))) {
            Some(Ok(failed)) => failed.into_iter().next(),
            Some(Err(why)) => Some((partition, ended.insert(why).clone())),
            None => Some((partition, error)),
        }
    };
    failed.into_iter().filter_map(alone).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_partitions_metadata_do_not_stop_the_others() {
        let at = |n: i32, metadata: usize| NextOffset {
            partition: TopicPartition::new("t", n),
            offset: 7,
            metadata: Some(Arc::from("m".repeat(metadata))),
        };
        let offsets = [at(0, 10), at(1, 90), at(2, 20), at(3, 30), at(4, 10)];
        let refused = |next: &NextOffset| (next.partition.clone(), GroupError::MetadataTooLarge("90".to_owned()));
        // As librdkafka answers: one is too large, all are reported.
        let asked = |offsets: &[NextOffset]| {
            assert!(offsets.iter().all(|next| next.partition.partition < 4), "asked although the broker does not answer");
            if offsets.iter().any(|next| next.partition.partition == 3) {
                return Err(GroupError::TimedOut("late".to_owned()));
            }
            let large = offsets.iter().any(|next| next.metadata.as_ref().is_some_and(|text| text.len() > 50));
            Ok(if large { offsets.iter().map(refused).collect() } else { Vec::new() })
        };
        let left = one_by_one(&offsets, offsets.iter().map(refused).collect(), asked);
        let late = |next: &NextOffset| (next.partition.clone(), GroupError::TimedOut("late".to_owned()));
        assert_eq!(left, [refused(&offsets[1]), late(&offsets[3]), late(&offsets[4])]);
        let other = vec![(offsets[0].partition.clone(), GroupError::Other("no".to_owned()))];
        assert_eq!(one_by_one(&offsets, other.clone(), |_| Ok(Vec::new())), other, "other errors are what they say");
    }
}
