//! Shrinking that had to be undone: the same number is not tried again for a while under the same load, twice as long each time.

use serde::{Deserialize, Serialize};

use super::round::Round;

/// A growth so soon after a shrink, under a load that is no higher, undoes it.
const UNDONE_WITHIN_MS: i64 = 300_000;
/// Up to this many times the load then is no higher load.
const NO_HIGHER: f64 = 1.2;
/// Below this share of it the load is another.
const LOWER: f64 = 0.8;
/// How long the number is left alone after the first time, and at most.
const FIRST_MS: i64 = 600_000;
const MOST_MS: i64 = 3_600_000;

/// What was learnt from shrinks.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Regret {
    last: Option<Shrunk>,
    undone: Option<Undone>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Shrunk {
    at_ms: i64,
    to: u32,
    /// In workers.
    load: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Undone {
    until_ms: i64,
    for_ms: i64,
    to: u32,
    load: f64,
}

impl Regret {
    /// Notes a shrink.
    fn shrinks(&mut self, at_ms: i64, to: u32, load: f64) {
        self.last = Some(Shrunk { at_ms, to, load });
    }

    /// Notes a growth from `replicas`, for a load that is expected to be `expected`.
    fn grows(&mut self, now_ms: i64, replicas: u32, expected: f64) {
        let Some(last) = self.last.take() else { return };
        if now_ms - last.at_ms > UNDONE_WITHIN_MS || replicas > last.to || expected > last.load * NO_HIGHER {
            return;
        }
        let again = self.undone.filter(|before| now_ms - before.until_ms < before.for_ms && before.load <= last.load / LOWER);
        let for_ms = again.map_or(FIRST_MS, |before| (before.for_ms * 2).min(MOST_MS));
        self.undone = Some(Undone { until_ms: now_ms + for_ms, for_ms, to: last.to, load: last.load });
    }

    /// The least number that is not regretted under this load.
    fn floor(&self, now_ms: i64, load: f64) -> Option<u32> {
        self.undone.filter(|undone| now_ms < undone.until_ms && load >= undone.load * LOWER).map(|undone| undone.to + 1)
    }
}

impl Round<'_> {
    pub(super) fn note_shrink(&mut self, to: u32) {
        let load = self.present_load();
        self.memory.fleet.regret.shrinks(self.snapshot.now_ms, to, load);
    }

    pub(super) fn note_growth(&mut self) {
        let expected = self.groups.iter().map(|g| g.expected.max(g.load)).sum();
        self.memory.fleet.regret.grows(self.snapshot.now_ms, self.snapshot.replicas, expected);
    }

    /// The least number that was not too small a while ago.
    pub(super) fn regretted(&self) -> Option<u32> {
        self.memory.fleet.regret.floor(self.snapshot.now_ms, self.present_load())
    }

    /// In workers, in the mean of the last minute.
    fn present_load(&self) -> f64 {
        let past = self.past(&self.models(), 60.0);
        let mean = |loads: &Vec<f64>| loads.iter().sum::<f64>() / loads.len().max(1) as f64;
        past.iter().map(mean).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_undone_is_left_alone_longer_each_time() {
        let mut regret = Regret::default();
        regret.shrinks(0, 6, 5.0);
        regret.grows(60_000, 6, 5.5);
        assert_eq!(regret.floor(600_000, 5.0), Some(7));
        assert_eq!(regret.floor(600_000, 3.0), None, "another load");
        assert_eq!(regret.floor(660_000, 5.0), None, "ten minutes are over");
        regret.shrinks(700_000, 6, 5.0);
        regret.grows(760_000, 6, 5.0);
        assert_eq!((regret.floor(1_900_000, 5.0), regret.floor(1_960_000, 5.0)), (Some(7), None), "twenty");
    }

    #[test]
    fn a_growth_for_more_load_or_much_later_regrets_nothing() {
        let mut regret = Regret::default();
        regret.shrinks(0, 6, 5.0);
        regret.grows(60_000, 6, 9.0);
        assert_eq!(regret.floor(61_000, 5.0), None);
        regret.shrinks(100_000, 6, 5.0);
        regret.grows(500_000, 6, 5.0);
        assert_eq!(regret.floor(501_000, 5.0), None);
    }
}
