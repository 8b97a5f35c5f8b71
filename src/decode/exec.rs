//! Executes a plan's operations: Avro bytes to row bytes in one pass.

use crate::record::RecordErrorClass as Class;

use super::civil;
use super::fault::Fault;
use super::hot::{STRETCH_ROOM_BYTES, stretch};
use super::ops::{ArrayOp, Code, MapOp, Op, Union};
use super::reader::{Reader, check_utf8};
use super::shape::{Shape, Shapes};
use super::values::{as_micros, check_partition, put_bytes, put_decimal, put_double, put_text, put_time, put_timestamp};
use super::walk::{skip, write_json};
use super::writer::{Tag, Writer};

/// What an execution needs beside the data.
pub(super) struct Context<'p> {
    pub shapes: &'p Shapes,
    pub now_us: i64,
}

/// Runs the operations of one record or RECORD: stretches of common ones in [`stretch`], others one by one.
pub(super) fn run(mut ops: &[Op], r: &mut Reader<'_>, w: &mut Writer<'_>, cx: &Context<'_>) -> Result<(), Fault> {
    loop {
        w.room(STRETCH_ROOM_BYTES)?;
        let data = r.data.get(r.pos..).and_then(<[u8]>::first_chunk);
        if let (Some(data), Some(out)) = (data, w.buf.get_mut(w.at..).and_then(<[u8]>::first_chunk_mut)) {
            let stop = stretch(ops, data, r.remaining(), out);
            r.pos += stop.read;
            w.at += stop.written;
            ops = ops.get(stop.done..).unwrap_or_default();
            if stop.is_far() {
                continue;
            }
        }
        let Some((op, rest)) = ops.split_first() else { return Ok(()) };
        step(op, r, w, cx).map_err(|fault| fault.at_path(op.path))?;
        ops = rest;
    }
}

/// One operation, any.
fn step(op: &Op, r: &mut Reader<'_>, w: &mut Writer<'_>, cx: &Context<'_>) -> Result<(), Fault> {
    if is_null(op, r)? || is_null_branch(op, r, cx)? { Ok(()) } else { rare(op, r, w, cx) }
}

/// Whether a union that becomes JSON is null: then it is read, and its column is NULL as any other's, not JSON's `null`.
fn is_null_branch(op: &Op, r: &mut Reader<'_>, cx: &Context<'_>) -> Result<bool, Fault> {
    let Code::Json(shape) = op.code else { return Ok(false) };
    let Shape::Union(branches) = cx.shapes.get(shape) else { return Ok(false) };
    let mut behind = *r;
    let branch = behind.index(branches.len(), Class::UnionIndexOutOfRange)?;
    if !matches!(cx.shapes.get(branches[branch]), Shape::Null) {
        return Ok(false);
    }
    if op.required {
        return Err(r.fault(Class::MissingRequired, "null for a REQUIRED column"));
    }
    *r = behind;
    Ok(true)
}

/// Reads a union's branch; whether it is null.
#[inline(always)]
pub(super) fn is_null(op: &Op, r: &mut Reader<'_>) -> Result<bool, Fault> {
    match op.union {
        Union::No => Ok(false),
        Union::Lone => r.index(1, Class::UnionIndexOutOfRange).map(|_| false),
        Union::Nullable(null) => {
            let branch = r.index(2, Class::UnionIndexOutOfRange)?;
            if branch != usize::from(null) {
                return Ok(false);
            }
            if op.required {
                return Err(r.fault(Class::MissingRequired, "null for a REQUIRED column"));
            }
            Ok(true)
        }
    }
}

/// A string of any length.
fn text(tag: Tag, r: &mut Reader<'_>, w: &mut Writer<'_>) -> Result<(), Fault> {
    let bytes = r.bytes()?;
    utf8(bytes, r.pos - bytes.len())?;
    w.delimited(tag, bytes)
}

#[inline(never)]
pub(super) fn utf8(bytes: &[u8], position: usize) -> Result<(), Fault> {
    check_utf8(bytes).map(|_| ()).map_err(|()| Fault::new(Class::InvalidUtf8, position, "a string is not UTF-8"))
}

