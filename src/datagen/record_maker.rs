//! The sequence of records that a seed stands for.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use xxhash_rust::xxh3::xxh3_64;

use super::bad_record::BadKind;
use super::stock_update::{STOCK_UPDATE_NAME, StockUpdate};

/// How a record says what its schema is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Framing {
    /// Confluent's: magic byte 0, the registry's id in four bytes, Avro.
    Registry {
        /// The registry's id.
        id: u32,
    },
    /// Plain Avro; a header carries the record's full name.
    Header {
        /// The header's name.
        header: String,
    },
    /// A JSON object, no schema.
    Json,
}

/// A record, ready to be produced.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MadeRecord {
    /// The variant's id in decimal.
    pub key: String,
    /// The value, framed.
    pub value: Vec<u8>,
    /// The header that names the schema, if it has one.
    pub header: Option<(String, String)>,
    /// [`StockUpdate::content_hash`] of a good record, the hash of the value's bytes of a bad one.
    pub hash: u64,
    /// What is wrong with it.
    pub bad: Option<BadKind>,
}

/// Makes records: the same seed and times give the same ones.
pub struct RecordMaker {
    framing: Framing,
    bad_share: f64,
    rng: ChaCha8Rng,
    bad_made: usize,
}

impl RecordMaker {
    /// `bad_share` of the records (0 to 1) are bad, of each kind in turn.
    pub fn new(framing: Framing, bad_share: f64, seed: u64) -> Self {
        Self { framing, bad_share: bad_share.clamp(0.0, 1.0), rng: ChaCha8Rng::seed_from_u64(seed), bad_made: 0 }
    }

    /// The next record, in the place of `record`.
    pub fn make(&mut self, now_ms: i64, record: &mut MadeRecord) {
        use std::fmt::Write as _;

        let update = StockUpdate::random(&mut self.rng, now_ms);
        let bad = self.rng.random_bool(self.bad_share).then(|| {
            let kinds = BadKind::of_framing(&self.framing);
            self.bad_made += 1;
            kinds[(self.bad_made - 1) % kinds.len()]
        });
        record.key.clear();
        // Writing into a String cannot fail.
        let _ = write!(record.key, "{}", update.variant_id);
        record.value.clear();
        if let Framing::Registry { id } = self.framing {
            record.value.push(if bad == Some(BadKind::WrongMagicByte) { 0x2A } else { 0 });
            let id = if bad == Some(BadKind::UnknownSchemaId) { id + 1_000_000 } else { id };
            record.value.extend_from_slice(&id.to_be_bytes());
        }
        match (bad, &self.framing) {
            (Some(kind), framing) => kind.encode(&update, framing, &mut record.value),
            (None, Framing::Json) => record.value.extend_from_slice(update.to_json().to_string().as_bytes()),
            (None, Framing::Registry { .. } | Framing::Header { .. }) => update.encode_avro(&mut record.value),
        }
        if bad == Some(BadKind::TooShort) {
            record.value.truncate(3);
        }
        record.header = match (&self.framing, bad) {
            (Framing::Header { .. }, Some(BadKind::MissingSchemaHeader)) | (Framing::Registry { .. } | Framing::Json, _) => None,
            (Framing::Header { header }, Some(BadKind::HeaderOutsideFolder)) => Some((header.clone(), "../../etc/passwd".to_owned())),
            (Framing::Header { header }, _) => Some((header.clone(), STOCK_UPDATE_NAME.to_owned())),
        };
        record.hash = if bad.is_some() { xxh3_64(&record.value) } else { update.content_hash() };
        record.bad = bad;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn read(schema: &apache_avro::Schema, rest: &mut &[u8]) -> apache_avro::types::Value {
        apache_avro::reader::datum::GenericDatumReader::builder(schema).build().unwrap().read_value(rest).unwrap()
    }

    fn make(framing: Framing, share: f64, seed: u64, count: usize) -> Vec<MadeRecord> {
        let mut maker = RecordMaker::new(framing, share, seed);
        (0..count)
            .map(|_| {
                let mut record = MadeRecord::default();
                maker.make(1_790_000_000_000, &mut record);
                record
            })
            .collect()
    }

    #[test]
    fn a_seed_stands_for_its_records() {
        let framing = Framing::Registry { id: 7 };
        assert_eq!(make(framing.clone(), 0.1, 5, 300), make(framing.clone(), 0.1, 5, 300));
        assert_ne!(make(framing.clone(), 0.1, 5, 300), make(framing, 0.1, 6, 300));
    }

    #[test]
    fn every_kind_comes_and_none_is_a_good_record() {
        let schema = apache_avro::Schema::parse_str(super::super::STOCK_UPDATE_SCHEMA).unwrap();
        for framing in [Framing::Registry { id: 7 }, Framing::Header { header: "schema".to_owned() }, Framing::Json] {
            let records = make(framing.clone(), 0.5, 9, 200);
            let kinds: BTreeSet<BadKind> = records.iter().filter_map(|r| r.bad).collect();
            assert_eq!(kinds.len(), BadKind::of_framing(&framing).len(), "{framing:?}");
            for record in records {
                let head = if matches!(framing, Framing::Registry { .. }) { 5 } else { 0 };
                match record.bad {
                    None if framing == Framing::Json => assert!(serde_json::from_slice::<serde_json::Value>(&record.value).is_ok()),
                    None => {
                        let mut rest = &record.value[head..];
                        read(&schema, &mut rest);
                        assert!(rest.is_empty());
                    }
                    Some(BadKind::TooShort) => assert!(record.value.len() < 5),
                    Some(BadKind::WrongMagicByte) => assert_ne!(record.value[0], 0),
                    Some(BadKind::MissingSchemaHeader) => assert_eq!(record.header, None),
                    Some(BadKind::HeaderOutsideFolder) => assert!(record.header.unwrap().1.starts_with("..")),
                    Some(BadKind::UnknownSchemaId) => assert_ne!(record.value[..5], [0, 0, 0, 0, 7]),
                    Some(_) => assert_eq!(record.hash, xxh3_64(&record.value)),
                }
            }
        }
    }
}
