//! What must hold, whatever happens: every commit against what is durable, rows against records, copies against what was counted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use millrace::config::{BadRecords, OnLostRange, OnLostStream};
use millrace::kafka::{GroupError, NextOffset};
use millrace::record::TopicPartition;
use parking_lot::Mutex;

use super::copies;
use super::counted::Counted;
use super::log::{Fate, Log, columns_of};
use super::scene::ProcessId;
use super::seen::Seen;
use super::settings::Settings;
use crate::world::World;

/// A row's values by the names of its columns.
pub type Row = BTreeMap<String, i64>;

/// What one process did or suffered.
#[derive(Default)]
pub struct ProcessFacts {
    /// It promises each row once.
    pub exact: bool,
    /// Its rule for bad records.
    policy: Option<BadRecords>,
    /// When it wakes (woke) after standing still for longer than its session, until it learns that it is a member, or what it lost.
    doubtful_from: Option<Duration>,
    /// It is no more.
    pub ended: bool,
    /// Rows of its appends without an answer, and of those whose answer was lost: they are counted when they are sent again, if it lives to
    /// do so.
    pub on_way: u64,
    pub in_doubt: u64,
    /// What it knows to be committed by itself.
    pub committed: BTreeMap<i32, i64>,
}

#[derive(Default)]
struct Facts {
    /// Who brought each copy of a record's row.
    rows: BTreeMap<(i32, i64), Vec<ProcessId>>,
    letters: BTreeSet<(i32, i64)>,
    /// For each partition the place in its log below which everything was seen to be finished.
    finished: BTreeMap<i32, usize>,
    /// For each partition: nobody was to know what retention took below, for nothing had been committed.
    excused: BTreeMap<i32, i64>,
    /// A process ran that skips bad records, or goes on behind lost ranges, because the user said so.
    skips: bool,
    continues: bool,
    /// One ran that sends rows again whose fate nobody knows.
    replays: bool,
    processes: BTreeMap<ProcessId, ProcessFacts>,
    wrong: Vec<String>,
    seen: Seen,
}

/// Watches everything.
pub struct Oracle {
    world: World,
    log: Arc<Log>,
    facts: Mutex<Facts>,
}

impl Oracle {
    /// Nothing has happened yet.
    pub fn new(world: &World, log: &Arc<Log>) -> Arc<Self> {
        Arc::new(Self { world: world.clone(), log: log.clone(), facts: Mutex::default() })
    }

    /// Counts.
    pub fn see(&self, count: impl FnOnce(&mut Seen)) {
        count(&mut self.facts.lock().seen);
    }

    /// Something is wrong.
    pub fn complain(&self, what: String) {
        self.world.note(|| format!("WRONG: {what}"));
        let mut facts = self.facts.lock();
        if facts.wrong.len() < 5 {
            facts.wrong.push(what);
        }
    }

    /// Whether something was.
    pub fn is_wrong(&self) -> bool {
        !self.facts.lock().wrong.is_empty()
    }

    /// A process starts with the user's files as they are.
    pub fn starts(&self, process: ProcessId, settings: Settings) {
        let mut facts = self.facts.lock();
        facts.skips |= settings.bad_records == BadRecords::Skip;
        facts.continues |= settings.on_lost_range == OnLostRange::Continue;
        facts.replays |= settings.on_lost_stream == OnLostStream::AtLeastOnce;
        let facts = facts.processes.entry(process).or_default();
        (facts.exact, facts.policy) = (settings.is_exact(), Some(settings.bad_records));
    }

    /// A partition without a committed offset begins at the first record that is left.
    pub fn begins_at_first(&self, partition: i32) {
        let low = self.log.low(partition);
        let mut facts = self.facts.lock();
        let excused = facts.excused.entry(partition).or_default();
        *excused = low.max(*excused);
    }

    fn is_finished(facts: &Facts, partition: i32, offset: i64, fate: Fate) -> bool {
        match fate {
            Fate::Dropped => true,
            Fate::Row(_) => facts.rows.contains_key(&(partition, offset)),
            Fate::Bad | Fate::Rejected(_) | Fate::Poison(_) => facts.skips || facts.letters.contains(&(partition, offset)),
        }
    }

    /// Whether retention took it and going on without it is what the user wants, or what nobody could know.
    fn is_given_up(&self, facts: &Facts, partition: i32, offset: i64) -> bool {
        let excused = facts.excused.get(&partition).is_some_and(|excused| offset < *excused);
        excused || (facts.continues && offset < self.log.low(partition))
    }

