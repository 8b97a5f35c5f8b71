//! Workers that were asked for together join together: the leader's word on how long those that have started wait, and what follows from it
//! for one of them.
//!
//! Where a rebalance stops all members, or moves nearly everything, each pod that comes alone stops the whole group anew. A note that is
//! lost, wrong clocks and a leader that died cost a rebalance more or a wait of [`JOIN_WAIT_MAX`], never a worker.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::view::FleetView;

/// No worker waits longer after it was ready to join, whatever notes and clocks say. Pods that are asked for together have come within 120
/// s (88 % within 50 s, as `millrace simulate` draws them), and one that waits this long after the usual start is not past the
/// `startup_deadline` (180 s) yet, when it would be counted as absent.
pub const JOIN_WAIT_MAX: Duration = Duration::from_secs(120);

/// The leader's word: workers that have started wait until then. The last one of the highest term counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinHold {
    /// The shapes' version.
    pub v: u32,
    /// The fleet's name.
    #[serde(default)]
    pub fleet: String,
    /// The leader's term, as in [`super::PublishedDecision`].
    pub term: u64,
    /// The leader's name.
    pub leader: String,
    /// When it was said, by the leader's clock, milliseconds since the epoch.
    pub at_ms: i64,
    /// Until when workers wait, by the same clock; not later than `at_ms`: whoever waits joins now.
    pub until_ms: i64,
    /// Workers of a lower ordinal were there before the first of those that are waited for was asked for: they do not wait when they start
    /// again.
    #[serde(default)]
    pub from_ordinal: u32,
}

impl JoinHold {
    /// How long it was to last when it was said.
    fn length(&self) -> Duration {
        millis(self.until_ms.saturating_sub(self.at_ms))
    }
}

/// The leader's word, and when it came here (local monotonic time).
#[derive(Debug, Clone)]
pub(super) struct HeardHold {
    pub hold: Arc<JoinHold>,
    pub at: Duration,
}

impl HeardHold {
    /// What is known once `hold` came. One of an older term is of a leader that is none any more; one that comes again came when it came
    /// first.
    pub fn after(before: Option<Self>, hold: JoinHold, now: Duration) -> Self {
        match before {
            Some(before) if before.hold.term > hold.term || *before.hold == hold => before,
            _ => Self { hold: Arc::new(hold), at: now },
        }
    }
}

/// A worker that is ready to join.
#[derive(Debug, Clone, Copy)]
pub struct Joiner {
    /// Since when, local monotonic time.
    ready_at: Duration,
    ordinal: Option<u32>,
}

/// What a worker that is ready does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It waits.
    Wait {
        /// For this long, unless the leader says otherwise.
        left: Duration,
        /// And for this long at most, whatever the leader says.
        at_most: Duration,
    },
    /// It joins.
    Join(JoinReason),
}

/// Why a worker joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinReason {
    /// No leader has said anything.
    NotHeld,
    /// It was there before the others were asked for.
    WasThere,
    /// The leader says: now.
    Released,
    /// The end that the leader named has passed.
    Over,
    /// It has waited for [`JOIN_WAIT_MAX`].
    WaitedLongest,
}

impl JoinReason {
    /// In words, for the log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotHeld => "no leader asks to wait",
            Self::WasThere => "it was there before the others were asked for",
            Self::Released => "the leader says that all join now",
            Self::Over => "the end that the leader named has passed",
            Self::WaitedLongest => "no worker waits longer than 120 s",
        }
    }
}

impl Joiner {
    /// What it does now, when this was `heard` last. `wall_ms`: its own clock, milliseconds since the epoch.
    ///
    /// The end that counts is the earlier of two: the one that the leader named, by this machine's clock, and the hold's length after it
    /// came here, which no clock's error moves.
    fn verdict(&self, now: Duration, wall_ms: i64, heard: Option<&HeardHold>) -> Verdict {
        let Some(HeardHold { hold, at }) = heard else { return Verdict::Join(JoinReason::NotHeld) };
        let left = millis(hold.until_ms.saturating_sub(wall_ms)).min(at.saturating_add(hold.length()).saturating_sub(now));
        let at_most = (self.ready_at + JOIN_WAIT_MAX).saturating_sub(now);
        match () {
            () if self.ordinal.is_some_and(|ordinal| ordinal < hold.from_ordinal) => Verdict::Join(JoinReason::WasThere),
            () if hold.length().is_zero() => Verdict::Join(JoinReason::Released),
            () if left.is_zero() => Verdict::Join(JoinReason::Over),
            () if at_most.is_zero() => Verdict::Join(JoinReason::WaitedLongest),
            () => Verdict::Wait { left: left.min(at_most), at_most },
        }
    }
}

