//! What is published of decisions: which, under which term and number, and what waits while the state topic cannot be written. No I/O.
//!
//! Publishing is tried before the fleet is resized, but no resize waits for it: late records are worse than a history that is written
//! later. The evidence that a resize rests on is what was heard and measured; whether the decision can be written down is none.

use std::collections::VecDeque;
use std::time::Duration;

use crate::fleet::{Decided, PublishedDecision};
use crate::scaling::Action;

/// A decision that is made again and again, because the resize is refused, is published again after this time.
const AGAIN: Duration = Duration::from_secs(60);
/// How long nothing is tried after the state topic could not be written: a try takes up to 5 s of a turn.
const REST: Duration = Duration::from_secs(15);
/// Decisions that wait to be published; the oldest is given up first, as the topic keeps no more either.
const WAITING_MAX: usize = 32;

/// A decision that is not published yet.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Waiting {
    pub decided: Decided,
    /// When it was made, by the leader's wall clock, milliseconds since the epoch.
    pub at_ms: i64,
}

/// One term's publishing.
#[derive(Debug, Default)]
pub(super) struct Announcer {
    term: Option<u64>,
    last_number: Option<u64>,
    begun: bool,
    /// What was noted last and not done since: the number before, the direction, when.
    repeats: Option<(u32, Action, Duration)>,
    waiting: VecDeque<Waiting>,
    failed: Option<(Duration, String)>,
}

impl Announcer {
    /// The number that this term's decisions are published under: the lease's, but higher than all that were heard. A lease or a lock file
    /// that was made anew counts from 1 again, while decisions of long ago still stand in the topic.
    pub fn term(&mut self, of_lease: u64, heard: Option<u64>) -> u64 {
        *self.term.get_or_insert_with(|| heard.map_or(of_lease, |heard| of_lease.max(heard.saturating_add(1))))
    }

    /// The number that was fixed, if one was.
    pub fn known_term(&self) -> Option<u64> {
        self.term
    }

    /// Takes a decision to be published, if it is one that somebody wants to read: the term's first, and whatever changes the number of
    /// workers; one that could not be done and is made again only after a minute.
    pub fn note(&mut self, now: Duration, action: Action, decided: &Decided, at_ms: i64) {
        let changes = decided.replicas != decided.replicas_before;
        let repeats = |(before, direction, at): (u32, Action, Duration)| {
            before == decided.replicas_before && direction == action && now.saturating_sub(at) < AGAIN
        };
        if self.begun && (!changes || self.repeats.is_some_and(repeats)) {
            return;
        }
        self.begun = true;
        self.repeats = changes.then_some((decided.replicas_before, action, now));
        if self.waiting.len() >= WAITING_MAX {
            self.waiting.pop_front();
        }
        self.waiting.push_back(Waiting { decided: decided.clone(), at_ms });
    }

    /// It was done: the next one that looks alike is another.
    pub fn done(&mut self) {
        self.repeats = None;
    }

    /// What to publish next; `Err` while nothing is tried, and why.
    pub fn next(&self, now: Duration) -> Result<Option<&Waiting>, String> {
        match (&self.failed, self.waiting.front()) {
            (_, None) => Ok(None),
            (Some((at, why)), _) if now.saturating_sub(*at) < REST => Err(why.clone()),
            (_, next) => Ok(next),
        }
    }

    /// The number for it: one more than the last, of whichever leader.
    pub fn number(&self, last: Option<&PublishedDecision>) -> u64 {
        last.map(|last| last.number).max(self.last_number).map_or(0, |last| last + 1)
    }

    /// It was published under this number.
    pub fn published(&mut self, number: u64) {
        (self.last_number, self.failed) = (Some(number), None);
        self.waiting.pop_front();
    }

    /// It could not be published. Whether that is news.
    pub fn failed(&mut self, now: Duration, why: String) -> bool {
        let news = self.failed.as_ref().is_none_or(|(_, before)| *before != why);
        self.failed = Some((now, why));
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(before: u32, replicas: u32) -> Decided {
        Decided {
            replicas_before: before,
            replicas,
            ready_workers: None,
            reason: format!("{before} to {replicas}"),
            outcome: String::new(),
            decision: serde_json::Value::Null,
        }
    }

    const S: Duration = Duration::from_secs(1);

    fn note(announcer: &mut Announcer, at: u32, before: u32, replicas: u32) -> usize {
        let action = if replicas > before { Action::Up } else { Action::Hold };
        announcer.note(S * at, action, &decided(before, replicas), 0);
        announcer.waiting.len()
    }

    #[test]
    fn a_refused_resize_is_published_once_a_minute_and_a_change_at_once() {
        let mut announcer = Announcer::default();
        assert_eq!(note(&mut announcer, 0, 1, 1), 1, "the first");
        assert_eq!(note(&mut announcer, 5, 1, 1), 1);
        assert_eq!(note(&mut announcer, 10, 1, 4), 2);
        for at in [15, 20, 60] {
            assert_eq!(note(&mut announcer, at, 1, 5), 2, "refused, and wanted again");
        }
        assert_eq!(note(&mut announcer, 70, 1, 5), 3);
        announcer.done();
        assert_eq!(note(&mut announcer, 75, 1, 5), 4, "done, and undone by somebody");
        assert_eq!(note(&mut announcer, 76, 2, 5), 5, "from another number");
    }

    #[test]
    fn what_cannot_be_published_waits_and_is_not_tried_all_the_time() {
        let mut announcer = Announcer::default();
        for n in 0..40 {
            note(&mut announcer, n, n, n + 1);
        }
        assert_eq!(announcer.waiting.len(), WAITING_MAX);
        let next = |announcer: &Announcer, at| announcer.next(S * at).map(|next| next.map(|next| next.decided.replicas));
        assert_eq!(next(&announcer, 40), Ok(Some(9)), "the oldest are given up");
        assert!(announcer.failed(S * 39, "no leader".to_owned()) && !announcer.failed(S * 40, "no leader".to_owned()));
        assert_eq!(next(&announcer, 54), Err("no leader".to_owned()));
        assert_eq!(next(&announcer, 55), Ok(Some(9)));
        announcer.published(7);
        assert_eq!((next(&announcer, 55), announcer.number(None)), (Ok(Some(10)), 8), "what was sent a moment ago is not heard yet");
    }

    #[test]
    fn a_lease_that_was_made_anew_does_not_begin_the_history_anew() {
        assert_eq!(Announcer::default().term(7, None), 7);
        assert_eq!(Announcer::default().term(7, Some(6)), 7);
        let mut announcer = Announcer::default();
        assert_eq!((announcer.term(1, Some(9)), announcer.term(1, Some(10))), (10, 10), "its own decisions move it no further");
    }
}
