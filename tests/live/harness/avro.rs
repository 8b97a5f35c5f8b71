//! Avro records as the tests produce them, encoded by the Avro project's own library.

use std::path::Path;

use apache_avro::Schema;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use serde_json::{Value as Json, json};

/// The stock update of this repository's `schemas/`.
pub fn stock_schema() -> anyhow::Result<Json> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/SMSPhysicalStockUpdates_values.avsc");
    Ok(serde_json::from_str(&std::fs::read_to_string(file)?)?)
}

/// Encodes stock updates.
pub struct Stock {
    schema: Schema,
}

impl Stock {
    /// With the schema of [`stock_schema`].
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self { schema: Schema::parse(&stock_schema()?)? })
    }

    /// The `n`th stock update, without framing. Its `reference` is [`Stock::reference`]: its identity in the table.
    pub fn encode(&self, n: i64) -> anyhow::Result<Vec<u8>> {
        let text = |s: &str| Value::String(s.to_owned());
        let process = if n % 3 == 0 { Value::Union(0, Box::new(Value::Null)) } else { Value::Union(1, Box::new(text("inbound"))) };
        let record = Value::Record(vec![
            ("timestamp".into(), Value::Long(1_790_000_000_000 + n)),
            ("process_reference".into(), process),
            ("variant_id".into(), Value::Int(i32::try_from(n % 100_000)?)),
            ("warehouse_id".into(), Value::Int(7)),
            ("warehouse_name".into(), text("Maia")),
            ("huubclient_id".into(), Value::Int(12)),
            ("ean".into(), text("5601234567890")),
            ("reference".into(), text(&Self::reference(n))),
            ("sales_channel_type".into(), text("marketplace")),
            ("delta".into(), Value::Int(-1)),
            ("stock_after_adjust".into(), Value::Int(41)),
        ]);
        encode(&self.schema, record)
    }

    /// The identity of the `n`th.
    pub fn reference(n: i64) -> String {
        format!("R-{n}")
    }
}

/// A value as its schema encodes it, without framing.
pub fn encode(schema: &Schema, value: Value) -> anyhow::Result<Vec<u8>> {
    Ok(GenericDatumWriter::builder(schema).build()?.write_value_to_vec(value)?)
}

/// Confluent's framing: 0, the schema's id, the value.
pub fn framed(id: u32, value: &[u8]) -> Vec<u8> {
    [&[0][..], &id.to_be_bytes(), value].concat()
}

/// The schema of a small record with an identity and optional text columns.
pub fn small_schema(name: &str, more: &[&str]) -> Json {
    let mut fields = vec![json!({"name": "id", "type": "long"})];
    fields.extend(more.iter().map(|field| json!({"name": field, "type": ["null", "string"], "default": null})));
    json!({"type": "record", "name": name, "namespace": "live", "fields": fields})
}

/// A record of [`small_schema`].
pub fn small(schema: &Schema, id: i64, more: &[(&str, &str)]) -> anyhow::Result<Vec<u8>> {
    let mut fields = vec![("id".to_owned(), Value::Long(id))];
    fields.extend(more.iter().map(|(name, text)| ((*name).to_owned(), Value::Union(1, Box::new(Value::String((*text).to_owned()))))));
    encode(schema, Value::Record(fields))
}
