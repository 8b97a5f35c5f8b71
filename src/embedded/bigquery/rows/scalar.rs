//! One scalar of a row: from its wire form to a value of its column, with every check of range and length.

use super::plan::{FieldPlan, PartitionBounds, Proto, Target};
use super::wire::{Raw, Reader};
use crate::embedded::bigquery::schema::ColumnType;
use crate::embedded::bigquery::values::decimal::DecimalLimits;
use crate::embedded::bigquery::values::{CellRef, civil, json_text};

/// A scalar before its column has looked at it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Scalar<'a> {
    Int(i64),
    UInt(u64),
    Double(f64),
    Bool(bool),
    Text(&'a str),
    Bytes(&'a [u8]),
    Enum(&'a str, i32),
    /// Seconds and nanoseconds.
    Span(i64, i64),
}

/// The value of a stored field: bounds of partitions were those of the day of the append and are not looked at again.
pub(crate) fn unbounded<'a>(field: &'a FieldPlan, raw: Raw<'a>) -> Option<CellRef<'a>> {
    let scalar = scalar(&field.proto, raw).ok()?;
    match &field.target {
        Target::Column { kind, max_length, decimal, .. } => fit(*kind, *max_length, decimal, scalar).ok(),
        _ => None,
    }
}

/// The value of a field, or what is wrong with it. `today`: days since the epoch, for partition bounds.
pub(crate) fn value<'a>(field: &'a FieldPlan, raw: Raw<'a>, today: i64) -> Result<CellRef<'a>, String> {
    let scalar = scalar(&field.proto, raw).map_err(|problem| format!("Field {}: {problem} on field {}.", field.path, field.path))?;
    match &field.target {
        Target::Column { kind, max_length, decimal, bounds } => {
            let cell = fit(*kind, *max_length, decimal, scalar).map_err(|problem| words(field, *kind, scalar, &problem))?;
            match bounds {
                None => Ok(cell),
                Some(bounds) => within(*bounds, cell, field, today),
            }
        }
        Target::ChangeType => match scalar {
            Scalar::Text(t @ ("UPSERT" | "DELETE")) => Ok(CellRef::Text(t)),
            _ => Err("The given value is not a valid CHANGE_TYPE".to_owned()),
        },
        Target::ChangeSequence => match scalar {
            Scalar::Text(t) if is_sequence(t) => Ok(CellRef::Text(t)),
            _ => Err("The given value is not a valid CHANGE_SEQUENCE_NUMBER".to_owned()),
        },
    }
}

/// 1 to 4 sections joined by `/`, each of 1 to 16 hexadecimal digits.
fn is_sequence(text: &str) -> bool {
    let mut sections = 0;
    text.split('/').all(|s| {
        sections += 1;
        sections <= 4 && (1..=16).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

fn scalar<'a>(proto: &'a Proto, raw: Raw<'a>) -> Result<Scalar<'a>, &'static str> {
    const WIRE: &str = "has a wire type that does not match its descriptor";
    Ok(match (proto, raw) {
        (Proto::Int64, Raw::Varint(v)) => Scalar::Int(v as i64),
        (Proto::Int32, Raw::Varint(v)) => Scalar::Int(i64::from(v as i32)),
        (Proto::UInt64, Raw::Varint(v)) => Scalar::UInt(v),
        (Proto::UInt32, Raw::Varint(v)) => Scalar::UInt(u64::from(v as u32)),
        (Proto::Bool, Raw::Varint(v)) => Scalar::Bool(v != 0),
        (Proto::Double, Raw::Fixed64(v)) => Scalar::Double(f64::from_bits(v)),
        (Proto::Float, Raw::Fixed32(v)) => Scalar::Double(f64::from(f32::from_bits(v))),
        (Proto::Text, Raw::Bytes(v)) => Scalar::Text(simdutf8::basic::from_utf8(v).map_err(|_| "is not valid UTF-8")?),
        (Proto::Bytes, Raw::Bytes(v)) => Scalar::Bytes(v),
        (Proto::Enum(names), Raw::Varint(v)) => {
            let number = v as i32;
            Scalar::Enum(names.get(&number).ok_or("has a number that its enum does not define")?, number)
        }
        (Proto::Wrapper(inner), Raw::Bytes(v)) => {
            let mut reader = Reader::new(v);
            let mut found = None;
            while !reader.is_empty() {
                match reader.field() {
                    Ok((1, raw)) => found = Some(scalar(inner, raw)?),
                    _ => return Err("has a malformed wrapper"),
                }
            }
            // Rows are proto2, wrappers are messages of their own: an empty one holds its type's zero.
            found.unwrap_or(match **inner {
                Proto::Text => Scalar::Text(""),
                Proto::Bytes => Scalar::Bytes(&[]),
                Proto::Bool => Scalar::Bool(false),
                Proto::Double | Proto::Float => Scalar::Double(0.0),
                _ => Scalar::Int(0),
            })
        }
        (Proto::SecondsNanos, Raw::Bytes(v)) => {
            let mut reader = Reader::new(v);
            let (mut seconds, mut nanos) = (0, 0);
            while !reader.is_empty() {
                match reader.field() {
                    Ok((1, Raw::Varint(v))) => seconds = v as i64,
                    Ok((2, Raw::Varint(v))) => nanos = i64::from(v as i32),
                    _ => return Err("has a malformed timestamp or duration"),
                }
            }
            Scalar::Span(seconds, nanos)
        }
        _ => return Err(WIRE),
    })
}

/// The scalar as a value of the column's type.
fn fit<'a>(kind: ColumnType, max_length: Option<u64>, decimal: &DecimalLimits, scalar: Scalar<'a>) -> Result<CellRef<'a>, String> {
    const OUT_OF_RANGE: &str = "value is out of range";
    let range = || OUT_OF_RANGE.to_owned();
    let literal = |what: &str| format!("value is not a valid {what}");
    Ok(match (kind, scalar) {
        (ColumnType::Int64, Scalar::Int(v)) => CellRef::Int(v),
        (ColumnType::Int64, Scalar::UInt(v)) => CellRef::Int(i64::try_from(v).map_err(|_| range())?),
        (ColumnType::Int64, Scalar::Enum(_, v)) => CellRef::Int(v.into()),
        (ColumnType::String, Scalar::Text(v) | Scalar::Enum(v, _)) => {
            if let Some(max) = max_length
                && v.len() as u64 > max
                && v.chars().count() as u64 > max
            {
                return Err(format!("STRING({max}) has maximum length {max} but got a value with length {}", v.chars().count()));
            }
            CellRef::Text(v)
        }
        (ColumnType::Bytes, Scalar::Bytes(v)) => bytes(v, max_length)?,
        (ColumnType::Bytes, Scalar::Text(v)) => bytes(v.as_bytes(), max_length)?,
        (ColumnType::Bool, Scalar::Bool(v)) => CellRef::Bool(v),
        (ColumnType::Bool, Scalar::Int(v)) => CellRef::Bool(v != 0),
        (ColumnType::Bool, Scalar::UInt(v)) => CellRef::Bool(v != 0),
        (ColumnType::Float64, Scalar::Double(v)) => CellRef::Float(v),
        (ColumnType::Numeric | ColumnType::Bignumeric, scalar) => CellRef::Decimal(
            match scalar {
                Scalar::Bytes(v) => decimal.read_bytes(v),
                Scalar::Text(v) => decimal.read_text(v),
                Scalar::Int(v) => decimal.read_int(v.into()),
                Scalar::UInt(v) => decimal.read_int(v.into()),
                Scalar::Double(v) => decimal.read_double(v),
                _ => Err("has a wrong type"),
            }
            .map_err(|problem| format!("value {problem}"))?,
        ),
        (ColumnType::Date, Scalar::Int(v)) if civil::DATE_RANGE_DAYS.contains(&v) => CellRef::Date(v),
        (ColumnType::Date, Scalar::Int(_)) => return Err(range()),
        (ColumnType::Date, Scalar::Text(v)) => CellRef::Date(civil::parse_date(v).ok_or_else(|| literal("DATE"))?),
        (ColumnType::Time, Scalar::Int(v)) => CellRef::Time(civil::unpack_time(v).ok_or_else(range)?),
        (ColumnType::Time, Scalar::Text(v)) => CellRef::Time(civil::parse_time(v).ok_or_else(|| literal("TIME"))?),
        (ColumnType::Datetime, Scalar::Int(v)) => CellRef::Datetime(civil::unpack_datetime(v).ok_or_else(range)?),
        (ColumnType::Datetime, Scalar::Text(v)) => CellRef::Datetime(civil::parse_datetime(v).ok_or_else(|| literal("DATETIME"))?),
        (ColumnType::Timestamp, Scalar::Int(v)) => micros(v)?,
        (ColumnType::Timestamp, Scalar::UInt(v)) => micros(i64::try_from(v).map_err(|_| range())?)?,
        (ColumnType::Timestamp, Scalar::Text(v)) => CellRef::Timestamp(civil::parse_timestamp(v).ok_or_else(|| literal("TIMESTAMP"))?),
        (ColumnType::Timestamp, Scalar::Span(seconds, nanos)) => {
            if !(0..1_000_000_000).contains(&nanos) {
                return Err(range());
            }
            micros(seconds.checked_mul(1_000_000).and_then(|m| m.checked_add(nanos / 1000)).ok_or_else(range)?)?
        }
        (ColumnType::Interval, Scalar::Span(seconds, nanos)) => {
            let (sign, s, f) = (if seconds < 0 || nanos < 0 { "-" } else { "" }, seconds.unsigned_abs(), nanos.unsigned_abs() / 1000);
            let text = format!("0-0 0 {sign}{}:{}:{}.{f:06}", s / 3600, s / 60 % 60, s % 60);
            json_text::check_interval(&text).map_err(|problem| format!("value {problem}"))?;
            CellRef::Owned(text)
        }
        (ColumnType::Json | ColumnType::Geography | ColumnType::Interval, Scalar::Text(v)) => {
            let check = match kind {
                ColumnType::Json => json_text::check_json(v),
                ColumnType::Geography => json_text::check_geography(v),
                _ => json_text::check_interval(v),
            };
            check.map_err(|problem| format!("value {problem}"))?;
            CellRef::Text(v)
        }
        _ => return Err("value has a wrong type".to_owned()),
    })
}

fn bytes(value: &[u8], max_length: Option<u64>) -> Result<CellRef<'_>, String> {
    match max_length {
        Some(max) if value.len() as u64 > max => {
            Err(format!("BYTES({max}) has maximum length {max} but got a value with length {}", value.len()))
        }
        _ => Ok(CellRef::Bytes(value)),
    }
}

fn micros(value: i64) -> Result<CellRef<'static>, String> {
    let fits = civil::TIMESTAMP_RANGE_MICROS.contains(&value);
    if fits { Ok(CellRef::Timestamp(value)) } else { Err(format!("value is out of range: {value}")) }
}

