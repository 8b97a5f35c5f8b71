//! What time it is, so that tests can say so.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Gives the time. Whoever measures or dates something takes one of these instead of asking the system.
pub trait Clock: Send + Sync + 'static {
    /// Time since some fixed moment: never goes back, for measuring and deadlines.
    fn now_monotonic(&self) -> Duration;
    /// Microseconds since the Unix epoch, UTC: for dating things; may jump.
    fn now_wall_us(&self) -> i64;
}

/// The system's clocks.
#[derive(Debug, Clone)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// The system's clocks; monotonic time counts from now.
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now_monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn now_wall_us(&self) -> i64 {
        let since_epoch = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(after) => i128::try_from(after.as_micros()).unwrap_or(i128::MAX),
            Err(before) => -i128::try_from(before.duration().as_micros()).unwrap_or(i128::MAX),
        };
        i64::try_from(since_epoch).unwrap_or(if since_epoch < 0 { i64::MIN } else { i64::MAX })
    }
}

/// A clock that moves only when told to.
#[derive(Debug, Default)]
pub struct ManualClock {
    monotonic_ns: AtomicU64,
    wall_us: AtomicI64,
}

impl ManualClock {
    /// Monotonic time zero at the given wall time.
    pub fn at(wall_us: i64) -> Self {
        Self { monotonic_ns: AtomicU64::new(0), wall_us: AtomicI64::new(wall_us) }
    }

    /// Moves both times forward.
    pub fn advance(&self, by: Duration) {
        self.monotonic_ns.fetch_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX), Ordering::AcqRel);
        self.wall_us.fetch_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX), Ordering::AcqRel);
    }

    /// Sets the wall time alone, as an administrator or NTP may.
    pub fn set_wall_us(&self, wall_us: i64) {
        self.wall_us.store(wall_us, Ordering::Release);
    }
}

impl Clock for ManualClock {
    fn now_monotonic(&self) -> Duration {
        Duration::from_nanos(self.monotonic_ns.load(Ordering::Acquire))
    }

    fn now_wall_us(&self) -> i64 {
        self.wall_us.load(Ordering::Acquire)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_when_told() {
        let clock = ManualClock::at(1_700_000_000_000_000);
        clock.advance(Duration::from_millis(1500));
        assert_eq!((clock.now_monotonic(), clock.now_wall_us()), (Duration::from_millis(1500), 1_700_000_001_500_000));
        clock.set_wall_us(5);
        assert_eq!((clock.now_monotonic(), clock.now_wall_us()), (Duration::from_millis(1500), 5));
    }

    #[test]
    fn the_system_clock_moves_by_itself_and_knows_the_year() {
        let clock = SystemClock::new();
        let before = clock.now_monotonic();
        std::thread::sleep(Duration::from_millis(5));
        assert!(clock.now_monotonic() - before >= Duration::from_millis(5));
        assert!(clock.now_wall_us() > 1_700_000_000_000_000);
    }
}
