//! Which records of a partition are finished: the one place that says what may be committed.
//!
//! Pure. Order of consumption, not arithmetic on offsets: compaction and transaction markers leave gaps.

use std::collections::VecDeque;
use std::ops::Range;

/// The most records of one span. Smaller spans let the head move in finer steps; larger ones cost less memory.
pub const SPAN_RECORDS_MAX: u32 = 1024;

/// Names a span for as long as its ledger lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpanId(pub(super) u64);

#[derive(Debug)]
struct Span {
    first: i64,
    next: i64,
    records: u32,
    pending: u32,
    abandoned: u32,
    closed: bool,
}

impl Span {
    fn is_finished(&self) -> bool {
        self.closed && self.pending == 0 && self.abandoned == 0
    }
}

/// What a rewind asks of the consumer.
#[derive(Debug, PartialEq, Eq)]
pub struct Rewind {
    /// Read again from here.
    pub seek_to: i64,
    /// Records that will come a second time although they are finished, because they share a span with one that is not.
    pub finished_again_records: u64,
}

/// The ledger of one partition in one epoch.
///
/// Every record is in exactly one of four states: pending, finished (durable, dead-lettered or dropped by the user's rule), abandoned
/// (given up, to be read again), or not taken. **Invariant**: [`Ledger::head`] never passes a record that is pending or abandoned.
#[derive(Debug)]
pub struct Ledger {
    spans: VecDeque<Span>,
    base: u64,
    head: Option<i64>,
    next: Option<i64>,
    pending: u64,
    abandoned: u64,
    skip: VecDeque<Range<i64>>,
}

impl Ledger {
    /// A ledger that begins at `start`; without one, at the first record that comes.
    pub fn new(start: Option<i64>) -> Self {
        Self { spans: VecDeque::new(), base: 0, head: start, next: start, pending: 0, abandoned: 0, skip: VecDeque::new() }
    }

    /// Whether a record of this offset is new: not below the next offset, and not finished before a rewind (such a record is entered as
    /// finished again, so that the head moves over it).
    pub fn wants(&mut self, offset: i64) -> bool {
        if self.next.is_some_and(|next| offset < next) {
            return false;
        }
        if self.skip.is_empty() {
            return true;
        }
        while self.skip.front().is_some_and(|range| range.end <= offset) {
            self.skip.pop_front();
        }
        if self.skip.front().is_some_and(|range| range.contains(&offset)) {
            self.enter_finished(offset);
            return false;
        }
        true
    }

    /// Enters a record as pending and names its span. Offsets rise.
    pub fn enter(&mut self, offset: i64) -> SpanId {
        let full = self.spans.back().is_none_or(|span| span.closed || span.records >= SPAN_RECORDS_MAX);
        if full {
            self.close_span();
            self.spans.push_back(Span { first: offset, next: offset, records: 0, pending: 0, abandoned: 0, closed: false });
        }
        if let Some(span) = self.spans.back_mut() {
            span.records += 1;
            span.pending += 1;
            span.next = offset + 1;
        }
        self.pending += 1;
        self.next = Some(offset + 1);
        if self.head.is_none() {
            self.head = Some(offset);
        }
        SpanId(self.base + self.spans.len() as u64 - 1)
    }

    /// Enters a record that is finished already (a tombstone, a record that the user's rule drops).
    pub fn enter_finished(&mut self, offset: i64) {
        let span = self.enter(offset);
        self.finish(span, 1);
    }

    /// Closes the open span, so that the head can move over it. Called when an append takes its rows.
    pub fn close_span(&mut self) {
        if let Some(span) = self.spans.back_mut() {
            span.closed = true;
        }
        self.advance();
    }

    /// Counts down `records` of a span as finished.
    pub fn finish(&mut self, id: SpanId, records: u32) {
        if let Some(span) = self.span_mut(id) {
            let records = records.min(span.pending);
            span.pending -= records;
            self.pending -= u64::from(records);
            self.advance();
        }
    }

    /// Gives up `records` of a span: they are read again after [`Ledger::rewind`].
    pub fn abandon(&mut self, id: SpanId, records: u32) {
        if let Some(span) = self.span_mut(id) {
            let records = records.min(span.pending);
            span.pending -= records;
            span.abandoned += records;
            self.pending -= u64::from(records);
            self.abandoned += u64::from(records);
        }
    }

    /// The next offset to commit: every record below it is finished. `None` before anything is known.
    pub fn head(&self) -> Option<i64> {
        self.head
    }

    /// The next offset to read.
    pub fn next(&self) -> Option<i64> {
        self.next
    }

