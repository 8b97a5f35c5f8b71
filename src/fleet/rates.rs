//! Rates over a window from sums that only rise.

use std::collections::VecDeque;

/// Samples that a meter keeps at most: a window of five minutes at the shortest sensible interval would be coarser, never longer.
const SAMPLES_MAX: usize = 64;
/// A rate over a shorter time is noise.
const SPAN_MIN_MS: i64 = 200;

/// `N` sums over time. A sum that falls (a partition that came again, a thread that ended) begins anew.
#[derive(Debug, Clone)]
pub struct Meter<const N: usize> {
    samples: VecDeque<(i64, [f64; N])>,
}

impl<const N: usize> Default for Meter<N> {
    fn default() -> Self {
        Self { samples: VecDeque::new() }
    }
}

impl<const N: usize> Meter<N> {
    /// The sums at a moment (milliseconds, monotonic). Forgets what no window of `window_ms` needs.
    pub fn add(&mut self, now_ms: i64, sums: [f64; N], window_ms: u64) {
        let fell = self.samples.back().is_some_and(|(_, last)| last.iter().zip(&sums).any(|(last, now)| now < last));
        if fell {
            self.samples.clear();
        }
        let from = now_ms - i64::try_from(window_ms).unwrap_or(i64::MAX);
        // The newest sample at or before the window's begin is its begin.
        while self.samples.len() >= SAMPLES_MAX || self.samples.get(1).is_some_and(|(at, _)| *at <= from) {
            self.samples.pop_front();
        }
        self.samples.push_back((now_ms, sums));
    }

    /// Rates a second from the oldest sample that is kept to the newest; `None` when they lie too near.
    pub fn per_second(&self) -> Option<[f64; N]> {
        let ((from_ms, from), (to_ms, to)) = (self.samples.front()?, self.samples.back()?);
        let span_ms = to_ms - from_ms;
        (span_ms >= SPAN_MIN_MS).then(|| std::array::from_fn(|i| (to[i] - from[i]) * 1000.0 / span_ms as f64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_over_the_window_and_no_longer() {
        let mut meter = Meter::<2>::default();
        assert_eq!(meter.per_second(), None);
        meter.add(0, [0.0, 0.0], 10_000);
        assert_eq!(meter.per_second(), None, "one sample has no rate");
        for second in 1..=20i64 {
            // 100 a second, from the eleventh on 300.
            let sum = if second <= 10 { second * 100 } else { 1000 + (second - 10) * 300 };
            meter.add(second * 1000, [sum as f64, 0.0], 10_000);
        }
        assert_eq!(meter.per_second(), Some([300.0, 0.0]));
    }

    #[test]
    fn a_sum_that_falls_begins_anew() {
        let mut meter = Meter::<1>::default();
        meter.add(0, [500.0], 10_000);
        meter.add(1000, [900.0], 10_000);
        meter.add(2000, [10.0], 10_000);
        assert_eq!(meter.per_second(), None);
        meter.add(3000, [30.0], 10_000);
        assert_eq!(meter.per_second(), Some([20.0]));
    }

    #[test]
    fn memory_is_bounded() {
        let mut meter = Meter::<1>::default();
        for ms in 0..10_000 {
            meter.add(ms, [ms as f64], 3_600_000);
        }
        assert!(meter.samples.len() <= SAMPLES_MAX);
    }
}
