//! Where a connector's threads and tasks stand, for the last words of a process in which one of them is wedged.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

use super::batch::AppendJob;
use super::progress::{Ownership, PartitionProgress};
use crate::watchdog::Place;

/// Between takes, or before a take's first record.
const NO_OFFSET: i64 = -1;
/// Between takes.
const NO_SLOT: usize = usize::MAX;
/// Partitions that are named; more are counted.
const NAMED_MAX: usize = 6;

/// Where a shard's thread stands. Costs one relaxed store per record.
pub struct ShardPlace {
    connector: String,
    slot: AtomicUsize,
    offset: AtomicI64,
    /// By slot; locked at an assignment, and by whoever asks.
    partitions: Mutex<Vec<Arc<PartitionProgress>>>,
}

impl ShardPlace {
    /// A shard without partitions.
    pub fn new(connector: &str) -> Self {
        let (slot, offset) = (AtomicUsize::new(NO_SLOT), AtomicI64::new(NO_OFFSET));
        Self { connector: connector.to_owned(), slot, offset, partitions: Mutex::default() }
    }

    /// The slot is this assignment's from now on. Slots come one after the other.
    pub fn assigned(&self, slot: usize, progress: &Arc<PartitionProgress>) {
        let mut partitions = self.partitions.lock();
        match partitions.get_mut(slot) {
            Some(known) => *known = progress.clone(),
            None => partitions.push(progress.clone()),
        }
    }

    /// A take of this slot begins.
    pub fn takes(&self, slot: usize) {
        self.slot.store(slot, Relaxed);
    }

    /// This record is in hand, until the next one is or the take ends.
    #[inline]
    pub fn at(&self, offset: i64) {
        self.offset.store(offset, Relaxed);
    }

    /// The take is over.
    pub fn took(&self) {
        self.offset.store(NO_OFFSET, Relaxed);
        self.slot.store(NO_SLOT, Relaxed);
    }
}

impl Place for ShardPlace {
    fn describe(&self) -> String {
        let (slot, offset) = (self.slot.load(Relaxed), self.offset.load(Relaxed));
        let connector = &self.connector;
        let partitions = self.partitions.lock();
        match (partitions.get(slot), offset) {
            (Some(taken), NO_OFFSET) => format!("connector {connector}, taking from partition {}", standing(taken)),
            (Some(taken), offset) => {
                format!("connector {connector}, partition {}, at offset {offset}, in its decoding or right behind", taken.partition)
            }
            (None, _) => format!("connector {connector}, between takes, with {}", list(&partitions)),
        }
    }

    fn moved(&self) -> u64 {
        self.offset.load(Relaxed).cast_unsigned()
    }

    fn long_step(&self) -> Option<&'static str> {
        (self.offset.load(Relaxed) != NO_OFFSET).then_some("decoding one record")
    }
}

/// Where a writer stands: the partitions whose rows it took last.
pub struct WriterPlace {
    connector: String,
    last: Mutex<Vec<Arc<PartitionProgress>>>,
}

impl WriterPlace {
    /// A writer that has taken nothing yet.
    pub fn new(connector: &str) -> Self {
        Self { connector: connector.to_owned(), last: Mutex::default() }
    }

    /// It took this job.
    pub fn takes(&self, job: &AppendJob) {
        *self.last.lock() = job.partitions.iter().map(|(_, progress)| progress.clone()).collect();
    }
}

impl Place for WriterPlace {
    fn describe(&self) -> String {
        format!("connector {}, rows were taken last of {}", self.connector, list(&self.last.lock()))
    }
}

/// Where a connector's committer stands: what it owns.
pub fn of_committer(connector: &str, ownership: &Arc<Ownership>) -> Arc<dyn Place> {
    let (connector, ownership) = (connector.to_owned(), ownership.clone());
    Arc::new(move || format!("connector {connector}, with {}", list(&ownership.snapshot())))
}

fn standing(progress: &PartitionProgress) -> String {
    let known = |offset: Option<i64>| offset.map_or("unknown".to_owned(), |offset| offset.to_string());
    format!("{} at offset {}, finished up to {}", progress.partition, known(progress.next()), known(progress.head()))
}

fn list(partitions: &[Arc<PartitionProgress>]) -> String {
    let mut named: Vec<String> =
        partitions.iter().filter(|progress| !progress.is_gone()).take(NAMED_MAX).map(|progress| standing(progress)).collect();
    let more = partitions.iter().filter(|progress| !progress.is_gone()).count().saturating_sub(NAMED_MAX);
    if more > 0 {
        named.push(format!("{more} more"));
    }
    if named.is_empty() { "no partition".to_owned() } else { named.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::{Epoch, StartOffset};
    use crate::record::TopicPartition;

    #[test]
    fn a_shard_says_where_it_stands() {
        let place = ShardPlace::new("c");
        assert_eq!(place.describe(), "connector c, between takes, with no partition");
        for partition in 0..8 {
            let progress = PartitionProgress::new(TopicPartition::new("t", partition), Epoch(1), StartOffset::Committed(5));
            place.assigned(usize::try_from(partition).unwrap_or(0), &Arc::new(progress));
        }
        assert!(place.describe().ends_with("t[5] at offset 5, finished up to 5; 2 more"), "{}", place.describe());
        place.takes(3);
        assert_eq!(
            (place.describe().as_str(), place.long_step()),
            ("connector c, taking from partition t[3] at offset 5, finished up to 5", None)
        );
        let before = place.moved();
        place.at(7);
        assert!(place.describe().starts_with("connector c, partition t[3], at offset 7"), "{}", place.describe());
        assert!(place.long_step().is_some() && place.moved() != before);
        place.took();
        assert!(place.long_step().is_none());
    }
}
