//! The schema in the Storage Write API's form (`updated_schema`, GetWriteStream).

use googleapis_tonic_google_cloud_bigquery_storage_v1::google::cloud::bigquery::storage::v1 as pb;
use pb::table_field_schema::{FieldElementType, Mode as WireMode, Type};

use super::{Column, ColumnType, Mode, Schema};

fn wire_type(kind: ColumnType) -> Type {
    match kind {
        ColumnType::Bool => Type::Bool,
        ColumnType::Int64 => Type::Int64,
        ColumnType::Float64 => Type::Double,
        ColumnType::Numeric => Type::Numeric,
        ColumnType::Bignumeric => Type::Bignumeric,
        ColumnType::String => Type::String,
        ColumnType::Bytes => Type::Bytes,
        ColumnType::Date => Type::Date,
        ColumnType::Time => Type::Time,
        ColumnType::Datetime => Type::Datetime,
        ColumnType::Timestamp => Type::Timestamp,
        ColumnType::Json => Type::Json,
        ColumnType::Geography => Type::Geography,
        ColumnType::Interval => Type::Interval,
        ColumnType::Range => Type::Range,
        ColumnType::Record => Type::Struct,
    }
}

fn column(column: &Column) -> pb::TableFieldSchema {
    let mode = match column.mode {
        Mode::Nullable => WireMode::Nullable,
        Mode::Required => WireMode::Required,
        Mode::Repeated => WireMode::Repeated,
    };
    pb::TableFieldSchema {
        name: column.name.clone(),
        r#type: wire_type(column.kind).into(),
        mode: mode.into(),
        fields: column.fields.iter().map(self::column).collect(),
        description: column.description.clone(),
        max_length: column.max_length.map_or(0, |l| l as i64),
        precision: column.parameters.map_or(0, |(p, _)| p.into()),
        scale: column.parameters.map_or(0, |(_, s)| s.into()),
        default_value_expression: column.default.clone().unwrap_or_default(),
        timestamp_precision: column.picoseconds.then_some(12),
        range_element_type: column.range_element.map(|kind| FieldElementType { r#type: wire_type(kind).into() }),
    }
}

/// All columns.
pub(crate) fn table_schema(schema: &Schema) -> pb::TableSchema {
    pb::TableSchema { fields: schema.columns.iter().map(column).collect() }
}
