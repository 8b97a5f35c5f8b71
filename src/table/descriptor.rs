//! The self-contained `DescriptorProto` of a row message, written by hand: prost-types drops the extension that BigQuery needs for
//! columns whose names protobuf cannot spell.

use std::collections::HashSet;

use bytes::Bytes;
use prost::encoding::WireType::{LengthDelimited, Varint};
use prost::encoding::{encode_key, encode_varint, encoded_len_varint};

use super::{ColumnType, LaidColumn, Mode};

/// The root message's name.
const ROOT_NAME: &str = "Row";
/// `google.cloud.bigquery.storage.v1.column_name`, an extension of FieldOptions (annotations.proto).
const COLUMN_NAME_EXTENSION: u32 = 454_943_157;

/// How a column's values travel: the field types of `bigquery-rules.md` section 3 (documentation page supported-data-types).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireForm {
    /// `bool`.
    Bool,
    /// `int64`: INT64, TIMESTAMP in microseconds, packed TIME and DATETIME.
    Int64,
    /// `int32`: DATE in days.
    Int32,
    /// `double`.
    Double,
    /// `string`.
    String,
    /// `bytes`: BYTES, and NUMERIC and BIGNUMERIC as scaled little-endian two's complement.
    Bytes,
    /// A nested message: STRUCT and RANGE.
    Message,
}

impl WireForm {
    /// How values of this type travel.
    pub const fn of(ty: &ColumnType, text_literals: bool) -> Self {
        match ty {
            ColumnType::Bool => Self::Bool,
            ColumnType::Int64 | ColumnType::Timestamp => Self::Int64,
            ColumnType::Float64 => Self::Double,
            ColumnType::Numeric(_) | ColumnType::BigNumeric(_) if !text_literals => Self::Bytes,
            ColumnType::Time | ColumnType::DateTime if !text_literals => Self::Int64,
            ColumnType::Numeric(_)
            | ColumnType::BigNumeric(_)
            | ColumnType::Time
            | ColumnType::DateTime
            | ColumnType::String(_)
            | ColumnType::Json
            | ColumnType::Geography
            | ColumnType::Interval => Self::String,
            ColumnType::Bytes(_) => Self::Bytes,
            ColumnType::Date => Self::Int32,
            ColumnType::Struct(_) | ColumnType::Range(_) => Self::Message,
        }
    }

    /// Whether repeated values share one length-delimited field.
    pub const fn is_packed(self) -> bool {
        matches!(self, Self::Bool | Self::Int64 | Self::Int32 | Self::Double)
    }

    /// `FieldDescriptorProto.Type`.
    const fn descriptor_type(self) -> u64 {
        match self {
            Self::Double => 1,
            Self::Int64 => 3,
            Self::Int32 => 5,
            Self::Bool => 8,
            Self::String => 9,
            Self::Message => 11,
            Self::Bytes => 12,
        }
    }
}

/// The wire form of the `DescriptorProto` for these columns.
pub fn encode_descriptor(columns: &[LaidColumn], text_literals: bool) -> Bytes {
    let mut out = Vec::new();
    put_message(ROOT_NAME, columns, text_literals, &mut out);
    out.into()
}

fn put_message(name: &str, columns: &[LaidColumn], text_literals: bool, out: &mut Vec<u8>) {
    put_text(1, name, out);
    // Fields and nested messages share one scope in protobuf: names that we make must not meet a column's.
    let mut taken: HashSet<String> = columns.iter().filter(|c| is_plain_name(&c.name)).map(|c| c.name.to_lowercase()).collect();
    for column in columns {
        let mut body = Vec::new();
        let form = WireForm::of(&column.ty, text_literals);
        let repeated = column.mode == Mode::Repeated;
        let mut options = Vec::new();
        if is_plain_name(&column.name) {
            put_text(1, &column.name, &mut body);
        } else {
            put_text(1, &free_name("column", column.number, &mut taken), &mut body);
            put_text(COLUMN_NAME_EXTENSION, &column.name, &mut options);
        }
        if repeated && form.is_packed() {
            put_number(2, 1, &mut options);
        }
        put_number(3, u64::from(column.number), &mut body);
        put_number(4, if repeated { 3 } else { 1 }, &mut body);
        put_number(5, form.descriptor_type(), &mut body);
        if form == WireForm::Message {
            let type_name = free_name("Message", column.number, &mut taken);
            // Relative: found in this message's own scope, whatever package the service puts the root into (managedwriter/adapt does so
            // too).
            put_text(6, &type_name, &mut body);
            let mut nested = Vec::new();
            put_message(&type_name, &column.children, text_literals, &mut nested);
            put_bytes(3, &nested, out);
        }
        if !options.is_empty() {
            put_bytes(8, &options, &mut body);
        }
        put_bytes(2, &body, out);
    }
}

