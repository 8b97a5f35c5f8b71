//! What a plan consists of: one operation for each field, its tag precomputed.

use crate::config::TimeUnit;

use super::decimal::DecimalColumn;
use super::shape::ShapeId;
use super::writer::Tag;

/// What stands before a value because of a union.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Union {
    /// Nothing.
    No,
    /// A branch: null is this one (0 or 1).
    Nullable(u8),
    /// A branch that is always 0.
    Lone,
}

/// One field: how it is read and where it goes.
#[derive(Debug)]
pub(super) struct Op {
    pub code: Code,
    /// The column's tag; empty for elements of a packed array, and where there is no column.
    pub tag: Tag,
    pub union: Union,
    /// A null is an error: the column is REQUIRED.
    pub required: bool,
    /// The table is partitioned by this column: its dates must be within what streaming takes.
    pub partition: bool,
    /// Index into the plan's paths.
    pub path: u32,
    /// Whether the loop of common operations knows it.
    pub hot: Hot,
    /// For that loop: the byte of a union's branch that is null.
    pub null_branch: u8,
}

/// The operations of the loop of common ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hot {
    No,
    Int,
    Long,
    Text,
    Millis,
    NullableInt,
    NullableLong,
    NullableText,
    NullableMillis,
}

/// How a value is read and written.
#[derive(Debug)]
pub(super) enum Code {
    Bool,
    Int,
    Long,
    Float,
    Double,
    /// An `int` to FLOAT64.
    IntDouble,
    /// A `string` to STRING.
    Text,
    /// A `long` to TIMESTAMP: milliseconds.
    MillisTimestamp,
    /// A `string` to STRING(n).
    BoundedText {
        max_chars: u64,
    },
    /// `bytes` to BYTES.
    Bytes {
        max: u64,
    },
    /// `fixed` to BYTES.
    Fixed {
        size: usize,
        max: u64,
    },
    /// Each symbol as it lies on the wire: tag, length, text.
    Enum(Box<[Box<[u8]>]>),
    /// An `int` or `long` that counts time.
    Count {
        long: bool,
        unit: TimeUnit,
        to: TimeTo,
    },
    /// An `int` or `long` to NUMERIC or BIGNUMERIC.
    Whole {
        long: bool,
        column: Box<DecimalColumn>,
    },
    Decimal {
        size: Option<usize>,
        scale: i64,
        column: Box<DecimalColumn>,
    },
    BigDecimal(Box<DecimalColumn>),
    VariableScaleDecimal(Box<DecimalColumn>),
    UuidText,
    Uuid {
        counted: bool,
    },
    /// A `string` to a type whose text form it is.
    Parse(Box<Scalar>),
    /// The tags of months, days, milliseconds.
    Duration(Box<[Tag; 3]>),
    /// Any value to JSON text.
    Json(ShapeId),
    /// Read, not written.
    Skip(ShapeId),
    Record(Box<[Op]>),
    /// A branch each; what has no column is skipped.
    Union(Box<[Op]>),
    Array(Box<ArrayOp>),
    Map(Box<MapOp>),
}

#[derive(Debug)]
pub(super) struct ArrayOp {
    pub item: Op,
    /// The tag of the whole packed block: the item's own is empty.
    pub packed: Option<Tag>,
    /// Elements are RECORD{value} under this tag.
    pub wrapper: Option<Tag>,
    pub least_bytes: usize,
}

#[derive(Debug)]
pub(super) struct MapOp {
    pub entry: Tag,
    pub key: Tag,
    pub value: Op,
}

/// The form of a date or time on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TimeTo {
    Date,
    Time,
    TimeText,
    Timestamp,
    DateTime,
    DateTimeText,
}

/// A column that takes text forms: JSON's values and Avro's strings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scalar {
    Bool,
    Int64,
    Float64,
    /// STRING with its length in code points.
    Text {
        max_chars: u64,
    },
    /// BYTES with its length; base64 as text.
    Bytes {
        max: u64,
    },
    Decimal(DecimalColumn),
    Time(TimeTo),
    /// JSON text.
    Json,
    /// GEOGRAPHY, INTERVAL: BigQuery reads the text.
    Verbatim,
}

impl Op {
    /// An operation; where it may be common, [`Self::seal`] it when it is complete.
    pub const fn new(code: Code, tag: Tag, union: Union, path: u32) -> Self {
        Self { code, tag, union, required: false, partition: false, path, hot: Hot::No, null_branch: 0 }
    }

    /// Marks it for the loop of common operations, if it is one.
    pub fn seal(mut self) -> Self {
        let nullable = match self.union {
            Union::No => false,
            Union::Nullable(_) if !self.required => true,
            Union::Nullable(_) | Union::Lone => return self,
        };
        self.hot = match (&self.code, nullable) {
            (Code::Int, false) => Hot::Int,
            (Code::Int, true) => Hot::NullableInt,
            (Code::Long, false) => Hot::Long,
            (Code::Long, true) => Hot::NullableLong,
            (Code::Text, false) => Hot::Text,
            (Code::Text, true) => Hot::NullableText,
            (Code::MillisTimestamp, false) if !self.partition => Hot::Millis,
            (Code::MillisTimestamp, true) if !self.partition => Hot::NullableMillis,
            _ => Hot::No,
        };
        if let Union::Nullable(null) = self.union {
            // Zigzag: branch 1 is the byte 2.
            self.null_branch = 2 * null;
        }
        self
    }

    /// Bytes of memory, roughly.
    pub fn size_bytes(&self) -> usize {
        let of = |ops: &[Self]| ops.iter().map(Self::size_bytes).sum::<usize>();
        size_of::<Self>()
            + match &self.code {
                Code::Enum(symbols) => symbols.iter().map(|s| s.len() + 16).sum(),
                Code::Record(ops) | Code::Union(ops) => of(ops),
                Code::Array(array) => size_of::<ArrayOp>() + array.item.size_bytes(),
                Code::Map(map) => size_of::<MapOp>() + map.value.size_bytes(),
                _ => 0,
            }
    }
}
