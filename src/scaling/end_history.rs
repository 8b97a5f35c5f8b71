//! The end offsets of a partition over time: what was produced when, as far as the broker's own numbers say.

use std::collections::VecDeque;

/// End offsets that are remembered. The older half is thinned out when it is full, so that the memory reaches back far and is fine where it matters.
const SAMPLES_MAX: usize = 96;

/// (time, end offset) of a partition. Record timestamps lie for backfills and mirrored topics, so lag in seconds is read off this, by interpolation
/// (kafka-lag-exporter's method), and production by differences.
#[derive(Debug, Clone, Default)]
pub struct EndHistory {
    samples: VecDeque<(i64, i64)>,
}

/// How far behind an offset is, in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Behind {
    /// How long ago the end stood at the offset, milliseconds.
    pub ms: i64,
    /// The offset is older than what is remembered: at least so long.
    pub at_least: bool,
}

impl EndHistory {
    /// The end offset at a moment (milliseconds).
    pub fn add(&mut self, now_ms: i64, end: i64) {
        if self.samples.back().is_some_and(|(_, last)| *last > end) {
            // The topic was truncated or made again.
            self.samples.clear();
        }
        if self.samples.len() >= SAMPLES_MAX {
            let mut index = 0;
            self.samples.retain(|_| {
                index += 1;
                // Of the older half every second one goes; the oldest stays.
                index > SAMPLES_MAX / 2 || index % 2 == 1
            });
        }
        self.samples.push_back((now_ms, end));
    }

    /// How long ago `offset` was the end: the age of the oldest record at or above it. 0 at the end; `None` before the first look.
    pub fn behind(&self, now_ms: i64, offset: i64) -> Option<Behind> {
        let exactly = |ms: i64| Some(Behind { ms: ms.max(0), at_least: false });
        let (_, newest) = self.samples.back()?;
        if offset >= *newest {
            return exactly(0);
        }
        let mut before: Option<(i64, i64)> = None;
        for &(at_ms, end) in &self.samples {
            if end > offset {
                let Some((from_ms, from_end)) = before else { return Some(Behind { ms: (now_ms - at_ms).max(0), at_least: true }) };
                let share = (offset - from_end) as f64 / (end - from_end).max(1) as f64;
                return exactly(now_ms - (from_ms + ((at_ms - from_ms) as f64 * share) as i64));
            }
            before = Some((at_ms, end));
        }
        exactly(0)
    }

    /// Records that were added each second over the last `window_ms` (over what is known of it); `None` until two looks lie at least a third of
    /// the window apart: the first few looks of a new leader would call noise a rate.
    pub fn produced_per_s(&self, now_ms: i64, window_ms: i64) -> Option<f64> {
        let (last_ms, last) = self.samples.back()?;
        let from = now_ms - window_ms;
        // The newest look at or before the window's begin; else the oldest there is.
        let begin = self.samples.iter().rev().find(|(at_ms, _)| *at_ms <= from).or_else(|| self.samples.front())?;
        let span_ms = last_ms - begin.0;
        (span_ms > 0 && span_ms * 3 >= window_ms).then(|| (last - begin.1) as f64 * 1000.0 / span_ms as f64)
    }

    /// Since when the end has stood where it is, as far as is remembered (milliseconds).
    pub fn unchanged_since_ms(&self) -> Option<i64> {
        let (_, newest) = self.samples.back()?;
        self.samples.iter().rev().take_while(|(_, end)| end == newest).last().map(|(at_ms, _)| *at_ms)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn exactly(ms: i64) -> Option<Behind> {
        Some(Behind { ms, at_least: false })
    }

    #[test]
    fn seconds_are_interpolated() {
        let mut history = EndHistory::default();
        assert_eq!(history.behind(0, 0), None);
        history.add(0, 100);
        history.add(10_000, 200);
        history.add(20_000, 300);
        assert_eq!(history.behind(20_000, 300), exactly(0));
        assert_eq!(history.behind(20_000, 250), exactly(5_000));
        assert_eq!(history.behind(20_000, 150), exactly(15_000));
        assert_eq!(history.behind(25_000, 50), Some(Behind { ms: 25_000, at_least: true }), "at least as old as what is remembered");
        history.add(30_000, 10);
        assert_eq!(history.behind(30_000, 5), Some(Behind { ms: 0, at_least: true }), "a topic made again starts a new history");
    }

    #[test]
    fn production_is_a_difference_of_end_offsets() {
        let mut history = EndHistory::default();
        history.add(0, 1_000);
        assert_eq!(history.produced_per_s(0, 15_000), None);
        history.add(4_000, 1_400);
        assert_eq!(history.produced_per_s(4_000, 15_000), None, "too short a time for a rate");
        history.add(5_000, 1_500);
        assert_eq!(history.produced_per_s(5_000, 15_000), Some(100.0));
        for second in (10..=60).step_by(5) {
            history.add(second * 1000, 1_500);
        }
        assert_eq!(history.produced_per_s(60_000, 15_000), Some(0.0), "what lies before the window does not count");
        assert_eq!(history.unchanged_since_ms(), Some(5_000));
    }

    #[test]
    fn memory_is_bounded_and_reaches_far_back() {
        let mut history = EndHistory::default();
        for tick in 0..5_000i64 {
            history.add(tick * 5_000, tick * 10);
        }
        assert!(history.samples.len() <= SAMPLES_MAX);
        let now_ms = 4_999 * 5_000;
        // Six hours ago.
        let behind = history.behind(now_ms, 680 * 10).unwrap();
        assert!(!behind.at_least && (behind.ms - 4_319 * 5_000).abs() < 60_000, "{behind:?}");
        // The last minutes are as fine as they were looked at.
        assert_eq!(history.behind(now_ms, 4_990 * 10 + 5), exactly(8 * 5_000 + 2_500));
    }
}
