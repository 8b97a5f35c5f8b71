//! Two metadata clocks: REST sees a change at once, each write connection some time later.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Gives out observers.
#[derive(Debug)]
pub(crate) struct Visibility {
    delay: Duration,
    servers: Vec<f64>,
    rng: Mutex<ChaCha8Rng>,
}

/// One connection's view: it learns of a change after `lag`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Observer {
    lag: Duration,
}

impl Visibility {
    pub(crate) fn new(delay: Duration, servers: u32, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x5EE5);
        let servers = (0..servers.max(1)).map(|_| rng.random_range(0.1..0.9)).collect();
        Self { delay, servers, rng: Mutex::new(rng) }
    }

    /// A new connection: it lands on some server, and has some jitter of its own.
    pub(crate) fn observer(&self) -> Observer {
        let mut rng = self.rng.lock();
        let server = self.servers[rng.random_range(0..self.servers.len())];
        let part: f64 = (server + rng.random_range(0.0..0.5_f64)).min(1.0);
        Observer { lag: self.delay.mul_f64(part) }
    }
}

impl Observer {
    /// Whether a change made at `at` is known at `now`.
    pub(crate) fn knows(&self, at: Instant, now: Instant) -> bool {
        at + self.lag <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_learn_unevenly_and_none_later_than_the_delay() {
        let visibility = Visibility::new(Duration::from_secs(60), 4, 1);
        let start = Instant::now();
        let observers: Vec<Observer> = (0..100).map(|_| visibility.observer()).collect();
        assert!(observers.iter().all(|o| !o.knows(start, start) && o.knows(start, start + Duration::from_secs(60))));
        let half = observers.iter().filter(|o| o.knows(start, start + Duration::from_secs(40))).count();
        assert!((10..=90).contains(&half), "{half}");
        assert!(Visibility::new(Duration::ZERO, 4, 1).observer().knows(start, start));
    }
}
