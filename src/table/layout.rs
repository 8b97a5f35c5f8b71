//! The layout of a table's row message: field numbers and the descriptor that names them.

use std::sync::Arc;

use bytes::Bytes;

use super::{ColumnType, Mode, same_name};

/// A column with its field number in the row message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaidColumn {
    /// The field number: append-only per worker and table, never the column's position.
    pub number: u32,
    /// The column's name.
    pub name: String,
    /// Its type. For a STRUCT the children below count, not the columns inside the type.
    pub ty: ColumnType,
    /// NULLABLE, REQUIRED or REPEATED.
    pub mode: Mode,
    /// The fields of a STRUCT (and `start`, `end` of a RANGE).
    pub children: Vec<LaidColumn>,
}

/// One version of a table's row message. Every field is optional or repeated (proto2).
#[derive(Debug)]
pub struct Layout {
    /// Rises by one with every new column of this worker and table. A plan made for version v writes rows that any version >= v
    /// describes, until a column goes or changes its wire form (see [`Layout::describes`]).
    pub version: u32,
    /// The wire form of the self-contained `DescriptorProto`, as `ProtoSchema.proto_descriptor` takes it.
    pub descriptor: Bytes,
    /// The columns in it.
    pub columns: Vec<LaidColumn>,
    /// NUMERIC, BIGNUMERIC, TIME and DATETIME travel as text literals (for emulators that know no packed forms), not as bytes and bit
    /// fields.
    pub text_literals: bool,
}

impl Layout {
    /// The column of this name, ignoring case.
    pub fn column(&self, name: &str) -> Option<&LaidColumn> {
        find(&self.columns, name)
    }

    /// Whether rows written for `older` can be read by this layout: each of its columns is here under the same number.
    pub fn describes(&self, older: &Layout) -> bool {
        has_all(&self.columns, &older.columns)
    }
}

impl LaidColumn {
    /// The field of this name in a STRUCT, ignoring case.
    pub fn child(&self, name: &str) -> Option<&LaidColumn> {
        find(&self.children, name)
    }
}

fn find<'a>(columns: &'a [LaidColumn], name: &str) -> Option<&'a LaidColumn> {
    columns.iter().find(|c| same_name(&c.name, name))
}

fn has_all(columns: &[LaidColumn], older: &[LaidColumn]) -> bool {
    older.iter().all(|old| find(columns, &old.name).is_some_and(|new| new.number == old.number && has_all(&new.children, &old.children)))
}

/// All versions share this: the numbers that were given.
pub type SharedLayout = Arc<Layout>;
