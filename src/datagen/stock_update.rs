//! One stock update: its fields, its Avro and JSON forms, its hash.

use rand::Rng;
use xxhash_rust::xxh3::Xxh3;

/// The record's full name, which the schema header carries.
pub const STOCK_UPDATE_NAME: &str = "com.huub.types.SMSPhysicalStockUpdates_values";

/// Its Avro schema, as it lies in `schemas/`.
pub const STOCK_UPDATE_SCHEMA: &str = include_str!("../../schemas/SMSPhysicalStockUpdates_values.avsc");

const WAREHOUSES: [&str; 8] = ["Maia 1", "Maia 2", "Porto", "Venlo", "Łódź", "Essen", "Paris Nord", "Milano"];
const CHANNELS: [&str; 5] = ["B2C", "B2B", "marketplace", "retail", "returns"];

/// A change of the physical stock of one variant in one warehouse. Fields as in the schema.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "the schema's `doc`s say it")]
pub struct StockUpdate {
    pub timestamp: i64,
    pub process_reference: Option<String>,
    pub variant_id: i32,
    pub warehouse_id: i32,
    pub warehouse_name: String,
    pub huubclient_id: i32,
    pub ean: String,
    pub reference: String,
    pub sales_channel_type: String,
    pub delta: i32,
    pub stock_after_adjust: i32,
}

impl StockUpdate {
    /// A random update that happened up to 5 s before `now_ms` (milliseconds since the epoch).
    pub fn random(rng: &mut impl Rng, now_ms: i64) -> Self {
        let warehouse = rng.random_range(0..WAREHOUSES.len());
        let variant_id = rng.random_range(1..200_000);
        let delta = rng.random_range(-50..=50);
        Self {
            timestamp: now_ms - rng.random_range(0..5_000),
            process_reference: rng.random_bool(0.7).then(|| format!("PR-{:08X}", rng.random::<u32>())),
            variant_id,
            warehouse_id: i32::try_from(warehouse).unwrap_or(0) + 1,
            warehouse_name: WAREHOUSES[warehouse].to_owned(),
            huubclient_id: rng.random_range(1..400),
            ean: format!("{:013}", rng.random_range(0..10_000_000_000_000u64)),
            reference: format!("ref-{variant_id}-{}", rng.random_range(0..1000)),
            sales_channel_type: CHANNELS[rng.random_range(0..CHANNELS.len())].to_owned(),
            delta,
            stock_after_adjust: rng.random_range(0..10_000) + delta.max(0),
        }
    }

    /// Appends the Avro binary encoding.
    pub fn encode_avro(&self, out: &mut Vec<u8>) {
        put_long(out, self.timestamp);
        put_optional(out, self.process_reference.as_deref());
        put_long(out, self.variant_id.into());
        put_long(out, self.warehouse_id.into());
        put_bytes(out, self.warehouse_name.as_bytes());
        put_long(out, self.huubclient_id.into());
        put_bytes(out, self.ean.as_bytes());
        put_bytes(out, self.reference.as_bytes());
        put_bytes(out, self.sales_channel_type.as_bytes());
        put_long(out, self.delta.into());
        put_long(out, self.stock_after_adjust.into());
    }

    /// As a JSON object.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "timestamp": self.timestamp,
            "process_reference": self.process_reference,
            "variant_id": self.variant_id,
            "warehouse_id": self.warehouse_id,
            "warehouse_name": self.warehouse_name,
            "huubclient_id": self.huubclient_id,
            "ean": self.ean,
            "reference": self.reference,
            "sales_channel_type": self.sales_channel_type,
            "delta": self.delta,
            "stock_after_adjust": self.stock_after_adjust,
        })
    }

    /// A hash of all fields: equal for equal updates, whatever form they were in on the way.
    pub fn content_hash(&self) -> u64 {
        let mut hash = Xxh3::new();
        hash.update(&self.timestamp.to_le_bytes());
        for text in [
            self.process_reference.as_ref(),
            Some(&self.warehouse_name),
            Some(&self.ean),
            Some(&self.reference),
            Some(&self.sales_channel_type),
        ] {
            // Null and the empty string differ; a length keeps neighbours apart.
            hash.update(&text.map_or(u64::MAX, |t| t.len() as u64).to_le_bytes());
            hash.update(text.map_or(&[], |t| t.as_bytes()));
        }
        for number in [self.variant_id, self.warehouse_id, self.huubclient_id, self.delta, self.stock_after_adjust] {
            hash.update(&number.to_le_bytes());
        }
        hash.digest()
    }
}

/// Avro's `long` and `int`: zigzag, then seven bits a byte.
pub(super) fn put_long(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while rest >= 0x80 {
        out.push((rest & 0x7F) as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Avro's `string` and `bytes`.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_long(out, bytes.len() as i64);
    out.extend_from_slice(bytes);
}

/// Avro's `["null", "string"]`.
pub(super) fn put_optional(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        None => put_long(out, 0),
        Some(text) => {
            put_long(out, 1);
            put_bytes(out, text.as_bytes());
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use apache_avro::types::Value;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn read(schema: &apache_avro::Schema, rest: &mut &[u8]) -> apache_avro::types::Value {
        apache_avro::reader::datum::GenericDatumReader::builder(schema).build().unwrap().read_value(rest).unwrap()
    }

    #[test]
    fn the_encoding_is_what_apache_avro_reads() {
        let schema = apache_avro::Schema::parse_str(STOCK_UPDATE_SCHEMA).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for _ in 0..200 {
            let update = StockUpdate::random(&mut rng, 1_790_000_000_000);
            let mut bytes = Vec::new();
            update.encode_avro(&mut bytes);
            let mut rest = bytes.as_slice();
            let Value::Record(fields) = read(&schema, &mut rest) else { panic!("no record") };
            assert!(rest.is_empty());
            let field = |name: &str| fields.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()).unwrap();
            assert_eq!(field("timestamp"), Value::Long(update.timestamp));
            assert_eq!(field("variant_id"), Value::Int(update.variant_id));
            assert_eq!(field("warehouse_name"), Value::String(update.warehouse_name.clone()));
            assert_eq!(field("delta"), Value::Int(update.delta));
            let Value::Union(branch, inner) = field("process_reference") else { panic!("no union") };
            match &update.process_reference {
                None => assert_eq!((branch, *inner), (0, Value::Null)),
                Some(text) => assert_eq!((branch, *inner), (1, Value::String(text.clone()))),
            }
            assert_eq!(field("stock_after_adjust"), Value::Int(update.stock_after_adjust));
        }
    }

    #[test]
    fn the_hash_sees_every_field() {
        let base = StockUpdate::random(&mut ChaCha8Rng::seed_from_u64(2), 1_790_000_000_000);
        let mut others = vec![base.clone(); 11];
        others[0].timestamp += 1;
        others[1].process_reference = Some("x".to_owned());
        others[2].variant_id += 1;
        others[3].warehouse_id += 1;
        others[4].warehouse_name.push('x');
        others[5].huubclient_id += 1;
        others[6].ean.push('x');
        others[7].reference.push('x');
        others[8].sales_channel_type.push('x');
        others[9].delta += 1;
        others[10].stock_after_adjust += 1;
        assert_eq!(base.content_hash(), base.clone().content_hash());
        for other in others {
            assert_ne!(base.content_hash(), other.content_hash(), "{other:?}");
        }
    }
}
