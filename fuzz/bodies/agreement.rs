//! What apache-avro reads of the same bytes, held against the row: another reader of the format, and another way from a value to a column.
//!
//! Left out is what has no value of its own to compare: JSON columns, unions of several types, arrays of arrays or of nullable items.

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime};
use millrace::table::{ColumnType, LaidColumn, Layout};
use num_bigint::BigInt;
use serde_json::{Value as Json, json};

/// What apache-avro may allocate for one list: counts of elements that take no bytes are not what is compared here.
const LIST_BYTES_MAX: usize = 256 * 1024;
/// Blocks of such elements may follow each other.
const DATA_BYTES_MAX: usize = 512;

/// # Panics
/// When the row says another thing than apache-avro reads, or apache-avro does not read all that the plan has read.
pub fn check(schema: &Schema, layout: &Layout, data: &[u8], row: &str) {
    if data.len() > DATA_BYTES_MAX {
        return;
    }
    apache_avro::util::max_allocation_bytes(LIST_BYTES_MAX);
    // It refuses a name that is defined twice, which its parser does not.
    let reader = GenericDatumReader::builder(schema).build().expect("the names are resolved, each to one type: there is a plan");
    let mut rest = data;
    let value = match reader.read_value(&mut rest) {
        Ok(value) => value,
        Err(error) => {
            let error = error.to_string();
            assert!(ALLOWED.iter().any(|allowed| error.contains(allowed)), "apache-avro does not read what the plan reads: {error}");
            return;
        }
    };
    assert!(rest.is_empty(), "apache-avro leaves {} bytes", rest.len());
    let row: Json = serde_json::from_str(row).expect("a row is shown as JSON");
    if let (Schema::Record(record), Value::Record(fields)) = (schema, &value) {
        for (field, (name, value)) in record.fields.iter().zip(fields) {
            member(layout.column(name), &field.schema, value, &row, name);
        }
    }
}

/// Where apache-avro refuses more than the format does: its own bound on memory, and texts that are no UUID.
const ALLOWED: [&str; 2] = ["allocate", "UUID"];

/// A field of a record or of a map's entry, which `row` shows under its column's name. A record without fields has no column.
fn member(column: Option<&LaidColumn>, schema: &Schema, value: &Value, row: &Json, at: &str) {
    if let Some(column) = column {
        holds(column, schema, value, &row[column.name.as_str()], at);
    }
}

fn holds(column: &LaidColumn, schema: &Schema, value: &Value, shown: &Json, at: &str) {
    match (schema, value) {
        (_, Value::Null) => return assert!(shown.is_null(), "{at}: null became {shown}"),
        (Schema::Union(union), Value::Union(branch, inner)) => {
            let [a, b] = union.variants() else { return };
            let of_null = matches!(a, Schema::Null) != matches!(b, Schema::Null);
            if of_null {
                holds(column, &union.variants()[*branch as usize], inner, shown, at);
            }
            return;
        }
        _ => {}
    }
    if column.ty == ColumnType::Json {
        return;
    }
    match (schema, value) {
        (Schema::Array(array), Value::Array(items)) => {
            if matches!(*array.items, Schema::Union(_) | Schema::Array(_) | Schema::Map(_) | Schema::Null) {
                return;
            }
            let list = shown.as_array().map_or(&[][..], Vec::as_slice);
            assert_eq!(list.len(), items.len(), "{at}: another number of elements");
            items.iter().zip(list).for_each(|(item, shown)| holds(column, &array.items, item, shown, at));
        }
        (Schema::Map(map), Value::Map(entries)) => {
            let list = shown.as_array().map_or(&[][..], Vec::as_slice);
            // A key that came twice is two entries of the row, and the later one of apache-avro's map.
            assert!(list.len() >= entries.len(), "{at}: {} entries of {}", list.len(), entries.len());
            for (key, value) in entries {
                let entry = list.iter().rfind(|entry| entry["key"] == key.as_str());
                let entry = entry.unwrap_or_else(|| panic!("{at}: no entry {key:?} in {shown}"));
                member(child(column, "value"), &map.types, value, entry, at);
            }
        }
        (Schema::Record(record), Value::Record(fields)) if matches!(column.ty, ColumnType::Struct(_)) => {
            for (field, (name, value)) in record.fields.iter().zip(fields) {
                member(child(column, name), &field.schema, value, shown, name);
            }
        }
        _ => assert!(scalar(&column.ty, schema, value, shown), "{at}: {value:?} became {shown}"),
    }
}

