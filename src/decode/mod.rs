//! Bytes to row: a plan compiled once per (schema, layout) and executed per record; row buffers.
//!
//! Belongs here: framing, Avro, JSON, metadata columns, the wire form of rows. Pure: no clock, no I/O, no async.
//! Does not belong here: where schemas come from (`schema/`), what happens to a record that fails (`pipeline/`).
//!
//! The way of an Avro schema: `shape` (types, names resolved) -> `mapped` (which column each field becomes) -> `compile` (operations for one
//! table's columns) -> `exec` (per record). `walk` is the slow way for what no column can hold.

mod civil;
mod compile;
mod connect_names;
mod decimal;
mod exec;
mod fault;
mod framing;
mod hot;
mod json_exec;
mod json_plan;
mod mapped;
mod metadata;
mod ops;
mod options;
mod plan;
mod reader;
mod row_buffer;
mod row_json;
mod schema_key;
mod shape;
#[cfg(test)]
mod tests;
mod values;
mod walk;
mod writer;

pub use connect_names::ConnectNames;
pub use framing::Framing;
pub use json_plan::json_columns;
pub use options::{DecodeOptions, Unmappable, UnmappableKind};
pub use plan::{Plan, avro_columns, stated_in_vain};
pub use row_buffer::{ClosedRows, RowBuffer, RowOrigin, RowOrigins, RowRoom, filter_rows, split_rows};
pub use row_json::row_to_json;
pub use schema_key::{AvroSchema, SchemaKey, SchemaKeyRef};
pub use writer::MAX_ROW_BYTES;
