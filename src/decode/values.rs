//! Values of one type each onto the wire, their ranges checked: what Avro, JSON and metadata columns share.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};

use crate::record::RecordErrorClass as Class;
use crate::table::ColumnType;

use super::civil::{self, DAY_MICROS, DAYS, MICROS};
use super::decimal::{Decimal, DecimalColumn, Misfit};
use super::fault::Fault;
use super::ops::{Scalar, TimeTo};
use super::writer::{Tag, Writer};

/// What streaming takes of a partition column: from 10 years before now to 1 year after (`bigquery-rules.md` section 4; years of 365 days,
/// the harsher reading).
const PARTITION_PAST_US: i64 = 3_650 * DAY_MICROS;
const PARTITION_FUTURE_US: i64 = 365 * DAY_MICROS;

/// A moment against the partition column's window.
#[inline]
pub(super) fn check_partition(micros: i64, now_us: i64, position: usize) -> Result<(), Fault> {
    if micros < now_us.saturating_sub(PARTITION_PAST_US) || micros > now_us.saturating_add(PARTITION_FUTURE_US) {
        return Err(Fault::new(
            Class::PartitionOutOfRange,
            position,
            "the partition column's value is outside what streaming takes: 10 years back to 1 year ahead",
        ));
    }
    Ok(())
}

/// A TIMESTAMP in microseconds.
#[inline(always)]
pub(super) fn put_timestamp(w: &mut Writer<'_>, tag: Tag, micros: i64, position: usize) -> Result<(), Fault> {
    if !MICROS.contains(&micros) {
        return Err(Fault::new(Class::ValueOutOfRange, position, "a timestamp is beyond 0001-01-01 .. 9999-12-31"));
    }
    w.room(16)?;
    w.tag(tag);
    w.varint(micros as u64);
    Ok(())
}

/// A date (in days) or time (in microseconds) in the form of its column.
pub(super) fn put_time(w: &mut Writer<'_>, tag: Tag, to: TimeTo, value: i64, position: usize) -> Result<(), Fault> {
    let range = |what| Fault::new(Class::ValueOutOfRange, position, what);
    let number = match to {
        TimeTo::Timestamp => return put_timestamp(w, tag, value, position),
        TimeTo::Date if !DAYS.contains(&value) => return Err(range("a date is beyond 0001-01-01 .. 9999-12-31")),
        TimeTo::Date => value,
        TimeTo::Time | TimeTo::TimeText if !(0..DAY_MICROS).contains(&value) => {
            return Err(range("a time of day is beyond 00:00:00 .. 23:59:59.999999"));
        }
        TimeTo::TimeText => return w.delimited(tag, civil::time_text(value).as_bytes()),
        TimeTo::Time => civil::pack_time(value),
        TimeTo::DateTime | TimeTo::DateTimeText if !MICROS.contains(&value) => {
            return Err(range("a date and time is beyond 0001-01-01 .. 9999-12-31"));
        }
        TimeTo::DateTimeText => return w.delimited(tag, civil::datetime_text(value).as_bytes()),
        TimeTo::DateTime => civil::pack_datetime(value),
    };
    w.room(16)?;
    w.tag(tag);
    w.varint(number as u64);
    Ok(())
}

/// What a partition column of this form compares with now: microseconds.
pub(super) const fn as_micros(to: TimeTo, value: i64) -> i64 {
    if matches!(to, TimeTo::Date) { value.saturating_mul(DAY_MICROS) } else { value }
}

/// A NUMERIC or BIGNUMERIC, or why it does not fit.
pub(super) fn put_decimal(
    w: &mut Writer<'_>,
    tag: Tag,
    column: &DecimalColumn,
    value: Result<Decimal, Misfit>,
    position: usize,
) -> Result<(), Fault> {
    let value = value.map_err(|misfit| {
        let class = if misfit == Misfit::TooLarge { Class::ValueOutOfRange } else { Class::InvalidDecimal };
        Fault::new(class, position, misfit.what())
    })?;
    if column.text {
        let (text, len) = column.text(&value);
        w.delimited(tag, &text[..len])
    } else {
        let (bytes, len) = column.wire_bytes(&value);
        w.delimited(tag, &bytes[..len])
    }
}

/// A STRING, at most so many code points.
pub(super) fn put_text(w: &mut Writer<'_>, tag: Tag, text: &str, max_chars: u64, position: usize) -> Result<(), Fault> {
    if text.len() as u64 > max_chars && text.chars().count() as u64 > max_chars {
        return Err(Fault::new(Class::ValueOutOfRange, position, "a string is longer than its column"));
    }
    w.delimited(tag, text.as_bytes())
}

/// BYTES, at most so many.
pub(super) fn put_bytes(w: &mut Writer<'_>, tag: Tag, bytes: &[u8], max: u64, position: usize) -> Result<(), Fault> {
    if bytes.len() as u64 > max {
        return Err(Fault::new(Class::ValueOutOfRange, position, "bytes are longer than their column"));
    }
    w.delimited(tag, bytes)
}

