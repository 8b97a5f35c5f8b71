//! How fast records are made: a rate that may change, and a brake.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What keys raise a rate to at most.
const RATE_MAX: u64 = 10_000_000;

/// Records a second; may be changed from any thread.
#[derive(Debug)]
pub struct Rate(AtomicU64);

impl Rate {
    /// So many records a second.
    pub const fn new(per_second: u64) -> Self {
        Self(AtomicU64::new(per_second))
    }
    /// Records a second now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
    /// Changes it.
    pub fn set(&self, per_second: u64) {
        self.0.store(per_second, Ordering::Relaxed);
    }
    /// The key `+`: a quarter more.
    pub fn faster(&self) {
        self.set((self.get() + (self.get() / 4).max(1)).min(RATE_MAX));
    }
    /// The key `-`: a fifth less.
    pub fn slower(&self) {
        self.set(self.get().saturating_sub((self.get() / 5).max(1)));
    }
    /// The key `*`: ten times as many.
    pub fn tenfold(&self) {
        self.set((self.get() * 10).clamp(1, RATE_MAX));
    }
    /// The key `/`: a tenth.
    pub fn tenth(&self) {
        self.set(self.get() / 10);
    }
}

/// Stops production while on: unread records would fall out of the broker otherwise.
#[derive(Debug, Default)]
pub struct Brake {
    on: AtomicBool,
    times: AtomicU64,
}

impl Brake {
    /// Puts it on or off.
    pub fn set(&self, on: bool) {
        if self.on.swap(on, Ordering::Relaxed) != on && on {
            self.times.fetch_add(1, Ordering::Relaxed);
        }
    }
    /// Whether it is on.
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }
    /// How often it was put on.
    pub fn times(&self) -> u64 {
        self.times.load(Ordering::Relaxed)
    }
}

/// Says how many records are due. What was missed while the brake was on, or for more than a tenth of a second, is not made up for.
pub(super) struct Pacer {
    last: Instant,
    due: f64,
}

impl Pacer {
    pub(super) fn new(now: Instant) -> Self {
        Self { last: now, due: 0.0 }
    }

    /// How many records are due now at this rate.
    pub(super) fn due(&mut self, now: Instant, per_second: u64) -> u64 {
        let passed = now.duration_since(self.last).min(Duration::from_millis(100));
        self.last = now;
        self.due += passed.as_secs_f64() * per_second as f64;
        let whole = self.due.floor();
        self.due -= whole;
        whole as u64
    }

    /// Forgets the time until now.
    pub(super) fn skip(&mut self, now: Instant) {
        self.last = now;
        self.due = 0.0;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn fractions_add_up_and_a_pause_is_not_made_up_for() {
        let start = Instant::now();
        let mut pacer = Pacer::new(start);
        let made: u64 = (1..=1000).map(|ms| pacer.due(start + Duration::from_millis(ms), 333)).sum();
        assert!((332..=333).contains(&made), "{made}");
        assert!(pacer.due(start + Duration::from_secs(60), 333) <= 34);
        pacer.skip(start + Duration::from_secs(90));
        assert_eq!(pacer.due(start + Duration::from_secs(90), 333), 0);
    }

    #[test]
    fn plus_and_minus_change_it_and_never_stop_below_zero() {
        let rate = Rate::new(1000);
        rate.faster();
        assert_eq!(rate.get(), 1250);
        rate.slower();
        assert_eq!(rate.get(), 1000);
        rate.set(0);
        rate.slower();
        assert_eq!(rate.get(), 0);
        rate.faster();
        assert_eq!(rate.get(), 1);
        rate.tenfold();
        assert_eq!(rate.get(), 10);
        rate.tenth();
        assert_eq!(rate.get(), 1);
        rate.set(RATE_MAX);
        rate.tenfold();
        assert_eq!(rate.get(), RATE_MAX);
    }
}
