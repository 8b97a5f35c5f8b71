//! A compiled plan: bytes of one schema to rows of one layout.

use std::collections::BTreeSet;

use crate::record::{Record, RecordError, RecordErrorClass as Class};
use crate::table::{Column, Layout};

use super::compile::Compiler;
use super::exec::{self, Context};
use super::fault::Fault;
use super::hot::STRETCH_BYTES;
use super::json_plan::{JsonCompiler, Object};
use super::mapped::map_schema;
use super::metadata::{self, Metadata};
use super::ops::Op;
use super::reader::Reader;
use super::shape::Shapes;
use super::writer::{MAX_ROW_BYTES, Writer};
use super::{AvroSchema, DecodeOptions, Unmappable, json_exec};

/// The columns that a schema's records need: its fields in order, then the metadata columns. All are NULLABLE or REPEATED unless the connector states REQUIRED.
///
/// # Errors
/// The schema cannot be mapped (recursion, too wide a decimal, names, depth, arrays of arrays), or a metadata column has the name of a field.
pub fn avro_columns(schema: &AvroSchema, options: &DecodeOptions) -> Result<Vec<Column>, Unmappable> {
    let fields = map_schema(&Shapes::of(schema)?, options)?;
    options.with_metadata(fields.iter().filter(|f| f.has_column()).map(|f| f.column()).collect())
}

/// The paths under `[table.columns]` that no field of this schema has, so that what is stated for them changes nothing.
///
/// # Errors
/// As [`avro_columns`].
pub fn stated_in_vain(schema: &AvroSchema, options: &DecodeOptions) -> Result<BTreeSet<String>, Unmappable> {
    let fields = map_schema(&Shapes::of(schema)?, options)?;
    let mut found = BTreeSet::new();
    fields.iter().for_each(|field| field.paths(&mut found));
    Ok(options.overrides.keys().filter(|path| !found.contains(path.as_str())).cloned().collect())
}

/// Bytes of one schema to rows of one layout: immutable, shared by `Arc`.
#[derive(Debug)]
pub struct Plan {
    layout_version: u32,
    pub(super) root: Root,
    metadata: Box<[Metadata]>,
    paths: Vec<String>,
}

/// Data up to this length is copied to where it can be read in whole words to its end. What is longer goes the general way near its end.
const COPIED_BYTES: usize = 4096;

/// A place for a copy of a record's data, padding behind it. It takes its memory when first used and then keeps it: what an earlier record left
/// there is never read as data.
#[derive(Debug, Default)]
pub(super) struct Padded(Vec<u8>);

impl Padded {
    /// A cursor over a copy of the data, or over the data itself when it is long.
    #[inline]
    fn reader<'d>(&'d mut self, data: &'d [u8]) -> Reader<'d> {
        if data.len() > COPIED_BYTES {
            return Reader::new(data);
        }
        if self.0.is_empty() {
            self.0.resize(COPIED_BYTES + STRETCH_BYTES, 0);
        }
        if let Some(start) = self.0.get_mut(..data.len()) {
            copy(data, start);
        }
        Reader::padded(&self.0, data.len())
    }

    /// Bytes of memory that it holds.
    pub fn memory_bytes(&self) -> usize {
        self.0.capacity()
    }
}

const BLOCK_BYTES: usize = 32;

/// Copies between slices of the same length. From 32 to 128 bytes by four blocks that may overlap: a branch by length could not be predicted.
#[inline]
fn copy(from: &[u8], to: &mut [u8]) {
    let Some(last) = from.len().checked_sub(BLOCK_BYTES).filter(|last| *last <= 3 * BLOCK_BYTES) else {
        return to.copy_from_slice(from);
    };
    for at in [0, BLOCK_BYTES.min(last), (2 * BLOCK_BYTES).min(last), last] {
        let block = from.get(at..).and_then(<[u8]>::first_chunk::<BLOCK_BYTES>);
        if let (Some(block), Some(place)) = (block, to.get_mut(at..).and_then(<[u8]>::first_chunk_mut)) {
            *place = *block;
        }
    }
}

#[derive(Debug)]
pub(super) enum Root {
    Avro { shapes: Shapes, ops: Box<[Op]> },
    Json(Object),
}

