//! A row as JSON: for a dead letter whose record is gone from Kafka.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use crate::table::{ColumnType, LaidColumn, Layout, Mode, WireForm};

use super::civil::{self, DAY_MICROS, DAYS, MICROS};
use super::decimal::wire_text;

/// A row as one JSON object, values in BigQuery's text forms, bytes as base64. Fields that the layout does not know are left out; malformed
/// bytes end it.
pub fn row_to_json(layout: &Layout, row: &[u8]) -> String {
    Value::Object(object(&layout.columns, row, layout.text_literals)).to_string()
}

fn object(columns: &[LaidColumn], mut row: &[u8], literals: bool) -> Map<String, Value> {
    let mut out = Map::new();
    while let Some((number, wire_type)) = varint(&mut row).map(|key| (key >> 3, key & 7)) {
        let Some(raw) = raw(wire_type, &mut row) else { break };
        let Some(column) = columns.iter().find(|c| u64::from(c.number) == number) else { continue };
        let form = WireForm::of(&column.ty, literals);
        if column.mode != Mode::Repeated {
            out.insert(column.name.clone(), value(column, &raw, literals));
            continue;
        }
        let list = out.entry(column.name.clone()).or_insert_with(|| Value::Array(Vec::new()));
        let Value::Array(list) = list else { continue };
        match (&raw, form.is_packed()) {
            (Raw::Bytes(packed), true) => {
                let mut packed = *packed;
                let element_type = if form == WireForm::Double { 1 } else { 0 };
                while !packed.is_empty() {
                    let Some(element) = self::raw(element_type, &mut packed) else { break };
                    list.push(value(column, &element, literals));
                }
            }
            _ => list.push(value(column, &raw, literals)),
        }
    }
    out
}

enum Raw<'r> {
    Number(u64),
    Bytes(&'r [u8]),
}

fn raw<'r>(wire_type: u64, row: &mut &'r [u8]) -> Option<Raw<'r>> {
    match wire_type {
        0 => varint(row).map(Raw::Number),
        1 => row.split_off(..8).and_then(|b| b.try_into().ok()).map(|b| Raw::Number(u64::from_le_bytes(b))),
        2 => {
            let len = usize::try_from(varint(row)?).ok()?;
            row.split_off(..len).map(Raw::Bytes)
        }
        _ => None,
    }
}

fn varint(row: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *row.split_off_first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn value(column: &LaidColumn, raw: &Raw<'_>, literals: bool) -> Value {
    match raw {
        Raw::Number(word) => number(&column.ty, *word),
        Raw::Bytes(bytes) => match &column.ty {
            ColumnType::Struct(_) | ColumnType::Range(_) => Value::Object(object(&column.children, bytes, literals)),
            ColumnType::Numeric(_) | ColumnType::BigNumeric(_) if !literals => {
                wire_text(&column.ty, bytes).map_or(Value::Null, Value::String)
            }
            ColumnType::Bytes(_) => Value::String(STANDARD.encode(bytes)),
            ColumnType::Json => {
                serde_json::from_slice(bytes).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(bytes).into_owned()))
            }
            _ => Value::String(String::from_utf8_lossy(bytes).into_owned()),
        },
    }
}

fn number(ty: &ColumnType, word: u64) -> Value {
    let count = word as i64;
    let text = |text: civil::Text, zone: &str| Value::String(String::from_utf8_lossy(text.as_bytes()).into_owned() + zone);
    match ty {
        ColumnType::Bool => Value::Bool(word != 0),
        ColumnType::Float64 => {
            let float = f64::from_bits(word);
            serde_json::Number::from_f64(float).map_or_else(|| Value::String(float.to_string()), Value::Number)
        }
        ColumnType::Date if DAYS.contains(&count) => text(civil::date_text(count), ""),
        ColumnType::Timestamp if MICROS.contains(&count) => text(civil::datetime_text(count), "Z"),
        ColumnType::Time => text(civil::time_text(unpack_time(count)), ""),
        ColumnType::DateTime => {
            let days = civil::days(count >> 46 & 0x3fff, count >> 42 & 0xf, count >> 37 & 0x1f);
            days.map_or(Value::Null, |d| text(civil::datetime_text(d * DAY_MICROS + unpack_time(count)), ""))
        }
        _ => Value::from(count),
    }
}

const fn unpack_time(packed: i64) -> i64 {
    (((packed >> 32 & 0x1f) * 60 + (packed >> 26 & 0x3f)) * 60 + (packed >> 20 & 0x3f)) * 1_000_000 + (packed & 0xf_ffff)
}