impl FleetView {
    /// This worker, which is ready to join from now on.
    pub fn joiner(&self) -> Joiner {
        Joiner { ready_at: self.clock.now_monotonic(), ordinal: self.identity().ordinal }
    }

    /// What a worker that is ready does now, by all that was heard.
    pub fn may_join(&self, joiner: &Joiner) -> Verdict {
        let (now, wall_ms) = (self.clock.now_monotonic(), self.clock.now_wall_us() / 1000);
        joiner.verdict(now, wall_ms, self.inner.lock().known.join_hold.as_ref())
    }

    /// The leader's last word on joining, over or not.
    pub fn join_hold(&self) -> Option<Arc<JoinHold>> {
        self.inner.lock().known.join_hold.as_ref().map(|heard| heard.hold.clone())
    }

    /// Counts the leader's words on joining: a change is worth a look at [`FleetView::may_join`].
    pub fn join_holds(&self) -> watch::Receiver<u64> {
        self.join_holds.subscribe()
    }
}

fn millis(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use super::super::identity::Identity;
    use super::*;
    use crate::config::ScalingConfig;
    use crate::flow::ManualClock;

    const S: Duration = Duration::from_secs(1);
    /// The leader's clock when it speaks.
    const SAID_MS: i64 = 1_000_000;

    fn hold(term: u64, seconds: i64) -> JoinHold {
        JoinHold {
            v: 1,
            fleet: String::new(),
            term,
            leader: "w-0".to_owned(),
            at_ms: SAID_MS,
            until_ms: SAID_MS + seconds * 1000,
            from_ordinal: 2,
        }
    }

    fn joiner(ready_s: u32) -> Joiner {
        Joiner { ready_at: S * ready_s, ordinal: Some(2) }
    }

    /// How long a worker waits that is ready at `ready_s` and hears these notes at these seconds, looking four times a second, and why no
    /// longer. The leader's clock says `SAID_MS` at second 100; the worker's is ahead of it by `ahead_s`.
    fn joins(ready_s: u32, ahead_s: i64, notes: &[(u32, JoinHold)]) -> (Duration, JoinReason) {
        let mut heard = None;
        for quarter in 0..(ready_s + 600) * 4 {
            let now = S * quarter / 4;
            for (_, hold) in notes.iter().filter(|(at, _)| at * 4 == quarter) {
                heard = Some(HeardHold::after(heard.take(), hold.clone(), now));
            }
            let wall_ms = SAID_MS - 100_000 + i64::from(quarter) * 250 + ahead_s * 1000;
            match joiner(ready_s).verdict(now, wall_ms, heard.as_ref()) {
                Verdict::Join(why) if quarter >= ready_s * 4 => return (now - S * ready_s, why),
                _ => {}
            }
        }
        panic!("it never joins");
    }

    #[test]
    fn it_waits_until_the_leaders_end_and_follows_what_the_leader_says_next() {
        assert_eq!(joins(100, 0, &[]), (Duration::ZERO, JoinReason::NotHeld));
        assert_eq!(joins(100, 0, &[(100, hold(1, 40))]), (S * 40, JoinReason::Over));
        assert_eq!(joins(130, 0, &[(100, hold(1, 40))]), (S * 10, JoinReason::Over), "it came later than the note");
        assert_eq!(joins(141, 0, &[(100, hold(1, 40))]), (Duration::ZERO, JoinReason::Over), "a hold that has ended");
        let now = |at: i64| JoinHold { at_ms: SAID_MS + at * 1000, until_ms: SAID_MS + at * 1000, ..hold(1, 0) };
        assert_eq!(joins(100, 0, &[(100, hold(1, 40)), (115, now(15))]), (S * 15, JoinReason::Released));
        assert_eq!(joins(100, 0, &[(100, hold(1, 40)), (120, hold(1, 70))]), (S * 70, JoinReason::Over), "lengthened");
        assert_eq!(joins(100, 0, &[(100, hold(1, 70)), (120, hold(1, 30))]), (S * 30, JoinReason::Over), "shortened");
        assert_eq!(joins(100, 0, &[(100, hold(1, 40)), (120, hold(1, 10))]), (S * 20, JoinReason::Over), "to what has passed");
    }

    #[test]
    fn nothing_keeps_it_longer_than_the_bound() {
        assert_eq!(joins(100, 0, &[(100, hold(1, 3_600))]), (JOIN_WAIT_MAX, JoinReason::WaitedLongest));
        // A leader that says so again and again.
        let again: Vec<(u32, JoinHold)> = (0..500)
            .map(|n| {
                (100 + n, JoinHold { at_ms: SAID_MS + i64::from(n) * 1000, until_ms: SAID_MS + i64::from(n) * 1000 + 40_000, ..hold(1, 0) })
            })
            .collect();
        assert_eq!(joins(100, 0, &again), (JOIN_WAIT_MAX, JoinReason::WaitedLongest));
        // No clock says what could be relied on, and numbers of any size.
        for ahead_s in [-1_000_000_000_000, -3_600, 0] {
            for until_ms in [i64::MAX, SAID_MS + 1_000_000] {
                let (waited, _) = joins(100, ahead_s, &[(100, JoinHold { until_ms, ..hold(1, 0) })]);
                assert_eq!(waited, JOIN_WAIT_MAX);
            }
        }
        let odd = JoinHold { at_ms: i64::MIN, until_ms: i64::MAX, ..hold(u64::MAX, 0) };
        assert_eq!(joins(100, 0, &[(100, odd)]).0, JOIN_WAIT_MAX);
        let odd = JoinHold { at_ms: i64::MAX, until_ms: i64::MIN, ..hold(1, 0) };
        assert_eq!(joins(100, 0, &[(100, odd)]), (Duration::ZERO, JoinReason::Released));
    }

    #[test]
    fn a_wrong_clock_waits_for_the_holds_length_at_most() {
        assert_eq!(joins(100, -3_600, &[(100, hold(1, 40))]), (S * 40, JoinReason::Over), "an hour behind");
        assert_eq!(joins(100, 3_600, &[(100, hold(1, 40))]), (Duration::ZERO, JoinReason::Over), "an hour ahead");
        assert_eq!(joins(100, 10, &[(100, hold(1, 40))]), (S * 30, JoinReason::Over));
        // A note of long ago that no leader took back, read by a clock that is behind.
        assert_eq!(joins(3_700, -3_600, &[(3_700, hold(1, 40))]), (S * 40, JoinReason::Over));
        assert_eq!(joins(3_700, 0, &[(3_700, hold(1, 40))]), (Duration::ZERO, JoinReason::Over));
    }

    #[test]
    fn of_two_leaders_that_of_the_higher_term_counts() {
        assert_eq!(joins(100, 0, &[(100, hold(2, 20)), (105, hold(1, 80))]), (S * 20, JoinReason::Over));
        assert_eq!(joins(100, 0, &[(100, hold(1, 80)), (105, hold(2, 0))]), (S * 5, JoinReason::Released), "the next leader");
        assert_eq!(joins(100, 0, &[(100, hold(2, 50)), (105, hold(1, 0))]), (S * 50, JoinReason::Over), "a leader that is none any more");
    }

    #[test]
    fn a_note_that_comes_again_is_no_new_one() {
        // The topic is read from its beginning once more, by a clock that is behind.
        assert_eq!(joins(100, -3_600, &[(100, hold(1, 40)), (130, hold(1, 40))]), (S * 40, JoinReason::Over));
    }

    #[test]
    fn the_view_goes_by_what_stands_in_the_topic_for_its_own_fleet() {
        let clock = Arc::new(ManualClock::at(SAID_MS * 1000));
        let identity = Identity { name: "w-2".to_owned(), ordinal: Some(2) };
        let view = FleetView::new(identity, &ScalingConfig::default(), clock.clone());
        let (joiner, mut said) = (view.joiner(), view.join_holds());
        let hear = |hold: &JoinHold, replayed| view.hear_state(b"leader/joins", Some(&serde_json::to_vec(hold).unwrap()), replayed);
        hear(&JoinHold { fleet: "another".to_owned(), ..hold(9, 40) }, false);
        assert_eq!((view.may_join(&joiner), said.has_changed().unwrap()), (Verdict::Join(JoinReason::NotHeld), false));
        hear(&hold(3, 40), true);
        assert!(said.has_changed().unwrap() && view.inner.lock().known.last_term() == Some(3));
        said.mark_unchanged();
        assert_eq!(view.status().joins_held_until_ms, Some(SAID_MS + 40_000));
        clock.advance(S * 15);
        assert_eq!(view.may_join(&joiner), Verdict::Wait { left: S * 25, at_most: S * 105 });
        clock.advance(S * 25);
        assert_eq!((view.may_join(&joiner), view.status().joins_held_until_ms), (Verdict::Join(JoinReason::Over), None));
        assert!(!said.has_changed().unwrap() && view.join_hold().is_some_and(|hold| hold.term == 3));
    }

    #[test]
    fn a_worker_that_was_there_before_does_not_wait() {
        let heard = HeardHold::after(None, hold(1, 40), S * 100);
        let of = |ordinal| Joiner { ordinal, ..joiner(100) }.verdict(S * 100, SAID_MS, Some(&heard));
        assert_eq!(of(Some(1)), Verdict::Join(JoinReason::WasThere));
        let waits = Verdict::Wait { left: S * 40, at_most: JOIN_WAIT_MAX };
        assert_eq!((of(Some(2)), of(None)), (waits, waits));
    }
}
