//! What an election gives: leadership with a deadline that the leader itself can see.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::flow::Clock;

/// Whether this worker decides for the fleet. Published by whoever runs the election.
#[derive(Debug, Clone)]
pub enum Leadership {
    /// Another does, or nobody yet.
    Follower {
        /// Who, as far as it is known: the worker's name.
        leader: Option<String>,
        /// Why this worker cannot stand for election now, in words: the Lease is missing, the API server is away.
        trouble: Option<String>,
    },
    /// This worker does, for as long as the term says.
    Leader(Term),
}

impl Leadership {
    /// Nobody known yet.
    pub fn unknown() -> Self {
        Self::Follower { leader: None, trouble: None }
    }

    /// The term, where this worker leads.
    pub fn term(&self) -> Option<&Term> {
        match self {
            Self::Leader(term) => Some(term),
            Self::Follower { .. } => None,
        }
    }
}

/// One time of being leader. It answers "may I still act, and for how long" from times that this process saw itself, so that a leader that
/// was paused, or that cannot renew, knows that it is none any more without asking anyone.
///
/// A term that is over stays over: whoever leads again has a new one, with a higher number.
#[derive(Clone)]
pub struct Term {
    shared: Arc<Shared>,
}

struct Shared {
    number: u64,
    margin: Duration,
    clock: Arc<dyn Clock>,
    /// `None` once it is over.
    until: Mutex<Option<Until>>,
}

/// The end of a term on both clocks. Monotonic time stands still while a machine is suspended, wall time does not: the earlier end counts.
/// A wall clock that is set forward ends a term early, which costs an election; one that is set back changes nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Until {
    monotonic: Duration,
    wall_us: i64,
}

impl Until {
    /// `span` after now. Take it before the request that earns it is sent.
    pub(super) fn after(clock: &dyn Clock, span: Duration) -> Self {
        let span_us = i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
        Self { monotonic: clock.now_monotonic().saturating_add(span), wall_us: clock.now_wall_us().saturating_add(span_us) }
    }

    /// Never.
    pub(super) const NEVER: Self = Self { monotonic: Duration::MAX, wall_us: i64::MAX };

    fn remaining(self, clock: &dyn Clock) -> Option<Duration> {
        let wall_us = u64::try_from(self.wall_us.saturating_sub(clock.now_wall_us())).unwrap_or(0);
        let monotonic = self.monotonic.saturating_sub(clock.now_monotonic());
        let left = if self.wall_us == i64::MAX { monotonic } else { monotonic.min(Duration::from_micros(wall_us)) };
        (!left.is_zero()).then_some(left)
    }
}

impl Term {
    /// A term that lasts until then. `margin`: how long after it at the earliest another may begin.
    pub(super) fn new(number: u64, until: Until, margin: Duration, clock: Arc<dyn Clock>) -> Self {
        Self { shared: Arc::new(Shared { number, margin, clock, until: Mutex::new(Some(until)) }) }
    }

    /// Higher than that of every earlier term of the fleet.
    pub fn number(&self) -> u64 {
        self.shared.number
    }

    /// How long it lasts unless it is renewed; `None` when it is over. Ask right before each act that only a leader may do.
    pub fn remaining(&self) -> Option<Duration> {
        let mut until = self.shared.until.lock();
        let left = until.and_then(|until| until.remaining(&*self.shared.clock));
        if left.is_none() {
            *until = None; // a wall clock that is set back later must not revive it
        }
        left
    }

    /// Whether it still lasts.
    pub fn is_valid(&self) -> bool {
        self.remaining().is_some()
    }

    /// How long a write may stay unanswered that was begun while the term lasted: four fifths of the time that lies between its end and the
    /// earliest begin of another.
    pub fn write_timeout(&self) -> Duration {
        self.shared.margin.saturating_mul(4) / 5
    }

    /// Moves the end; false when it is over already.
    pub(super) fn extend(&self, to: Until) -> bool {
        if !self.is_valid() {
            return false;
        }
        *self.shared.until.lock() = Some(to);
        true
    }

    /// Ends it.
    pub(super) fn end(&self) {
        *self.shared.until.lock() = None;
    }
}

impl fmt::Debug for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Term").field("number", &self.number()).field("remaining", &self.remaining()).finish()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;
    use crate::flow::ManualClock;

    fn ten_seconds() -> (Arc<ManualClock>, Term) {
        let clock = Arc::new(ManualClock::at(1_700_000_000_000_000));
        let until = Until::after(&*clock, Duration::from_secs(10));
        (Arc::clone(&clock), Term::new(3, until, Duration::from_secs(5), clock))
    }

    #[test]
    fn it_ends_by_itself_and_stays_over() {
        let (clock, term) = ten_seconds();
        clock.advance(Duration::from_secs(9));
        assert_eq!(term.remaining(), Some(Duration::from_secs(1)));
        assert!(term.extend(Until::after(&*clock, Duration::from_secs(10))));
        clock.advance(Duration::from_secs(10));
        assert_eq!(term.remaining(), None);
        assert!(!term.extend(Until::after(&*clock, Duration::from_secs(10))), "what is over is not extended");
        assert!(!term.is_valid());
    }

    #[test]
    fn a_suspended_machine_is_seen_on_the_wall_clock() {
        let (clock, term) = ten_seconds();
        clock.set_wall_us(1_700_000_011_000_000); // monotonic time stood still
        assert!(!term.is_valid());
        clock.set_wall_us(1_700_000_000_000_000);
        assert!(!term.is_valid(), "setting the clock back does not revive it");
    }

    #[test]
    fn a_write_fits_between_two_terms() {
        let (_, term) = ten_seconds();
        assert_eq!(term.write_timeout(), Duration::from_secs(4));
    }

    #[test]
    fn every_copy_ends_at_once() {
        let (_, term) = ten_seconds();
        let copy = term.clone();
        term.end();
        assert!(!copy.is_valid());
    }
}
