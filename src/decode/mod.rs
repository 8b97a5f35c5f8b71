//! Bytes to row: a plan compiled once per (schema, layout) and executed per record; row buffers.
//!
//! Belongs here: framing, Avro, JSON, metadata columns, the wire form of rows. Pure: no clock, no I/O, no async.
//! Does not belong here: where schemas come from (`schema/`), what happens to a record that fails (`pipeline/`).

mod connect_names;
mod fault;
mod framing;
mod options;
mod plan;
mod row_buffer;
mod schema_key;
mod writer;

pub use connect_names::ConnectNames;
pub use framing::Framing;
pub use options::{DecodeOptions, Unmappable, UnmappableKind};
pub use plan::{Plan, avro_columns, json_columns, row_to_json};
pub use row_buffer::{ClosedRows, RowBuffer, RowOrigin, RowOrigins, filter_rows, split_rows};
pub use schema_key::{AvroSchema, SchemaKey, SchemaKeyRef};
pub use writer::MAX_ROW_BYTES;
