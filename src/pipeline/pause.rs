//! A connector that was told to take nothing: it stays a member of its group and keeps its partitions.

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

/// It takes records.
const TAKES: i64 = -1;

/// Whether a connector is paused. Read on every turn of its shards.
#[derive(Debug)]
pub struct Pause {
    since_ms: AtomicI64,
}

impl Default for Pause {
    fn default() -> Self {
        Self { since_ms: AtomicI64::new(TAKES) }
    }
}

impl Pause {
    /// Pauses from `now_ms` (milliseconds since the epoch) on, or goes on. What was taken before is finished all the same. A pause that
    /// lasts keeps its beginning. Returns `true` when that is a change.
    pub fn set(&self, paused: bool, now_ms: i64) -> bool {
        let (from, to) = if paused { (TAKES, now_ms.max(0)) } else { (self.since_ms.load(Relaxed), TAKES) };
        from != to && self.since_ms.compare_exchange(from, to, Relaxed, Relaxed).is_ok()
    }

    /// Whether nothing is taken.
    pub fn is_on(&self) -> bool {
        self.since_ms.load(Relaxed) != TAKES
    }

    /// Since when, milliseconds since the epoch.
    pub fn since_ms(&self) -> Option<i64> {
        Some(self.since_ms.load(Relaxed)).filter(|since| *since != TAKES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_that_lasts_keeps_its_beginning() {
        let pause = Pause::default();
        assert!(!pause.is_on() && !pause.set(false, 1));
        assert!(pause.set(true, 2) && !pause.set(true, 3));
        assert_eq!(pause.since_ms(), Some(2));
        assert!(pause.set(false, 4) && pause.since_ms().is_none());
    }
}
