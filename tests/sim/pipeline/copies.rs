//! How often a record's row may be there.

use std::collections::BTreeMap;

use super::counted::Counted;
use super::oracle::ProcessFacts;
use super::scene::ProcessId;

/// Who brought each copy of a record's row.
type Rows = BTreeMap<(i32, i64), Vec<ProcessId>>;
type Processes = BTreeMap<ProcessId, ProcessFacts>;

/// Rows beyond the first of their record, and how many there may be when so much was counted.
pub fn of(rows: &Rows, processes: &Processes, counted: Counted) -> (u64, u64) {
    // What a process that ended had appended since its last commit may be there again; not by one that promises each row once.
    let ended = |process: &ProcessId| processes.get(process).filter(|facts| facts.ended && !facts.exact);
    let crash_copies = |(place, brought): (&(i32, i64), &Vec<ProcessId>)| {
        let uncommitted = |process: &&ProcessId| {
            ended(process).is_some_and(|facts| facts.committed.get(&place.0).is_none_or(|committed| place.1 >= *committed))
        };
        brought.iter().filter(uncommitted).count() as u64
    };
    let after_ends: u64 = rows.iter().map(crash_copies).sum();
    // What nobody told it before it ended.
    let unknown: u64 = processes.keys().filter_map(ended).map(|facts| facts.on_way + facts.in_doubt).sum();
    (rows.values().map(|brought| brought.len() as u64 - 1).sum(), counted.duplicates + after_ends + unknown)
}

/// Rows beyond the first that processes brought that promise each row once.
fn of_exact(rows: &Rows, processes: &Processes) -> u64 {
    let exact = |process: &&ProcessId| processes.get(process).is_some_and(|facts| facts.exact);
    rows.values().map(|brought| (brought.iter().filter(exact).count() as u64).saturating_sub(1)).sum()
}

/// What is wrong with the number of rows, if so much was counted.
pub fn uncounted(rows: &Rows, processes: &Processes, counted: Counted) -> Option<String> {
    let exact = of_exact(rows, processes);
    if exact > counted.replayed {
        return Some(format!(
            "{exact} rows too many where none was promised, and {} were sent again because the user chose so",
            counted.replayed
        ));
    }
    let (copies, expected) = of(rows, processes, counted);
    (copies > expected).then(|| {
        format!(
            "{copies} rows too many: {} possible duplicates were counted, {} come from processes that ended",
            counted.duplicates,
            expected - counted.duplicates
        )
    })
}
