//! One value of one column: borrowed while a row is checked, owned when it is read back.

use std::cmp::Ordering;

use base64::Engine;
use num_bigint::BigInt;

use super::{civil, decimal, decimal::DecimalValue};

/// A value read back from a table.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// NULL.
    Null,
    /// BOOL.
    Bool(bool),
    /// INT64.
    Int(i64),
    /// FLOAT64.
    Float(f64),
    /// NUMERIC and BIGNUMERIC, as a multiple of 10^-38.
    Decimal(BigInt),
    /// STRING, JSON, GEOGRAPHY, INTERVAL.
    Text(String),
    /// BYTES.
    Bytes(Vec<u8>),
    /// DATE, days since 1970-01-01.
    Date(i64),
    /// TIME, microseconds since midnight.
    Time(i64),
    /// DATETIME, microseconds of the civil clock since 1970-01-01 00:00:00.
    Datetime(i64),
    /// TIMESTAMP, microseconds since the epoch.
    Timestamp(i64),
    /// RANGE: both ends, `Null` being unbounded.
    Range(Box<[Cell; 2]>),
    /// RECORD: its columns in the schema's order; missing ones at the end are NULL.
    Record(Vec<Cell>),
    /// A REPEATED column.
    List(Vec<Cell>),
}

/// A value that borrows the row's bytes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum CellRef<'a> {
    Bool(bool),
    Int(i64),
    Float(f64),
    Decimal(DecimalValue),
    Text(&'a str),
    Owned(String),
    Bytes(&'a [u8]),
    Date(i64),
    Time(i64),
    Datetime(i64),
    Timestamp(i64),
}

impl CellRef<'_> {
    /// A copy that stands alone.
    pub(crate) fn into_cell(self) -> Cell {
        match self {
            Self::Bool(v) => Cell::Bool(v),
            Self::Int(v) => Cell::Int(v),
            Self::Float(v) => Cell::Float(v),
            Self::Decimal(v) => Cell::Decimal(v.into_big()),
            Self::Text(v) => Cell::Text(v.to_owned()),
            Self::Owned(v) => Cell::Text(v),
            Self::Bytes(v) => Cell::Bytes(v.to_vec()),
            Self::Date(v) => Cell::Date(v),
            Self::Time(v) => Cell::Time(v),
            Self::Datetime(v) => Cell::Datetime(v),
            Self::Timestamp(v) => Cell::Timestamp(v),
        }
    }
}

impl Cell {
    /// The value as plain JSON, one form for each type: numbers for INT64 and FLOAT64, text for the rest (BYTES in base64, TIMESTAMP as
    /// microseconds).
    pub fn plain_json(&self) -> serde_json::Value {
        use serde_json::Value;
        match self {
            Self::Null => Value::Null,
            Self::Bool(v) => Value::Bool(*v),
            Self::Int(v) | Self::Timestamp(v) => Value::from(*v),
            Self::Float(v) => serde_json::Number::from_f64(*v).map_or_else(|| Value::String(format_float(*v)), Value::Number),
            Self::Record(cells) | Self::List(cells) => Value::Array(cells.iter().map(Self::plain_json).collect()),
            other => Value::String(other.rest_text(true)),
        }
    }

    /// The value as the REST API spells it in `v` (scalars only). `int64_timestamps`: TIMESTAMP as whole microseconds, else as seconds in
    /// floating point.
    pub(crate) fn rest_text(&self, int64_timestamps: bool) -> String {
        match self {
            Self::Null | Self::Record(_) | Self::List(_) => String::new(),
            Self::Bool(v) => v.to_string(),
            Self::Int(v) => v.to_string(),
            Self::Float(v) => format_float(*v),
            Self::Decimal(v) => decimal::format(v),
            Self::Text(v) => v.clone(),
            Self::Bytes(v) => base64::engine::general_purpose::STANDARD.encode(v),
            Self::Date(v) => civil::format_date(*v),
            Self::Time(v) => civil::format_time(*v),
            Self::Datetime(v) => civil::format_datetime(*v),
            Self::Timestamp(v) if int64_timestamps => v.to_string(),
            Self::Timestamp(v) => {
                let sign = if *v < 0 { "-" } else { "" };
                let magnitude = v.unsigned_abs();
                format!("{sign}{}.{:06}", magnitude / 1_000_000, magnitude % 1_000_000)
            }
            Self::Range(ends) => {
                let end = |cell: &Self| if *cell == Self::Null { "UNBOUNDED".to_owned() } else { cell.rest_text(int64_timestamps) };
                format!("[{}, {})", end(&ends[0]), end(&ends[1]))
            }
        }
    }

    /// Order within one type, numbers across types; `None` when not comparable (or NULL, or NaN).
    pub(crate) fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => Some(a.cmp(b)),
            (Self::Int(a), Self::Int(b)) | (Self::Date(a), Self::Date(b)) | (Self::Time(a), Self::Time(b)) => Some(a.cmp(b)),
            (Self::Datetime(a), Self::Datetime(b)) | (Self::Timestamp(a), Self::Timestamp(b)) => Some(a.cmp(b)),
            (Self::Date(a), Self::Datetime(b)) => Some((a * civil::DAY_MICROS).cmp(b)),
            (Self::Datetime(a), Self::Date(b)) => Some(a.cmp(&(b * civil::DAY_MICROS))),
            (Self::Text(a), Self::Text(b)) => Some(a.cmp(b)),
            (Self::Bytes(a), Self::Bytes(b)) => Some(a.cmp(b)),
            (Self::Decimal(a), Self::Decimal(b)) => Some(a.cmp(b)),
            (Self::Float(a), Self::Float(b)) => a.partial_cmp(b),
            (Self::Int(a), Self::Decimal(b)) => Some((BigInt::from(*a) * BigInt::from(10).pow(decimal::KEPT_SCALE)).cmp(b)),
            (Self::Decimal(a), Self::Int(b)) => Some(a.cmp(&(BigInt::from(*b) * BigInt::from(10).pow(decimal::KEPT_SCALE)))),
            _ => self.as_f64()?.partial_cmp(&other.as_f64()?),
        }
    }

    /// A number as a double.
    pub(crate) fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Int(v) => Some(*v as f64),
            Self::Float(v) => Some(*v),
            Self::Decimal(v) => decimal::format(v).parse().ok(),
            _ => None,
        }
    }
}

/// A double as BigQuery spells it.
pub(crate) fn format_float(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "Infinity".to_owned() } else { "-Infinity".to_owned() }
    } else {
        format!("{value:?}")
    }
}
