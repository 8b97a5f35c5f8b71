//! What Kafka delivers, borrowed for one decode or owned for a dead letter, and what can be wrong with it.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// A topic and one of its partitions.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number, from 0.
    pub partition: i32,
}

impl TopicPartition {
    /// A topic and one of its partitions.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.topic, self.partition)
    }
}

/// The headers of one record, in their order; a name may come several times.
///
/// librdkafka parses them when first touched (210 ns a record), so a connector that needs none must not call either method.
pub trait Headers {
    /// The value of the last header of this name: `None` without one, `Some(None)` when its value is null.
    fn last(&self, name: &str) -> Option<Option<&[u8]>>;
    /// Calls `visit` for every header, in order.
    fn each(&self, visit: &mut dyn FnMut(&str, Option<&[u8]>));
}

/// No headers at all.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoHeaders;

impl Headers for NoHeaders {
    fn last(&self, _name: &str) -> Option<Option<&[u8]>> {
        None
    }
    fn each(&self, _visit: &mut dyn FnMut(&str, Option<&[u8]>)) {}
}

/// A record as it lies in librdkafka's memory: valid for the length of one callback.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Its partition.
    pub partition: i32,
    /// Its offset in the partition.
    pub offset: i64,
    /// Its Kafka timestamp, milliseconds since the epoch; `None` when the broker has none.
    pub timestamp_ms: Option<i64>,
    /// Its key; `None` is Kafka's null.
    pub key: Option<&'a [u8]>,
    /// Its value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Its headers, parsed when touched.
    pub headers: &'a dyn Headers,
}

impl Record<'_> {
    /// A copy that outlives the callback: for dead letters only, never on the way of a good record.
    pub fn to_owned_record(&self) -> OwnedRecord {
        let mut headers = Vec::new();
        self.headers.each(&mut |name, value| {
            headers.push((name.to_owned(), value.map(Bytes::copy_from_slice)));
        });
        OwnedRecord {
            topic: Arc::from(self.topic),
            partition: self.partition,
            offset: self.offset,
            timestamp_ms: self.timestamp_ms,
            key: self.key.map(Bytes::copy_from_slice),
            value: self.value.map(Bytes::copy_from_slice),
            headers,
        }
    }
}

/// A record with memory of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedRecord {
    /// Its topic.
    pub topic: Arc<str>,
    /// Its partition.
    pub partition: i32,
    /// Its offset in the partition.
    pub offset: i64,
    /// Its Kafka timestamp, milliseconds since the epoch.
    pub timestamp_ms: Option<i64>,
    /// Its key; `None` is Kafka's null.
    pub key: Option<Bytes>,
    /// Its value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Its headers in order; a `None` value is Kafka's null.
    pub headers: Vec<(String, Option<Bytes>)>,
}

impl OwnedRecord {
    /// Bytes this record holds, for the memory budget.
    pub fn size_bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(n, v)| n.len() + v.as_ref().map_or(0, Bytes::len) + 64).sum();
        self.key.as_ref().map_or(0, Bytes::len) + self.value.as_ref().map_or(0, Bytes::len) + headers + 160
    }
}

impl Headers for OwnedRecord {
    fn last(&self, name: &str) -> Option<Option<&[u8]>> {
        self.headers.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.as_deref())
    }
    fn each(&self, visit: &mut dyn FnMut(&str, Option<&[u8]>)) {
        for (name, value) in &self.headers {
            visit(name, value.as_deref());
        }
    }
}

/// Where on its way a record failed; the dead letter's `stage` header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// Before a schema was known: magic byte, id, headers.
    Framing,
    /// The schema is unknown to its source, or cannot be mapped to a table.
    Schema,
    /// The bytes do not follow the schema, or a value does not fit its column.
    Decode,
    /// BigQuery refused the row.
    Append,
}

impl Stage {
    /// The name in headers and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Framing => "framing",
            Self::Schema => "schema",
            Self::Decode => "decode",
            Self::Append => "append",
        }
    }
}

/// Why a record cannot become a row: one per cause that a person would look for; the label of `dead_letters_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names say it; the text of each is its dead letter's message")]
pub enum RecordErrorClass {
    TooShort,
    WrongMagicByte,
    UnknownSchemaId,
    MissingSchemaHeader,
    SchemaHeaderInvalid,
    SchemaHeaderOutsideFolder,
    UnmappableSchema,
    TruncatedData,
    OverlongData,
    MalformedVarint,
    IntOutOfRange,
    InvalidBoolean,
    UnionIndexOutOfRange,
    EnumIndexOutOfRange,
    InvalidUtf8,
    InvalidBlock,
    InvalidDecimal,
    InvalidUuid,
    NullInRepeated,
    MissingRequired,
    TooDeep,
    ValueOutOfRange,
    PartitionOutOfRange,
    InvalidJson,
    UnknownField,
    TypeMismatch,
    UnexpectedTombstone,
    RowTooLarge,
    RejectedByBigQuery,
    /// Decoding it panicked: millrace is wrong, not the record.
    Bug,
}

impl RecordErrorClass {
    /// The name in `__connect.errors.exception.class.name` and in metric labels: the variant's own.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooShort => "TooShort",
            Self::WrongMagicByte => "WrongMagicByte",
            Self::UnknownSchemaId => "UnknownSchemaId",
            Self::MissingSchemaHeader => "MissingSchemaHeader",
            Self::SchemaHeaderInvalid => "SchemaHeaderInvalid",
            Self::SchemaHeaderOutsideFolder => "SchemaHeaderOutsideFolder",
            Self::UnmappableSchema => "UnmappableSchema",
            Self::TruncatedData => "TruncatedData",
            Self::OverlongData => "OverlongData",
            Self::MalformedVarint => "MalformedVarint",
            Self::IntOutOfRange => "IntOutOfRange",
            Self::InvalidBoolean => "InvalidBoolean",
            Self::UnionIndexOutOfRange => "UnionIndexOutOfRange",
            Self::EnumIndexOutOfRange => "EnumIndexOutOfRange",
            Self::InvalidUtf8 => "InvalidUtf8",
            Self::InvalidBlock => "InvalidBlock",
            Self::InvalidDecimal => "InvalidDecimal",
            Self::InvalidUuid => "InvalidUuid",
            Self::NullInRepeated => "NullInRepeated",
            Self::MissingRequired => "MissingRequired",
            Self::TooDeep => "TooDeep",
            Self::ValueOutOfRange => "ValueOutOfRange",
            Self::PartitionOutOfRange => "PartitionOutOfRange",
            Self::InvalidJson => "InvalidJson",
            Self::UnknownField => "UnknownField",
            Self::TypeMismatch => "TypeMismatch",
            Self::UnexpectedTombstone => "UnexpectedTombstone",
            Self::RowTooLarge => "RowTooLarge",
            Self::RejectedByBigQuery => "RejectedByBigQuery",
            Self::Bug => "Bug",
        }
    }
}

/// A record that cannot become a row: what, where in the record, and in words for the person who opens the dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordError {
    /// Where on its way it failed.
    pub stage: Stage,
    /// What failed.
    pub class: RecordErrorClass,
    /// The message: names the field's path and the byte position where there is one. Never the field's value (it may be personal data).
    pub message: String,
}

impl RecordError {
    /// An error of this class at this stage.
    pub fn new(stage: Stage, class: RecordErrorClass, message: impl Into<String>) -> Self {
        Self { stage, class, message: message.into() }
    }
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.class.as_str(), self.message)
    }
}

impl std::error::Error for RecordError {}
