//! Reads the dead-letter topics while the demo runs: the broker keeps 5 MiB of each partition only.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use parking_lot::Mutex;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use xxhash_rust::xxh3::xxh3_64;

use super::flows::FLOWS;
use super::reconcile::DeadLetter;

/// Partitions of each dead-letter topic.
pub(super) const PARTITIONS: i32 = 2;

/// Follows both dead-letter topics on a thread of its own.
pub(super) struct DeadLetterReader {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    stop: AtomicBool,
    consumer: BaseConsumer,
    letters: Vec<Mutex<Vec<DeadLetter>>>,
    read: AtomicU64,
    unreadable: Mutex<Vec<String>>,
}

impl DeadLetterReader {
    pub(super) fn start(brokers: &str) -> Result<Self> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("group.id", "millrace-demo-dead-letters")
            .set("client.id", "millrace-demo-judge")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .create()
            .context("reading dead letters")?;
        let mut all = TopicPartitionList::new();
        for flow in FLOWS {
            for partition in 0..PARTITIONS {
                all.add_partition_offset(flow.dead_letter_topic, partition, Offset::Beginning).context("reading dead letters")?;
            }
        }
        consumer.assign(&all).context("reading dead letters")?;
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            consumer,
            letters: FLOWS.iter().map(|_| Mutex::default()).collect(),
            read: AtomicU64::new(0),
            unreadable: Mutex::default(),
        });
        let thread = std::thread::Builder::new()
            .name("dead-letters".to_owned())
            .spawn({
                let shared = shared.clone();
                move || shared.run()
            })
            .context("dead-letter thread")?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// How many were read.
    pub(super) fn read(&self) -> u64 {
        self.shared.read.load(Ordering::Relaxed)
    }

    /// Reads on to the end that the topics have now (at most `deadline`); gives the letters by flow, and what could not be read as one.
    pub(super) fn finish(mut self, deadline: Duration) -> Result<(Vec<Vec<DeadLetter>>, Vec<String>)> {
        let until = Instant::now() + deadline;
        let mut end = 0;
        for flow in FLOWS {
            for partition in 0..PARTITIONS {
                let asked = loop {
                    match self.shared.consumer.fetch_watermarks(flow.dead_letter_topic, partition, Duration::from_secs(2)) {
                        Err(_) if Instant::now() < until => std::thread::sleep(Duration::from_millis(50)),
                        answer => break answer,
                    }
                };
                end += asked.with_context(|| format!("the end of {}[{partition}]", flow.dead_letter_topic))?.1;
            }
        }
        while i64::try_from(self.read()).unwrap_or(i64::MAX) < end && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.join();
        let letters = self.shared.letters.iter().map(|l| std::mem::take(&mut *l.lock())).collect();
        Ok((letters, std::mem::take(&mut *self.shared.unreadable.lock())))
    }

    fn join(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It panicked or it ended; either way it is over.
            let _ = thread.join();
        }
    }
}

impl Drop for DeadLetterReader {
    fn drop(&mut self) {
        self.join();
    }
}

impl Shared {
    fn run(&self) {
        while !self.stop.load(Ordering::Relaxed) {
            // Errors are the broker's faults; the consumer goes on by itself.
            let Some(Ok(message)) = self.consumer.poll(Duration::from_millis(100)) else { continue };
            let flow = FLOWS.iter().position(|f| f.dead_letter_topic == message.topic());
            match (flow, letter(&message)) {
                (Some(flow), Some((topic, letter))) if FLOWS[flow].topic == topic => self.letters[flow].lock().push(letter),
                _ => self.unreadable.lock().push(format!(
                    "{}[{}]@{}: headers do not name a record of its topic",
                    message.topic(),
                    message.partition(),
                    message.offset()
                )),
            }
            self.read.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The record that a dead letter stands for, by Kafka Connect's header names.
fn letter(message: &BorrowedMessage<'_>) -> Option<(String, DeadLetter)> {
    let headers = message.headers()?;
    let text = |name: &str| {
        let header = headers.iter().filter(|h| h.key == name).last()?;
        String::from_utf8(header.value?.to_vec()).ok()
    };
    // A class and a message must be there too: a dead letter says why.
    text("__connect.errors.exception.class.name")?;
    text("__connect.errors.exception.message")?;
    Some((
        text("__connect.errors.topic")?,
        DeadLetter {
            partition: text("__connect.errors.partition")?.parse().ok()?,
            offset: text("__connect.errors.offset")?.parse().ok()?,
            hash63: xxh3_64(message.payload().unwrap_or_default()) & (u64::MAX >> 1),
        },
    ))
}
