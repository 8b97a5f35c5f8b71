//! The appends of one partition that are on their way: their order, the places of their rows in the stream, and what is known of each.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::bigquery::AppendFailure;
use crate::pipeline::batch::{AppendJob, Share};
use crate::pipeline::part::{Indices, Part, pick};

use super::intents::{Intent, Intents, METADATA_BYTES_MAX};

/// Appends on their way at a time. The metadata's size comes first where a stream's name is very long.
const APPENDS_MAX: usize = 16;
/// What one more append takes of the metadata at most: two numbers of 10 and 19 digits, two signs.
const INTENT_BYTES_MAX: usize = 31;

/// What is known of an append.
#[derive(Debug)]
pub enum State {
    /// Not sent, or to be sent again.
    Waiting,
    /// Sent, without an answer yet.
    Sent,
    /// BigQuery acknowledged it, or a row count showed it.
    Landed,
    /// Not acknowledged.
    Failed(AppendFailure),
}

/// One append.
pub struct Entry {
    /// Names it while it is on its way.
    pub id: u64,
    /// The job that its rows belong to, perhaps with rows of other appends.
    pub job: Arc<AppendJob>,
    /// Its rows.
    pub part: Part,
    /// The version of the metadata that its intent first stood in; none before.
    pub version: Option<u64>,
    /// What is known.
    pub state: State,
    /// An answer for this place of this stream was lost: it may have landed.
    pub in_doubt: bool,
}

impl Entry {
    /// How many rows.
    pub fn rows(&self) -> u32 {
        self.part.indices.len()
    }

    /// Behind the record of its last row.
    fn next_offset(&self) -> Option<i64> {
        let last = self.part.indices.get(self.rows().checked_sub(1)?)?;
        Some(self.job.rows.origins.get(last as usize)?.offset + 1)
    }

    /// How many rows of each of the job's shares are in it.
    pub fn rows_by_share(&self) -> Vec<u32> {
        rows_by_share(&self.job, &self.part)
    }

    /// The share of the row at this place, and its record's offset.
    pub fn place_of(&self, place: u32) -> Option<(Share, i64)> {
        let row = self.part.indices.get(place)?;
        let share = self.job.shares.get(self.job.share_of(row)?)?;
        Some((*share, self.job.rows.origins.get(row as usize)?.offset))
    }

    /// Only these rows of it, by their places; as a new append.
    pub fn only(&self, id: u64, places: &[u32]) -> Self {
        let mut part = pick(&self.part, places);
        part.attempts = 0;
        Self { id, job: self.job.clone(), part, version: None, state: State::Waiting, in_doubt: false }
    }
}

/// How many rows of each of the job's shares are in this part.
fn rows_by_share(job: &AppendJob, part: &Part) -> Vec<u32> {
    if matches!(part.indices, Indices::All(_)) {
        return job.shares.iter().map(|share| share.rows).collect();
    }
    let mut counts = vec![0; job.shares.len()];
    for place in 0..part.indices.len() {
        let share = part.indices.get(place).and_then(|row| job.share_of(row));
        if let Some(count) = share.and_then(|share| counts.get_mut(share)) {
            *count += 1;
        }
    }
    counts
}

/// The appends of one partition that are on their way, and their stream.
#[derive(Default)]
pub struct Window {
    /// In order: each begins where the one before ends.
    pub entries: VecDeque<Entry>,
    /// The stream they go to.
    pub stream: Option<Arc<str>>,
    /// Rows of the stream before the first of them.
    pub base_rows: u64,
    /// Every record below this offset is finished.
    pub base_next: i64,
    next_id: u64,
}

impl Window {
    /// Without appends or a stream.
    pub fn new(base_next: i64) -> Self {
        Self { base_next, ..Self::default() }
    }

    /// A name for an append.
    pub fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Adds a job's rows behind all others.
    pub fn push(&mut self, job: AppendJob) {
        let indices = Indices::All(u32::try_from(job.rows.origins.len()).unwrap_or(u32::MAX));
        let part = Part { rows: job.rows.rows.clone(), indices, maybe_durable: false, attempts: 0 };
        let id = self.next_id();
        self.entries.push_back(Entry { id, job: Arc::new(job), part, version: None, state: State::Waiting, in_doubt: false });
    }

    /// What it means to do, for the metadata. Without a stream nothing can have been sent.
    pub fn intents(&self) -> Intents {
        let mut window = Vec::with_capacity(self.entries.len());
        if self.stream.is_some() {
            window.extend(self.entries.iter().filter_map(|entry| Some(Intent { rows: entry.rows(), next_offset: entry.next_offset()? })));
        }
        Intents { stream: self.stream.clone(), base_rows: self.base_rows, base_next: self.base_next, window }
    }

    /// Whether one more append may come: there are not too many, and its intent fits into the metadata.
    pub fn has_room(&self) -> bool {
        self.entries.is_empty()
            || (self.entries.len() < APPENDS_MAX && self.intents().encode().len() + INTENT_BYTES_MAX <= METADATA_BYTES_MAX)
    }

    /// The row of the stream at which the append of this index begins.
    pub fn row_of(&self, index: usize) -> u64 {
        self.base_rows + self.entries.iter().take(index).map(|entry| u64::from(entry.rows())).sum::<u64>()
    }

