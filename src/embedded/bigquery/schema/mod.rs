//! A table's metadata: columns, what they may be, what a table may be, what a change may do.

pub(super) mod column;
pub(super) mod default_value;
pub(super) mod names;
pub(super) mod patch;
pub(super) mod table_rules;
pub(super) mod wire;

pub(super) use column::{Column, ColumnType, Mode, Schema};
