//! Self-fence: after a pause longer than the session, nothing is appended until a commit was accepted.
//!
//! A paused process (SIGSTOP, a frozen VM) is thrown out of its group without knowing; librdkafka goes on handing out what it had
//! fetched until the revocation is served (measured: 20,992 records processed twice after 14 s). So every thread says that it is
//! alive, and whoever comes first after a gap raises the fence.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use futures::future::select;
use tokio::sync::Notify;

use crate::flow::Tasks;

/// Why the fence is up: the pause after which a commit must have been sent to lower it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Risen(u64);

/// One connector's fence.
pub struct Fence {
    tasks: Arc<dyn Tasks>,
    started: Instant,
    last_beat_ms: AtomicU64,
    session_timeout_ms: AtomicU64,
    /// Even: down. Odd: up. Another number after each rise, and after each pause while it is up.
    state: AtomicU64,
    /// It rose, and the log does not say so yet.
    news: AtomicBool,
    lowered: Notify,
}

impl Fence {
    /// A lowered fence. Until [`Fence::set_session_timeout`] it never rises.
    pub fn new(tasks: Arc<dyn Tasks>) -> Self {
        Self {
            started: tasks.now(),
            tasks,
            last_beat_ms: AtomicU64::new(0),
            session_timeout_ms: AtomicU64::new(u64::MAX),
            state: AtomicU64::new(0),
            news: AtomicBool::new(false),
            lowered: Notify::new(),
        }
    }

    /// The group's session timeout: a longer gap raises the fence.
    pub fn set_session_timeout(&self, timeout: Duration) {
        self.beat(self.tasks.now());
        self.session_timeout_ms.store(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX), SeqCst);
    }

    /// A thread of the connector came around. Returns `true` when this very call raised the fence.
    pub fn beat(&self, now: Instant) -> bool {
        let now_ms = u64::try_from(now.duration_since(self.started).as_millis()).unwrap_or(u64::MAX);
        let last_ms = self.last_beat_ms.fetch_max(now_ms, SeqCst);
        let gap = now_ms.saturating_sub(last_ms) > self.session_timeout_ms.load(SeqCst);
        gap && self.rise(true)
    }

    /// The poll thread has been away for this long: over the session timeout raises the fence, too.
    pub fn poll_was_away(&self, away: Duration) -> bool {
        let away_ms = u64::try_from(away.as_millis()).unwrap_or(u64::MAX);
        away_ms > self.session_timeout_ms.load(SeqCst) && self.rise(false)
    }

    /// `anew`: the fence is up already, and commits sent since it rose no longer prove anything.
    fn rise(&self, anew: bool) -> bool {
        let next = |state: u64| match is_up(state) {
            false => Some(state + 1),
            true => anew.then_some(state + 2),
        };
        let rose = self.state.fetch_update(SeqCst, SeqCst, next).is_ok_and(|before| !is_up(before));
        if rose {
            self.news.store(true, SeqCst);
        }
        rose
    }

    /// Whether it rose, whoever noticed; `true` once for each time.
    pub fn take_news(&self) -> bool {
        self.news.swap(false, SeqCst)
    }

    /// Whether nothing may be appended.
    pub fn is_up(&self) -> bool {
        self.risen().is_some()
    }

    /// Why it is up. To be asked before the commit that is to lower it.
    pub fn risen(&self) -> Option<Risen> {
        let state = self.state.load(SeqCst);
        is_up(state).then_some(Risen(state))
    }

    /// A commit was accepted that was sent since then, or the partitions are gone: appending may go on. Does nothing after another pause:
    /// that commit may have been sent before it.
    pub fn lower(&self, Risen(since): Risen) {
        if self.state.compare_exchange(since, since + 1, SeqCst, SeqCst).is_ok() {
            self.lowered.notify_waiters();
        }
    }

    /// Waits until the fence is down, or until `over` says that the assignments of the rows have ended. Such rows must not wait: the first
    /// record whose commit lowers the fence may need just the memory that they hold.
    pub async fn wait_down(&self, over: impl Fn() -> bool) {
        while self.is_up() && !over() {
            let lowered = std::pin::pin!(self.lowered.notified());
            if !self.is_up() {
                return;
            }
            // The time limit covers a notification that came between the check and the wait, and assignments that end.
            select(lowered, self.tasks.sleep(Duration::from_millis(200))).await;
        }
    }
}

fn is_up(state: u64) -> bool {
    state % 2 == 1
}

impl crate::bigquery::Gate for Fence {
    /// Asking counts as coming around: whoever asks first after a pause raises the fence.
    fn is_open(&self) -> bool {
        self.beat(self.tasks.now());
        !self.is_up()
    }
}

impl std::fmt::Debug for Fence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fence").field("up", &self.is_up()).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::flow::TokioTasks;

    fn fence() -> Fence {
        Fence::new(Arc::new(TokioTasks::new(tokio::runtime::Handle::current())))
    }

    #[tokio::test]
    async fn a_gap_over_the_session_raises_it_and_a_commit_lowers_it() {
        let fence = fence();
        let start = Instant::now();
        fence.set_session_timeout(Duration::from_secs(10));
        assert!(!fence.beat(start + Duration::from_secs(9)));
        assert!(fence.beat(start + Duration::from_secs(20)), "11 s of silence");
        assert!(!fence.beat(start + Duration::from_secs(20)), "raised once");
        assert!(fence.is_up());
        assert!(fence.take_news() && !fence.take_news(), "said once");
        fence.lower(fence.risen().unwrap());
        assert!(!fence.is_up());
        assert!(fence.poll_was_away(Duration::from_secs(11)));
    }

    #[tokio::test]
    async fn a_commit_of_before_another_pause_does_not_lower_it() {
        let fence = fence();
        let start = Instant::now();
        fence.set_session_timeout(Duration::from_secs(10));
        fence.beat(start + Duration::from_secs(20));
        // A commit leaves; before its answer is read the process is paused again, and somebody else comes around first.
        let sent = fence.risen().unwrap();
        assert!(!fence.beat(start + Duration::from_secs(40)), "it is up already");
        fence.lower(sent);
        assert!(fence.is_up(), "whether this is still a member nobody knows");
        // The poll thread's absence is no pause of the process: it is asked about on every turn, and what was sent meanwhile counts.
        let sent = fence.risen().unwrap();
        assert!(!fence.poll_was_away(Duration::from_secs(20)));
        fence.lower(sent);
        assert!(!fence.is_up());
    }

    #[tokio::test]
    async fn asking_the_gate_notices_the_pause() {
        let fence = fence();
        assert!(crate::bigquery::Gate::is_open(&fence));
        fence.set_session_timeout(Duration::from_millis(20));
        std::thread::sleep(Duration::from_millis(40));
        assert!(!crate::bigquery::Gate::is_open(&fence), "nobody else need have come around");
    }
}
