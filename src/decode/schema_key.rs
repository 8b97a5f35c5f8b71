//! What names a schema, and a parsed schema with everything it refers to.

use std::fmt;
use std::sync::Arc;

use super::ConnectNames;

/// What a record says about its schema.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SchemaKey {
    /// The registry's id.
    Id(u32),
    /// The registry's globally unique id (Confluent's header framing, magic byte 1).
    Guid([u8; 16]),
    /// The name in the schema header: a record's full name or a file's name.
    Name(Arc<str>),
    /// No schema: JSON typed by the table's columns.
    Columns,
}

impl fmt::Display for SchemaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "schema id {id}"),
            Self::Guid(guid) => write!(f, "schema guid {}", uuid::Uuid::from_bytes(*guid)),
            Self::Name(name) => write!(f, "schema `{name}`"),
            Self::Columns => f.write_str("the table's columns"),
        }
    }
}

/// A [`SchemaKey`] as it lies in the record: nothing is allocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaKeyRef<'a> {
    /// The registry's id.
    Id(u32),
    /// The registry's globally unique id.
    Guid([u8; 16]),
    /// The name in the schema header.
    Name(&'a str),
    /// No schema: JSON typed by the table's columns.
    Columns,
}

impl SchemaKeyRef<'_> {
    /// A key that outlives the record: for a schema that was not seen before.
    pub fn to_key(self) -> SchemaKey {
        match self {
            Self::Id(id) => SchemaKey::Id(id),
            Self::Guid(guid) => SchemaKey::Guid(guid),
            Self::Name(name) => SchemaKey::Name(Arc::from(name)),
            Self::Columns => SchemaKey::Columns,
        }
    }
}

impl PartialEq<SchemaKey> for SchemaKeyRef<'_> {
    fn eq(&self, other: &SchemaKey) -> bool {
        match (self, other) {
            (Self::Id(a), SchemaKey::Id(b)) => a == b,
            (Self::Guid(a), SchemaKey::Guid(b)) => a == b,
            (Self::Name(a), SchemaKey::Name(b)) => *a == &**b,
            (Self::Columns, SchemaKey::Columns) => true,
            _ => false,
        }
    }
}

/// An Avro schema, parsed, with the named types that it refers to but that are defined in other schemas (registry references).
#[derive(Debug, Clone)]
pub struct AvroSchema {
    /// What `schema_id` shows: the registry's id in decimal, or the first 16 hex digits of the local schema's SHA-256.
    pub id: String,
    /// The schema of the value.
    pub root: apache_avro::Schema,
    /// Schemas whose named types `root` may refer to by `Schema::Ref`.
    pub references: Vec<apache_avro::Schema>,
    /// What the parser drops: `connect.name` on primitive types (Debezium's times), from the schemas' texts.
    pub connect_names: ConnectNames,
}
