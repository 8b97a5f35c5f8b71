//! A mock cluster, a producer, and a listener that plays the pipeline: it "makes durable" whatever it takes, at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use millrace::config::{KafkaValue, StartAt};
use millrace::kafka::{
    Assigned, ClusterSettings, Epoch, Flow, GroupControl, GroupListener, GroupSettings, NextOffset, PartitionQueue, QueueEvent,
    StartOffset, Topics, start_group,
};
use millrace::record::TopicPartition;
use parking_lot::Mutex;
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::machine::Watch;

/// How the group shares partitions.
#[derive(Clone, Copy, PartialEq)]
pub enum Protocol {
    CooperativeSticky,
    Range,
    Consumer,
}

/// The mock cluster waits for a second less where a group that is there changes, and for 3 s where a group begins: a session that ends
/// meanwhile ends the member without a word.
pub const SESSION: Duration = Duration::from_secs(6);

fn session() -> KafkaValue {
    KafkaValue::Int(SESSION.as_millis() as i64)
}

pub fn settings(brokers: &str, group: &str, topics: &[&str], protocol: Protocol) -> GroupSettings {
    let text = |v: &str| KafkaValue::Text(v.to_owned());
    let mut kafka: std::collections::BTreeMap<String, KafkaValue> = [("bootstrap.servers".to_owned(), text(brokers))].into();
    match protocol {
        Protocol::CooperativeSticky => {
            kafka.insert("session.timeout.ms".to_owned(), session());
        }
        Protocol::Range => {
            kafka.insert("session.timeout.ms".to_owned(), session());
            kafka.insert("partition.assignment.strategy".to_owned(), text("range"));
        }
        Protocol::Consumer => {
            kafka.insert("group.protocol".to_owned(), text("consumer"));
        }
    }
    GroupSettings {
        cluster: ClusterSettings { kafka, connector: group.to_owned(), ..ClusterSettings::default() },
        group_id: group.to_owned(),
        topics: Topics::List(topics.iter().map(|t| (*t).to_owned()).collect()),
        start: StartAt::Earliest,
        prefetch_bytes: 16 << 20,
        partitions_max: Some(16),
        revoke_commit_timeout: Duration::from_secs(3),
    }
}

/// A record as the pipeline saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub partition: TopicPartition,
    pub offset: i64,
    pub value: Vec<u8>,
    pub epoch: Epoch,
}

pub struct Slot {
    pub queue: Box<dyn PartitionQueue>,
    pub epoch: Epoch,
    pub next: i64,
}

#[derive(Default)]
pub struct State {
    pub slots: HashMap<TopicPartition, Slot>,
    pub seen: Vec<Seen>,
    pub events: Vec<(TopicPartition, QueueEvent)>,
    pub starts: Vec<(TopicPartition, Epoch, StartOffset)>,
    /// What was committed beside the offset, as the last assignment brought it.
    pub metadata: HashMap<TopicPartition, Option<Arc<str>>>,
    pub lost: Vec<TopicPartition>,
    /// Partitions whose last heads were not committed when they went.
    pub not_committed: Vec<TopicPartition>,
    pub errors: Vec<String>,
}

pub struct Pipeline {
    pub state: Mutex<State>,
    /// Take nothing: queues stay unread.
    pub idle: AtomicBool,
    pub wake: Mutex<Option<thread::Thread>>,
}

impl Pipeline {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), idle: AtomicBool::new(false), wake: Mutex::new(None) })
    }

    /// One turn over all queues.
    pub fn take(&self) -> u64 {
        let mut taken = 0;
        let mut state = self.state.lock();
        let State { slots, seen, events, .. } = &mut *state;
        for (partition, slot) in slots.iter_mut() {
            let mut budget = 500;
            let (epoch, next) = (slot.epoch, &mut slot.next);
            let outcome = slot.queue.take(&mut |record| {
                seen.push(Seen {
                    partition: partition.clone(),
                    offset: record.offset,
                    value: record.value.unwrap_or_default().to_vec(),
                    epoch,
                });
                *next = record.offset + 1;
                budget -= 1;
                if budget == 0 { Flow::Yield } else { Flow::Continue }
            });
            taken += outcome.records;
            events.extend(outcome.event.map(|event| (partition.clone(), event)));
        }
        taken
    }
}

