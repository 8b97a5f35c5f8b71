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
    /// (flow, partition) that it owned when it was last asked; `None` when it did not answer: then it may have owned any.
    pub(super) owned: Option<Vec<(usize, i32)>>,
}

/// Rows of one flow that a kill may have doubled.
///
/// `settle_ms`: for how long after its death the worker's last appends may still land. It is shorter than the session timeout, before which
/// nobody else gets its partitions, so no row of a successor is counted.
pub(super) fn rows_at_risk(flow: usize, rows: &[LandedRow], kills: &[Kill], settle_ms: i64) -> u64 {
    let mut count = 0;
    for kill in kills {
        let Some(committed) = kill.committed.get(flow) else { continue };
        let owned = |partition: i32| kill.owned.as_ref().is_none_or(|o| o.contains(&(flow, partition)));
        let above = |row: &LandedRow| {
            let offset = usize::try_from(row.partition).ok().and_then(|p| committed.get(p)).copied().unwrap_or(0);
            row.offset >= offset
        };
        let until = kill.at_ms + settle_ms;
        count += rows.iter().filter(|row| row.landed_ms <= until && above(row) && owned(row.partition)).count() as u64;
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
    fn only_rows_above_the_commit_of_owned_partitions_that_were_there_in_time_count() {
        let rows = [row(0, 9, 50), row(0, 10, 50), row(0, 11, 99), row(0, 12, 2000), row(1, 30, 50), row(1, 30, 60)];
        let kill = Kill { at_ms: 100, committed: vec![vec![10, 30], vec![0, 0]], owned: Some(vec![(0, 0)]) };
        assert_eq!(rows_at_risk(0, &rows, std::slice::from_ref(&kill), 500), 2);
        assert_eq!(rows_at_risk(1, &rows, std::slice::from_ref(&kill), 500), 0, "another flow's partition");
        let any = Kill { owned: None, ..kill.clone() };
        assert_eq!(rows_at_risk(0, &rows, std::slice::from_ref(&any), 500), 4);
        assert_eq!(rows_at_risk(0, &rows, &[any.clone(), any], 500), 8, "each kill for itself");
        assert_eq!(rows_at_risk(0, &rows, &[], 500), 0);
    }
}
