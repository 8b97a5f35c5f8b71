//! A lease as leaders are elected by one: what stands in it, where it stands, how long everything takes.

use std::time::Duration;

use async_trait::async_trait;

use super::store::StoreError;

/// The times of an election. The defaults are client-go's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How long others wait, from the last change that they saw, before they take the lease.
    pub lease_duration: Duration,
    /// How long after the last renewal was begun the leader leads. Shorter than `lease_duration`; the difference is the margin for writes
    /// that are on their way, and for clocks that run at different speeds.
    pub renew_deadline: Duration,
    /// How often the leader renews and others look.
    pub retry_period: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self { lease_duration: Duration::from_secs(15), renew_deadline: Duration::from_secs(10), retry_period: Duration::from_secs(2) }
    }
}

impl Timing {
    /// The time between the end of a term that was not renewed and the earliest begin of another.
    pub fn margin(&self) -> Duration {
        self.lease_duration.saturating_sub(self.renew_deadline)
    }

    /// How long a request may take: half of the time in which a renewal must succeed, as in client-go.
    pub fn request_timeout(&self) -> Duration {
        self.renew_deadline / 2
    }
}

/// What stands in a lease. A lease that nobody held yet is the default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LeaseRecord {
    /// The holder's identity; empty when nobody holds it.
    pub holder: String,
    /// How long the holder asks others to wait; `None` when it does not say.
    pub duration: Option<Duration>,
    /// When it was taken, by the holder's wall clock, microseconds since the epoch. For people.
    pub acquired_us: Option<i64>,
    /// When it was renewed, by the holder's wall clock, microseconds since the epoch. For people, and as a sign of life: that it changes
    /// counts, never its value.
    pub renewed_us: Option<i64>,
    /// How often it was taken.
    pub transitions: u64,
}

/// Where the lease stands.
#[async_trait]
pub trait LeaseStore: Send + Sync {
    /// What stands in it, and the version that a write must name.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn read(&self) -> Result<(LeaseRecord, String), StoreError>;

    /// Writes it if it is still at `version`; returns the new version. One request, never repeated.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn replace(&self, version: &str, record: &LeaseRecord) -> Result<String, StoreError>;
}

/// A lease as one candidate saw it, and since when it did not change. The only times that count are of the candidate's own clock: others'
/// clocks may be wrong by hours.
#[derive(Debug, Clone)]
pub(super) struct Observed {
    pub(super) record: LeaseRecord,
    pub(super) version: String,
    unchanged_since: Duration,
}

impl Observed {
    /// What was read, held against what was seen before. `now` is taken after the answer arrived.
    pub(super) fn update(before: Option<Self>, record: LeaseRecord, version: String, now: Duration) -> Self {
        match before {
            Some(before) if before.record == record => Self { version, ..before },
            _ => Self { record, version, unchanged_since: now },
        }
    }

    /// Whether it may be taken: nobody holds it, or its holder gave no sign of life for as long as it asked others to wait.
    pub(super) fn is_free(&self, timing: &Timing, now: Duration) -> bool {
        let wait = self.record.duration.filter(|asked| !asked.is_zero()).unwrap_or(timing.lease_duration);
        self.record.holder.is_empty() || now.saturating_sub(self.unchanged_since) >= wait.max(timing.lease_duration)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    fn held(renewed_us: i64) -> LeaseRecord {
        LeaseRecord { holder: "w-1".into(), renewed_us: Some(renewed_us), ..LeaseRecord::default() }
    }

    #[test]
    fn the_holders_own_times_count_for_nothing() {
        let (timing, second) = (Timing::default(), Duration::from_secs(1));
        // Renewed in 1970 by its own words: seen for the first time now, it is fresh.
        let seen = Observed::update(None, held(0), "1".into(), second * 100);
        assert!(!seen.is_free(&timing, second * 114));
        assert!(seen.is_free(&timing, second * 115));
        // Another value, even an earlier one, is a sign of life.
        let seen = Observed::update(Some(seen), held(-5), "2".into(), second * 114);
        assert!(!seen.is_free(&timing, second * 128));
    }

    #[test]
    fn a_version_that_moves_without_the_record_is_no_sign_of_life() {
        let second = Duration::from_secs(1);
        let seen = Observed::update(None, held(0), "1".into(), second);
        let seen = Observed::update(Some(seen), held(0), "2".into(), second * 16); // somebody set a label
        assert!(seen.is_free(&Timing::default(), second * 16));
        assert_eq!(seen.version, "2");
    }

    #[test]
    fn a_holder_that_asks_for_longer_gets_it_and_nobody_waits_for_an_empty_one() {
        let (timing, second) = (Timing::default(), Duration::from_secs(1));
        let longer = LeaseRecord { duration: Some(second * 60), ..held(0) };
        assert!(!Observed::update(None, longer, "1".into(), second).is_free(&timing, second * 60));
        assert!(Observed::update(None, LeaseRecord::default(), "1".into(), second).is_free(&timing, second));
    }
}
