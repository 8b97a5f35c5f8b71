//! A writer's descriptor bound to a table's columns: what each field number means.

use std::collections::HashMap;

use crate::embedded::bigquery::schema::ColumnType;
use crate::embedded::bigquery::values::decimal::DecimalLimits;

/// How a message is checked and read.
#[derive(Debug, Default)]
pub(crate) struct MessagePlan {
    pub fields: Vec<FieldPlan>,
    /// `by_number[n]` is the index in `fields` plus one, 0 for none; numbers above its length are in `sparse`.
    pub by_number: Vec<u16>,
    pub sparse: HashMap<u32, u16>,
    /// How many fields must be set.
    pub required: usize,
    /// How many columns this level has.
    pub columns: usize,
}

impl MessagePlan {
    /// The field of a number.
    pub(crate) fn field(&self, number: u32) -> Option<&FieldPlan> {
        let index = match self.by_number.get(number as usize) {
            Some(index) => *index,
            None => *self.sparse.get(&number)?,
        };
        self.fields.get(usize::from(index).checked_sub(1)?)
    }

    /// Fills the number index.
    pub(crate) fn index(&mut self) {
        const DENSE: u32 = 4096;
        let largest = self.fields.iter().map(|f| f.number).filter(|n| *n < DENSE).max().unwrap_or(0);
        self.by_number = vec![0; largest as usize + 1];
        for (position, field) in self.fields.iter_mut().enumerate() {
            let entry = (position + 1) as u16;
            if field.number < DENSE {
                self.by_number[field.number as usize] = entry;
            } else {
                self.sparse.insert(field.number, entry);
            }
            if field.required {
                field.required_bit = self.required;
                self.required += 1;
            }
        }
    }
}

/// One field of a message.
#[derive(Debug)]
pub(crate) struct FieldPlan {
    pub number: u32,
    /// Index of the column on its level; [`NO_COLUMN`] for `_CHANGE_TYPE` and `_CHANGE_SEQUENCE_NUMBER`.
    pub column: usize,
    /// The column's path, for messages.
    pub path: String,
    pub proto: Proto,
    pub target: Target,
    pub repeated: bool,
    pub required: bool,
    /// Its bit among the required fields of its message.
    pub required_bit: usize,
    /// The value of an explicit `default_value` in the descriptor; fields that are unset then have it.
    pub proto_default: Option<String>,
}

/// The column index of the pseudo columns.
pub(crate) const NO_COLUMN: usize = usize::MAX;

/// The field's type on the wire.
#[derive(Debug)]
pub(crate) enum Proto {
    Double,
    Float,
    Int64,
    Int32,
    UInt64,
    UInt32,
    Bool,
    Text,
    Bytes,
    /// Value names by number.
    Enum(HashMap<i32, String>),
    /// A message for a RECORD or the two ends of a RANGE.
    Message(Box<MessagePlan>),
    /// `google.protobuf.*Value`: a message with the value as field 1.
    Wrapper(Box<Proto>),
    /// `google.protobuf.Timestamp` or `Duration`: seconds and nanos.
    SecondsNanos,
}

/// What the column wants.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    Column { kind: ColumnType, max_length: Option<u64>, decimal: DecimalLimits, bounds: Option<PartitionBounds> },
    ChangeType,
    ChangeSequence,
}

impl Target {
    /// The column type, if it is a column.
    pub(crate) fn kind(&self) -> Option<ColumnType> {
        match self {
            Self::Column { kind, .. } => Some(*kind),
            _ => None,
        }
    }
}

/// Days that a partitioning column takes: 10 years back, 1 year ahead (partitioned-tables).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PartitionBounds;

impl PartitionBounds {
    /// Whether streaming takes a row of this day (days since the epoch).
    pub(crate) fn takes(self, day: i64, today: i64) -> bool {
        (today - 3650..=today + 366).contains(&day)
    }
}