    /// Records that are neither finished nor abandoned.
    pub fn pending_records(&self) -> u64 {
        self.pending
    }

    /// Whether some records were given up.
    pub fn has_abandoned(&self) -> bool {
        self.abandoned > 0
    }

    /// Records that are finished although the head lies before them; also those that a rewind left finished behind it and that were not
    /// reached again yet (an upper bound: gaps between their offsets count as records).
    pub fn finished_beyond_head(&self) -> u64 {
        let beyond = self.spans.iter().filter(|span| self.head.is_none_or(|head| head < span.next));
        let in_spans: u64 = beyond.map(|span| u64::from(span.records - span.pending - span.abandoned)).sum();
        let next = self.next.unwrap_or(i64::MIN);
        let skipped = |range: &Range<i64>| u64::try_from(range.end.saturating_sub(range.start.max(next))).unwrap_or(0);
        in_spans + self.skip.iter().map(skipped).sum::<u64>()
    }

    /// Goes back to the head, once nothing is pending: abandoned records come again, finished spans above the head are skipped when they
    /// do. `None` while something is pending, or when nothing was abandoned.
    pub fn rewind(&mut self) -> Option<Rewind> {
        if self.pending > 0 || self.abandoned == 0 {
            return None;
        }
        self.close_span();
        let seek_to = self.head?;
        let mut again = 0;
        let mut skip: VecDeque<Range<i64>> = VecDeque::new();
        for span in &self.spans {
            if span.abandoned == 0 {
                match skip.back_mut() {
                    Some(last) if last.end == span.first => last.end = span.next,
                    _ => skip.push_back(span.first..span.next),
                }
            } else {
                again += u64::from(span.records - span.abandoned);
            }
        }
        // What an earlier rewind wanted skipped and was not reached yet stays so.
        let reached = self.next.unwrap_or(seek_to);
        skip.extend(self.skip.drain(..).filter(|range| range.end > reached));
        self.base += self.spans.len() as u64;
        self.spans.clear();
        self.skip = skip;
        self.abandoned = 0;
        self.next = Some(seek_to);
        Some(Rewind { seek_to, finished_again_records: again })
    }

    /// Right after a rewind: records below `offset` are finished, though they share spans with others that are not.
    pub fn finished_below(&mut self, offset: i64) {
        let Some(next) = self.next.filter(|next| *next < offset) else { return };
        self.skip.retain_mut(|range| {
            range.start = range.start.max(offset);
            range.start < range.end
        });
        self.skip.push_front(next..offset);
    }

    fn span_mut(&mut self, id: SpanId) -> Option<&mut Span> {
        let index = id.0.checked_sub(self.base)?;
        self.spans.get_mut(usize::try_from(index).ok()?)
    }