    /// A process sends a commit: every record below must be finished, at this moment.
    pub fn commit_tried(&self, process: ProcessId, offsets: &[NextOffset]) {
        let mut wrong = Vec::new();
        {
            let mut facts = self.facts.lock();
            facts.seen.commits += offsets.len() as u64;
            for next in offsets {
                let partition = next.partition.partition;
                let records = self.log.records(partition);
                let mut place = facts.finished.get(&partition).copied().unwrap_or(0);
                while let Some(record) = records.get(place).filter(|record| record.offset < next.offset) {
                    let (offset, fate) = (record.offset, record.fate);
                    if !Self::is_finished(&facts, partition, offset, fate) && !self.is_given_up(&facts, partition, offset) {
                        wrong.push(format!(
                            "process {process} commits {} of partition {partition}, and {offset} ({fate:?}) is not finished",
                            next.offset
                        ));
                        break;
                    }
                    place += 1;
                }
                facts.finished.insert(partition, place);
            }
        }
        wrong.into_iter().for_each(|what| self.complain(what));
    }

    /// A process says that the group has this offset of a partition.
    pub fn claims(&self, process: ProcessId, partition: i32, claimed: i64, committed: Option<i64>) {
        if committed.is_none_or(|committed| committed < claimed) {
            self.complain(format!(
                "process {process} says that the group has {claimed} of partition {partition}, and it has {committed:?}"
            ));
        }
    }

    /// The coordinator took a commit.
    pub fn committed(&self, partition: i32, before: Option<i64>, offset: i64, by_owner: bool, member: u64) {
        if before.is_some_and(|before| before > offset) {
            self.complain(format!("member {member} commits {offset} of partition {partition} behind {before:?}"));
        }
        if !by_owner {
            self.complain(format!("member {member} commits {offset} of partition {partition}, which is not its own"));
        }
    }

    /// A process stands still for longer than its session.
    pub fn stands_still(&self, process: ProcessId, until: Duration) {
        let mut facts = self.facts.lock();
        facts.seen.freezes += 1;
        let facts = facts.processes.entry(process).or_default();
        facts.doubtful_from = facts.doubtful_from.max(Some(until));
    }

    /// A commit of it was taken, but for these partitions: it is a member.
    pub fn confirmed(&self, process: ProcessId, offsets: &[NextOffset], refused: &[(TopicPartition, GroupError)]) {
        let mut facts = self.facts.lock();
        let facts = facts.processes.entry(process).or_default();
        facts.doubtful_from.take_if(|from| *from <= self.world.now());
        let taken = offsets.iter().filter(|next| refused.iter().all(|(partition, _)| *partition != next.partition));
        facts.committed.extend(taken.map(|next| (next.partition.partition, next.offset)));
    }

    /// It knows that partitions are gone.
    pub fn lost(&self, process: ProcessId) {
        self.see(|seen| seen.losses += 1);
        self.knows(process);
    }

    /// It knows what it owns: what it had is gone, or it had nothing and is given something.
    pub fn knows(&self, process: ProcessId) {
        let mut facts = self.facts.lock();
        facts.processes.entry(process).or_default().doubtful_from.take_if(|from| *from <= self.world.now());
    }

    /// So many rows left it.
    pub fn on_way(&self, process: ProcessId, rows: u32) {
        self.facts.lock().processes.entry(process).or_default().on_way += u64::from(rows);
    }

    /// It has an answer to them, or knows that none will come.
    pub fn answered(&self, process: ProcessId, rows: u32, in_doubt: bool) {
        let mut facts = self.facts.lock();
        let facts = facts.processes.entry(process).or_default();
        facts.on_way -= u64::from(rows);
        facts.in_doubt += if in_doubt { u64::from(rows) } else { 0 };
    }

    /// It is no more.
    pub fn ended(&self, process: ProcessId) {
        self.facts.lock().processes.entry(process).or_default().ended = true;
    }

    /// Rows leave a process.
    pub fn leaves(&self, process: ProcessId) {
        let doubtful_from = self.facts.lock().processes.get(&process).and_then(|facts| facts.doubtful_from);
        if doubtful_from.is_some_and(|from| from <= self.world.now()) {
            self.complain(format!(
                "process {process} stood still for longer than its session, and sends rows without knowing that it is a member"
            ));
        }
    }

    /// A row is durable.
    pub fn landed(&self, process: ProcessId, mut row: Row) {
        let (Some(partition), Some(offset)) = (row.remove("kafka_partition"), row.remove("kafka_offset")) else {
            self.complain(format!("a row without its record's place: {row:?}"));
            return;
        };
        let partition = partition as i32;
        match self.log.fate(partition, offset) {
            Some(Fate::Row(schema)) if row == columns_of(partition, offset, schema) => {}
            fate => self.complain(format!("partition {partition} offset {offset} ({fate:?}) became the row {row:?}")),
        }
        self.facts.lock().rows.entry((partition, offset)).or_default().push(process);
    }

