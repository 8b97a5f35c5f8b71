//! What is wrong with a connector as a whole: a failure that ends it, brokers that do not answer, the group's last words.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use parking_lot::Mutex;
use tokio::sync::Notify;

pub use crate::telemetry::panics::panic_words;

/// Since when and how the brokers do not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreachable {
    /// When the first question without an answer was asked, milliseconds since the epoch.
    pub since_ms: i64,
    /// That question's error.
    pub error: String,
}

/// One connector's trouble: written by its threads and tasks, read for status and health.
#[derive(Debug, Default)]
pub struct Trouble {
    failure: Mutex<Option<String>>,
    failed: Notify,
    joined: AtomicBool,
    group: Mutex<Option<String>>,
    unreachable: Mutex<Option<Unreachable>>,
    /// Wakes whoever asks the brokers, so that they are asked at once.
    suspicion: Notify,
}

impl Trouble {
    /// Only a person can mend it: the connector ends. The first failure counts.
    pub fn fail(&self, message: String) {
        self.failure.lock().get_or_insert(message);
        self.failed.notify_one();
    }

    /// Why it ended, if it did.
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }

    /// Waits for a failure.
    pub async fn wait_failed(&self) {
        self.failed.notified().await;
    }

    /// Whether the group has this member (with an assignment, be it empty, that was not lost since).
    pub fn set_joined(&self, joined: bool) {
        self.joined.store(joined, SeqCst);
    }

    /// See [`Trouble::set_joined`].
    pub fn has_joined(&self) -> bool {
        self.joined.load(SeqCst)
    }

    /// The group reported something that librdkafka tries to mend by itself. Whether the brokers answer is asked at once.
    pub fn group_error(&self, message: &str) {
        *self.group.lock() = Some(message.to_owned());
        self.suspicion.notify_one();
    }

    /// The group's last error, while nothing has shown that it is over.
    pub fn group(&self) -> Option<String> {
        self.group.lock().clone()
    }

    /// Waits for a reason to ask whether the brokers answer.
    pub async fn wait_suspicion(&self) {
        self.suspicion.notified().await;
    }

    /// The brokers answered; an error of a group that has this member is over. Returns since when they had not, if they had not.
    pub fn answered(&self) -> Option<i64> {
        if self.has_joined() {
            *self.group.lock() = None;
        }
        self.unreachable.lock().take().map(|before| before.since_ms)
    }

    /// They did not answer what was asked at `asked_ms`. Returns `true` when that is news.
    pub fn unanswered(&self, asked_ms: i64, error: String) -> bool {
        let mut unreachable = self.unreachable.lock();
        let news = unreachable.is_none();
        unreachable.get_or_insert(Unreachable { since_ms: asked_ms, error });
        news
    }

    /// Since when and how they do not answer, if they do not.
    pub fn unreachable(&self) -> Option<Unreachable> {
        self.unreachable.lock().clone()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_over_when_things_work_and_not_before() {
        let trouble = Trouble::default();
        trouble.group_error("broker is away");
        assert_eq!(trouble.answered(), None);
        assert_eq!(trouble.group().as_deref(), Some("broker is away"), "the group does not have this member yet");
        trouble.set_joined(true);
        assert!(trouble.unanswered(5, "late".into()) && !trouble.unanswered(9, "later".into()));
        assert_eq!(trouble.unreachable(), Some(Unreachable { since_ms: 5, error: "late".into() }));
        assert_eq!(trouble.group().as_deref(), Some("broker is away"));
        assert_eq!(trouble.answered(), Some(5));
        assert_eq!((trouble.unreachable(), trouble.group()), (None, None));
    }

    #[test]
    fn the_first_failure_counts() {
        let trouble = Trouble::default();
        trouble.fail("first".into());
        trouble.fail("second".into());
        assert_eq!(trouble.failure().as_deref(), Some("first"));
    }
}
