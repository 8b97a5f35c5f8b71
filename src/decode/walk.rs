//! The slow way: walks Avro bytes by their type, to skip them or to write them as JSON text. For types that no column can hold.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::config::TimeUnit;
use crate::record::RecordErrorClass as Class;

use super::civil::{self, DAY_MICROS, DAYS, MICROS};
use super::fault::Fault;
use super::reader::Reader;
use super::shape::{Shape, ShapeId, Shapes, TimeKind};
use super::writer::Writer;

/// BigQuery's depth of JSON.
const MAX_JSON_DEPTH: usize = 500;

/// Reads a value and drops it; checks what the reading itself checks. Takes time by the data's length, whatever the schema is.
pub(super) fn skip(shapes: &Shapes, id: ShapeId, r: &mut Reader<'_>, depth: usize) -> Result<(), Fault> {
    if shapes.takes_nothing(id) {
        return Ok(());
    }
    if depth > MAX_JSON_DEPTH {
        return Err(r.fault(Class::TooDeep, "values are nested deeper than 500"));
    }
    let id = branch_of(shapes, id, r)?;
    match shapes.get(id) {
        Shape::Null | Shape::Union(_) => Ok(()),
        Shape::Boolean => r.boolean().map(|_| ()),
        Shape::Int | Shape::Count { long: false, .. } => r.int().map(|_| ()),
        Shape::Long | Shape::Count { long: true, .. } => r.long().map(|_| ()),
        Shape::Float => r.take(4).map(|_| ()),
        Shape::Double => r.take(8).map(|_| ()),
        Shape::Bytes | Shape::BigDecimal | Shape::Decimal { size: None, .. } | Shape::Uuid { counted: true } => r.bytes().map(|_| ()),
        Shape::String | Shape::UuidText | Shape::ZonedTimestamp => r.string().map(|_| ()),
        Shape::Fixed(n) | Shape::Decimal { size: Some(n), .. } => r.take(*n).map(|_| ()),
        Shape::Uuid { counted: false } => r.take(16).map(|_| ()),
        Shape::Duration => r.take(12).map(|_| ()),
        Shape::Enum(symbols) => r.index(symbols.len(), Class::EnumIndexOutOfRange).map(|_| ()),
        Shape::VariableScaleDecimal => {
            r.int()?;
            r.bytes().map(|_| ())
        }
        Shape::Record(record) => record.taking.iter().try_for_each(|id| skip(shapes, *id, r, depth + 1)),
        Shape::Array(item) => {
            let least = shapes.least_bytes(*item);
            loop {
                let (count, end) = r.block(least)?;
                if count == 0 {
                    return r.block_end(end);
                }
                // Elements of no bytes need no reading.
                for _ in 0..if shapes.takes_nothing(*item) { 0 } else { count } {
                    skip(shapes, *item, r, depth + 1)?;
                }
                r.block_end(end)?;
            }
        }
        Shape::Map(value) => loop {
            let (count, end) = r.block(1)?;
            if count == 0 {
                return r.block_end(end);
            }
            for _ in 0..count {
                r.string()?;
                skip(shapes, *value, r, depth + 1)?;
            }
            r.block_end(end)?;
        },
    }
}

/// The type of the branch that a union's value has; any other type as it is. (A union stands in no union.)
fn branch_of(shapes: &Shapes, id: ShapeId, r: &mut Reader<'_>) -> Result<ShapeId, Fault> {
    match shapes.get(id) {
        Shape::Union(branches) => Ok(branches[r.index(branches.len(), Class::UnionIndexOutOfRange)?]),
        _ => Ok(id),
    }
}

/// Reads a value and writes it as JSON text: bytes as base64, decimals and times as their text forms, the branches of unions as they are.
///
/// It calls itself up to 500 deep on a thread's usual stack: what is no RECORD, array or map is kept out of its frame.
pub(super) fn write_json(shapes: &Shapes, id: ShapeId, r: &mut Reader<'_>, w: &mut Writer<'_>, depth: usize) -> Result<(), Fault> {
    if depth > MAX_JSON_DEPTH {
        return Err(r.fault(Class::TooDeep, "a JSON value is nested deeper than BigQuery's 500"));
    }
    let id = branch_of(shapes, id, r)?;
    match shapes.get(id) {
        Shape::Record(record) => {
            w.put(b"{")?;
            for (i, field) in record.fields.iter().enumerate() {
                separate(w, i == 0)?;
                quoted(w, &field.name)?;
                w.put(b":")?;
                write_json(shapes, field.shape, r, w, depth + 1)?;
            }
            w.put(b"}")
        }
        Shape::Array(item) => {
            w.put(b"[")?;
            elements(r, w, shapes.least_bytes(*item), &mut |r, w| write_json(shapes, *item, r, w, depth + 1))?;
            w.put(b"]")
        }
        Shape::Map(value) => {
            w.put(b"{")?;
            elements(r, w, 1, &mut |r, w| {
                quoted(w, r.string()?)?;
                w.put(b":")?;
                write_json(shapes, *value, r, w, depth + 1)
            })?;
            w.put(b"}")
        }
        scalar => write_scalar(scalar, r, w),
    }
}

