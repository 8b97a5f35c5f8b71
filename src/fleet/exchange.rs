//! The two topics: made when missing, read all the time by a thread of its own, written when asked.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::joins::JoinHold;
use super::order::Order;
use super::report::Note;
use super::state::{JOINS, LeaderMemory, MEMORY, PublishedDecision, decision_key};
use super::view::FleetView;
use crate::config::ScalingConfig;
use crate::flow::Backoff;
use crate::kafka::{ClusterSettings, KafkaError, Kept, LogReader, LogStart, LogTopic, LogWriter, ensure_log_topics};
use crate::watchdog::{self, Beat};

/// One question to the brokers.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest that a stop waits for the reader's thread to notice.
const WAIT: Duration = Duration::from_millis(200);
/// How long a reader that panicked waits before it reads again.
const AFTER_PANIC: Duration = Duration::from_secs(1);
/// Without a record that stood there before for this long, none is taken to be left, once something was heard.
const OLD_MAX: Duration = Duration::from_secs(10);
/// Reports that are read from before the beginning, so that a fresh worker shows at once who was there.
const REPORTS_BACK: i64 = 200;
/// How long reading what stands in the state topic may take when somebody waits for it.
const CATCH_UP_MAX: Duration = Duration::from_secs(5);
/// The state topic has not been read.
const UNREAD: i64 = -1;
/// A note that was not acknowledged by then is given up: the next one says the same.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads both topics into the view, and writes to them. Kafka that is away is said in the view and tried again for ever; records move meanwhile.
pub struct Exchange {
    report_topic: String,
    state_topic: String,
    writer: LogWriter,
    shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// The topics exist: writing before would let a broker with auto.create.topics.enable make them, with wrong settings.
    ready: AtomicBool,
    /// The view holds everything of the state topic below this offset.
    read_to: watch::Sender<i64>,
}

impl Exchange {
    /// Starts reading into `view`.
    ///
    /// # Errors
    /// Properties that librdkafka refuses, no thread.
    pub fn start(cluster: &ClusterSettings, scaling: &ScalingConfig, view: Arc<FleetView>) -> Result<Self, KafkaError> {
        let shared = Arc::new(Shared::default());
        let writer = LogWriter::new(cluster, WRITE_TIMEOUT)?;
        let (report_topic, state_topic) = (scaling.report_topic_name(), scaling.state_topic_name());
        let reading =
            Reading { cluster: cluster.clone(), report: report_topic.clone(), state: state_topic.clone(), view, shared: shared.clone() };
        let reader = std::thread::Builder::new()
            .name("fleet-reader".to_owned())
            .spawn(move || reading.run_on())
            .map_err(|error| KafkaError::Stopped(format!("no thread for reading the fleet's topics: {error}")))?;
        Ok(Self { report_topic, state_topic, writer, shared, reader: Some(reader) })
    }

    /// Writes a note of this worker to the report topic.
    ///
    /// # Errors
    /// The topics are not there yet, Kafka refuses, or gives no answer within 5 s.
    pub async fn report(&self, worker: &str, note: &Note) -> Result<(), KafkaError> {
        let value = serde_json::to_vec(note).map_err(|error| unwritable(&error))?;
        self.write(&self.report_topic, worker, Some(&value)).await
    }

    /// Writes a decision to the state topic.
    ///
    /// # Errors
    /// As [`Exchange::report`].
    pub async fn publish(&self, decision: &PublishedDecision) -> Result<(), KafkaError> {
        let value = serde_json::to_vec(decision).map_err(|error| unwritable(&error))?;
        self.write(&self.state_topic, &decision_key(decision.number), Some(&value)).await
    }

    /// Leaves a memory for the next leader.
    ///
    /// # Errors
    /// As [`Exchange::report`].
    pub async fn remember(&self, memory: &LeaderMemory) -> Result<(), KafkaError> {
        let value = serde_json::to_vec(memory).map_err(|error| unwritable(&error))?;
        self.write(&self.state_topic, MEMORY, Some(&value)).await
    }

    /// Says how long workers that have started wait before they join.
    ///
    /// # Errors
    /// As [`Exchange::report`].
    pub async fn hold_joins(&self, hold: &JoinHold) -> Result<(), KafkaError> {
        let value = serde_json::to_vec(hold).map_err(|error| unwritable(&error))?;
        self.write(&self.state_topic, JOINS, Some(&value)).await
    }

    /// Writes an order. Whether it holds is known after [`Exchange::catch_up`].
    ///
    /// # Errors
    /// As [`Exchange::report`]; without an answer it may have been written all the same.
    pub async fn order(&self, order: &Order) -> Result<(), KafkaError> {
        let (key, value) = order.record().map_err(|error| unwritable(&error))?;
        self.write(&self.state_topic, &key, Some(&value)).await
    }

    /// Waits until the view holds everything that stands in the state topic now: what is written next may build on it, whoever wrote it.
    ///
    /// # Errors
    /// Brokers that do not answer; a topic that is not read to its end within 5 s.
    pub async fn catch_up(&self) -> Result<(), KafkaError> {
        let end = self.writer.end(&self.state_topic).await?;
        let mut read_to = self.shared.read_to.subscribe();
        match tokio::time::timeout(CATCH_UP_MAX, read_to.wait_for(|read_to| *read_to >= end)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(KafkaError::Stopped(format!("topic {} is not read any more", self.state_topic))),
            Err(_) => Err(KafkaError::TimedOut { what: format!("reading topic {} to its end", self.state_topic), within: CATCH_UP_MAX }),
        }
    }

