//! A limit of so many records a second, kept between takes: nothing is done per record.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// How far behind its plan a taker may catch up: sleeps that last too long on a busy machine must not lower the rate.
const CREDIT_NS: u64 = 100_000_000;

/// A rate shared by everyone who takes. Virtual scheduling (ITU-T I.371, annex A): the records taken occupy the time that they last at the
/// limit, one after the other, and nobody takes before that time is over.
#[derive(Debug)]
pub struct Pace {
    records_per_s: u64,
    began: Instant,
    /// When everything taken so far is over, nanoseconds since `began`.
    free_at_ns: AtomicU64,
    busy_ns: AtomicU64,
}

impl Pace {
    /// So many records a second from `now` on; 0 counts as 1.
    pub fn new(records_per_s: u64, now: Instant) -> Self {
        Self { records_per_s: records_per_s.max(1), began: now, free_at_ns: AtomicU64::new(0), busy_ns: AtomicU64::new(0) }
    }

    /// How long it is until the next take may begin; zero when it may begin now.
    pub fn wait(&self, now: Instant) -> Duration {
        Duration::from_nanos(self.free_at_ns.load(Relaxed).saturating_sub(self.since_began(now)))
    }

    /// How many records a take should end at: a hundredth of a second's. The limit holds on the mean, whatever the takes are.
    pub fn take_max(&self) -> u64 {
        (self.records_per_s / 100).max(1)
    }

    /// Notes a take that ended at `now`.
    pub fn took(&self, records: u64, now: Instant) {
        let lasts = u64::try_from(u128::from(records) * 1_000_000_000 / u128::from(self.records_per_s)).unwrap_or(u64::MAX);
        let earliest = self.since_began(now).saturating_sub(CREDIT_NS);
        self.busy_ns.fetch_add(lasts, Relaxed);
        // Never refused: the closure always gives a value.
        let _ = self.free_at_ns.fetch_update(Relaxed, Relaxed, |free_at| Some(free_at.max(earliest).saturating_add(lasts)));
    }

    /// The time that all records taken so far last at the limit. Its growth over a window, divided by the window, is the share of the limit
    /// that was used: what a machine of that speed would show as busy.
    pub fn busy(&self) -> Duration {
        Duration::from_nanos(self.busy_ns.load(Relaxed))
    }

    fn since_began(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.began).as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A taker who always has records, takes 128 at once and looks every `every`.
    fn taken_in_ten_seconds(limit: u64, every: Duration) -> (u64, Duration) {
        let start = Instant::now();
        let pace = Pace::new(limit, start);
        let (mut now, mut taken) = (start, 0);
        while now < start + 10_000 * MS {
            if pace.wait(now).is_zero() {
                pace.took(128, now);
                taken += 128;
            }
            now += every;
        }
        (taken, pace.busy())
    }

    #[test]
    fn the_limit_holds_on_the_mean_even_when_sleeps_are_long() {
        for (limit, every) in [(8_000, MS), (8_000, 15 * MS), (1_000, MS), (50, MS), (100_000, MS)] {
            let (taken, busy) = taken_in_ten_seconds(limit, every);
            let wanted = limit * 10;
            // A credit of 100 ms and one take beyond the end.
            assert!(taken >= wanted - wanted / 50 && taken <= wanted + limit / 10 + 128, "{taken} at {limit}/s, looking every {every:?}");
            assert!(busy >= 9_800 * MS && busy <= Duration::from_secs_f64(10.2 + 128.0 / limit as f64), "{busy:?}");
        }
    }

    #[test]
    fn an_idle_time_is_not_made_up_for() {
        let start = Instant::now();
        let pace = Pace::new(1_000, start);
        let later = start + 60_000 * MS;
        pace.took(100, later);
        assert_eq!(pace.wait(later), Duration::ZERO, "the credit");
        pace.took(50, later);
        assert_eq!(pace.wait(later), 50 * MS);
        assert_eq!(pace.busy(), 150 * MS);
        assert_eq!(pace.wait(later + 50 * MS), Duration::ZERO);
    }
}