impl GroupListener for Pipeline {
    fn assigned(&self, partitions: Vec<Assigned>) {
        let mut state = self.state.lock();
        for mut assigned in partitions {
            if let Some(thread) = self.wake.lock().clone() {
                assigned.queue.wake_on_data(thread);
            }
            let next = match assigned.start {
                StartOffset::Committed(offset) | StartOffset::Latest(offset) | StartOffset::Asked(offset) => offset,
                StartOffset::Earliest => 0,
            };
            state.starts.push((assigned.partition.clone(), assigned.epoch, assigned.start));
            state.metadata.insert(assigned.partition.clone(), assigned.metadata.clone());
            state.slots.insert(assigned.partition, Slot { queue: assigned.queue, epoch: assigned.epoch, next });
        }
    }
    fn revoking(&self, partitions: &[TopicPartition]) -> Vec<NextOffset> {
        let mut state = self.state.lock();
        let drop_slot = |p: &TopicPartition| state.slots.remove(p).map(|slot| NextOffset::plain(p.clone(), slot.next));
        partitions.iter().filter_map(drop_slot).collect()
    }
    fn not_committed(&self, partitions: &[TopicPartition]) {
        self.state.lock().not_committed.extend(partitions.iter().cloned());
    }
    fn lost(&self, partitions: &[TopicPartition]) {
        let mut state = self.state.lock();
        for partition in partitions {
            state.slots.remove(partition);
            state.lost.push(partition.clone());
        }
    }
    fn group_error(&self, message: &str, fatal: bool) {
        self.state.lock().errors.push(format!("{message} (fatal: {fatal})"));
    }
}

/// A member with a shard thread and a committer.
pub struct Worker {
    pub pipeline: Arc<Pipeline>,
    pub control: Arc<dyn GroupControl>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Worker {
    pub fn start(settings: GroupSettings) -> Self {
        let (pipeline, control) = join(settings);
        let stop = Arc::new(AtomicBool::new(false));
        let (p, s) = (Arc::clone(&pipeline), Arc::clone(&stop));
        let shard = thread::spawn(move || {
            while !s.load(Ordering::Relaxed) {
                if p.idle.load(Ordering::Relaxed) || p.take() == 0 {
                    thread::park_timeout(Duration::from_millis(10));
                }
            }
        });
        *pipeline.wake.lock() = Some(shard.thread().clone());
        let (p, s, c) = (Arc::clone(&pipeline), Arc::clone(&stop), Arc::clone(&control));
        let committer = thread::spawn(move || {
            while !s.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(300));
                let heads: Vec<NextOffset> = {
                    let state = p.state.lock();
                    state.slots.iter().map(|(tp, slot)| NextOffset::plain(tp.clone(), slot.next)).collect()
                };
                // A commit in the middle of a rebalance may fail; the next one counts.
                let _ = c.commit(&heads, Duration::from_secs(2));
            }
        });
        Self { pipeline, control, stop, threads: vec![shard, committer] }
    }

    /// Leaves cleanly and gives back what was seen.
    pub fn close(mut self) -> Vec<Seen> {
        let begun = Watch::start();
        self.control.close(Duration::from_secs(20)).unwrap();
        assert!(begun.elapsed() < Duration::from_secs(15), "closing took {:?}", begun.elapsed());
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
        assert!(self.pipeline.state.lock().slots.is_empty(), "a closed consumer's queues were left with the listener");
        std::mem::take(&mut self.pipeline.state.lock().seen)
    }

    pub fn seen(&self) -> usize {
        self.pipeline.state.lock().seen.len()
    }

    pub fn owned(&self) -> usize {
        self.pipeline.state.lock().slots.len()
    }
}

/// Joins a group; gives what its listener hears, and the member.
pub fn join(settings: GroupSettings) -> (Arc<Pipeline>, Arc<dyn GroupControl>) {
    let pipeline = Pipeline::new();
    let control = start_group(settings, Arc::clone(&pipeline) as Arc<dyn GroupListener>).unwrap();
    (pipeline, control)
}

pub fn producer(brokers: &str) -> BaseProducer {
    ClientConfig::new().set("bootstrap.servers", brokers).set("linger.ms", "1").create().unwrap()
}

/// Produces `count` records of 32 bytes or so to each of `partitions`: their values are `from..from + count`.
pub fn produce(producer: &BaseProducer, topic: &str, partitions: i32, from: usize, count: usize) {
    for n in from..from + count {
        for partition in 0..partitions {
            let value = format!("{n:032}");
            let mut record = BaseRecord::<(), str>::to(topic).partition(partition).payload(&value);
            while let Err((KafkaError::MessageProduction(rdkafka::types::RDKafkaErrorCode::QueueFull), back)) = producer.send(record) {
                record = back;
                producer.poll(Duration::from_millis(10));
            }
        }
    }
    producer.flush(Duration::from_secs(20)).unwrap();
}

pub fn wait_until(what: &str, limit: Duration, mut done: impl FnMut() -> bool) {
    let begun = Watch::start();
    while !done() {
        assert!(begun.elapsed() < limit, "not within {limit:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
