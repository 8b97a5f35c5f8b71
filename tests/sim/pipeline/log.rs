//! The topic: what stands in its partitions, when it comes, and what must become of each record.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use millrace::decode::{AvroSchema, ConnectNames, SchemaKey};
use millrace::record::{OwnedRecord, TopicPartition};
use millrace::schema::{SchemaError, SchemaSource};
use parking_lot::Mutex;
use rand::Rng;

use crate::world::World;

/// The topic's name.
pub const TOPIC: &str = "t";
/// A schema id that the registry does not know.
const UNKNOWN_ID: u32 = 99;
/// For each schema (ids from 1) the columns that it has beside `n`. They are nobody's superset in turn, so that workers race.
const COLUMNS: [&[u8]; 5] = [&[], &[2], &[3], &[2, 3, 4], &[4, 5]];

/// What must become of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// A row, with the columns of this schema.
    Row(u32),
    /// A dead letter: it cannot be decoded, or its schema is unknown.
    Bad,
    /// A dead letter: BigQuery rejects its row, and names it.
    Rejected(u32),
    /// A dead letter: BigQuery refuses whatever append its row is in, without saying which row it is.
    Poison(u32),
    /// Nothing: it is a tombstone.
    Dropped,
}

/// A record.
pub struct LogRecord {
    /// Its offset: rising, with gaps.
    pub offset: i64,
    /// When it comes.
    pub at: Duration,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// What must become of it.
    pub fate: Fate,
}

/// The topic.
pub struct Log {
    partitions: Vec<Vec<LogRecord>>,
    /// For each partition: retention has taken what is below.
    low: Mutex<Vec<i64>>,
}

impl Log {
    /// Some partitions with some records each, that come until `end`; drawn from the seed.
    pub fn draw(world: &World, partitions: usize, end: Duration) -> Self {
        let schemas = world.draw(|random| random.random_range(1..=COLUMNS.len() as u32));
        let draw = |partition: usize| {
            let count = world.draw(|random| random.random_range(8..36));
            let mut times: Vec<Duration> = (0..count).map(|_| world.draw_span(end)).collect();
            if world.draw(|random| random.random_bool(0.3)) {
                times.iter_mut().for_each(|at| *at /= 8); // a backlog
            }
            times.sort_unstable();
            let mut offset = world.draw(|random| random.random_range(0..3));
            let record = |at| {
                let here = offset;
                offset += world.draw(|random| if random.random_bool(0.1) { random.random_range(2..4) } else { 1 });
                let schema = world.draw(|random| random.random_range(1..=schemas));
                let (fate, value) = match world.draw(|random| random.random_range(0..40)) {
                    0 => (Fate::Dropped, None),
                    1 => (Fate::Bad, Some(framed(schema, &[0x80]))),
                    2 => (Fate::Bad, Some(framed(UNKNOWN_ID, &[2]))),
                    3 => (Fate::Rejected(schema), Some(row(partition, here, schema))),
                    4 => (Fate::Poison(schema), Some(row(partition, here, schema))),
                    _ => (Fate::Row(schema), Some(row(partition, here, schema))),
                };
                LogRecord { offset: here, at, value, fate }
            };
            times.into_iter().map(record).collect()
        };
        Self { partitions: (0..partitions).map(draw).collect(), low: Mutex::new(vec![0; partitions]) }
    }

    /// How many partitions.
    pub fn partitions(&self) -> i32 {
        self.partitions.len() as i32
    }

    /// All records of a partition.
    pub fn records(&self, partition: i32) -> &[LogRecord] {
        &self.partitions[partition as usize]
    }

    /// The first offset that is left, unless retention has taken all.
    pub fn low(&self, partition: i32) -> i64 {
        self.low.lock()[partition as usize]
    }

    /// The offset behind the last record that has come by `now`.
    pub fn high(&self, partition: i32, now: Duration) -> i64 {
        let records = self.records(partition);
        let come = records.partition_point(|record| record.at <= now);
        let last = come.checked_sub(1).map_or(0, |last| records[last].offset + 1);
        last.max(self.low(partition))
    }

    /// Retention takes what is below.
    pub fn expire(&self, partition: i32, below: i64) {
        let low = &mut self.low.lock()[partition as usize];
        *low = below.max(*low);
    }

    /// What must become of the record of this offset; `None`: there never was one.
    pub fn fate(&self, partition: i32, offset: i64) -> Option<Fate> {
        let records = self.records(partition);
        records.binary_search_by_key(&offset, |record| record.offset).ok().map(|at| records[at].fate)
    }

    /// The value of the record of this offset, whatever retention took.
    pub fn value(&self, partition: i32, offset: i64) -> Option<&[u8]> {
        let records = self.records(partition);
        records.binary_search_by_key(&offset, |record| record.offset).ok().and_then(|at| records[at].value.as_deref())
    }