/// A value whose union was read.
#[inline(never)]
fn rare(op: &Op, r: &mut Reader<'_>, w: &mut Writer<'_>, cx: &Context<'_>) -> Result<(), Fault> {
    let (tag, start) = (op.tag, r.pos);
    match &op.code {
        Code::Long => word(w, tag, r.long()? as u64),
        Code::Int => word(w, tag, i64::from(r.int()?) as u64),
        Code::Bool => word(w, tag, u64::from(r.boolean()?)),
        Code::Double => put_double(w, tag, f64::from_le_bytes(r.array()?)),
        Code::Float => put_double(w, tag, f64::from(f32::from_le_bytes(r.array()?))),
        Code::IntDouble => put_double(w, tag, f64::from(r.int()?)),
        Code::Text => text(tag, r, w),
        Code::BoundedText { max_chars } => put_text(w, tag, r.string()?, *max_chars, start),
        Code::Bytes { max } => put_bytes(w, tag, r.bytes()?, *max, start),
        Code::Fixed { size, max } => put_bytes(w, tag, r.take(*size)?, *max, start),
        Code::Enum(symbols) => {
            let index = r.index(symbols.len(), Class::EnumIndexOutOfRange)?;
            w.put(&symbols[index])
        }
        Code::MillisTimestamp => {
            let micros = r.long()?.saturating_mul(1_000);
            if op.partition {
                check_partition(micros, cx.now_us, start)?;
            }
            put_timestamp(w, tag, micros, start)
        }
        Code::Count { long, unit, to } => {
            let count = if *long { r.long()? } else { i64::from(r.int()?) };
            let beyond = || Fault::new(Class::ValueOutOfRange, start, "a date or time is beyond 64 bits of microseconds");
            let micros = civil::micros(count, *unit).ok_or_else(beyond)?;
            let value = if *to == super::ops::TimeTo::Date { micros.div_euclid(civil::DAY_MICROS) } else { micros };
            if op.partition {
                check_partition(as_micros(*to, value), cx.now_us, start)?;
            }
            put_time(w, tag, *to, value, start)
        }
        Code::Whole { long, column } => {
            let value = if *long { r.long()? } else { i64::from(r.int()?) };
            put_decimal(w, tag, column, column.fit_i64(value), start)
        }
        Code::Decimal { size, scale, column } => {
            let bytes = match size {
                Some(size) => r.take(*size)?,
                None => r.bytes()?,
            };
            put_decimal(w, tag, column, column.fit_be_bytes(bytes, *scale), start)
        }
        Code::BigDecimal(column) => {
            let mut inner = Reader::new(r.bytes()?);
            let unscaled = inner.bytes().and_then(|b| inner.long().map(|s| (b, s)));
            let (unscaled, scale) =
                unscaled.map_err(|_| Fault::new(Class::InvalidDecimal, start, "a big-decimal does not hold bytes and a scale"))?;
            put_decimal(w, tag, column, column.fit_be_bytes(unscaled, scale), start)
        }
        Code::VariableScaleDecimal(column) => {
            let scale = i64::from(r.int()?);
            let unscaled = r.bytes()?;
            put_decimal(w, tag, column, column.fit_be_bytes(unscaled, scale), start)
        }
        Code::UuidText => {
            let text = r.string()?;
            uuid::Uuid::try_parse(text).map_err(|_| Fault::new(Class::InvalidUuid, start, "the text is no UUID"))?;
            w.delimited(tag, text.as_bytes())
        }
        Code::Uuid { counted } => {
            let bytes = if *counted { r.bytes()? } else { r.take(16)? };
            let uuid = uuid::Uuid::from_slice(bytes).map_err(|_| Fault::new(Class::InvalidUuid, start, "a UUID is not 16 bytes long"))?;
            w.delimited(tag, uuid.hyphenated().encode_lower(&mut [0; 36]).as_bytes())
        }
        Code::Parse(scalar) => {
            let text = r.string()?;
            scalar.put_parsed(w, tag, text, op.partition.then_some(cx.now_us), start)
        }
        Code::Duration(tags) => {
            let message = w.open(tag)?;
            for part in tags.iter() {
                word(w, *part, u64::from(u32::from_le_bytes(r.array()?)))?;
            }
            w.close(message)
        }
        Code::Json(shape) => {
            let message = w.open(tag)?;
            write_json(cx.shapes, *shape, r, w, 0)?;
            w.close(message)
        }
        Code::Skip(shape) => skip(cx.shapes, *shape, r, 0),
        Code::Record(ops) => {
            let message = w.open(tag)?;
            run(ops, r, w, cx)?;
            w.close(message)
        }
        Code::Union(branches) => {
            let branch = r.index(branches.len(), Class::UnionIndexOutOfRange)?;
            let is_null = matches!(&branches[branch].code, Code::Skip(shape) if matches!(cx.shapes.get(*shape), Shape::Null));
            if is_null {
                return if op.required { Err(Fault::new(Class::MissingRequired, start, "null for a REQUIRED column")) } else { Ok(()) };
            }
            let message = w.open(tag)?;
            run(&branches[branch..=branch], r, w, cx)?;
            w.close(message)
        }
        Code::Array(array) => run_array(array, r, w, cx),
        Code::Map(map) => run_map(map, r, w, cx),
    }
}

fn word(w: &mut Writer<'_>, tag: Tag, value: u64) -> Result<(), Fault> {
    w.room(16)?;
    w.tag(tag);
    w.varint(value);
    Ok(())
}

fn run_array(array: &ArrayOp, r: &mut Reader<'_>, w: &mut Writer<'_>, cx: &Context<'_>) -> Result<(), Fault> {
    loop {
        let (count, end) = r.block(array.least_bytes)?;
        if count == 0 {
            return r.block_end(end);
        }
        let packed = array.packed.map(|tag| w.open(tag)).transpose()?;
        for _ in 0..count {
            if let Some(wrapper) = array.wrapper {
                let message = w.open(wrapper)?;
                run(std::slice::from_ref(&array.item), r, w, cx)?;
                w.close(message)?;
                continue;
            }
            let start = r.pos;
            if is_null(&array.item, r)? {
                return Err(Fault::new(
                    Class::NullInRepeated,
                    start,
                    "a null inside an array: BigQuery's arrays take none (`repeated_null = \"wrap\"` under [table] keeps them)",
                ));
            }
            rare(&array.item, r, w, cx)?;
        }
        if let Some(start) = packed {
            w.close(start)?;
        }
        r.block_end(end)?;
    }
}

fn run_map(map: &MapOp, r: &mut Reader<'_>, w: &mut Writer<'_>, cx: &Context<'_>) -> Result<(), Fault> {
    loop {
        // A key takes at least its length.
        let (count, end) = r.block(1)?;
        if count == 0 {
            return r.block_end(end);
        }
        for _ in 0..count {
            let entry = w.open(map.entry)?;
            text(map.key, r, w)?;
            run(std::slice::from_ref(&map.value), r, w, cx)?;
            w.close(entry)?;
        }
        r.block_end(end)?;
    }
}
