//! The progress watch: whoever turns in a loop beats at its head, and a thread of its own ends the process when one stands still.
//!
//! A wedged thread is silent: librdkafka's heartbeats keep its partitions, and any take counts as a poll. So progress itself is watched,
//! and since nothing but a new process gets a wedged thread going again, the process ends ([`EXIT_CODE`]) with words that name it and where
//! it stands. What was not committed comes again.
//!
//! Belongs here: who beats, how long standing still is allowed, the last act. Does not belong here: what a loop does, and what waits for
//! good reasons (brokers away, a sink that stalls, holds): such loops turn, and [`crate::pipeline`] says why nothing moves.
//!
//! Rules for those who beat:
//! - One [`Beat`] per loop, one [`Beat::beat`] per turn: two relaxed stores. Nothing per record. A task that only waits beats by
//!   [`Beat::polls`].
//! - A turn takes far less than [`Limits::stand_still`]. A step that may take longer is announced by [`Beat::long_step`]; one that waits
//!   without limit, by [`Beat::idle`].
//! - A [`Place`] is asked on a thread that nobody waits for long: it may take a lock, even one that the wedged thread holds.

mod beat;
mod judge;
mod last_act;
mod watcher;

use std::sync::{Arc, LazyLock};

pub use beat::{Beat, LongStep, Place, Standing};
pub use judge::Limits;
pub use last_act::EXIT_CODE;
use watcher::Register;

/// Everyone who beats in this process.
static REGISTER: LazyLock<Arc<Register>> = LazyLock::new(Arc::default);

/// Watches a loop from now on, until the beat is dropped. `who` names thread or task, and the connector.
pub fn watch(who: impl Into<String>) -> Beat {
    REGISTER.add(who.into(), None)
}

/// As [`watch`], with words for where it stands.
pub fn watch_at(who: impl Into<String>, place: Arc<dyn Place>) -> Beat {
    REGISTER.add(who.into(), Some(place))
}

/// Starts the watching thread of this process. Without it nobody is watched.
///
/// # Errors
/// When the system gives no thread.
pub fn start() -> std::io::Result<()> {
    watcher::start(REGISTER.clone(), Limits::default(), |_| true, last_act::end_process)
}

/// What `/health/live` asks: an error where a restart helps, in words.
///
/// # Errors
/// A thread or task stands still (the process is about to end), or the watching thread itself does.
pub fn liveness() -> Result<(), String> {
    REGISTER.liveness()
}

/// For tests: watches those whose name contains `part` under limits of their own, and gives what would have been the last words.
#[cfg(test)]
pub(crate) fn last_words(part: &'static str, limits: Limits) -> std::sync::mpsc::Receiver<String> {
    let (said, heard) = std::sync::mpsc::channel();
    let last_act = move |words: &str| drop(said.send(words.to_owned()));
    assert!(watcher::start(REGISTER.clone(), limits, move |who| who.contains(part), last_act).is_ok(), "a thread");
    heard
}
