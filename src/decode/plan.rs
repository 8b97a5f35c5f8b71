//! A compiled plan: bytes of one schema to rows of one layout.

use crate::record::{Record, RecordError};
use crate::table::{Column, Layout};

use super::{AvroSchema, DecodeOptions, Unmappable};

/// The columns that a schema's records need: its fields in order, then the metadata columns.
pub fn avro_columns(_schema: &AvroSchema, _options: &DecodeOptions) -> Result<Vec<Column>, Unmappable> {
    Err(Unmappable::schema("in work"))
}

/// The columns of a table that JSON records need: the table's own, those stated under `[table.columns]`, and the metadata columns.
pub fn json_columns(_table_columns: &[Column], _options: &DecodeOptions) -> Result<Vec<Column>, Unmappable> {
    Err(Unmappable::schema("in work"))
}

/// Bytes of one schema to rows of one layout: immutable, shared by `Arc`.
#[derive(Debug)]
pub struct Plan {
    layout_version: u32,
}

impl Plan {
    /// A plan for Avro data of this schema. `partition` is the table's partition column.
    pub fn avro(
        _schema: &AvroSchema,
        _table_columns: &[Column],
        _layout: &Layout,
        _partition: Option<&str>,
        _options: &DecodeOptions,
    ) -> Result<Self, Unmappable> {
        Err(Unmappable::schema("in work"))
    }

    /// A plan for JSON objects typed by the table's columns.
    pub fn json(
        _table_columns: &[Column],
        _layout: &Layout,
        _partition: Option<&str>,
        _options: &DecodeOptions,
    ) -> Result<Self, Unmappable> {
        Err(Unmappable::schema("in work"))
    }

    /// The layout version that it was made for: rows fit this version and all later ones.
    pub fn layout_version(&self) -> u32 {
        self.layout_version
    }

    /// Bytes of memory that it holds, roughly.
    pub fn size_bytes(&self) -> usize {
        size_of::<Self>()
    }

    /// Appends one row's bytes to `out`. On `Err`, `out` is as it was.
    pub fn decode(&self, payload: &[u8], record: &Record<'_>, now_us: i64, out: &mut Vec<u8>) -> Result<(), RecordError> {
        let start = out.len();
        let end = self.decode_at(payload, record, now_us, out, start);
        out.truncate(*end.as_ref().unwrap_or(&start));
        end.map(|_| ())
    }

    pub(super) fn decode_at(
        &self,
        _payload: &[u8],
        _record: &Record<'_>,
        _now_us: i64,
        _buf: &mut Vec<u8>,
        at: usize,
    ) -> Result<usize, RecordError> {
        Ok(at)
    }
}

/// A row as JSON text: for a dead letter whose record is gone from Kafka.
pub fn row_to_json(_layout: &Layout, _row: &[u8]) -> String {
    String::new()
}