    /// Whether the topics are known to be there.
    pub fn is_ready(&self) -> bool {
        self.shared.ready.load(SeqCst)
    }

    async fn write(&self, topic: &str, key: &str, value: Option<&[u8]>) -> Result<(), KafkaError> {
        if !self.is_ready() {
            return Err(KafkaError::Stopped(format!("topic {topic} is not known to be there yet")));
        }
        self.writer.write(topic, key, value).await
    }

    /// Ends the reading; returns when its thread has ended. Blocks for as long as a question to the brokers takes, at most.
    pub fn stop(mut self) {
        self.shared.stop.store(true, SeqCst);
        if let Some(reader) = self.reader.take()
            && reader.join().is_err()
        {
            tracing::error!("the thread that reads the fleet's topics panicked");
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
    }
}

fn unwritable(error: &serde_json::Error) -> KafkaError {
    KafkaError::Refused { what: "a note for the fleet".to_owned(), message: error.to_string() }
}

struct Reading {
    cluster: ClusterSettings,
    report: String,
    state: String,
    view: Arc<FleetView>,
    shared: Arc<Shared>,
}

impl Reading {
    /// Runs, and after a panic again: a worker that hears nobody must say so and get well.
    fn run_on(self) {
        let beat = watchdog::watch("thread fleet-reader");
        while !self.shared.stop.load(SeqCst) {
            match catch_unwind(AssertUnwindSafe(|| self.run(&beat))) {
                Ok(()) => return,
                Err(_) => {
                    tracing::error!("the thread that reads the fleet's topics panicked: it goes on anew");
                    self.view.deaf("the fleet's topics are not read: the reader panicked and goes on anew".to_owned());
                    std::thread::sleep(AFTER_PANIC);
                }
            }
        }
    }

    fn run(&self, beat: &Beat) {
        let mut backoff = Backoff::hold(u64::from(std::process::id()));
        let mut said = String::new();
        while !self.shared.stop.load(SeqCst) {
            let Err(error) = self.read(&mut backoff, beat) else { return };
            let why = format!("the fleet's topics cannot be read: {error}");
            if said == why {
                tracing::debug!("{why}");
            } else {
                tracing::warn!("{why}; records move on, and it is tried again");
                said.clone_from(&why);
            }
            self.view.deaf(why);
            let mut left = backoff.next_delay();
            while !left.is_zero() && !self.shared.stop.load(SeqCst) {
                beat.beat();
                let nap = left.min(WAIT);
                std::thread::sleep(nap);
                left -= nap;
            }
        }
    }

    /// Reads until it is told to stop.
    fn read(&self, backoff: &mut Backoff, beat: &Beat) -> Result<(), KafkaError> {
        let opening = beat.long_step("asking the brokers for the fleet's topics");
        let topics =
            [LogTopic { name: self.report.clone(), kept: Kept::Hour }, LogTopic { name: self.state.clone(), kept: Kept::Compacted }];
        ensure_log_topics(&self.cluster, &topics, ASK_TIMEOUT)?;
        self.shared.ready.store(true, SeqCst);
        let starts = [(self.report.clone(), LogStart::Last(REPORTS_BACK)), (self.state.clone(), LogStart::Beginning)];
        let reader = LogReader::open(&self.cluster, &starts, ASK_TIMEOUT)?;
        drop(opening);
        let heard = self.hear(&reader, backoff, beat);
        // Waits for librdkafka's threads, which may be asking for a broker's address.
        let _closing = beat.long_step("closing the reader of the fleet's topics");
        drop(reader);
        heard
    }

    fn hear(&self, reader: &LogReader, backoff: &mut Backoff, beat: &Beat) -> Result<(), KafkaError> {
        // Where each topic has been read to; a compacted or expired one may hold nothing up to its end.
        let ends = [reader.end_at_open(&self.report), reader.end_at_open(&self.state)];
        let mut behind = [ends[0] > 0, ends[1] > 0];
        self.view.state_begins();
        self.shared.read_to.send_replace(UNREAD);
        let mut state_to = ends[1];
        // When a record last came that stood there before the topics were opened; none has while nothing was heard.
        let mut old_at: Option<Instant> = None;
        while !self.shared.stop.load(SeqCst) {
            beat.beat();
            if !behind[1] {
                self.state_read(state_to);
            }
            if let Some(record) = reader.next(WAIT)? {
                let of_report = record.topic == self.report;
                let end = ends[usize::from(!of_report)];
                if record.offset < end || old_at.is_none() {
                    old_at = Some(Instant::now());
                }
                if of_report {
                    self.view.hear_report(record.value.as_deref().unwrap_or_default(), record.offset < end);
                } else if let Some(key) = &record.key {
                    self.view.hear_state(key, record.value.as_deref(), record.offset < end);
                }
                if !of_report {
                    state_to = state_to.max(record.offset + 1);
                }
                behind[usize::from(!of_report)] &= record.offset + 1 < end;
            }
            // What expired or was deleted at the end never comes, however many new records do.
            if behind == [false, false] || old_at.is_some_and(|at| at.elapsed() > OLD_MAX) {
                self.view.caught_up();
                self.state_read(state_to);
                backoff.reset();
            }
            self.view.forget();
        }
        Ok(())
    }

    fn state_read(&self, to: i64) {
        self.view.state_read();
        self.shared.read_to.send_if_modified(|read_to| std::mem::replace(read_to, to) != to);
    }
}