fn child<'c>(column: &'c LaidColumn, name: &str) -> Option<&'c LaidColumn> {
    column.children.iter().find(|child| child.name.eq_ignore_ascii_case(name))
}

/// Whether `shown` is the value; true for what is not compared, such as a number that Debezium counts days with.
fn scalar(ty: &ColumnType, schema: &Schema, value: &Value, shown: &Json) -> bool {
    let text = shown.as_str().unwrap_or_default();
    let at = |micros: Option<i64>| micros == moment(text);
    match value {
        Value::Int(_) | Value::Long(_) if *ty != ColumnType::Int64 => true,
        Value::String(_) if !matches!(ty, ColumnType::String(_)) => true,
        Value::Boolean(flag) => shown == *flag,
        Value::Int(number) => shown == *number,
        Value::Long(number) => shown == *number,
        // By way of text on both sides: reading one may change a float's last digit.
        Value::Float(number) if number.is_finite() => *shown == again(&json!(f64::from(*number))),
        Value::Double(number) if number.is_finite() => *shown == again(&json!(number)),
        Value::String(of) | Value::Enum(_, of) => shown == of.as_str(),
        Value::Bytes(bytes) | Value::Fixed(_, bytes) => text == base64(bytes),
        Value::Uuid(uuid) => apache_avro::Uuid::parse_str(text).is_ok_and(|shown| shown == *uuid),
        Value::Decimal(decimal) => match schema {
            Schema::Decimal(of) => same_number(&BigInt::from(decimal.clone()), of.scale as u32, text),
            _ => true,
        },
        Value::Date(days) => NaiveDate::from_epoch_days(*days) == text.parse().ok(),
        Value::TimeMillis(millis) => Some(i64::from(*millis) * 1_000) == time(text),
        Value::TimeMicros(micros) => Some(*micros) == time(text),
        Value::TimestampMillis(n) | Value::LocalTimestampMillis(n) => at(n.checked_mul(1_000)),
        Value::TimestampMicros(n) | Value::LocalTimestampMicros(n) => at(Some(*n)),
        Value::TimestampNanos(n) | Value::LocalTimestampNanos(n) => at(Some(n.div_euclid(1_000))),
        _ => true,
    }
}

fn again(value: &Json) -> Json {
    serde_json::from_str(&value.to_string()).expect("JSON")
}

fn time(text: &str) -> Option<i64> {
    let time: NaiveTime = text.parse().ok()?;
    Some(DateTime::UNIX_EPOCH.date_naive().and_time(time).and_utc().timestamp_micros())
}

fn moment(text: &str) -> Option<i64> {
    let text = text.trim_end_matches('Z');
    NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f").ok().map(|at| at.and_utc().timestamp_micros())
}

/// Whether `text` is `unscaled / 10^scale`, however many zeros it ends with.
fn same_number(unscaled: &BigInt, scale: u32, text: &str) -> bool {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let Ok(digits) = format!("{whole}{fraction}").parse::<BigInt>() else { return false };
    let ten = BigInt::from(10);
    digits * ten.pow(scale) == unscaled * ten.pow(fraction.len() as u32)
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().chain(&[0, 0]).take(3).fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
        for at in 0..4 {
            out.push(if at <= chunk.len() { ALPHABET[bits >> (18 - 6 * at) & 63] as char } else { '=' });
        }
    }
    out
}