fn free_name(stem: &str, number: u32, taken: &mut HashSet<String>) -> String {
    let mut name = format!("{stem}{number}");
    while !taken.insert(name.to_lowercase()) {
        name.push('_');
    }
    name
}

/// Whether protobuf can spell this name.
fn is_plain_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn put_number(field: u32, value: u64, out: &mut Vec<u8>) {
    encode_key(field, Varint, out);
    encode_varint(value, out);
}

fn put_text(field: u32, text: &str, out: &mut Vec<u8>) {
    put_bytes(field, text.as_bytes(), out);
}

fn put_bytes(field: u32, bytes: &[u8], out: &mut Vec<u8>) {
    out.reserve(10 + encoded_len_varint(bytes.len() as u64) + bytes.len());
    encode_key(field, LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use prost::Message as _;
    use prost_types::DescriptorProto;

    use super::super::{Column, LayoutHistory};
    use super::*;

    fn column(name: &str, ty: ColumnType, mode: Mode) -> Column {
        Column { name: name.to_owned(), ty, mode, description: None }
    }

    #[test]
    fn every_field_is_optional_or_repeated_and_messages_are_nested() {
        let columns = [
            column("id", ColumnType::Int64, Mode::Required),
            column("Message3", ColumnType::Date, Mode::Repeated),
            column("r", ColumnType::Struct(vec![column("n", ColumnType::Numeric(None), Mode::Nullable)]), Mode::Repeated),
            column("span", ColumnType::Range(Box::new(ColumnType::Date)), Mode::Nullable),
        ];
        let layout = LayoutHistory::new().include(&columns).unwrap();
        let message = DescriptorProto::decode(layout.descriptor.clone()).unwrap();
        let fields: Vec<_> = message.field.iter().map(|f| (f.name(), f.number(), f.label() as i32, f.r#type() as i32)).collect();
        assert_eq!(fields, [("id", 1, 1, 3), ("Message3", 2, 3, 5), ("r", 3, 3, 11), ("span", 4, 1, 11)]);
        assert!(message.field[1].options.as_ref().unwrap().packed());
        assert_eq!(message.field[2].type_name(), "Message3_", "not the column's name");
        assert_eq!(message.nested_type[0].name(), "Message3_");
        assert_eq!(message.nested_type[0].field[0].r#type() as i32, 12);
        assert_eq!(message.nested_type[1].field.iter().map(|f| f.name()).collect::<Vec<_>>(), ["start", "end"]);
        assert!(message.field.iter().all(|f| f.proto3_optional.is_none() && f.oneof_index.is_none()));
    }

    #[test]
    fn a_name_that_protobuf_cannot_spell_travels_as_an_extension() {
        let layout = LayoutHistory::new().include(&[column("größe in %", ColumnType::Int64, Mode::Nullable)]).unwrap();
        let message = DescriptorProto::decode(layout.descriptor.clone()).unwrap();
        assert_eq!(message.field[0].name(), "column1");
        let mut expected = Vec::new();
        put_text(COLUMN_NAME_EXTENSION, "größe in %", &mut expected);
        assert!(layout.descriptor.windows(expected.len()).any(|w| w == expected));
    }

    #[test]
    fn text_literals_change_the_types_that_emulators_cannot_unpack() {
        let columns = [ColumnType::Numeric(None), ColumnType::Time, ColumnType::DateTime, ColumnType::Timestamp];
        let columns: Vec<Column> = columns.into_iter().enumerate().map(|(i, t)| column(&format!("c{i}"), t, Mode::Nullable)).collect();
        let layout = LayoutHistory::with_text_literals(true).include(&columns).unwrap();
        let message = DescriptorProto::decode(layout.descriptor.clone()).unwrap();
        assert_eq!(message.field.iter().map(|f| f.r#type() as i32).collect::<Vec<_>>(), [9, 9, 9, 3]);
    }
}