impl Plan {
    /// A plan for Avro data of this schema into a table with these columns. `partition` is the table's time partition column: its dates are held against what
    /// streaming takes.
    ///
    /// # Errors
    /// [`Unmappable`]: its kind says whether the records are dead letters, or the table must change.
    pub fn avro(
        schema: &AvroSchema,
        table_columns: &[Column],
        layout: &Layout,
        partition: Option<&str>,
        options: &DecodeOptions,
    ) -> Result<Self, Unmappable> {
        let shapes = Shapes::of(schema)?;
        let fields = map_schema(&shapes, options)?;
        options.with_metadata(fields.iter().filter(|f| f.has_column()).map(|f| f.column()).collect())?;
        let others: Vec<String> = options.metadata.iter().map(|(_, name)| name.clone()).collect();
        let mut compiler = Compiler { shapes: &shapes, layout, partition, paths: Vec::new() };
        let ops = compiler.fields(&fields, table_columns, &layout.columns, &others, true)?;
        let paths = compiler.paths;
        let metadata = metadata::compile(options, &layout.columns, partition, &schema.id)?;
        Ok(Self { layout_version: layout.version, root: Root::Avro { shapes, ops }, metadata, paths })
    }

    /// A plan for JSON objects typed by the table's columns.
    ///
    /// # Errors
    /// The layout lacks a column of the table, or a metadata column is of another type.
    pub fn json(table_columns: &[Column], layout: &Layout, partition: Option<&str>, options: &DecodeOptions) -> Result<Self, Unmappable> {
        let mut compiler = JsonCompiler { options, layout, partition, paths: Vec::new() };
        let object = compiler.object(table_columns, &layout.columns, "")?;
        let paths = compiler.paths;
        let metadata = metadata::compile(options, &layout.columns, partition, "")?;
        Ok(Self { layout_version: layout.version, root: Root::Json(object), metadata, paths })
    }

    /// The layout version that it was made for: rows fit this version and all later ones.
    pub fn layout_version(&self) -> u32 {
        self.layout_version
    }

    /// Bytes of memory that it holds, roughly.
    pub fn size_bytes(&self) -> usize {
        let root = match &self.root {
            Root::Avro { shapes, ops } => shapes.size_bytes() + ops.iter().map(Op::size_bytes).sum::<usize>(),
            Root::Json(object) => object.size_bytes(),
        };
        size_of::<Self>() + root + self.paths.iter().map(|p| p.capacity() + 24).sum::<usize>()
    }

    /// Appends one row's bytes to `out`; on `Err`, `out` is as it was. `payload` is the data behind the framing; `now_us` the present time in microseconds since
    /// the epoch.
    ///
    /// # Errors
    /// The record's: class, field and position. Its values are never shown.
    pub fn decode(&self, payload: &[u8], record: &Record<'_>, now_us: i64, out: &mut Vec<u8>) -> Result<(), RecordError> {
        let start = out.len();
        let end = self.decode_at(payload, record, now_us, &mut Padded::default(), out, start);
        out.truncate(*end.as_ref().unwrap_or(&start));
        end.map(|_| ())
    }

    /// Writes a row at `at` into initialised memory (grown when short) and returns where it ends. `padded` is a place for the data's copy.
    #[inline]
    pub(super) fn decode_at(
        &self,
        payload: &[u8],
        record: &Record<'_>,
        now_us: i64,
        padded: &mut Padded,
        buf: &mut Vec<u8>,
        at: usize,
    ) -> Result<usize, RecordError> {
        let mut w = Writer::new(buf, at);
        match &self.root {
            Root::Avro { shapes, ops } => {
                let cx = Context { shapes, now_us };
                let outcome = whole(ops, padded.reader(payload), &mut w, &cx);
                outcome.map_err(|f| f.into_error(&self.paths))?;
            }
            Root::Json(object) => json_exec::run(object, payload, now_us, &mut w, &self.paths)?,
        }
        metadata::run(&self.metadata, record, now_us, &mut w).map_err(|f| f.into_error(&[]))?;
        if w.at - at > MAX_ROW_BYTES {
            return Err(Fault::new(Class::RowTooLarge, 0, "the row is larger than 9 MiB, the most that one append takes").into_error(&[]));
        }
        Ok(w.at)
    }
}

/// Runs the operations, which must read the data to its end.
#[inline]
fn whole(ops: &[Op], mut r: Reader<'_>, w: &mut Writer<'_>, cx: &Context<'_>) -> Result<(), Fault> {
    exec::run(ops, &mut r, w, cx)?;
    match r.remaining() {
        0 => Ok(()),
        _ => Err(r.fault(Class::OverlongData, "the record ends before the data does: it was written with another schema")),
    }
}
