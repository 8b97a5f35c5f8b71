//! Dead letters of a partition that are on their way, and the partition's hold while the topic does not take them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::flow::{BudgetKind, HoldCause};

use super::ledger::SpanId;
use super::partition::{Hold, Wait};
use super::shard::Shard;

/// A partition holds when the dead-letter topic has not answered its letters for this long, so that a hold is shown within 5 s.
const LATE_AFTER: Duration = Duration::from_secs(3);
/// The share of the memory budget that letters on their way may take: a topic that is down must leave room for rows.
const MEMORY_SHARE: u64 = 8;

/// The letters of one partition's assignment that are on their way, by the span of their records: one letter that is stuck stays the
/// oldest, however many of other spans are answered.
#[derive(Debug, Default)]
pub struct LettersUnderWay {
    /// In the order of `moved_at`.
    spans: VecDeque<SpanLetters>,
}

#[derive(Debug)]
struct SpanLetters {
    span: SpanId,
    count: u32,
    /// When the first of them left, or the last answer to one of them came: rejected rows of one append go one after the other.
    moved_at: Instant,
}

impl LettersUnderWay {
    /// Notes that so many more letters of this span have left.
    pub fn sent(&mut self, span: SpanId, letters: u32, now: Instant) {
        match self.spans.iter_mut().rev().find(|known| known.span == span) {
            Some(known) => known.count += letters,
            None => self.spans.push_back(SpanLetters { span, count: letters, moved_at: now }),
        }
    }

    /// Notes that so many letters of this span were answered.
    pub fn answered(&mut self, span: SpanId, letters: u32, now: Instant) {
        let known = self.spans.iter().position(|known| known.span == span).and_then(|at| self.spans.remove(at));
        if let Some(known) = known.filter(|known| known.count > letters) {
            self.spans.push_back(SpanLetters { count: known.count - letters, moved_at: now, ..known });
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Whether a letter is on its way whose record lies in this span or an earlier one.
    pub fn has_up_to(&self, span: SpanId) -> bool {
        self.spans.iter().any(|letters| letters.span <= span)
    }

    /// For how long letters of one span had no answer, where that is too long.
    pub fn late(&self, now: Instant) -> Option<Duration> {
        let oldest = self.spans.front()?;
        Some(now.saturating_duration_since(oldest.moved_at)).filter(|late| *late >= LATE_AFTER)
    }
}

impl Shard {
    /// Holds the partitions whose letters are late. They go on when the last of their letters is answered: nothing is given up or read
    /// again.
    pub(super) fn hold_for_late_letters(&mut self, now: Instant) {
        for slot in 0..self.slots.len() {
            let late = self.slots.get(slot).filter(|partition| partition.takes()).and_then(|partition| partition.letters.late(now));
            if let Some(late) = late {
                let message = self.parts.dead_letters.late_message(late);
                self.hold(slot, Hold { cause: HoldCause::DeadLetterTopic, wait: Wait::Letters, met_offset: None }, message);
            }
        }
    }

    /// Whether letters take more memory than is theirs: partitions that have some on their way take no more until then.
    pub(super) fn letters_fill_memory(&self) -> bool {
        self.budget().used_by(BudgetKind::DeadLetters) > self.budget().limit_bytes() / MEMORY_SHARE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_without_an_answer_is_late_and_only_then() {
        let start = Instant::now();
        let mut letters = LettersUnderWay::default();
        let (first, second) = (SpanId(1), SpanId(2));
        assert_eq!(letters.late(start + LATE_AFTER), None, "none is on its way");
        letters.sent(first, 2, start + LATE_AFTER);
        assert_eq!(letters.late(start + LATE_AFTER * 2 - Duration::from_millis(1)), None);
        assert_eq!(letters.late(start + LATE_AFTER * 2), Some(LATE_AFTER));
        letters.answered(first, 1, start + LATE_AFTER * 2);
        assert_eq!(letters.late(start + LATE_AFTER * 2), None, "one after the other");
        letters.sent(first, 1, start + LATE_AFTER * 3 - Duration::from_millis(1));
        letters.sent(second, 1, start + LATE_AFTER * 3 - Duration::from_millis(1));
        assert_eq!(letters.late(start + LATE_AFTER * 3), Some(LATE_AFTER), "a further letter is no answer");
        letters.answered(first, 2, start + LATE_AFTER * 3);
        assert_eq!(letters.late(start + LATE_AFTER * 3), None);
        assert!(!letters.is_empty());
        letters.answered(second, 1, start + LATE_AFTER * 3);
        assert!(letters.is_empty());
    }

    #[test]
    fn one_letter_that_is_stuck_is_late_while_others_are_answered() {
        let start = Instant::now();
        let mut letters = LettersUnderWay::default();
        letters.sent(SpanId(0), 1, start);
        for n in 1..=30 {
            let now = start + LATE_AFTER / 30 * n;
            letters.sent(SpanId(n.into()), 1, now);
            letters.answered(SpanId(n.into()), 1, now);
        }
        assert_eq!(letters.late(start + LATE_AFTER), Some(LATE_AFTER));
        letters.answered(SpanId(0), 1, start + LATE_AFTER);
        assert!(letters.is_empty());
    }
}
