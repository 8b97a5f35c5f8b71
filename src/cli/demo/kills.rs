//! What each kill may have doubled: rows that landed above the offset that was committed when the worker died. Pure.

use super::committed::Offsets;
use super::reconcile::LandedRow;

/// A worker's end by SIGKILL.
#[derive(Debug, Clone)]
pub(super) struct Kill {
    /// When it was dead, milliseconds since the epoch.
    pub(super) at_ms: i64,
    /// The broker's committed offsets at that moment, by flow.
    pub(super) committed: Vec<Offsets>,
    /// (flow, partition) that it had taken records from when it was last asked; `None` when it did not answer: then it may have owned any.
    pub(super) taken_from: Option<Vec<(usize, i32)>>,
}

/// Rows of one flow that a kill may have doubled: those above the committed offset that had landed when the worker was dead, of every
/// partition, and of its own partitions those that landed within `settle_ms` after: its last appends were on their way. That is shorter
/// than its group takes to give its partitions to another, so that no row of a successor is counted.
pub(super) fn rows_at_risk(flow: usize, rows: &[LandedRow], kills: &[Kill], settle_ms: i64) -> u64 {
    let mut count = 0;
    for kill in kills {
        let Some(committed) = kill.committed.get(flow) else { continue };
        let was_its = |partition: i32| kill.taken_from.as_ref().is_none_or(|own| own.contains(&(flow, partition)));
        let above = |row: &LandedRow| {
            let offset = usize::try_from(row.partition).ok().and_then(|p| committed.get(p)).copied().unwrap_or(0);
            row.offset >= offset
        };
        let in_time = |row: &LandedRow| row.landed_ms <= kill.at_ms || (row.landed_ms <= kill.at_ms + settle_ms && was_its(row.partition));
        count += rows.iter().filter(|row| in_time(row) && above(row)).count() as u64;
    }
    count
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    fn row(partition: i32, offset: i64, landed_ms: i64) -> LandedRow {
        LandedRow { partition, offset, hash63: 0, landed_ms }
    }

    #[test]
    fn only_rows_above_the_commit_that_were_there_in_time_count() {
        let rows = [row(0, 9, 50), row(0, 10, 50), row(0, 11, 300), row(0, 12, 2000), row(1, 30, 50), row(1, 30, 300), row(1, 29, 50)];
        let kill = Kill { at_ms: 100, committed: vec![vec![10, 30], vec![0, 0]], taken_from: Some(vec![(0, 0)]) };
        assert_eq!(rows_at_risk(0, &rows, std::slice::from_ref(&kill), 500), 3, "two of its partition, one of another's, there in time");
        assert_eq!(rows_at_risk(0, &rows, std::slice::from_ref(&kill), 0), 2);
        assert_eq!(rows_at_risk(2, &rows, std::slice::from_ref(&kill), 500), 0, "no such flow");
        let any = Kill { taken_from: None, ..kill.clone() };
        assert_eq!(rows_at_risk(0, &rows, std::slice::from_ref(&any), 500), 4);
        assert_eq!(rows_at_risk(0, &rows, &[any.clone(), any], 500), 8, "each kill for itself");
        assert_eq!(rows_at_risk(0, &rows, &[], 500), 0);
    }
}
