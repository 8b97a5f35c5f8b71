//! Whether a connector is stalled: records wait, nothing is finished, and no hold says why.

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use super::progress::PartitionProgress;

/// Without progress for this long while records wait, a connector is stalled.
const STALLED_AFTER_MS: i64 = 30_000;
/// Offsets at a partition's end that may be no records: markers of transactions, aborted records, compacted ones.
const TAIL_MAX: i64 = 100;
/// Not stalled.
const FINE: i64 = -1;

/// Watches the heads of a connector's partitions.
#[derive(Debug)]
pub struct StallWatch {
    since_ms: AtomicI64,
}

impl Default for StallWatch {
    fn default() -> Self {
        Self { since_ms: AtomicI64::new(FINE) }
    }
}

/// What one partition looked like when its head last moved.
#[derive(Debug, Clone, Copy)]
pub struct LastMove {
    head: Option<i64>,
    lag_records: i64,
    at_ms: i64,
}

impl LastMove {
    /// Compares with what is now; returns since when nothing moves, if records wait and nothing says why.
    pub fn look(last: &mut Option<Self>, progress: &PartitionProgress, lag_records: i64, now_ms: i64) -> Option<i64> {
        let head = progress.head();
        let moved = last.is_none_or(|last| last.head != head);
        if moved || lag_records == 0 || progress.hold().is_some() {
            *last = Some(Self { head, lag_records, at_ms: now_ms });
            return None;
        }
        let taken = progress.next() > head;
        // Nothing was taken: then records wait if some came since, or if there are more than a tail of markers explains.
        let waits = |last: &Self| taken || lag_records > last.lag_records || lag_records > TAIL_MAX;
        last.filter(waits).map(|last| last.at_ms).filter(|at_ms| now_ms - at_ms >= STALLED_AFTER_MS)
    }
}

impl StallWatch {
    /// Takes in what a look at all partitions found. Returns `true` when the connector just stalled.
    pub fn set(&self, since_ms: Option<i64>) -> bool {
        let before = self.since_ms.swap(since_ms.unwrap_or(FINE), Relaxed);
        since_ms.is_some() && before == FINE
    }

    /// Since when the connector stalls, milliseconds since the epoch.
    pub fn since_ms(&self) -> Option<i64> {
        Some(self.since_ms.load(Relaxed)).filter(|since| *since != FINE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::{Epoch, StartOffset};
    use crate::record::TopicPartition;

    #[test]
    fn a_partition_that_waits_without_a_reason_is_stalled() {
        let progress = PartitionProgress::new(TopicPartition::new("t", 0), Epoch(1), StartOffset::Committed(5));
        let mut last = None;
        assert_eq!(LastMove::look(&mut last, &progress, 10, 0), None);
        assert_eq!(LastMove::look(&mut last, &progress, 11, 29_000), None);
        assert_eq!(LastMove::look(&mut last, &progress, 10, 31_000), None, "may be markers of transactions");
        assert_eq!(LastMove::look(&mut last, &progress, 101, 31_000), Some(0), "too many for that");
        assert_eq!(LastMove::look(&mut last, &progress, 11, 31_000), Some(0), "one came since");
        progress.publish(Some(6), Some(9));
        assert_eq!(LastMove::look(&mut last, &progress, 9, 32_000), None);
        assert_eq!(LastMove::look(&mut last, &progress, 9, 62_000), Some(32_000), "taken and not finished");
        assert_eq!(LastMove::look(&mut last, &progress, 0, 90_000), None, "nothing waits");
        let watch = StallWatch::default();
        assert!(watch.set(Some(3)));
        assert!(!watch.set(Some(3)));
        assert_eq!(watch.since_ms(), Some(3));
        watch.set(None);
        assert_eq!(watch.since_ms(), None);
    }
}
