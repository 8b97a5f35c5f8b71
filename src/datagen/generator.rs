//! Produces records on a thread of its own until told to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};

use super::journal::{Entry, Journal};
use super::rate::{Brake, Pacer, Rate};
use super::record_maker::{Framing, MadeRecord, RecordMaker};

/// What is produced, where to and how fast.
#[derive(Clone)]
pub struct GeneratorSettings {
    /// `bootstrap.servers`.
    pub brokers: String,
    /// The topic; it must exist or be created by the broker.
    pub topic: String,
    /// How a record says what its schema is.
    pub framing: Framing,
    /// Records a second.
    pub rate: Arc<Rate>,
    /// Stops production while on.
    pub brake: Arc<Brake>,
    /// The share of bad records, 0 to 1.
    pub bad_share: f64,
    /// The same seed gives the same records (but for their times).
    pub seed: u64,
    /// Ends by itself after so many records.
    pub count: Option<u64>,
    /// More librdkafka properties; may hold secrets.
    pub properties: Vec<(String, String)>,
}

/// Why records cannot be produced.
#[derive(Debug, thiserror::Error)]
pub enum GeneratorError {
    /// librdkafka refuses the settings.
    #[error("producer for {brokers}: {source}")]
    Producer {
        /// The brokers.
        brokers: String,
        /// librdkafka's reason.
        source: KafkaError,
    },
    /// A record was refused for another reason than a full queue.
    #[error("topic `{topic}`: {source}")]
    Send {
        /// The topic.
        topic: String,
        /// librdkafka's reason.
        source: KafkaError,
    },
    /// The thread did not start or did not end well.
    #[error("generator thread: {0}")]
    Thread(String),
}

/// Enters acknowledgements in the journal.
struct Recorder(Arc<Journal>);

impl ClientContext for Recorder {}

impl ProducerContext for Recorder {
    /// Hash and badness of the record: no allocation a record.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, tag: usize) {
        match result {
            Ok(message) => {
                let headers: usize =
                    message.headers().map_or(0, |h| h.iter().map(|h| h.key.len() + h.value.map_or(0, <[u8]>::len) + 2).sum());
                let bytes = message.payload_len() + message.key_len() + headers;
                self.0.acknowledged(message.partition(), message.offset(), tag as u64, bytes as u64);
            }
            Err((e, _)) => self.0.failed_one(e.to_string()),
        }
    }
}

/// A running generator.
pub struct Generator {
    journal: Arc<Journal>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), GeneratorError>>>,
}

impl Generator {
    /// Starts it; acknowledgements go to `journal`.
    ///
    /// # Errors
    /// When librdkafka refuses the settings.
    pub fn start(settings: GeneratorSettings, journal: Arc<Journal>) -> Result<Self, GeneratorError> {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &settings.brokers)
            .set("client.id", "millrace-datagen")
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("linger.ms", "5")
            .set("compression.type", "lz4")
            .set("queue.buffering.max.messages", "200000")
            .set("queue.buffering.max.kbytes", "65536")
            .set("sticky.partitioning.linger.ms", "0");
        for (name, value) in &settings.properties {
            config.set(name, value);
        }
        let producer: ThreadedProducer<Recorder> = config
            .create_with_context(Recorder(journal.clone()))
            .map_err(|source| GeneratorError::Producer { brokers: settings.brokers.clone(), source })?;
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new()
            .name("datagen".to_owned())
            .spawn({
                let stop = stop.clone();
                move || run(&settings, &producer, &stop)
            })
            .map_err(|e| GeneratorError::Thread(e.to_string()))?;
        Ok(Self { journal, stop, thread: Some(thread) })
    }

    /// What was acknowledged so far.
    pub fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    /// Whether it ended by itself (all records produced, or an error that [`Self::stop`] gives).
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Stops making records and waits until what was made is acknowledged (at most a minute). Blocks.
    ///
    /// # Errors
    /// What ended it before.
    pub fn stop(mut self) -> Result<Arc<Journal>, GeneratorError> {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_| GeneratorError::Thread("it panicked".to_owned()))??;
        }
        Ok(self.journal.clone())
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn run(settings: &GeneratorSettings, producer: &ThreadedProducer<Recorder>, stop: &AtomicBool) -> Result<(), GeneratorError> {
    let mut maker = RecordMaker::new(settings.framing.clone(), settings.bad_share, settings.seed);
    let mut pacer = Pacer::new(Instant::now());
    let mut left = settings.count.unwrap_or(u64::MAX);
    let mut record = MadeRecord::default();
    while left > 0 && !stop.load(Ordering::Relaxed) {
        if settings.brake.is_on() {
            pacer.skip(Instant::now());
        }
        let due = pacer.due(Instant::now(), settings.rate.get()).min(left);
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
        for _ in 0..due {
            maker.make(now_ms, &mut record);
            send(settings, producer, &record, now_ms, stop)?;
        }
        left -= due;
        std::thread::sleep(Duration::from_millis(2));
    }
    producer.flush(Duration::from_secs(60)).map_err(|source| GeneratorError::Send { topic: settings.topic.clone(), source })
}

/// Hands one record over; waits while librdkafka's queue is full.
fn send(
    settings: &GeneratorSettings,
    producer: &ThreadedProducer<Recorder>,
    made: &MadeRecord,
    now_ms: i64,
    stop: &AtomicBool,
) -> Result<(), GeneratorError> {
    let tag = Entry::tag(made.hash, made.bad.is_some()) as usize;
    let mut record =
        BaseRecord::with_opaque_to(&settings.topic, tag).key(made.key.as_str()).payload(made.value.as_slice()).timestamp(now_ms);
    if let Some((name, value)) = &made.header {
        record = record.headers(OwnedHeaders::new().insert(Header { key: name, value: Some(value) }));
    }
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                // Not produced, not in the journal: nothing is missing when the stop comes now.
                if stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
                record = back;
                std::thread::sleep(Duration::from_millis(1));
            }
            Err((source, _)) => return Err(GeneratorError::Send { topic: settings.topic.clone(), source }),
        }
    }
}
