//! What was produced against what arrived, record by record. Pure.

use std::collections::HashMap;

use crate::datagen::Entry;

/// A row that BigQuery holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LandedRow {
    pub(super) partition: i32,
    pub(super) offset: i64,
    /// The lower 63 bits of the hash of its content.
    pub(super) hash63: u64,
    /// When BigQuery stored it, milliseconds since the epoch.
    pub(super) landed_ms: i64,
}

/// A dead letter, by the record it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DeadLetter {
    pub(super) partition: i32,
    pub(super) offset: i64,
    /// The lower 63 bits of the hash of its value's bytes.
    pub(super) hash63: u64,
}

/// The verdict over one flow, or over several added up. Every number is of records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Acknowledged by the broker.
    pub(super) produced: u64,
    /// Good ones among them.
    pub(super) good: u64,
    /// Good ones with at least one row of the right content.
    pub(super) durable_distinct: u64,
    /// Rows beyond the first of their record.
    pub(super) duplicates: u64,
    /// Good ones without a row.
    pub(super) missing: u64,
    /// Rows whose content is not what was produced.
    pub(super) wrong_content: u64,
    /// Rows that stand for no produced record, or for a bad one.
    pub(super) unexpected_rows: u64,
    /// Bad ones with a dead letter of the right value.
    pub(super) dead_letters: u64,
    /// Dead letters beyond the first of their record.
    pub(super) duplicate_dead_letters: u64,
    /// Bad ones without a dead letter.
    pub(super) missing_dead_letters: u64,
    /// Dead letters of good records, of none, or with another value.
    pub(super) wrong_dead_letters: u64,
    /// The first few complaints, for people.
    pub(super) examples: Vec<String>,
    /// The first few records with more than one row: a complaint only where none is allowed.
    pub(super) doubled: Vec<String>,
}

/// How many complaints are kept as examples.
const EXAMPLES: usize = 20;

impl Verdict {
    /// Whether every record is where it belongs. Duplicates are judged elsewhere: they have a bound. Of `unacknowledged` records
    /// nobody knows whether they are in the topic: as many rows may be unexpected.
    pub(super) fn is_complete(&self, unacknowledged: u64) -> bool {
        self.missing == 0
            && self.wrong_content == 0
            && self.unexpected_rows <= unacknowledged
            && self.missing_dead_letters == 0
            && self.wrong_dead_letters <= unacknowledged
    }

    /// Adds another flow's.
    pub(super) fn add(&mut self, other: Self) {
        self.produced += other.produced;
        self.good += other.good;
        self.durable_distinct += other.durable_distinct;
        self.duplicates += other.duplicates;
        self.missing += other.missing;
        self.wrong_content += other.wrong_content;
        self.unexpected_rows += other.unexpected_rows;
        self.dead_letters += other.dead_letters;
        self.duplicate_dead_letters += other.duplicate_dead_letters;
        self.missing_dead_letters += other.missing_dead_letters;
        self.wrong_dead_letters += other.wrong_dead_letters;
        self.examples.extend(other.examples);
        self.examples.truncate(EXAMPLES);
        self.doubled.extend(other.doubled);
        self.doubled.truncate(EXAMPLES);
    }

    fn example(&mut self, what: impl FnOnce() -> String) {
        if self.examples.len() < EXAMPLES {
            self.examples.push(what());
        }
    }
}

/// Judges one topic: `journal` holds its partitions' entries by ascending offset.
pub(super) fn reconcile(topic: &str, journal: &[Vec<Entry>], mut rows: Vec<LandedRow>, dead: &[DeadLetter]) -> Verdict {
    let mut verdict = Verdict::default();
    rows.sort_unstable();
    let mut rows = rows.into_iter().peekable();
    let mut letters: HashMap<(i32, i64), Vec<u64>> = HashMap::new();
    for letter in dead {
        letters.entry((letter.partition, letter.offset)).or_default().push(letter.hash63);
    }
    for (partition, entries) in journal.iter().enumerate() {
        let partition = i32::try_from(partition).unwrap_or(i32::MAX);
        for entry in entries {
            let at = (partition, entry.offset);
            while let Some(stray) = rows.next_if(|r| (r.partition, r.offset) < at) {
                unexpected(topic, &stray, &mut verdict);
            }
            let (mut right, mut copies) = (0u64, 0u64);
            while let Some(row) = rows.next_if(|r| (r.partition, r.offset) == at) {
                copies += 1;
                right += u64::from(row.hash63 == entry.hash63());
            }
            judge(topic, partition, *entry, copies, right, &mut verdict);
            judge_letters(topic, partition, *entry, letters.remove(&at).unwrap_or_default(), &mut verdict);
        }
    }
    for stray in rows {
        unexpected(topic, &stray, &mut verdict);
    }
    for ((partition, offset), copies) in letters {
        verdict.wrong_dead_letters += copies.len() as u64;
        verdict.example(|| format!("{topic}[{partition}]@{offset}: a dead letter of a record that was not produced"));
    }
    verdict
}

