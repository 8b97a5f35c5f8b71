//! What must hold, whatever happens: every commit against what is durable, rows against records, copies against what was counted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use millrace::kafka::{GroupError, NextOffset};
use millrace::record::TopicPartition;
use parking_lot::Mutex;

use super::log::{Fate, Log, columns_of};
use super::scene::ProcessId;
use crate::world::World;

/// A row's values by the names of its columns.
pub type Row = BTreeMap<String, i64>;

/// What happened how often.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    /// Runs.
    pub runs: u64,
    /// Offsets that somebody tried to commit.
    pub commits: u64,
    /// Appends that landed, and that did not.
    pub landed: u64,
    pub refused: u64,
    /// Answers that were lost, and appends that landed after their sender had given up.
    pub lost_answers: u64,
    pub late: u64,
    /// Rows beyond the first of their record, and how many were expected at most.
    pub copies: u64,
    pub counted: u64,
    /// Dead letters.
    pub letters: u64,
    /// Times that a process learned that its partitions are gone, stood still beyond its session, was killed, ended.
    pub losses: u64,
    pub freezes: u64,
    pub crashes: u64,
    pub stops: u64,
    /// Appends that a fence kept back.
    pub withheld: u64,
    /// Changes of targets in the group.
    pub rebalances: u64,
    /// Columns added, patches refused for their version.
    pub columns: u64,
    pub conflicts: u64,
    /// Streams that were ended and counted.
    pub takeovers: u64,
}

impl Seen {
    /// Adds up.
    pub fn add(&mut self, other: Self) {
        self.runs += other.runs;
        self.commits += other.commits;
        self.landed += other.landed;
        self.refused += other.refused;
        self.lost_answers += other.lost_answers;
        self.late += other.late;
        self.copies += other.copies;
        self.counted += other.counted;
        self.letters += other.letters;
        self.losses += other.losses;
        self.freezes += other.freezes;
        self.crashes += other.crashes;
        self.stops += other.stops;
        self.withheld += other.withheld;
        self.rebalances += other.rebalances;
        self.columns += other.columns;
        self.conflicts += other.conflicts;
        self.takeovers += other.takeovers;
    }
}

/// What one process did or suffered.
#[derive(Default)]
struct ProcessFacts {
    /// It woke after standing still for longer than its session, and has not learned yet that it is a member, or what it lost.
    doubtful: bool,
    /// It is no more.
    ended: bool,
    /// Rows of its appends without an answer, and of those whose answer was lost: they are counted when they are sent again, if it lives to do so.
    on_way: u64,
    in_doubt: u64,
    /// What it knows to be committed by itself.
    committed: BTreeMap<i32, i64>,
}

#[derive(Default)]
struct Facts {
    /// Who brought each copy of a record's row.
    rows: BTreeMap<(i32, i64), Vec<ProcessId>>,
    letters: BTreeSet<(i32, i64)>,
    /// For each partition the place in its log below which everything was seen to be finished.
    finished: BTreeMap<i32, usize>,
    processes: BTreeMap<ProcessId, ProcessFacts>,
    wrong: Vec<String>,
    seen: Seen,
}

/// Watches everything.
pub struct Oracle {
    world: World,
    log: Arc<Log>,
    exactly_once: bool,
    facts: Mutex<Facts>,
}

