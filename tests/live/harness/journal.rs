//! What was produced, by the brokers' own acknowledgements, held against what a table holds.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::message::{BorrowedMessage, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use serde_json::Value;

use super::emulator::Reader;
use super::process::wait_for;

/// Acknowledged records: (partition, offset) to the record's identity, in the column that the check compares.
pub type Journal = BTreeMap<(i32, i64), String>;

/// Reads delivery reports into a journal.
#[derive(Default)]
pub struct Reports {
    journal: Mutex<Journal>,
    failed: Mutex<Vec<String>>,
}

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<String>;

    fn delivery(&self, result: &Result<BorrowedMessage<'_>, (rdkafka::error::KafkaError, BorrowedMessage<'_>)>, identity: Box<String>) {
        match result {
            Ok(message) => {
                drop(self.journal.lock().expect("no panic while held").insert((message.partition(), message.offset()), *identity))
            }
            Err((error, _)) => self.failed.lock().expect("no panic while held").push(format!("{identity}: {error}")),
        }
    }
}

/// One record to produce.
#[derive(Default)]
pub struct Outgoing<'a> {
    /// `None` lets the key decide.
    pub partition: Option<i32>,
    /// Its key.
    pub key: &'a [u8],
    /// Its value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Its headers.
    pub headers: &'a [(&'a str, &'a [u8])],
    /// Milliseconds since the epoch; `None` is now.
    pub timestamp_ms: Option<i64>,
}

/// A producer of one topic with acks=all that keeps a journal of what the brokers acknowledged.
pub struct Producer {
    topic: String,
    inner: ThreadedProducer<Reports>,
}

impl Producer {
    /// For `topic`; idempotent, unless `config` says otherwise.
    pub fn new(mut config: ClientConfig, topic: &str) -> anyhow::Result<Self> {
        config.set("enable.idempotence", "true").set("linger.ms", "5").set("message.max.bytes", "12000000");
        Ok(Self { topic: topic.to_owned(), inner: config.create_with_context(Reports::default())? })
    }

    /// Hands a record over; waits while the producer's queue is full.
    pub fn send(&self, identity: impl Into<String>, record: &Outgoing<'_>) -> anyhow::Result<()> {
        let mut outgoing = BaseRecord::<[u8], [u8], Box<String>>::with_opaque_to(&self.topic, Box::new(identity.into())).key(record.key);
        outgoing.partition = record.partition;
        outgoing.payload = record.value;
        outgoing.timestamp = record.timestamp_ms;
        if !record.headers.is_empty() {
            let headers =
                record.headers.iter().fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: Some(*value) }));
            outgoing = outgoing.headers(headers);
        }
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            match self.inner.send(outgoing) {
                Ok(()) => return Ok(()),
                Err((error, again))
                    if Instant::now() < deadline && error.rdkafka_error_code() == Some(rdkafka::types::RDKafkaErrorCode::QueueFull) =>
                {
                    outgoing = again;
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err((error, _)) => bail!("cannot produce to {}: {error}", self.topic),
            }
        }
    }

    /// The producer itself, for transactions.
    pub fn inner(&self) -> &ThreadedProducer<Reports> {
        &self.inner
    }

    /// Waits for all acknowledgements and returns what was acknowledged since the last call. A record that was not is an error.
    pub fn journal(&self) -> anyhow::Result<Journal> {
        self.inner.flush(Duration::from_secs(60))?;
        let reports = self.inner.context();
        let failed = std::mem::take(&mut *reports.failed.lock().expect("no panic while held"));
        if !failed.is_empty() {
            bail!("{} records were not acknowledged: {failed:?}", failed.len());
        }
        Ok(std::mem::take(&mut *reports.journal.lock().expect("no panic while held")))
    }
}

/// A thread that produces at a steady rate until it is stopped.
pub struct Stream {
    stop: Arc<AtomicBool>,
    rate: Arc<AtomicU32>,
    thread: JoinHandle<anyhow::Result<Journal>>,
}

