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

/// One connector's fence.
pub struct Fence {
    tasks: Arc<dyn Tasks>,
    started: Instant,
    last_beat_ms: AtomicU64,
    session_timeout_ms: AtomicU64,
    up: AtomicBool,
    /// It rose, and nobody has said so yet.
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
            up: AtomicBool::new(false),
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
        gap && self.rise()
    }

    /// The poll thread has been away for this long: over the session timeout raises the fence, too.
    pub fn poll_was_away(&self, away: Duration) -> bool {
        let away_ms = u64::try_from(away.as_millis()).unwrap_or(u64::MAX);
        away_ms > self.session_timeout_ms.load(SeqCst) && self.rise()
    }

    fn rise(&self) -> bool {
        let rose = !self.up.swap(true, SeqCst);
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
        self.up.load(SeqCst)
    }

    /// A commit was accepted, or the partitions are gone: appending may go on.
    pub fn lower(&self) {
        if self.up.swap(false, SeqCst) {
            self.lowered.notify_waiters();
        }
    }

    /// Waits until the fence is down.
    pub async fn wait_down(&self) {
        while self.is_up() {
            let lowered = std::pin::pin!(self.lowered.notified());
            if !self.is_up() {
                return;
            }
            // The time limit covers a notification that came between the check and the wait.
            select(lowered, self.tasks.sleep(Duration::from_millis(200))).await;
        }
    }
}

impl crate::bigquery::Gate for Fence {
    /// Whoever asks comes around, too: the first one after a pause raises the fence.
    fn is_open(&self) -> bool {
        self.beat(self.tasks.now());
        !self.is_up()
    }
}

impl std::fmt::Debug for Fence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fence").field("up", &self.up).finish_non_exhaustive()
    }
}

#[cfg(test)]
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
        fence.lower();
        assert!(!fence.is_up());
        assert!(fence.poll_was_away(Duration::from_secs(11)));
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