    /// The first record at or behind `offset` that has come by `now`, and is still there.
    pub fn next(&self, partition: i32, offset: i64, now: Duration) -> Option<&LogRecord> {
        let (records, from) = (self.records(partition), offset.max(self.low(partition)));
        records.get(records.partition_point(|record| record.offset < from)).filter(|record| record.at <= now)
    }

    /// The offset behind the last record.
    pub fn end(&self, partition: i32) -> i64 {
        self.records(partition).last().map_or(0, |record| record.offset + 1)
    }

    /// The record of this offset, as somebody reads it who assigns himself; `None`: retention took it.
    pub fn reread(&self, partition: i32, offset: i64) -> Option<OwnedRecord> {
        let records = self.records(partition);
        let at = records.binary_search_by_key(&offset, |record| record.offset).ok().filter(|_| offset >= self.low(partition))?;
        Some(OwnedRecord {
            topic: Arc::from(TOPIC),
            partition,
            offset,
            timestamp_ms: Some(1),
            key: None,
            value: records[at].value.clone().map(Bytes::from),
            headers: Vec::new(),
        })
    }
}

/// A partition of the topic.
pub fn named(partition: i32) -> TopicPartition {
    static NAME: OnceLock<Arc<str>> = OnceLock::new();
    TopicPartition::new(NAME.get_or_init(|| Arc::from(TOPIC)).clone(), partition)
}

/// The columns beside `kafka_partition` and `kafka_offset` that a row of this schema must have, with their values.
pub fn columns_of(partition: i32, offset: i64, schema: u32) -> BTreeMap<String, i64> {
    let mut columns = BTreeMap::from([("n".to_owned(), number(partition as usize, offset))]);
    for column in COLUMNS[schema as usize - 1] {
        columns.insert(format!("c{column}"), number(partition as usize, offset) + i64::from(*column));
    }
    columns
}

fn number(partition: usize, offset: i64) -> i64 {
    1 + offset * 100 + partition as i64 * 100_000
}

fn framed(schema: u32, body: &[u8]) -> Vec<u8> {
    let mut value = vec![0];
    value.extend(schema.to_be_bytes());
    value.extend(body);
    value
}

fn row(partition: usize, offset: i64, schema: u32) -> Vec<u8> {
    let n = number(partition, offset);
    let mut body = Vec::new();
    put_long(&mut body, n);
    for column in COLUMNS[schema as usize - 1] {
        put_long(&mut body, 1); // the union's second branch
        put_long(&mut body, n + i64::from(*column));
    }
    framed(schema, &body)
}

/// Avro's long: zigzag, then base 128.
fn put_long(out: &mut Vec<u8>, value: i64) {
    let mut left = ((value << 1) ^ (value >> 63)) as u64;
    while left >= 0x80 {
        out.push(left as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}

fn schemas() -> &'static [Arc<AvroSchema>] {
    static SCHEMAS: OnceLock<Vec<Arc<AvroSchema>>> = OnceLock::new();
    SCHEMAS.get_or_init(|| {
        let parse = |(at, columns): (usize, &&[u8])| {
            let fields: Vec<String> =
                columns.iter().map(|c| format!(r#",{{"name":"c{c}","type":["null","long"],"default":null}}"#)).collect();
            let text = format!(r#"{{"type":"record","name":"r","fields":[{{"name":"n","type":"long"}}{}]}}"#, fields.concat());
            let root = apache_avro::Schema::parse_str(&text).unwrap();
            let connect_names = ConnectNames::from_texts([text.as_str()]);
            Arc::new(AvroSchema { id: (at + 1).to_string(), root, references: Vec::new(), connect_names })
        };
        COLUMNS.iter().enumerate().map(parse).collect()
    })
}

/// The registry: slow, and away until a moment.
pub struct Registry {
    world: World,
    away_until: Mutex<Duration>,
}

impl Registry {
    /// A registry that answers.
    pub fn new(world: &World) -> Self {
        Self { world: world.clone(), away_until: Mutex::new(Duration::ZERO) }
    }

    /// It does not answer until then.
    pub fn away(&self, until: Duration) {
        let mut away = self.away_until.lock();
        *away = until.max(*away);
    }
}

#[async_trait]
impl SchemaSource for Registry {
    async fn fetch(&self, key: &SchemaKey) -> Result<Arc<AvroSchema>, SchemaError> {
        let span = self.world.draw_span(Duration::from_millis(80));
        self.world.pass(span).await;
        if *self.away_until.lock() > self.world.now() {
            return Err(SchemaError::Unavailable("the registry is away".to_owned()));
        }
        match key {
            SchemaKey::Id(id) => {
                let known = schemas().get((*id as usize).wrapping_sub(1)).cloned();
                known.ok_or_else(|| SchemaError::Unknown(format!("no schema {id}")))
            }
            _ => Err(SchemaError::Unusable("records name their schemas by id".to_owned())),
        }
    }
}
