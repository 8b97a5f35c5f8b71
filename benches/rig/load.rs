//! Records into topics, in Confluent's framing.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use millrace::datagen::{Framing, MadeRecord, RecordMaker, StockUpdate};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

/// So many different records are made and sent again and again: lz4 compresses within a batch, which is smaller.
const DIFFERENT: usize = 300_000;

/// The `client.id` of what produces, so that a quota for the others leaves it alone.
pub const LOAD: &str = "load";
/// What a broker takes when nobody told it otherwise.
const MESSAGE_MAX: &str = "1048588";

/// What records look like, and how fast they come.
pub struct Load<'a> {
    pub topics: &'a [String],
    pub partitions: i32,
    /// Sent one after the other, again and again.
    pub values: &'a [Vec<u8>],
    /// So many records to a partition, then the next one: what a batch on the broker holds at most.
    pub batch: u64,
    /// Records a second over all topics; `None` is as fast as it goes.
    pub rate: Option<u64>,
}

impl Load<'_> {
    /// Produces `count` records, or until `stop`; gives how many were acknowledged. Every one is, or this is an error.
    pub fn produce(&self, client: &mut ClientConfig, count: u64, stop: &AtomicBool, done: &AtomicU64) -> Result<u64> {
        let producer: BaseProducer = client
            .set("client.id", LOAD)
            .set("compression.type", "lz4")
            .set("linger.ms", "50")
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("queue.buffering.max.messages", "500000")
            .set("message.max.bytes", MESSAGE_MAX)
            .create()?;
        let start = Instant::now();
        let mut sent = 0;
        while sent < count && !stop.load(Ordering::Relaxed) {
            if let Some(rate) = self.rate
                && sent as f64 > start.elapsed().as_secs_f64() * rate as f64
            {
                producer.poll(Duration::from_millis(5));
                continue;
            }
            let turn = sent / self.batch;
            let topic = &self.topics[usize::try_from(turn)? % self.topics.len()];
            let partition = i32::try_from(turn / self.topics.len() as u64 % self.partitions.cast_unsigned() as u64)?;
            let value = &self.values[usize::try_from(sent)? % self.values.len()];
            let mut record = BaseRecord::<str, [u8]>::to(topic).partition(partition).payload(value);
            while let Err((error, again)) = producer.send(record) {
                if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                    return Err(error.into());
                }
                producer.poll(Duration::from_millis(10));
                record = again;
            }
            sent += 1;
            // A slow load must be seen to move, a fast one must not be slowed by it.
            if sent % 1000 == 0 || self.rate.is_some_and(|rate| rate < 1000) {
                producer.poll(Duration::ZERO);
                done.store(sent, Ordering::Relaxed);
            }
        }
        producer.flush(Duration::from_secs(120))?;
        done.store(sent, Ordering::Relaxed);
        Ok(sent)
    }
}

/// Stock updates, so many different ones that lz4 finds nothing of one batch in the next; `bad_share` of them can become no row.
pub fn stock(schema_id: u32, bad_share: f64) -> Vec<Vec<u8>> {
    let now = now_ms();
    let mut maker = RecordMaker::new(Framing::Registry { id: schema_id }, bad_share, 1);
    let mut record = MadeRecord::default();
    (0..DIFFERENT)
        .map(|_| {
            maker.make(now, &mut record);
            record.value.clone()
        })
        .collect()
}

/// Stock updates whose reference is `bytes` of random hexadecimal digits.
pub fn large(schema_id: u32, bytes: usize) -> Vec<Vec<u8>> {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    (0..20)
        .map(|_| {
            let mut update = StockUpdate::random(&mut rng, now_ms());
            update.reference = (0..bytes).map(|_| char::from_digit(rng.random_range(0..16), 16).unwrap_or('0')).collect();
            let mut value = vec![0];
            value.extend_from_slice(&schema_id.to_be_bytes());
            update.encode_avro(&mut value);
            value
        })
        .collect()
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(0))
}
