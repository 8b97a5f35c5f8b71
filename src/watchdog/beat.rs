//! A beat: what a loop tells of itself, and what the watcher sees of it.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use super::watcher::Register;

/// How long the watcher waits for a lock that is held for moments only.
pub(super) const PATIENCE: Duration = Duration::from_millis(100);

const TURNING: u8 = 0;
const IDLE: u8 = 1;
const LONG_STEP: u8 = 2;

/// Where someone stands who is watched. Asked by the watcher, never by the one who is watched.
pub trait Place: Send + Sync {
    /// Connector, partition, offset, as far as they are known; no data of records. May take locks: it is called where waiting harms nobody.
    fn describe(&self) -> String;
    /// Changes when something moves within a turn. Must not block.
    fn moved(&self) -> u64 {
        0
    }
    /// Whether it is inside a step that may take longer, and which. Must not block.
    fn long_step(&self) -> Option<&'static str> {
        None
    }
}

impl<F: Fn() -> String + Send + Sync> Place for F {
    fn describe(&self) -> String {
        self()
    }
}

/// What the watcher sees of one who beats.
pub(super) struct Entry {
    pub(super) id: u64,
    pub(super) who: String,
    pub(super) place: Option<Arc<dyn Place>>,
    turns: AtomicU64,
    phase: AtomicU8,
    step: Mutex<&'static str>,
}

/// What somebody who is watched is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Turning: may not stand still.
    Turning,
    /// Waiting for something without limit: not watched.
    Idle,
    /// Inside a step that may take long.
    LongStep(&'static str),
}

impl Entry {
    pub(super) fn new(id: u64, who: String, place: Option<Arc<dyn Place>>) -> Self {
        Self { id, who, place, turns: AtomicU64::new(0), phase: AtomicU8::new(TURNING), step: Mutex::new("") }
    }

    /// Another value than before: it moved.
    pub(super) fn mark(&self) -> (u64, u64) {
        (self.turns.load(Relaxed), self.place.as_ref().map_or(0, |place| place.moved()))
    }

    pub(super) fn standing(&self) -> Standing {
        match self.phase.load(Relaxed) {
            IDLE => Standing::Idle,
            // Held for the moment in which a step is named.
            LONG_STEP => Standing::LongStep(self.step.try_lock_for(PATIENCE).map_or("a long step", |step| *step)),
            _ => self.place.as_ref().and_then(|place| place.long_step()).map_or(Standing::Turning, Standing::LongStep),
        }
    }
}

/// One loop's beat. Dropping it ends the watch.
pub struct Beat {
    pub(super) entry: Arc<Entry>,
    pub(super) register: Weak<Register>,
}

impl Beat {
    /// The loop came around: it turns.
    pub fn beat(&self) {
        self.entry.turns.fetch_add(1, Relaxed);
        self.entry.phase.store(TURNING, Relaxed);
    }

    /// A task: its beat is that no poll of it lasts. While nobody polls it, it waits for something and is not watched; whether the runtime
    /// polls at all is the runtime's own beat.
    pub async fn polls<F: Future>(self, task: F) -> F::Output {
        let mut task = std::pin::pin!(task);
        std::future::poll_fn(|cx| {
            self.beat();
            let polled = task.as_mut().poll(cx);
            self.idle();
            polled
        })
        .await
    }

    /// It waits without limit: not watched until the next beat or long step.
    pub fn idle(&self) {
        self.entry.phase.store(IDLE, Relaxed);
    }

    /// A step that may take longer than a turn, until the guard is dropped: [`super::Limits::long_step`] counts, and what takes longer than
    /// a turn may is said. What was before (turning, idle) is again afterwards.
    pub fn long_step(&self, what: &'static str) -> LongStep<'_> {
        *self.entry.step.lock() = what;
        self.entry.turns.fetch_add(1, Relaxed);
        LongStep { beat: self, before: self.entry.phase.swap(LONG_STEP, Relaxed) }
    }
}

impl std::fmt::Debug for Beat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Beat").field("who", &self.entry.who).finish_non_exhaustive()
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        self.entry.phase.store(IDLE, Relaxed);
        if let Some(register) = self.register.upgrade() {
            register.remove(self.entry.id);
        }
    }
}

/// A long step under way.
pub struct LongStep<'a> {
    beat: &'a Beat,
    before: u8,
}

impl Drop for LongStep<'_> {
    fn drop(&mut self) {
        self.beat.entry.turns.fetch_add(1, Relaxed);
        self.beat.entry.phase.store(self.before, Relaxed);
    }
}
