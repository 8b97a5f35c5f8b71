//! Tables as values: columns, the layout of a row message (field numbers, descriptor), the difference of two schemas.
//!
//! Belongs here: what can be said of a BigQuery table without talking to BigQuery. Pure: no clock, no I/O, no async.
//! Does not belong here: Avro or JSON (`decode/`), REST bodies and answers (`bigquery/`).

mod column;
mod descriptor;
mod diff;
mod history;
mod layout;
mod names;
mod type_name;

pub use column::{Column, ColumnType, Mode, TableName};
pub use descriptor::WireForm;
pub use diff::{Diff, MissingColumn, accepts, diff};
pub use history::{LayoutError, LayoutHistory, MAX_COLUMNS, MAX_RECORD_DEPTH};
pub use layout::{LaidColumn, Layout, SharedLayout};
pub use names::{check_cluster_columns, check_column_name, check_partition_column, same_name};