/// A value without others in it.
#[inline(never)]
fn write_scalar(shape: &Shape, r: &mut Reader<'_>, w: &mut Writer<'_>) -> Result<(), Fault> {
    let start = r.pos;
    match shape {
        Shape::Null | Shape::Record(_) | Shape::Array(_) | Shape::Map(_) | Shape::Union(_) => w.put(b"null"),
        Shape::Boolean => {
            let value = r.boolean()?;
            w.put(if value { b"true" } else { b"false" })
        }
        Shape::Int => number(w, i64::from(r.int()?)),
        Shape::Long => number(w, r.long()?),
        Shape::Float => float(w, f64::from(f32::from_le_bytes(r.array()?))),
        Shape::Double => float(w, f64::from_le_bytes(r.array()?)),
        Shape::Bytes => quoted(w, &STANDARD.encode(r.bytes()?)),
        Shape::Fixed(n) => quoted(w, &STANDARD.encode(r.take(*n)?)),
        Shape::String | Shape::ZonedTimestamp | Shape::UuidText => quoted(w, r.string()?),
        Shape::Enum(symbols) => {
            let index = r.index(symbols.len(), Class::EnumIndexOutOfRange)?;
            quoted(w, &symbols[index])
        }
        Shape::Decimal { size, scale, .. } => {
            let unscaled = match size {
                Some(n) => r.take(*n)?,
                None => r.bytes()?,
            };
            decimal(w, unscaled, *scale as i64, start)
        }
        Shape::BigDecimal => {
            let mut inner = Reader::new(r.bytes()?);
            let unscaled = inner.bytes()?;
            decimal(w, unscaled, inner.long()?, start)
        }
        Shape::VariableScaleDecimal => {
            let scale = i64::from(r.int()?);
            decimal(w, r.bytes()?, scale, start)
        }
        Shape::Uuid { counted } => {
            let bytes = if *counted { r.bytes()? } else { r.take(16)? };
            let uuid = uuid::Uuid::from_slice(bytes).map_err(|_| Fault::new(Class::InvalidUuid, start, "a UUID is not 16 bytes long"))?;
            quoted(w, &uuid.to_string())
        }
        Shape::Count { long, kind, unit } => {
            let count = if *long { r.long()? } else { i64::from(r.int()?) };
            time(w, *kind, *unit, count, start)
        }
        Shape::Duration => {
            let mut parts = [0; 3];
            for part in &mut parts {
                *part = u32::from_le_bytes(r.array()?);
            }
            w.put(format!("{{\"months\":{},\"days\":{},\"millis\":{}}}", parts[0], parts[1], parts[2]).as_bytes())
        }
    }
}

/// The blocks of an array or map, elements separated by commas.
fn elements(
    r: &mut Reader<'_>,
    w: &mut Writer<'_>,
    least: usize,
    one: &mut dyn FnMut(&mut Reader<'_>, &mut Writer<'_>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut first = true;
    loop {
        let (count, end) = r.block(least)?;
        if count == 0 {
            return r.block_end(end);
        }
        for _ in 0..count {
            separate(w, first)?;
            first = false;
            one(r, w)?;
        }
        r.block_end(end)?;
    }
}

fn separate(w: &mut Writer<'_>, first: bool) -> Result<(), Fault> {
    if first { Ok(()) } else { w.put(b",") }
}

fn number(w: &mut Writer<'_>, value: i64) -> Result<(), Fault> {
    w.put(value.to_string().as_bytes())
}

/// JSON has no NaN and no infinity: they become text.
fn float(w: &mut Writer<'_>, value: f64) -> Result<(), Fault> {
    match serde_json::Number::from_f64(value) {
        Some(number) => w.put(number.to_string().as_bytes()),
        None => quoted(w, &value.to_string()),
    }
}

fn quoted(w: &mut Writer<'_>, text: &str) -> Result<(), Fault> {
    // Serialising a `str` cannot fail.
    let quoted = serde_json::to_vec(text).map_err(|_| Fault::new(Class::InvalidJson, 0, "a text cannot be written as JSON"))?;
    w.put(&quoted)
}

fn decimal(w: &mut Writer<'_>, unscaled: &[u8], scale: i64, position: usize) -> Result<(), Fault> {
    if unscaled.len() > 1_024 || !(-1_024..=1_024).contains(&scale) {
        return Err(Fault::new(Class::InvalidDecimal, position, "a decimal has more than a thousand digits"));
    }
    let value = num_bigint::BigInt::from_signed_bytes_be(unscaled);
    let digits = value.magnitude().to_string();
    let text = if scale <= 0 {
        digits + &"0".repeat(scale.unsigned_abs() as usize)
    } else {
        let scale = scale as usize;
        let padded = format!("{digits:0>width$}", width = scale + 1);
        let (whole, fraction) = padded.split_at(padded.len() - scale);
        format!("{whole}.{fraction}")
    };
    let sign = if value.sign() == num_bigint::Sign::Minus { "-" } else { "" };
    quoted(w, &format!("{sign}{text}"))
}

fn time(w: &mut Writer<'_>, kind: TimeKind, unit: TimeUnit, count: i64, position: usize) -> Result<(), Fault> {
    let beyond = || Fault::new(Class::ValueOutOfRange, position, "a date or time is beyond BigQuery's range");
    let micros = civil::micros(count, unit).ok_or_else(beyond)?;
    let days = micros.div_euclid(DAY_MICROS);
    let (text, zone) = match kind {
        TimeKind::Date if DAYS.contains(&days) => (civil::date_text(days), ""),
        TimeKind::Time if (0..DAY_MICROS).contains(&micros) => (civil::time_text(micros), ""),
        TimeKind::Moment if MICROS.contains(&micros) => (civil::datetime_text(micros), "Z"),
        TimeKind::Local if MICROS.contains(&micros) => (civil::datetime_text(micros), ""),
        _ => return Err(beyond()),
    };
    w.put(b"\"")?;
    w.put(text.as_bytes())?;
    w.put(zone.as_bytes())?;
    w.put(b"\"")
}