fn unexpected(topic: &str, row: &LandedRow, verdict: &mut Verdict) {
    verdict.unexpected_rows += 1;
    verdict.example(|| format!("{topic}[{}]@{}: a row of a record that was not produced", row.partition, row.offset));
}

fn judge(topic: &str, partition: i32, entry: Entry, copies: u64, right: u64, verdict: &mut Verdict) {
    let place = || format!("{topic}[{partition}]@{}", entry.offset);
    verdict.produced += 1;
    if entry.is_bad() {
        verdict.unexpected_rows += copies;
        if copies > 0 {
            verdict.example(|| format!("{}: a bad record became a row", place()));
        }
        return;
    }
    verdict.good += 1;
    verdict.wrong_content += copies - right;
    verdict.duplicates += copies.saturating_sub(1);
    if copies > 1 && verdict.doubled.len() < EXAMPLES {
        verdict.doubled.push(format!("{}: {copies} rows", place()));
    }
    verdict.durable_distinct += u64::from(right > 0);
    if copies == 0 {
        verdict.missing += 1;
        verdict.example(|| format!("{}: missing", place()));
    } else if right < copies {
        verdict.example(|| format!("{}: wrong content", place()));
    }
}

fn judge_letters(topic: &str, partition: i32, entry: Entry, copies: Vec<u64>, verdict: &mut Verdict) {
    let place = || format!("{topic}[{partition}]@{}", entry.offset);
    if !entry.is_bad() {
        verdict.wrong_dead_letters += copies.len() as u64;
        if !copies.is_empty() {
            verdict.example(|| format!("{}: a dead letter of a good record", place()));
        }
        return;
    }
    let right = copies.iter().filter(|h| **h == entry.hash63()).count() as u64;
    verdict.wrong_dead_letters += copies.len() as u64 - right;
    verdict.dead_letters += u64::from(right > 0);
    verdict.duplicate_dead_letters += right.saturating_sub(1);
    if right == 0 {
        verdict.missing_dead_letters += 1;
        let why = if copies.is_empty() { "no dead letter" } else { "its dead letter has another value" };
        verdict.example(|| format!("{}: a bad record: {why}", place()));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    fn row(partition: i32, offset: i64, hash63: u64) -> LandedRow {
        LandedRow { partition, offset, hash63, landed_ms: 0 }
    }

    fn journal() -> Vec<Vec<Entry>> {
        vec![
            vec![Entry::new(0, 10, false), Entry::new(1, 11, false), Entry::new(2, 12, true)],
            vec![],
            vec![Entry::new(5, 25, false), Entry::new(7, 27, true)],
        ]
    }

    fn dead(partition: i32, offset: i64, hash63: u64) -> DeadLetter {
        DeadLetter { partition, offset, hash63 }
    }

    #[test]
    fn all_there() {
        let v = reconcile(
            "t",
            &journal(),
            vec![row(2, 5, 25), row(0, 1, 11), row(0, 0, 10), row(0, 0, 10)],
            &[dead(0, 2, 12), dead(2, 7, 27), dead(2, 7, 27)],
        );
        assert!(v.is_complete(0), "{v:?}");
        assert_eq!((v.produced, v.good, v.durable_distinct, v.duplicates, v.dead_letters), (5, 3, 3, 1, 2));
        assert_eq!(v.duplicate_dead_letters, 1);
        assert!(v.examples.is_empty());
        assert_eq!(v.doubled, ["t[0]@0: 2 rows"]);
    }

    #[test]
    fn each_kind_of_wrong_is_seen() {
        let v = reconcile(
            "t",
            &journal(),
            vec![row(0, 0, 99), row(0, 2, 12), row(1, 0, 5), row(2, 6, 1)],
            &[dead(0, 1, 11), dead(2, 7, 1), dead(9, 9, 9)],
        );
        assert!(!v.is_complete(1000));
        assert_eq!((v.missing, v.wrong_content, v.durable_distinct), (2, 1, 0));
        assert_eq!(v.unexpected_rows, 3, "a bad record's row, and two of none");
        assert_eq!((v.missing_dead_letters, v.wrong_dead_letters, v.dead_letters), (2, 3, 0));
    }

    #[test]
    fn a_lone_missing_record_or_letter_is_enough() {
        let letters = [dead(0, 2, 12), dead(2, 7, 27)];
        let rows = vec![row(0, 0, 10), row(0, 1, 11), row(2, 5, 25)];
        assert!(reconcile("t", &journal(), rows.clone(), &letters).is_complete(0));
        assert!(!reconcile("t", &journal(), rows[1..].to_vec(), &letters).is_complete(0));
        assert!(!reconcile("t", &journal(), rows.clone(), &letters[1..]).is_complete(0));
        let mut stray = rows;
        stray.push(row(2, 8, 1));
        assert!(!reconcile("t", &journal(), stray.clone(), &letters).is_complete(0));
        assert!(reconcile("t", &journal(), stray, &letters).is_complete(1), "one record was not acknowledged");
    }
}
