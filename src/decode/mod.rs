//! Bytes to row: a plan compiled once per (schema, layout) and executed per record; row buffers.
//!
//! Belongs here: framing, Avro, JSON, metadata columns, the wire form of rows. Pure: no clock, no I/O, no async.
//! Does not belong here: where schemas come from (`schema/`), what happens to a record that fails (`pipeline/`).

mod schema_key;

pub use schema_key::{AvroSchema, SchemaKey};
