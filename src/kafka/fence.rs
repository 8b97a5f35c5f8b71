//! When the poll thread last came around, and whether the worker stood still long enough to have been fenced.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::flow::Clock;

use crate::watchdog::{Beat, LongStep};

/// The poll thread's turns. A gap over the session timeout is remembered after the thread runs again: it may run before anybody looks.
pub struct PollTurns {
    clock: Arc<dyn Clock>,
    session_timeout: Duration,
    last_ms: AtomicU64,
    /// When the last gap over the session timeout that is not yet disproved ended, ms; 0 without one.
    gap_ms: AtomicU64,
    /// No turn will follow, and none is missed.
    ended: AtomicBool,
    /// The watch over the poll thread, once it runs.
    beat: OnceLock<Beat>,
}

impl PollTurns {
    /// Turns of a thread that begins now.
    pub fn new(session_timeout: Duration, clock: Arc<dyn Clock>) -> Self {
        Self {
            session_timeout,
            last_ms: AtomicU64::new(u64::try_from(clock.now_monotonic().as_millis()).unwrap_or(u64::MAX)),
            gap_ms: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            clock,
            beat: OnceLock::new(),
        }
    }

    /// The poll thread begins: its turns are this beat's. The first one counts.
    pub fn watched_by(&self, beat: Beat) {
        self.beat.get_or_init(|| beat);
    }

    /// What follows takes as long as the user allows a revocation.
    pub fn long_step(&self, what: &'static str) -> Option<LongStep<'_>> {
        self.beat.get().map(|beat| beat.long_step(what))
    }

    /// What follows may wait for librdkafka's threads without limit: it is watched no longer.
    pub fn unwatched(&self) {
        if let Some(beat) = self.beat.get() {
            beat.idle();
        }
    }

    /// The poll thread comes around.
    pub fn turn(&self) {
        if let Some(beat) = self.beat.get() {
            beat.beat();
        }
        self.turn_at(self.now_ms());
    }

    /// The broker took a commit: this worker is a member.
    pub fn confirmed(&self) {
        self.gap_ms.store(0, Ordering::Release);
    }

    /// The poll thread has ended, and with it every assignment: there is nothing left that standing still could endanger.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.unwatched();
    }

    /// The time since the last turn, or the gap that a commit has not yet disproved.
    ///
    /// A gap is also over after a further session timeout of turns: a fenced member hears of it with its next heartbeat, and loses its
    /// partitions then. Zero after the end.
    pub fn since(&self) -> Duration {
        self.since_at(self.now_ms())
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.clock.now_monotonic().as_millis()).unwrap_or(u64::MAX)
    }

    fn limit_ms(&self) -> u64 {
        u64::try_from(self.session_timeout.as_millis()).unwrap_or(u64::MAX)
    }

    fn turn_at(&self, now: u64) {
        let gap = now.saturating_sub(self.last_ms.load(Ordering::Acquire));
        if gap > self.limit_ms() {
            // Before the turn is recorded, so that no reader sees neither.
            self.gap_ms.store(now, Ordering::Release);
        }
        self.last_ms.store(now, Ordering::Release);
    }

    fn since_at(&self, now: u64) -> Duration {
        if self.ended.load(Ordering::Acquire) {
            return Duration::ZERO;
        }
        let since_turn = Duration::from_millis(now.saturating_sub(self.last_ms.load(Ordering::Acquire)));
        let gap_end = self.gap_ms.load(Ordering::Acquire);
        if gap_end == 0 || now.saturating_sub(gap_end) > self.limit_ms() {
            return since_turn;
        }
        since_turn.max(self.session_timeout + Duration::from_millis(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::ManualClock;

    #[test]
    fn a_gap_is_seen_after_the_thread_runs_again_until_a_commit_or_a_session_disproves_it() {
        let session = Duration::from_secs(10);
        let turns = PollTurns::new(session, Arc::new(ManualClock::default()));
        turns.turn_at(1_000);
        assert_eq!(turns.since_at(1_050), Duration::from_millis(50));
        turns.turn_at(15_000);
        assert!(turns.since_at(15_001) > session, "the gap counts though the thread is back");
        turns.turn_at(15_050);
        assert!(turns.since_at(15_060) > session);
        turns.confirmed();
        assert_eq!(turns.since_at(15_060), Duration::from_millis(10));
        turns.turn_at(30_000);
        assert!(turns.since_at(30_010) > session);
        turns.turn_at(40_001);
        turns.turn_at(40_001);
        assert!(turns.since_at(50_100) < Duration::from_secs(11));
    }

    #[test]
    fn a_thread_that_stands_still_is_seen_at_once() {
        let turns = PollTurns::new(Duration::from_secs(10), Arc::new(ManualClock::default()));
        turns.turn_at(1_000);
        assert_eq!(turns.since_at(12_000), Duration::from_secs(11));
    }

    #[test]
    fn a_thread_that_has_ended_stands_still_without_alarm() {
        let turns = PollTurns::new(Duration::from_secs(10), Arc::new(ManualClock::default()));
        turns.turn_at(1_000);
        turns.turn_at(20_000);
        assert!(turns.since_at(20_001) > Duration::from_secs(10));
        turns.end();
        assert_eq!([turns.since_at(20_001), turns.since_at(900_000)], [Duration::ZERO; 2]);
    }
}