impl Stream {
    /// Sends `make(n)` = (identity, value) for n = 0, 1, ..., `rate` records a second, their partition chosen by turns among `partitions`.
    pub fn start(producer: Producer, partitions: i32, rate: u32, make: impl Fn(i64) -> (String, Vec<u8>) + Send + 'static) -> Self {
        let (stop, rate) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(rate)));
        let (stopping, rate_now) = (Arc::clone(&stop), Arc::clone(&rate));
        let thread = std::thread::spawn(move || {
            let (mut looked, mut due, mut sent) = (Instant::now(), 0.0, 0);
            while !stopping.load(Ordering::Relaxed) {
                let now = Instant::now();
                due += (now - looked).as_secs_f64() * f64::from(rate_now.load(Ordering::Relaxed));
                looked = now;
                while sent < due as i64 {
                    let (identity, value) = make(sent);
                    let partition = i32::try_from(sent % i64::from(partitions))?;
                    producer.send(identity, &Outgoing { partition: Some(partition), value: Some(&value), ..Outgoing::default() })?;
                    sent += 1;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            producer.journal()
        });
        Self { stop, rate, thread }
    }

    /// Records a second from now on.
    pub fn set_rate(&self, rate: u32) {
        self.rate.store(rate, Ordering::Relaxed);
    }

    /// Ends it and returns its journal.
    pub fn stop(self) -> anyhow::Result<Journal> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the producing thread panicked"))?
    }
}

/// A table's rows by (partition, offset): identities, one for each copy of the row.
pub type Rows = BTreeMap<(i32, i64), Vec<String>>;

/// Reads `kafka_partition`, `kafka_offset` and the column `identity` of a table. A table that is not there has no rows.
pub fn rows(reader: &Reader, table: &str, identity: &str) -> anyhow::Result<Rows> {
    let found = match reader.query(&format!("SELECT kafka_partition, kafka_offset, {identity} AS identity FROM {table}")) {
        Ok(found) => found,
        Err(error) if error.to_string().contains("NotFound") => return Ok(Rows::new()),
        Err(error) => return Err(error),
    };
    let mut rows = Rows::new();
    for row in found {
        let number = |name: &str| row[name].as_i64().with_context(|| format!("{name} is no number in {row}"));
        let identity = match &row["identity"] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        rows.entry((i32::try_from(number("kafka_partition")?)?, number("kafka_offset")?)).or_default().push(identity);
    }
    Ok(rows)
}

/// Waits until every record of the journal is in the table, then holds the two against each other: nothing missing, nothing that was not
/// produced, every row the record it claims to be. Returns the number of duplicate rows.
pub fn reconcile(reader: &Reader, table: &str, identity: &str, journal: &Journal, within: Duration) -> anyhow::Result<usize> {
    let mut last = 0;
    let arrived = wait_for("all records in the table", within, || {
        let rows = rows(reader, table, identity)?;
        last = rows.len();
        Ok((rows.len() >= journal.len()).then_some(rows))
    });
    let rows = arrived.with_context(|| format!("{table}: {last} of {} records arrived", journal.len()))?;
    let missing: Vec<_> = journal.keys().filter(|place| !rows.contains_key(place)).take(5).collect();
    if !missing.is_empty() {
        bail!("{table}: missing, among others: {missing:?}");
    }
    for (place, copies) in &rows {
        let Some(produced) = journal.get(place) else { bail!("{table}: {place:?} was never produced as a good record: {copies:?}") };
        if let Some(other) = copies.iter().find(|copy| *copy != produced) {
            bail!("{table}: {place:?} was produced as {produced} and is there as {other}");
        }
    }
    Ok(rows.values().map(|copies| copies.len() - 1).sum())
}

/// As [`reconcile`], and every record is there once.
pub fn reconcile_exactly(reader: &Reader, table: &str, identity: &str, journal: &Journal, within: Duration) -> anyhow::Result<()> {
    match reconcile(reader, table, identity, journal, within)? {
        0 => Ok(()),
        duplicates => bail!("{table}: {duplicates} duplicates although nothing was killed"),
    }
}
