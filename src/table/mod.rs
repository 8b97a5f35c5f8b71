//! Tables as values: columns, the layout of a row message (field numbers, descriptor), the difference of two schemas.
//!
//! Belongs here: what can be said of a BigQuery table without talking to BigQuery. Pure: no clock, no I/O, no async.
//! Does not belong here: Avro or JSON (`decode/`), REST bodies and answers (`bigquery/`).

mod column;
mod layout;

pub use column::{Column, ColumnType, Mode, TableName};
pub use layout::{LaidColumn, Layout, SharedLayout};