    /// A dead letter is durable.
    pub fn letter(&self, process: ProcessId, partition: i32, offset: i64) {
        let fate = self.log.fate(partition, offset);
        if !matches!(fate, Some(Fate::Bad | Fate::Rejected(_) | Fate::Poison(_))) {
            self.complain(format!("partition {partition} offset {offset} ({fate:?}) became a dead letter"));
        }
        let policy = self.facts.lock().processes.get(&process).and_then(|facts| facts.policy);
        if policy != Some(BadRecords::DeadLetter) {
            self.complain(format!("process {process} sends a dead letter of {partition}:{offset}, and its file says {policy:?}"));
        }
        let mut facts = self.facts.lock();
        facts.seen.letters += 1;
        facts.letters.insert((partition, offset));
    }

    /// Whether a group that has this offset of a partition has no more of it to read. Without one, and where retention has taken all there
    /// was, nothing is there that a commit could follow.
    pub fn is_at_end(&self, partition: i32, committed: Option<i64>) -> bool {
        let end = self.log.end(partition);
        committed.map_or(self.log.low(partition) == end, |committed| committed == end)
    }

    /// Whether every record is finished.
    pub fn all_finished(&self) -> bool {
        self.missing().is_empty()
    }

    fn missing(&self) -> Vec<String> {
        let facts = self.facts.lock();
        let partitions = 0..self.log.partitions();
        let records = partitions.flat_map(|partition| self.log.records(partition).iter().map(move |record| (partition, record)));
        records
            .filter(|(partition, record)| {
                !Self::is_finished(&facts, *partition, record.offset, record.fate) && !self.is_given_up(&facts, *partition, record.offset)
            })
            .map(|(partition, record)| format!("{partition}:{} ({:?})", record.offset, record.fate))
            .collect()
    }

    /// The end of a run in which millrace counted so much.
    pub fn end(&self, counted: Counted, took: Duration, committed: &BTreeMap<i32, i64>) {
        let missing = self.missing();
        if !missing.is_empty() {
            self.complain(format!("after {took:?} these are not finished: {}", missing.join(" ")));
        }
        for partition in 0..self.log.partitions() {
            let (end, committed) = (self.log.end(partition), committed.get(&partition).copied());
            if !self.is_at_end(partition, committed) {
                self.complain(format!("after {took:?} partition {partition} is committed up to {committed:?} of {end}"));
            }
        }
        let (skipped, lost) = self.untold();
        if skipped > counted.skipped {
            self.complain(format!("{skipped} records were skipped, {} are counted", counted.skipped));
        }
        if lost > counted.lost_records {
            self.complain(format!("retention took {lost} records unread, {} are counted", counted.lost_records));
        }
        if counted.replayed > 0 && !self.facts.lock().replays {
            self.complain(format!("{} rows were sent again that the user wants to look at first", counted.replayed));
        }
        let (copies, expected) = self.copies(counted);
        self.see(|seen| {
            seen.copies += copies;
            seen.counted += expected;
            seen.skipped += skipped;
            seen.lost += lost;
            seen.runs = 1;
        });
        if let Some(what) = self.uncounted(counted) {
            self.complain(what);
        }
    }

    /// Whether everybody who wants to know what became nothing was told.
    pub fn is_told(&self, counted: Counted) -> bool {
        let (skipped, lost) = self.untold();
        skipped <= counted.skipped && lost <= counted.lost_records
    }

    /// Bad records that became nothing, and records that retention took before they became anything.
    fn untold(&self) -> (u64, u64) {
        let facts = self.facts.lock();
        let (mut skipped, mut lost) = (0, 0);
        for partition in 0..self.log.partitions() {
            let (low, excused) = (self.log.low(partition), facts.excused.get(&partition).copied().unwrap_or(0));
            for record in self.log.records(partition).iter().filter(|record| record.offset >= excused) {
                let place = (partition, record.offset);
                let became_nothing = !facts.rows.contains_key(&place) && !facts.letters.contains(&place);
                match record.fate {
                    Fate::Dropped => {}
                    // Skipped, or lost: nobody can tell.
                    Fate::Bad | Fate::Rejected(_) | Fate::Poison(_) if record.offset < low => {}
                    Fate::Bad | Fate::Rejected(_) | Fate::Poison(_) => skipped += u64::from(became_nothing),
                    Fate::Row(_) => lost += u64::from(became_nothing && record.offset < low),
                }
            }
        }
        (skipped, lost)
    }

    /// Rows beyond the first of their record, and how many there may be when so much was counted.
    fn copies(&self, counted: Counted) -> (u64, u64) {
        let facts = self.facts.lock();
        copies::of(&facts.rows, &facts.processes, counted)
    }

    /// What is wrong with the number of rows, if so much was counted.
    pub fn uncounted(&self, counted: Counted) -> Option<String> {
        let facts = self.facts.lock();
        copies::uncounted(&facts.rows, &facts.processes, counted)
    }

    /// What was wrong, and what was seen.
    pub fn verdict(&self) -> (Vec<String>, Seen) {
        let facts = self.facts.lock();
        (facts.wrong.clone(), facts.seen.clone())
    }
}