impl Scalar {
    /// The scalar of a column's type; `None` for RECORD and RANGE.
    pub fn of(ty: &ColumnType, text_literals: bool) -> Option<Self> {
        Some(match ty {
            ColumnType::Bool => Self::Bool,
            ColumnType::Int64 => Self::Int64,
            ColumnType::Float64 => Self::Float64,
            ColumnType::Numeric(_) | ColumnType::BigNumeric(_) => Self::Decimal(DecimalColumn::of(ty, text_literals)?),
            ColumnType::String(max) => Self::Text { max_chars: max.unwrap_or(u64::MAX) },
            ColumnType::Bytes(max) => Self::Bytes { max: max.unwrap_or(u64::MAX) },
            ColumnType::Date | ColumnType::Time | ColumnType::DateTime | ColumnType::Timestamp => {
                Self::Time(TimeTo::of(ty, text_literals)?)
            }
            ColumnType::Json => Self::Json,
            ColumnType::Geography | ColumnType::Interval => Self::Verbatim,
            ColumnType::Struct(_) | ColumnType::Range(_) => return None,
        })
    }

    /// Reads this type's text form and writes it; a partition column is held against `now_us`.
    pub fn put_parsed(&self, w: &mut Writer<'_>, tag: Tag, text: &str, partition: Option<i64>, position: usize) -> Result<(), Fault> {
        let wrong = |what| Fault::new(Class::TypeMismatch, position, what);
        match self {
            Self::Bool => {
                let value = match text.to_ascii_lowercase().as_str() {
                    "true" => 1,
                    "false" => 0,
                    _ => return Err(wrong("the text is neither `true` nor `false`")),
                };
                self.put_word(w, tag, value)
            }
            Self::Int64 => self.put_word(w, tag, text.parse::<i64>().map_err(|_| wrong("the text is no 64-bit whole number"))? as u64),
            Self::Float64 => {
                let value = parse_float(text).ok_or_else(|| wrong("the text is no number"))?;
                put_double(w, tag, value)
            }
            Self::Decimal(column) => put_decimal(w, tag, column, column.parse(text), position),
            Self::Text { max_chars } => put_text(w, tag, text, *max_chars, position),
            Self::Bytes { max } => {
                let bytes = STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text)).map_err(|_| wrong("the text is not base64"))?;
                put_bytes(w, tag, &bytes, *max, position)
            }
            Self::Time(to) => {
                let value = match to {
                    TimeTo::Date => civil::parse_date(text),
                    TimeTo::Time | TimeTo::TimeText => civil::parse_time(text),
                    TimeTo::Timestamp => civil::parse_timestamp(text),
                    TimeTo::DateTime | TimeTo::DateTimeText => civil::parse_datetime(text),
                };
                let value = value.ok_or_else(|| wrong("the text is no date or time of its column's type, or beyond its range"))?;
                if let Some(now_us) = partition {
                    check_partition(as_micros(*to, value), now_us, position)?;
                }
                put_time(w, tag, *to, value, position)
            }
            Self::Json => {
                if serde_json::from_str::<serde::de::IgnoredAny>(text).is_err() {
                    return Err(Fault::new(Class::InvalidJson, position, "the text is no JSON"));
                }
                w.delimited(tag, text.as_bytes())
            }
            Self::Verbatim => w.delimited(tag, text.as_bytes()),
        }
    }

    /// A varint under this tag.
    pub fn put_word(&self, w: &mut Writer<'_>, tag: Tag, value: u64) -> Result<(), Fault> {
        w.room(16)?;
        w.tag(tag);
        w.varint(value);
        Ok(())
    }
}

impl TimeTo {
    /// The form of a date or time column.
    pub const fn of(ty: &ColumnType, text_literals: bool) -> Option<Self> {
        Some(match (ty, text_literals) {
            (ColumnType::Date, _) => Self::Date,
            (ColumnType::Timestamp, _) => Self::Timestamp,
            (ColumnType::Time, false) => Self::Time,
            (ColumnType::Time, true) => Self::TimeText,
            (ColumnType::DateTime, false) => Self::DateTime,
            (ColumnType::DateTime, true) => Self::DateTimeText,
            _ => return None,
        })
    }
}

/// A FLOAT64.
#[inline(always)]
pub(super) fn put_double(w: &mut Writer<'_>, tag: Tag, value: f64) -> Result<(), Fault> {
    w.room(16)?;
    w.tag(tag);
    w.bytes(&value.to_bits().to_le_bytes());
    Ok(())
}

/// A number, or `NaN`, `inf`, `+inf`, `-inf` in any case of letters. `None` also for finite digits that overflow.
fn parse_float(text: &str) -> Option<f64> {
    match text.to_ascii_lowercase().as_str() {
        "nan" => Some(f64::NAN),
        "inf" | "+inf" | "infinity" | "+infinity" => Some(f64::INFINITY),
        "-inf" | "-infinity" => Some(f64::NEG_INFINITY),
        number => number.parse::<f64>().ok().filter(|f| f.is_finite()),
    }
}
