//! The columns about the record itself, appended to each row.

use crate::config::MetadataField;
use crate::record::{Record, RecordErrorClass as Class};
use crate::table::{LaidColumn, same_name};

use super::DecodeOptions;
use super::fault::Fault;
use super::options::Unmappable;
use super::values::{check_partition, put_timestamp};
use super::writer::{Tag, Writer};

/// One metadata column's operation.
#[derive(Debug)]
pub(super) enum Metadata {
    Topic(Tag),
    Partition(Tag),
    Offset(Tag),
    /// The Kafka timestamp; whether the table is partitioned by it.
    Timestamp(Tag, bool),
    Key(Tag),
    Headers {
        header: Tag,
        key: Tag,
        value: Tag,
    },
    /// The schema's id as it lies on the wire; nothing for JSON.
    SchemaId(Tag, String),
    IngestedAt(Tag),
}

/// The operations for the connector's metadata columns; `schema_id` is what that column shows.
pub(super) fn compile(
    options: &DecodeOptions,
    laid: &[LaidColumn],
    partition: Option<&str>,
    schema_id: &str,
) -> Result<Box<[Metadata]>, Unmappable> {
    let mut ops = Vec::with_capacity(options.metadata.len());
    for (field, name) in &options.metadata {
        let lacks = || Unmappable::missing(format!("the row's layout lacks metadata column `{name}`"));
        let column = laid.iter().find(|c| same_name(&c.name, name)).ok_or_else(lacks)?;
        let wanted = options.metadata_columns().into_iter().find(|c| c.name == *name).ok_or_else(lacks)?;
        let repeated = |mode| mode == crate::table::Mode::Repeated;
        if std::mem::discriminant(&wanted.ty) != std::mem::discriminant(&column.ty) || repeated(wanted.mode) != repeated(column.mode) {
            return Err(Unmappable::conflict(format!(
                "metadata column `{name}` needs {}, the table's is {}: rename it under [table.metadata_names]",
                wanted.ty, column.ty
            )));
        }
        let (number, bytes) = (Tag::new(column.number, 0), Tag::new(column.number, 2));
        ops.push(match field {
            MetadataField::Topic => Metadata::Topic(bytes),
            MetadataField::Partition => Metadata::Partition(number),
            MetadataField::Offset => Metadata::Offset(number),
            MetadataField::Timestamp => Metadata::Timestamp(number, partition.is_some_and(|p| same_name(p, name))),
            MetadataField::Key => Metadata::Key(bytes),
            MetadataField::Headers => {
                let part = |name| column.child(name).map(|c| Tag::new(c.number, 2)).ok_or_else(lacks);
                Metadata::Headers { header: bytes, key: part("key")?, value: part("value")? }
            }
            MetadataField::SchemaId => Metadata::SchemaId(bytes, schema_id.to_owned()),
            MetadataField::IngestedAt => Metadata::IngestedAt(number),
        });
    }
    Ok(ops.into())
}

/// Appends the metadata columns to the row.
#[inline]
pub(super) fn run(ops: &[Metadata], record: &Record<'_>, now_us: i64, w: &mut Writer<'_>) -> Result<(), Fault> {
    for op in ops {
        match op {
            Metadata::Topic(tag) => w.delimited(*tag, record.topic.as_bytes())?,
            Metadata::Partition(tag) => word(w, *tag, i64::from(record.partition) as u64)?,
            Metadata::Offset(tag) => word(w, *tag, record.offset as u64)?,
            Metadata::Timestamp(tag, partition) => {
                if let Some(ms) = record.timestamp_ms {
                    let micros = ms.saturating_mul(1_000);
                    if *partition {
                        check_partition(micros, now_us, 0)?;
                    }
                    put_timestamp(w, *tag, micros, 0)?;
                }
            }
            Metadata::Key(tag) => {
                if let Some(key) = record.key {
                    w.delimited(*tag, key)?;
                }
            }
            Metadata::Headers { header, key, value } => headers(record, *header, *key, *value, w)?,
            Metadata::SchemaId(_, id) if id.is_empty() => {}
            Metadata::SchemaId(tag, id) => w.delimited(*tag, id.as_bytes())?,
            Metadata::IngestedAt(tag) => put_timestamp(w, *tag, now_us, 0)?,
        }
    }
    Ok(())
}

fn word(w: &mut Writer<'_>, tag: Tag, value: u64) -> Result<(), Fault> {
    w.room(16)?;
    w.tag(tag);
    w.varint(value);
    Ok(())
}

fn headers(record: &Record<'_>, header: Tag, key: Tag, value: Tag, w: &mut Writer<'_>) -> Result<(), Fault> {
    let mut outcome = Ok(());
    record.headers.each(&mut |name, bytes| {
        if outcome.is_ok() {
            outcome = one_header(name, bytes, header, key, value, w);
        }
    });
    outcome
}

fn one_header(name: &str, bytes: Option<&[u8]>, header: Tag, key: Tag, value: Tag, w: &mut Writer<'_>) -> Result<(), Fault> {
    if name.len() > super::MAX_ROW_BYTES {
        return Err(Fault::new(Class::RowTooLarge, 0, "a header's name is larger than a row"));
    }
    let start = w.open(header)?;
    w.delimited(key, name.as_bytes())?;
    if let Some(bytes) = bytes {
        w.delimited(value, bytes)?;
    }
    w.close(start)
}
