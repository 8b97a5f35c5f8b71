//! What the fleet costs: worker-seconds, against one worker per partition. Pure.

use std::time::Duration;

/// Adds up how many workers there were for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Meter {
    partitions: u32,
    time: Duration,
    worker_seconds: f64,
}

impl Meter {
    /// For topics of so many partitions each: a fleet never has more workers than that, so one worker per partition is this many.
    pub(super) const fn new(partitions: u32) -> Self {
        Self { partitions, time: Duration::ZERO, worker_seconds: 0.0 }
    }

    /// So many worker processes ran for this long, those that were just starting or leaving included.
    pub(super) fn add(&mut self, workers: usize, time: Duration) {
        self.time += time;
        self.worker_seconds += workers as f64 * time.as_secs_f64();
    }

    /// What was paid.
    pub(super) const fn worker_seconds(&self) -> f64 {
        self.worker_seconds
    }

    /// What one worker per partition would have been paid in the same time.
    pub(super) fn one_per_partition(&self) -> f64 {
        f64::from(self.partitions) * self.time.as_secs_f64()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn time_counts_for_every_worker_and_for_every_partition() {
        let mut meter = Meter::new(8);
        meter.add(2, Duration::from_secs(10));
        meter.add(5, Duration::from_millis(500));
        assert_eq!(meter.worker_seconds(), 22.5);
        assert_eq!(meter.one_per_partition(), 84.0);
    }
}
