//! Plans as a whole: each type, each error, random schemas against a slow independent way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod avro;
mod bounds;
mod errors;
mod json;
mod mapping;
mod random;
mod rows;

use crate::config::ConnectorConfig;
use crate::record::{NoHeaders, Record, RecordError};
use crate::table::{Column, LayoutHistory, SharedLayout};

use super::*;

pub const NOW_US: i64 = 1_760_000_000_000_000;

pub fn options(table: &str) -> DecodeOptions {
    let text = format!("topics = [\"t\"]\n[value]\nformat = \"avro\"\n[table]\nname = \"d.t\"\n{table}");
    DecodeOptions::new(&toml::from_str::<ConnectorConfig>(&text).unwrap(), false).unwrap()
}

pub fn schema(text: &str) -> AvroSchema {
    AvroSchema {
        id: "42".to_owned(),
        root: apache_avro::Schema::parse_str(text).unwrap(),
        references: Vec::new(),
        connect_names: ConnectNames::from_texts([text]),
    }
}

/// A record schema with the one field `f` of this type.
pub fn field_schema(ty: &str) -> AvroSchema {
    schema(&format!(r#"{{"type":"record","name":"R","fields":[{{"name":"f","type":{ty}}}]}}"#))
}

pub fn record<'a>() -> Record<'a> {
    Record { topic: "t", partition: 3, offset: 7, timestamp_ms: Some(1_000), key: Some(b"k"), value: None, headers: &NoHeaders }
}

/// A plan for the table that the schema itself asks for.
pub fn own_plan(schema: &AvroSchema, options: &DecodeOptions) -> Result<(Plan, SharedLayout), Unmappable> {
    let columns = avro_columns(schema, options)?;
    plan_into(schema, &columns, options)
}

pub fn plan_into(schema: &AvroSchema, table: &[Column], options: &DecodeOptions) -> Result<(Plan, SharedLayout), Unmappable> {
    let layout = LayoutHistory::with_text_literals(options.text_literals).include(table).unwrap();
    Ok((Plan::avro(schema, table, &layout, None, options)?, layout))
}

/// The row of `payload` as JSON.
pub fn shown((plan, layout): &(Plan, SharedLayout), payload: &[u8]) -> Result<serde_json::Value, RecordError> {
    let mut out = b"before".to_vec();
    let outcome = plan.decode(payload, &record(), NOW_US, &mut out);
    assert!(out.starts_with(b"before"));
    if outcome.is_err() {
        assert_eq!(out, b"before", "an error leaves nothing behind");
    }
    outcome.map(|()| serde_json::from_str(&row_to_json(layout, &out[6..])).unwrap())
}

/// Avro's `long`.
pub fn long(value: i64) -> Vec<u8> {
    let mut out = Vec::new();
    prost::encoding::encode_varint(((value << 1) ^ (value >> 63)) as u64, &mut out);
    out
}

/// Avro's `bytes` and `string`.
pub fn bytes(value: impl AsRef<[u8]>) -> Vec<u8> {
    let mut out = long(value.as_ref().len() as i64);
    out.extend_from_slice(value.as_ref());
    out
}
