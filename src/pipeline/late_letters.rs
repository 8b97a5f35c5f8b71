//! Dead letters of a partition that are on their way, and the hold while their topic does not take them.

use std::time::{Duration, Instant};

use crate::flow::{BudgetKind, HoldCause};

use super::partition::{Hold, Wait};
use super::shard::Shard;

/// Without an answer of the dead-letter topic for this long its partitions hold: a hold is shown within 5 s.
const LATE_AFTER: Duration = Duration::from_secs(3);
/// The share of the memory budget that letters on their way may take: a topic that is down must leave room for rows.
const MEMORY_SHARE: u64 = 8;

/// The letters of one partition's assignment that are on their way.
#[derive(Debug)]
pub struct LettersUnderWay {
    count: u32,
    /// When the first of them left, or the last answer came.
    moved_at: Instant,
}

impl Default for LettersUnderWay {
    fn default() -> Self {
        Self { count: 0, moved_at: Instant::now() }
    }
}

impl LettersUnderWay {
    /// So many more left.
    pub fn sent(&mut self, letters: u32, now: Instant) {
        if self.count == 0 {
            self.moved_at = now;
        }
        self.count += letters;
    }

    /// So many were answered.
    pub fn answered(&mut self, letters: u32, now: Instant) {
        self.count = self.count.saturating_sub(letters);
        self.moved_at = now;
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// For how long there was no answer, where that is too long.
    pub fn late(&self, now: Instant) -> Option<Duration> {
        Some(now.saturating_duration_since(self.moved_at)).filter(|late| self.count > 0 && *late >= LATE_AFTER)
    }
}

impl Shard {
    /// Holds the partitions whose letters are late. They go on when the last of their letters is answered: nothing is given up or read again.
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
    fn letters_are_late_without_an_answer_and_only_then() {
        let start = Instant::now();
        let mut letters = LettersUnderWay::default();
        assert_eq!(letters.late(start + LATE_AFTER), None, "none is on its way");
        letters.sent(2, start + LATE_AFTER);
        assert_eq!(letters.late(start + LATE_AFTER * 2 - Duration::from_millis(1)), None);
        assert_eq!(letters.late(start + LATE_AFTER * 2), Some(LATE_AFTER));
        letters.answered(1, start + LATE_AFTER * 2);
        assert_eq!(letters.late(start + LATE_AFTER * 2), None, "the topic answers");
        letters.sent(1, start + LATE_AFTER * 3 - Duration::from_millis(1));
        assert_eq!(letters.late(start + LATE_AFTER * 3), Some(LATE_AFTER), "a further letter is no answer");
        letters.answered(2, start + LATE_AFTER * 3);
        assert!(letters.is_empty());
    }
}
