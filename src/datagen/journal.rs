//! What was produced, by the broker's own acknowledgements.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// Marks a bad record in an entry; hashes keep the other 63 bits.
const BAD: u64 = 1 << 63;

/// One acknowledged record: 16 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Its offset.
    pub offset: i64,
    tagged: u64,
}

impl Entry {
    /// An entry of this hash (its highest bit is dropped).
    pub const fn new(offset: i64, hash: u64, bad: bool) -> Self {
        Self { offset, tagged: Self::tag(hash, bad) }
    }
    /// The lower 63 bits of the record's hash.
    pub const fn hash63(self) -> u64 {
        self.tagged & !BAD
    }
    /// Whether it is a bad record.
    pub const fn is_bad(self) -> bool {
        self.tagged & BAD != 0
    }
    /// Hash and badness in one word, as it travels with the record through librdkafka.
    pub(super) const fn tag(hash: u64, bad: bool) -> u64 {
        (hash & !BAD) | if bad { BAD } else { 0 }
    }
}

/// What one topic's broker acknowledged, by partition in the order of offsets.
#[derive(Debug, Default)]
pub struct Journal {
    partitions: Mutex<Vec<Vec<Entry>>>,
    records: AtomicU64,
    bad: AtomicU64,
    bytes: AtomicU64,
    failed: AtomicU64,
    last_failure: Mutex<Option<String>>,
}

impl Journal {
    /// Records acknowledged.
    pub fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }
    /// Bad ones among them.
    pub fn bad(&self) -> u64 {
        self.bad.load(Ordering::Relaxed)
    }
    /// Bytes of keys, values and headers acknowledged.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
    /// Records that the broker did not acknowledge; nobody knows whether they are in the topic.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
    /// Why the last of them was not acknowledged.
    pub fn last_failure(&self) -> Option<String> {
        self.last_failure.lock().clone()
    }
    /// One more than the highest acknowledged offset, by partition.
    pub fn next_offsets(&self) -> Vec<i64> {
        self.partitions.lock().iter().map(|p| p.last().map_or(0, |e| e.offset + 1)).collect()
    }
    /// A partition's entries, sorted by offset. Empty when nothing was produced to it.
    pub fn partition(&self, partition: i32) -> Vec<Entry> {
        let mut entries = usize::try_from(partition).ok().and_then(|p| self.partitions.lock().get(p).cloned()).unwrap_or_default();
        entries.sort_unstable_by_key(|e| e.offset);
        entries
    }
    /// Number of partitions from 0 to the highest that was produced to.
    pub fn partitions(&self) -> i32 {
        i32::try_from(self.partitions.lock().len()).unwrap_or(i32::MAX)
    }

    /// Writes `partition,offset,hash,good|bad` a line, the hash in 16 hex digits.
    ///
    /// # Errors
    /// When `out` fails.
    pub fn write_csv(&self, out: &mut impl Write) -> std::io::Result<()> {
        writeln!(out, "partition,offset,hash63,kind")?;
        for partition in 0..self.partitions() {
            for entry in self.partition(partition) {
                writeln!(out, "{partition},{},{:016x},{}", entry.offset, entry.hash63(), if entry.is_bad() { "bad" } else { "good" })?;
            }
        }
        Ok(())
    }

    /// Notes an acknowledgement.
    pub(super) fn acknowledged(&self, partition: i32, offset: i64, tagged: u64, bytes: u64) {
        let Ok(index) = usize::try_from(partition) else { return };
        let entry = Entry { offset, tagged };
        let mut partitions = self.partitions.lock();
        if partitions.len() <= index {
            partitions.resize_with(index + 1, Vec::new);
        }
        partitions[index].push(entry);
        drop(partitions);
        self.records.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if entry.is_bad() {
            self.bad.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes a record that was given up.
    pub(super) fn failed_one(&self, reason: String) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        *self.last_failure.lock() = Some(reason);
    }
}
