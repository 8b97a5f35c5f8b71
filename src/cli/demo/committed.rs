//! What the consumer groups have committed, by the broker's own books; and the brake that keeps unread records inside the broker.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use parking_lot::Mutex;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use super::flows::{FLOWS, Flow};
use crate::datagen::{Brake, Journal};
use crate::embedded::broker::{RETAINED_BYTES, RETAINED_RECORDS};

/// Committed offsets of one flow, by partition; 0 where nothing is committed.
pub(super) type Offsets = Vec<i64>;

/// Reads committed offsets without joining a group.
pub(super) struct CommittedReader {
    consumers: Vec<(Flow, BaseConsumer)>,
    partitions: i32,
}

impl CommittedReader {
    pub(super) fn new(brokers: &str, partitions: i32) -> Result<Self> {
        let consumers = FLOWS
            .iter()
            .map(|flow| {
                let consumer: BaseConsumer = ClientConfig::new()
                    .set("bootstrap.servers", brokers)
                    .set("group.id", flow.group())
                    .set("client.id", "millrace-demo-judge")
                    .create()
                    .with_context(|| format!("reading the offsets of {}", flow.group()))?;
                Ok((*flow, consumer))
            })
            .collect::<Result<_>>()?;
        Ok(Self { consumers, partitions })
    }

    /// All flows' committed offsets; blocks for at most `timeout` a flow.
    pub(super) fn read(&self, timeout: Duration) -> Result<Vec<Offsets>> {
        self.consumers
            .iter()
            .map(|(flow, consumer)| {
                let mut asked = TopicPartitionList::new();
                asked.add_partition_range(flow.topic, 0, self.partitions - 1);
                let answer =
                    consumer.committed_offsets(asked, timeout).with_context(|| format!("committed offsets of {}", flow.group()))?;
                let mut offsets = vec![0; usize::try_from(self.partitions).unwrap_or(0)];
                for element in answer.elements() {
                    element.error().with_context(|| format!("committed offset of {}[{}]", flow.topic, element.partition()))?;
                    if let (Offset::Offset(offset), Ok(p)) = (element.offset(), usize::try_from(element.partition())) {
                        offsets[p] = offset;
                    }
                }
                Ok(offsets)
            })
            .collect()
    }

    /// As [`Self::read`], again and again until it works or `deadline` has passed: the broker has faults.
    pub(super) fn read_surely(&self, deadline: Duration) -> Result<Vec<Offsets>> {
        let until = Instant::now() + deadline;
        loop {
            match self.read(Duration::from_secs(2)) {
                Err(_) if Instant::now() < until => std::thread::sleep(Duration::from_millis(20)),
                outcome => return outcome,
            }
        }
    }
}

/// Follows the groups' progress on a thread of its own and works the brake.
pub(super) struct Guard {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    stop: AtomicBool,
    reader: CommittedReader,
    committed: Mutex<Vec<Offsets>>,
    journals: Vec<Arc<Journal>>,
    brake: Arc<Brake>,
}

/// The share of the broker's capacity that unread records may take before the brake is put on, and below which it is released.
const BRAKE_ON: f64 = 0.5;
const BRAKE_OFF: f64 = 0.3;
/// What the broker counts for a record besides key, value and headers: record framing and its part of the batch's header.
const RECORD_OVERHEAD_BYTES: f64 = 24.0;

impl Guard {
    pub(super) fn start(reader: CommittedReader, journals: Vec<Arc<Journal>>, brake: Arc<Brake>) -> Result<Self> {
        let committed = Mutex::new(vec![Vec::new(); journals.len()]);
        let shared = Arc::new(Shared { stop: AtomicBool::new(false), reader, committed, journals, brake });
        let thread = std::thread::Builder::new()
            .name("guard".to_owned())
            .spawn({
                let shared = shared.clone();
                move || shared.run()
            })
            .context("guard thread")?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Records produced and not yet committed, all flows together.
    pub(super) fn lag(&self) -> u64 {
        let committed = self.shared.committed.lock();
        self.shared.journals.iter().zip(committed.iter()).map(|(j, c)| lags(j, c).sum::<u64>()).sum()
    }

    /// The committed offsets of this moment, asked from the broker. Blocks.
    pub(super) fn committed_now(&self) -> Result<Vec<Offsets>> {
        self.shared.reader.read_surely(Duration::from_secs(10))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It panicked or it ended; either way it is over.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn run(&self) {
        while !self.stop.load(Ordering::Relaxed) {
            // Without an answer the last one stays: the lag then looks larger than it is, which is the safe side.
            if let Ok(committed) = self.reader.read(Duration::from_millis(500)) {
                *self.committed.lock() = committed;
            }
            let fullest = {
                let committed = self.committed.lock();
                self.journals.iter().zip(committed.iter()).map(|(j, c)| fill(j, c)).fold(0.0, f64::max)
            };
            if fullest > BRAKE_ON {
                self.brake.set(true);
            } else if fullest < BRAKE_OFF {
                self.brake.set(false);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn lags<'a>(journal: &Journal, committed: &'a [i64]) -> impl Iterator<Item = u64> + 'a {
    journal
        .next_offsets()
        .into_iter()
        .enumerate()
        .map(move |(p, next)| u64::try_from(next - committed.get(p).copied().unwrap_or(0)).unwrap_or(0))
}

/// How much of a partition's capacity its unread records take, for the fullest one: 0 to 1 and beyond.
fn fill(journal: &Journal, committed: &[i64]) -> f64 {
    let record_bytes = journal.bytes() as f64 / journal.records().max(1) as f64 + RECORD_OVERHEAD_BYTES;
    let unread = lags(journal, committed).max().unwrap_or(0) as f64;
    (unread / RETAINED_RECORDS as f64).max(unread * record_bytes / RETAINED_BYTES as f64)
}