impl Oracle {
    /// Nothing has happened yet.
    pub fn new(world: &World, log: &Arc<Log>, exactly_once: bool) -> Arc<Self> {
        Arc::new(Self { world: world.clone(), log: log.clone(), exactly_once, facts: Mutex::default() })
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

    fn is_finished(facts: &Facts, partition: i32, offset: i64, fate: Fate) -> bool {
        match fate {
            Fate::Dropped => true,
            Fate::Row(_) => facts.rows.contains_key(&(partition, offset)),
            Fate::Bad | Fate::Rejected(_) => facts.letters.contains(&(partition, offset)),
        }
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
                    if !Self::is_finished(&facts, partition, record.offset, record.fate) {
                        let (offset, fate) = (record.offset, record.fate);
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

    /// The coordinator took a commit.
    pub fn committed(&self, partition: i32, before: Option<i64>, offset: i64, by_owner: bool, member: u64) {
        if before.is_some_and(|before| before > offset) {
            self.complain(format!("member {member} commits {offset} of partition {partition} behind {before:?}"));
        }
        if !by_owner {
            self.complain(format!("member {member} commits {offset} of partition {partition}, which is not its own"));
        }
    }

    /// A process woke that had stood still for longer than its session.
    pub fn woke(&self, process: ProcessId) {
        let mut facts = self.facts.lock();
        facts.seen.freezes += 1;
        facts.processes.entry(process).or_default().doubtful = true;
    }

    /// A commit of it was taken, but for these partitions: it is a member.
    pub fn confirmed(&self, process: ProcessId, offsets: &[NextOffset], refused: &[(TopicPartition, GroupError)]) {
        let mut facts = self.facts.lock();
        let facts = facts.processes.entry(process).or_default();
        facts.doubtful = false;
        let taken = offsets.iter().filter(|next| refused.iter().all(|(partition, _)| *partition != next.partition));
        facts.committed.extend(taken.map(|next| (next.partition.partition, next.offset)));
    }

    /// It knows that partitions are gone.
    pub fn lost(&self, process: ProcessId) {
        let mut facts = self.facts.lock();
        facts.seen.losses += 1;
        facts.processes.entry(process).or_default().doubtful = false;
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
        let doubtful = self.facts.lock().processes.get(&process).is_some_and(|facts| facts.doubtful);
        if doubtful {
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
        let records = self.log.records(partition);
        let fate = records.binary_search_by_key(&offset, |record| record.offset).map(|at| records[at].fate);
        match fate {
            Ok(Fate::Row(schema)) if row == columns_of(partition, offset, schema) => {}
            fate => self.complain(format!("partition {partition} offset {offset} ({fate:?}) became the row {row:?}")),
        }
        self.facts.lock().rows.entry((partition, offset)).or_default().push(process);
    }

    /// A dead letter is durable.
    pub fn letter(&self, partition: i32, offset: i64) {
        let records = self.log.records(partition);
        let fate = records.binary_search_by_key(&offset, |record| record.offset).map(|at| records[at].fate);
        if !matches!(fate, Ok(Fate::Bad | Fate::Rejected(_))) {
            self.complain(format!("partition {partition} offset {offset} ({fate:?}) became a dead letter"));
        }
        let mut facts = self.facts.lock();
        facts.seen.letters += 1;
        facts.letters.insert((partition, offset));
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
            .filter(|(partition, record)| !Self::is_finished(&facts, *partition, record.offset, record.fate))
            .map(|(partition, record)| format!("{partition}:{} ({:?})", record.offset, record.fate))
            .collect()
    }

    /// The end of a run in which millrace counted so many possible duplicates.
    pub fn end(&self, counted: u64, took: Duration, committed: &BTreeMap<i32, i64>) {
        let missing = self.missing();
        if !missing.is_empty() {
            self.complain(format!("after {took:?} these are not finished: {}", missing.join(" ")));
        }
        for partition in 0..self.log.partitions() {
            let (end, committed) = (self.log.end(partition), committed.get(&partition).copied().unwrap_or(0));
            if committed != end {
                self.complain(format!("after {took:?} partition {partition} is committed up to {committed} of {end}"));
            }
        }
        let (copies, expected) = self.copies(counted);
        self.see(|seen| {
            seen.copies += copies;
            seen.counted += expected;
            seen.runs = 1;
        });
        if let Some(what) = self.uncounted(counted) {
            self.complain(what);
        }
    }

    /// Rows beyond the first of their record, and how many there may be when so many were counted.
    fn copies(&self, counted: u64) -> (u64, u64) {
        let facts = self.facts.lock();
        // What a process that ended had appended since its last commit may be there again.
        let crash_copies = |(place, brought): (&(i32, i64), &Vec<ProcessId>)| {
            let uncommitted = |process: &&ProcessId| {
                let ended = facts.processes.get(process).filter(|facts| facts.ended);
                ended.is_some_and(|facts| facts.committed.get(&place.0).is_none_or(|committed| place.1 >= *committed))
            };
            brought.iter().filter(uncommitted).count() as u64
        };
        let after_ends: u64 = facts.rows.iter().map(crash_copies).sum();
        // What nobody told it before it ended.
        let unknown: u64 = facts.processes.values().filter(|facts| facts.ended).map(|facts| facts.on_way + facts.in_doubt).sum();
        (facts.rows.values().map(|brought| brought.len() as u64 - 1).sum(), counted + after_ends + unknown)
    }

    /// What is wrong with the number of rows, if so many possible duplicates were counted.
    pub fn uncounted(&self, counted: u64) -> Option<String> {
        let (copies, expected) = self.copies(counted);
        if self.exactly_once {
            return (copies > 0).then(|| format!("{copies} rows too many, and none was promised"));
        }
        (copies > expected).then(|| {
            format!(
                "{copies} rows too many: {counted} possible duplicates were counted, {} come from processes that ended",
                expected - counted
            )
        })
    }

    /// What was wrong, and what was seen.
    pub fn verdict(&self) -> (Vec<String>, Seen) {
        let facts = self.facts.lock();
        (facts.wrong.clone(), facts.seen.clone())
    }
}
