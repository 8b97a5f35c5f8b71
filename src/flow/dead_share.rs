//! How large a share of the last records died, and when that is too much: one wrong rule must not empty a topic into the dead letters.

use std::time::{Duration, Instant};

use super::backoff::Backoff;

/// Records that the share is taken over: the last 1,000, in tenths, the oldest of which goes when a new one begins.
const BUCKETS: usize = 10;
const BUCKET_RECORDS: u64 = 100;
/// Fewer records than this say nothing.
const RECORDS_MIN: u64 = 100;
/// Records that are tried after a hold, before all are taken again.
const PROBE_RECORDS: u64 = 10;

/// What may be taken now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lets {
    /// Whatever comes.
    All,
    /// One record of each partition: whether the cause is gone is being tried.
    One,
    /// Nothing, until the next try or until the tried records are finished.
    Nothing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    Open,
    Held { until: Instant },
    Trying { left: u64 },
}

/// The share of one shard's records, and what follows from it. Takes the time as an argument.
#[derive(Debug)]
pub struct DeadShare {
    max: f64,
    /// Records and dead ones, the present bucket first.
    window: [(u64, u64); BUCKETS],
    gate: Gate,
    backoff: Backoff,
}

impl DeadShare {
    /// Allows this share, 0 to 1; 1 allows everything. The seed spreads the tries of many workers.
    pub fn new(max: f64, seed: u64) -> Self {
        Self { max, window: Default::default(), gate: Gate::Open, backoff: Backoff::hold(seed) }
    }

    /// What may be taken at this time. `pending`: records that were taken are not finished.
    pub fn lets(&mut self, now: Instant, pending: impl FnOnce() -> bool) -> Lets {
        match self.gate {
            Gate::Open => Lets::All,
            Gate::Held { until } if now < until => Lets::Nothing,
            Gate::Held { .. } => {
                self.gate = Gate::Trying { left: PROBE_RECORDS };
                Lets::One
            }
            Gate::Trying { left: 0 } if pending() => Lets::Nothing,
            Gate::Trying { left: 0 } => {
                self.gate = Gate::Open;
                self.window = Default::default();
                self.backoff.reset();
                Lets::All
            }
            Gate::Trying { .. } => Lets::One,
        }
    }

    /// Whether it is being tried whether the cause is gone: a record that dies now is not given up.
    pub fn is_trying(&self) -> bool {
        matches!(self.gate, Gate::Trying { .. })
    }

    /// Counts records that were taken, and how many of them died at once. Gives dead and all records when that is too much.
    pub fn took(&mut self, records: u64, dead: u64) -> Option<(u64, u64)> {
        if self.window[0].0 >= BUCKET_RECORDS {
            self.window.rotate_right(1);
            self.window[0] = (0, 0);
        }
        self.window[0].0 += records;
        self.window[0].1 += dead;
        if let Gate::Trying { left } = &mut self.gate {
            *left = left.saturating_sub(records);
        }
        self.too_much()
    }

    /// Counts records that died after they were taken.
    pub fn died_late(&mut self, dead: u64) -> Option<(u64, u64)> {
        self.window[0].1 += dead;
        self.too_much()
    }

    fn too_much(&self) -> Option<(u64, u64)> {
        let (records, dead) = self.window.iter().fold((0, 0), |(records, dead), bucket| (records + bucket.0, dead + bucket.1));
        // One that died late may belong to a bucket that is gone.
        let dead = dead.min(records);
        let judged = match self.gate {
            Gate::Open => records >= RECORDS_MIN && dead as f64 > self.max * records as f64,
            Gate::Trying { .. } => dead > 0 && self.max < 1.0,
            Gate::Held { .. } => false,
        };
        judged.then_some((dead, records))
    }

    /// Nothing is taken until the time that is given back: 30 s later at most.
    pub fn hold(&mut self, now: Instant) -> Instant {
        let until = now + self.backoff.next_delay().min(Duration::from_secs(30));
        self.gate = Gate::Held { until };
        self.window = Default::default();
        until
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_share_counts_from_a_hundred_records_on_and_forgets_after_a_thousand() {
        let mut share = DeadShare::new(0.5, 1);
        assert_eq!(share.took(99, 99), None, "too few to say anything");
        assert_eq!(share.took(1, 1), Some((100, 100)));
        let mut share = DeadShare::new(0.5, 1);
        assert_eq!(share.took(100, 50), None, "as much as is allowed");
        assert_eq!(share.died_late(1), Some((51, 100)));
        let mut share = DeadShare::new(0.5, 1);
        share.took(90, 90);
        (0..20).for_each(|_| assert_eq!(share.took(100, 0), None));
        assert_eq!(share.took(100, 90), None, "the old ones are forgotten, the new ones are few");
        let mut never = DeadShare::new(1.0, 1);
        assert_eq!(never.took(1_000, 1_000), None);
    }

    #[test]
    fn ten_good_records_end_a_hold_and_a_bad_one_begins_it_again() {
        let now = Instant::now();
        let mut share = DeadShare::new(0.5, 1);
        assert_eq!(share.took(200, 200), Some((200, 200)));
        let until = share.hold(now);
        assert!(until > now && until <= now + Duration::from_secs(30));
        assert_eq!(share.lets(now, || false), Lets::Nothing);
        assert_eq!(share.died_late(50), None, "letters that were on their way");
        assert_eq!(share.lets(until, || false), Lets::One);
        assert!(share.is_trying());
        assert!(share.took(1, 1).is_some(), "one bad record is enough");
        let until = share.hold(until);
        assert_eq!(share.lets(until, || false), Lets::One);
        assert_eq!(share.took(10, 0), None);
        assert_eq!(share.lets(until, || true), Lets::Nothing, "they are not finished");
        assert_eq!(share.lets(until, || false), Lets::All);
        assert!(!share.is_trying());
        assert_eq!(share.took(50, 50), None, "counted anew");
    }
}
