//! AppendRowsRequest on the wire: whose rows, how many, and which records they came from.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};
use parking_lot::Mutex;
use prost::Message;
use prost_types::DescriptorProto;

/// Where the rows of a connection go: a request names stream and schema only when they change.
#[derive(Debug, Default)]
pub struct Destination {
    stream: String,
    partition_field: u32,
    offset_field: u32,
}

/// Which records have arrived: a bit for each (stream, partition, offset).
#[derive(Debug, Default)]
pub struct Journal {
    seen: Mutex<HashMap<(String, u64), Vec<u64>>>,
}

impl Journal {
    pub fn distinct(&self) -> u64 {
        self.seen.lock().values().flatten().map(|word| u64::from(word.count_ones())).sum()
    }

    fn mark(&self, rows: &[(u64, u64)], stream: &str) {
        let mut seen = self.seen.lock();
        for (partition, offset) in rows {
            let words = seen.entry((stream.to_owned(), *partition)).or_default();
            let (word, bit) = ((offset / 64) as usize, offset % 64);
            if words.len() <= word {
                words.resize(word + 1024, 0);
            }
            words[word] |= 1 << bit;
        }
    }
}

/// Parses one request (storage.proto: `write_stream` 1, `proto_rows` 4 {`writer_schema` 1 {`proto_descriptor` 1}, `rows` 2
/// {`serialized_rows` 1}}); gives how many rows it has.
pub fn take_request(message: &[u8], destination: &mut Destination, journal: Option<&Journal>) -> Result<u64> {
    let mut count = 0;
    for field in Fields(message) {
        match field? {
            (1, Value::Bytes(stream)) if !stream.is_empty() => destination.stream = String::from_utf8(stream.to_vec())?,
            (4, Value::Bytes(proto_rows)) => {
                // The schema first: it may stand behind the rows.
                for part in Fields(proto_rows) {
                    if let (1, Value::Bytes(schema)) = part? {
                        destination.learn(schema)?;
                    }
                }
                for part in Fields(proto_rows) {
                    if let (2, Value::Bytes(rows)) = part? {
                        count += take_rows(rows, destination, journal)?;
                    }
                }
            }
            _ => {}
        }
    }
    Ok(count)
}

fn take_rows(rows: &[u8], destination: &Destination, journal: Option<&Journal>) -> Result<u64> {
    let (mut count, mut marked) = (0, Vec::new());
    for row in Fields(rows) {
        let (1, Value::Bytes(row)) = row? else { bail!("ProtoRows with something else than rows") };
        count += 1;
        if journal.is_some() {
            let (mut partition, mut offset) = (None, None);
            for field in Fields(row) {
                match field? {
                    (number, Value::Number(value)) if number == destination.partition_field => partition = Some(value),
                    (number, Value::Number(value)) if number == destination.offset_field => offset = Some(value),
                    _ => {}
                }
            }
            marked.push((partition.context("a row without its partition")?, offset.context("a row without its offset")?));
        }
    }
    if let Some(journal) = journal {
        journal.mark(&marked, &destination.stream);
    }
    Ok(count)
}

impl Destination {
    fn learn(&mut self, schema: &[u8]) -> Result<()> {
        for field in Fields(schema) {
            if let (1, Value::Bytes(descriptor)) = field? {
                let descriptor = DescriptorProto::decode(descriptor)?;
                let number = |name: &str| descriptor.field.iter().find(|f| f.name() == name).map_or(0, |f| f.number().cast_unsigned());
                (self.partition_field, self.offset_field) = (number("kafka_partition"), number("kafka_offset"));
            }
        }
        Ok(())
    }
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message in wire form.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        (!self.0.is_empty()).then(|| self.field().context("bytes that are no protobuf message"))
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u32, Value<'a>)> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Number(self.varint()?),
            1 => Value::Number(u64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Number(u32::from_le_bytes(self.take(4)?.try_into().ok()?).into()),
            _ => return None,
        };
        Some(((key >> 3) as u32, value))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (first, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(first & 0x7F) << shift;
            if *first < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}
