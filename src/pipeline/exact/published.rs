//! What commits of a partition carry beside the offset, and which version of it the broker has.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::Waker;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::pipeline::status::StreamStatus;

use super::intents::Intents;

/// Metadata of one assignment: set by whoever knows what the partition's stream may hold, carried by every commit, awaited before appends
/// leave.
#[derive(Debug, Default)]
pub struct Published {
    state: Mutex<State>,
    /// A version was committed, or the assignment drains or is over. One waits: the partition's writer.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    text: Option<Arc<str>>,
    version: u64,
    /// The newest version that appends wait for.
    wanted: u64,
    committed: u64,
    /// How many bytes the brokers refused, while they do.
    refused_bytes: Option<usize>,
}

impl Published {
    /// What the broker has: it stays until somebody knows better.
    pub fn as_read(text: Option<Arc<str>>) -> Self {
        Self { state: Mutex::new(State { text, ..State::default() }), changed: Notify::new() }
    }

    /// From now on commits carry this. Returns its version.
    pub fn set(&self, text: Option<Arc<str>>) -> u64 {
        let mut state = self.state.lock();
        if state.text != text {
            state.text = text;
            state.version += 1;
        }
        state.version
    }

    /// This version is to be committed soon: something waits for it. Whoever calls it rings the [`CommitBell`].
    pub fn want(&self, version: u64) {
        let mut state = self.state.lock();
        state.wanted = state.wanted.max(version);
    }

    /// What a commit carries now, and its version.
    pub fn now(&self) -> (Option<Arc<str>>, u64) {
        let state = self.state.lock();
        (state.text.clone(), state.version)
    }

    /// What it says, for people; nothing for at-least-once.
    pub fn status(&self) -> Option<StreamStatus> {
        let intents = Intents::decode(self.now().0.as_deref()?).ok()?;
        Some(StreamStatus {
            name: intents.stream.as_deref().map(str::to_owned),
            rows: intents.base_rows,
            announced_appends: intents.window.len(),
            announced_rows: intents.window_rows(),
        })
    }

    /// Whether something waits for a commit.
    pub fn is_wanted(&self) -> bool {
        let state = self.state.lock();
        state.wanted > state.committed
    }

    /// The broker accepted this version.
    pub fn set_committed(&self, version: u64) {
        let news = {
            let mut state = self.state.lock();
            let news = version > state.committed || state.refused_bytes.is_some();
            state.committed = state.committed.max(version);
            state.refused_bytes = None;
            news
        };
        if news {
            self.changed.notify_one();
        }
    }

    /// The broker takes less metadata beside an offset than this.
    pub fn set_refused(&self, bytes: usize) {
        let before = self.state.lock().refused_bytes.replace(bytes);
        if before.is_none() {
            self.changed.notify_one();
        }
    }

    /// How many bytes the brokers refused, while nothing was accepted since.
    pub fn refused_bytes(&self) -> Option<usize> {
        self.state.lock().refused_bytes
    }

    /// The newest version that the broker accepted.
    pub fn committed(&self) -> u64 {
        self.state.lock().committed
    }

    /// Something that the writer waits for may have come.
    pub fn wake(&self) {
        self.changed.notify_one();
    }

    /// Waits for it. One caller at a time.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// Wakes the committer before its time.
#[derive(Debug, Default)]
pub struct CommitBell {
    waker: Mutex<Option<Waker>>,
    rung: AtomicBool,
}

impl CommitBell {
    /// Names whom to wake.
    pub fn set_waker(&self, waker: Waker) {
        *self.waker.lock() = Some(waker);
    }

    /// Whether it has rung since this was asked last.
    pub fn has_rung(&self) -> bool {
        self.rung.swap(false, SeqCst)
    }

    /// Wakes the committer: now, or when it would go to sleep next.
    pub fn ring(&self) {
        self.rung.store(true, SeqCst);
        if let Some(waker) = &*self.waker.lock() {
            waker.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_counts_when_the_broker_accepted_it_or_a_later_one() {
        let published = Published::as_read(Some(Arc::from("as read")));
        assert_eq!(published.now(), (Some(Arc::from("as read")), 0));
        let first = published.set(Some(Arc::from("a")));
        assert_eq!(published.set(Some(Arc::from("a"))), first, "no news");
        let second = published.set(None);
        assert!(second > first && !published.is_wanted());
        published.want(first);
        assert!(published.is_wanted() && published.committed() < first);
        published.set_committed(second);
        assert!(!published.is_wanted() && published.committed() >= first);
        published.set_committed(first);
        assert_eq!(published.committed(), second, "never back");
        published.set_refused(200);
        assert_eq!(published.refused_bytes(), Some(200));
        published.set_committed(second);
        assert_eq!(published.refused_bytes(), None, "what is accepted again is over");
    }
}