/// The service's words (java-bigquerystorage's tests against the live service).
fn words(field: &FieldPlan, kind: ColumnType, scalar: Scalar<'_>, problem: &str) -> String {
    match (kind, scalar) {
        (ColumnType::Timestamp, _) if problem.starts_with("value is out of range: ") => {
            format!("Timestamp field {problem} on field {}.", field.path)
        }
        (ColumnType::String | ColumnType::Bytes, _) => format!("Field {}: {problem} on field {}.", field.path, field.path),
        _ => format!("{} field {problem} on field {}.", kind.rest_name(), field.path),
    }
}

fn within<'a>(bounds: PartitionBounds, cell: CellRef<'a>, field: &FieldPlan, today: i64) -> Result<CellRef<'a>, String> {
    let day = match cell {
        CellRef::Date(days) => days,
        CellRef::Datetime(micros) | CellRef::Timestamp(micros) => micros.div_euclid(civil::DAY_MICROS),
        _ => return Ok(cell),
    };
    if bounds.takes(day, today) { Ok(cell) } else { Err(outside(&field.path, day)) }
}

/// The refusal of a partitioning value (gcp-ingestion 2721).
pub(crate) fn outside(column: &str, day: i64) -> String {
    let (y, m, d) = civil::civil_of(day);
    format!(
        "Value {y:04}{m:02}{d:02} for partition column {column} of the destination table is outside the allowed bounds. You can only stream to date range within \
         3650 days in the past and 366 days in the future relative to the current date."
    )
}
