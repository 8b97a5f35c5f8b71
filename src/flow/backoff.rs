//! How long to wait before the next try.

use std::time::Duration;

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Exponential backoff with jitter: the n-th delay is drawn evenly from a tenth of `min(cap, base * factor^n)` up to the whole of it.
///
/// Over nearly the full range, because the many workers of a fleet fail at the same moment and must not come back at the same moment
/// (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015); the floor of a tenth keeps a lucky draw from hammering.
/// Pure: the delays follow from the seed.
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    factor: f64,
    cap: Duration,
    ceiling: Duration,
    tries: u32,
    rng: ChaCha8Rng,
}

/// The least share of the ceiling that is waited.
const FLOOR: f64 = 0.1;

impl Backoff {
    /// Delays up to `base`, `base * factor`, ... and never more than `cap`. A factor below 1 counts as 1.
    pub fn new(base: Duration, factor: f64, cap: Duration, seed: u64) -> Self {
        let ceiling = base.min(cap);
        Self { base, factor: factor.max(1.0), cap, ceiling, tries: 0, rng: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// For passing troubles of a service: 100 ms growing by 1.3 to 60 s (java-bigquerystorage's defaults).
    pub fn transient(seed: u64) -> Self {
        Self::new(Duration::from_millis(100), 1.3, Duration::from_secs(60), seed)
    }

    /// For servers that do not know a change yet and may know it at any moment: 100 ms growing by 1.3 to 2 s, the longest that rows may
    /// wait beyond that moment.
    pub fn lagging(seed: u64) -> Self {
        Self::new(Duration::from_millis(100), 1.3, Duration::from_secs(2), seed)
    }

    /// For quotas, which refill in 10 s and in 10 minutes: 1 s growing by 2 to 120 s.
    pub fn quota(seed: u64) -> Self {
        Self::new(Duration::from_secs(1), 2.0, Duration::from_secs(120), seed)
    }

    /// For partitions that hold: 1 s growing by 2 to 30 s, the longest that a mended cause may go unnoticed.
    pub fn hold(seed: u64) -> Self {
        Self::new(Duration::from_secs(1), 2.0, Duration::from_secs(30), seed)
    }

    /// The next delay; each one is drawn from a larger range than the one before, up to the cap.
    pub fn next_delay(&mut self) -> Duration {
        // 53 random bits: every f64 in [0, 1) with the same chance.
        let even = (self.rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        let delay = self.ceiling.mul_f64(FLOOR + (1.0 - FLOOR) * even);
        let grown = self.ceiling.as_secs_f64() * self.factor;
        self.ceiling = if grown >= self.cap.as_secs_f64() { self.cap } else { Duration::from_secs_f64(grown) };
        self.tries = self.tries.saturating_add(1);
        delay
    }

    /// How many delays were given since the start or the last reset.
    pub fn tries(&self) -> u32 {
        self.tries
    }

    /// Begins again at `base`: call it after a success.
    pub fn reset(&mut self) {
        self.ceiling = self.base.min(self.cap);
        self.tries = 0;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    fn delays(mut backoff: Backoff, n: usize) -> Vec<Duration> {
        (0..n).map(|_| backoff.next_delay()).collect()
    }

    #[test]
    fn stays_between_a_tenth_of_the_ceiling_and_the_ceiling() {
        for seed in 0..200 {
            for (backoff, base, factor, cap) in [
                (Backoff::transient(seed), 0.1, 1.3_f64, 60.0),
                (Backoff::quota(seed), 1.0, 2.0, 120.0),
                (Backoff::lagging(seed), 0.1, 1.3, 2.0),
                (Backoff::hold(seed), 1.0, 2.0, 30.0),
            ] {
                for (n, delay) in delays(backoff, 60).into_iter().enumerate() {
                    let ceiling = f64::min(base * factor.powi(n as i32), cap);
                    let delay = delay.as_secs_f64();
                    assert!((ceiling * 0.1 - 1e-6..=ceiling + 1e-6).contains(&delay), "try {n} of seed {seed}: {delay} s of {ceiling} s");
                }
            }
        }
    }

    #[test]
    fn the_seed_decides_and_seeds_differ() {
        assert_eq!(delays(Backoff::hold(7), 20), delays(Backoff::hold(7), 20));
        assert_ne!(delays(Backoff::hold(7), 20), delays(Backoff::hold(8), 20));
    }

    #[test]
    fn spreads_over_its_range() {
        let firsts: Vec<f64> = (0..1000).map(|seed| Backoff::quota(seed).next_delay().as_secs_f64()).collect();
        let mean = firsts.iter().sum::<f64>() / 1000.0;
        assert!((0.5..0.6).contains(&mean), "{mean}");
        assert!(firsts.iter().any(|d| *d < 0.2) && firsts.iter().any(|d| *d > 0.9));
    }

    #[test]
    fn a_reset_begins_again() {
        let mut backoff = Backoff::quota(3);
        for _ in 0..10 {
            backoff.next_delay();
        }
        assert_eq!(backoff.tries(), 10);
        backoff.reset();
        assert_eq!(backoff.tries(), 0);
        assert!(backoff.next_delay() <= Duration::from_secs(1));
    }
}