    /// An append by its name.
    pub fn find(&mut self, id: u64) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.id == id)
    }

    /// Takes the first append out if it has landed: what is before the others moves on.
    pub fn pop_landed(&mut self) -> Option<Entry> {
        self.entries.front().filter(|entry| matches!(entry.state, State::Landed))?;
        let entry = self.entries.pop_front()?;
        self.base_rows += u64::from(entry.rows());
        self.base_next = entry.next_offset().unwrap_or(self.base_next).max(self.base_next);
        Some(entry)
    }

    /// Takes the last append out if it surely has not left.
    pub fn pop_unsent(&mut self) -> Option<Entry> {
        self.entries.back().filter(|entry| matches!(entry.state, State::Waiting) && !entry.in_doubt)?;
        self.entries.pop_back()
    }

    /// Whether an append may have landed without an answer.
    pub fn is_in_doubt(&self) -> bool {
        self.entries.iter().any(|entry| entry.in_doubt)
    }

    /// What is left gets new places: none of it has landed, and nothing of what was announced before is sent.
    pub fn renumber(&mut self) {
        for entry in &mut self.entries {
            (entry.version, entry.state, entry.in_doubt) = (None, State::Waiting, false);
        }
    }

    /// Leaves the stream. What is left begins a new one.
    pub fn leave_stream(&mut self) {
        (self.stream, self.base_rows) = (None, 0);
        self.renumber();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::time::Instant;

    use bytes::Bytes;

    use super::*;
    use crate::decode::{ClosedRows, RowOrigin};
    use crate::flow::{Budget, BudgetKind};
    use crate::kafka::Epoch;
    use crate::pipeline::batch::Unacked;
    use crate::pipeline::events::ShardHandle;
    use crate::pipeline::ledger::Ledger;
    use crate::pipeline::worker::WorkerShared;
    use crate::table::{LayoutHistory, TableName};

    fn job(offsets: std::ops::Range<i64>) -> AppendJob {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let budget = Budget::new(1 << 20);
        let worker = WorkerShared::new(budget.clone(), runtime.handle().clone(), false);
        let table = worker.table(&TableName { project: "p".into(), dataset: "d".into(), table: "t".into() });
        let rows: Vec<u8> = offsets.clone().flat_map(|n| [0x0A, 1, n as u8]).collect();
        let origins = offsets.clone().map(|offset| RowOrigin { slot: 0, offset }).collect();
        let mut ledger = Ledger::new(Some(0));
        let share = Share { slot: 0, epoch: Epoch(1), span: ledger.enter(0), rows: (offsets.end - offsets.start) as u32 };
        AppendJob {
            _unacked: Unacked::new(table.clone(), rows.len()),
            table,
            rows: ClosedRows { rows: Bytes::from(rows), origins, layout: LayoutHistory::new().include(&[]).unwrap() },
            shares: vec![share],
            times: Default::default(),
            shard: ShardHandle::new().0,
            partitions: Vec::new(),
            lease: budget.lease(BudgetKind::InFlight, 1),
            run: 0,
        }
    }

    #[test]
    fn places_follow_what_landed_and_what_was_taken_out() {
        let _started = Instant::now();
        let mut window = Window::new(40);
        for offsets in [100..110, 110..113, 120..125] {
            window.push(job(offsets));
        }
        assert_eq!(window.intents().window, [], "without a stream nothing is announced");
        window.stream = Some(Arc::from("s"));
        let announced = |window: &Window| window.intents().window.iter().map(|i| (i.rows, i.next_offset)).collect::<Vec<_>>();
        assert_eq!(announced(&window), [(10, 110), (3, 113), (5, 125)]);
        assert_eq!((window.row_of(0), window.row_of(1), window.row_of(2)), (0, 10, 13));
        assert!(window.pop_landed().is_none());
        window.entries[0].state = State::Landed;
        assert_eq!(window.pop_landed().unwrap().rows_by_share(), [10]);
        assert_eq!((window.base_rows, window.base_next, window.row_of(1)), (10, 110, 13));
        // The second row of what is first now is taken out.
        let id = window.next_id();
        window.entries[0] = window.entries[0].only(id, &[0, 2]);
        window.entries[1].in_doubt = true;
        assert!(window.pop_unsent().is_none() && window.is_in_doubt(), "what may have landed is not given up unseen");
        window.renumber();
        assert_eq!((announced(&window), window.row_of(1)), (vec![(2, 113), (5, 125)], 12));
        assert_eq!(window.entries[0].part.rows.as_ref(), [0x0A, 1, 110, 0x0A, 1, 112]);
        window.leave_stream();
        assert_eq!((window.base_rows, window.base_next, window.row_of(1)), (0, 110, 2));
        assert!(window.pop_unsent().is_some());
    }

    #[test]
    fn there_is_room_while_the_metadata_are_small_enough() {
        let mut window = Window::new(0);
        window.stream = Some(Arc::from("s".repeat(METADATA_BYTES_MAX - 120)));
        let mut count = 0;
        while window.has_room() {
            window.push(job(count..count + 1));
            count += 1;
            assert!(window.intents().encode().len() <= METADATA_BYTES_MAX);
        }
        assert!(count > 1 && count < APPENDS_MAX as i64, "{count}");
        let mut short = Window::new(0);
        short.stream = Some(Arc::from("s"));
        while short.has_room() {
            short.push(job(0..1));
        }
        assert_eq!(short.entries.len(), APPENDS_MAX);
    }
}