    fn advance(&mut self) {
        while self.spans.front().is_some_and(Span::is_finished) {
            if let Some(span) = self.spans.pop_front() {
                self.base += 1;
                self.head = Some(span.next);
            }
        }
        match self.spans.front() {
            // An open span at zero: everything that was taken is finished.
            Some(span) if self.spans.len() == 1 && span.pending == 0 && span.abandoned == 0 => self.head = Some(span.next),
            Some(span) => self.head = Some(self.head.map_or(span.first, |head| head.max(span.first))),
            None => {}
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_head_waits_for_the_oldest_span() {
        let mut ledger = Ledger::new(Some(10));
        let first = ledger.enter(10);
        ledger.close_span();
        let second = ledger.enter(11);
        ledger.close_span();
        ledger.finish(second, 1);
        assert_eq!(ledger.head(), Some(10));
        ledger.finish(first, 1);
        assert_eq!(ledger.head(), Some(12));
    }

    #[test]
    fn an_open_span_at_zero_counts_as_finished() {
        let mut ledger = Ledger::new(None);
        let span = ledger.enter(5);
        assert_eq!(ledger.head(), Some(5));
        ledger.finish(span, 1);
        assert_eq!(ledger.head(), Some(6));
        let span = ledger.enter(9);
        assert_eq!(ledger.head(), Some(6), "the gap 6..9 is not claimed before the record behind it is known to be the next one");
        ledger.finish(span, 1);
        assert_eq!(ledger.head(), Some(10));
    }

    #[test]
    fn a_rewind_skips_what_was_finished() {
        let mut ledger = Ledger::new(Some(0));
        let a = ledger.enter(0);
        ledger.close_span();
        let b = ledger.enter(1);
        ledger.close_span();
        let c = ledger.enter(2);
        ledger.enter(3);
        ledger.abandon(a, 1);
        ledger.finish(b, 1);
        assert_eq!(ledger.rewind(), None, "c is pending");
        ledger.finish(c, 1);
        ledger.abandon(c, 1);
        let rewind = ledger.rewind().unwrap();
        assert_eq!(rewind, Rewind { seek_to: 0, finished_again_records: 1 });
        assert!(ledger.wants(0));
        ledger.enter_finished(0);
        assert!(!ledger.wants(1), "finished before the rewind");
        assert!(ledger.wants(2));
        assert!(!ledger.has_abandoned());
        ledger.finish(b, 1);
        assert_eq!(ledger.head(), Some(2), "0 was finished now, 1 before the rewind");
        ledger.finish(c, 1);
        assert_eq!(ledger.head(), Some(2), "answers for spans before the rewind change nothing");
    }

    #[test]
    fn finished_records_beyond_the_head_are_counted() {
        let mut ledger = Ledger::new(Some(0));
        let a = ledger.enter(0);
        ledger.close_span();
        let b = ledger.enter(1);
        ledger.enter(2);
        ledger.finish(b, 1);
        assert_eq!((ledger.head(), ledger.finished_beyond_head()), (Some(0), 1));
        ledger.finish(a, 1);
        ledger.finish(b, 1);
        assert_eq!((ledger.head(), ledger.finished_beyond_head()), (Some(3), 0));
        // What a rewind left finished comes again to whoever begins at the head: 4 to 6 until they are reached.
        let c = ledger.enter(3);
        ledger.close_span();
        let d = ledger.enter(4);
        ledger.enter(5);
        ledger.enter(6);
        ledger.close_span();
        ledger.finish(d, 3);
        ledger.abandon(c, 1);
        ledger.rewind().unwrap();
        assert_eq!((ledger.head(), ledger.finished_beyond_head()), (Some(3), 3));
        let c = ledger.enter(3);
        assert!(!ledger.wants(4));
        assert_eq!(ledger.finished_beyond_head(), 3, "one reached again, two still ahead");
        assert!(!ledger.wants(5) && !ledger.wants(6));
        ledger.finish(c, 1);
        assert_eq!((ledger.head(), ledger.finished_beyond_head()), (Some(7), 0));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Enter(u8),
        Close,
        Finish(u8),
        Abandon(u8),
        Rewind,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        prop::collection::vec(
            prop_oneof![
                6 => (0u8..3).prop_map(Step::Enter),
                2 => Just(Step::Close),
                5 => any::<u8>().prop_map(Step::Finish),
                1 => any::<u8>().prop_map(Step::Abandon),
                1 => Just(Step::Rewind),
            ],
            1..300,
        )
    }

    proptest! {
        /// Against a model that remembers every record: the head never passes one that is not finished, and a record is wanted until it is.
        #[test]
        fn the_head_never_passes_an_unfinished_record(steps in steps()) {
            // The topic: offsets with gaps, as compaction leaves them.
            let topic: Vec<i64> = (0..2000).filter(|n| n % 7 != 3).collect();
            let mut position = 0usize;
            let mut ledger = Ledger::new(None);
            let mut finished = std::collections::BTreeSet::new();
            let mut pending: Vec<(SpanId, i64)> = Vec::new();
            let mut last_head = None;
            for step in steps {
                match step {
                    Step::Enter(skip) => {
                        for _ in 0..=skip {
                            let Some(&offset) = topic.get(position) else { break };
                            position += 1;
                            if ledger.wants(offset) {
                                pending.push((ledger.enter(offset), offset));
                            } else {
                                prop_assert!(finished.contains(&offset), "{offset} was dropped unfinished");
                            }
                        }
                    }
                    Step::Close => ledger.close_span(),
                    Step::Finish(n) if !pending.is_empty() => {
                        let (span, offset) = pending.remove(usize::from(n) % pending.len());
                        ledger.finish(span, 1);
                        finished.insert(offset);
                    }
                    Step::Abandon(n) if !pending.is_empty() => {
                        let (span, _) = pending.remove(usize::from(n) % pending.len());
                        ledger.abandon(span, 1);
                    }
                    Step::Rewind => {
                        if let Some(rewind) = ledger.rewind() {
                            position = topic.iter().position(|o| *o >= rewind.seek_to).unwrap_or(topic.len());
                        }
                    }
                    _ => {}
                }
                if let Some(head) = ledger.head() {
                    for &offset in topic.iter().take_while(|o| **o < head) {
                        prop_assert!(finished.contains(&offset), "head {head} passed {offset}");
                    }
                    prop_assert!(last_head.is_none_or(|last| head >= last), "the head went back");
                    last_head = Some(head);
                }
            }
        }
    }
}
