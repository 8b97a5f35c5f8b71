//! What a connector's file says about turning records into rows.

use std::collections::BTreeMap;

use crate::config::{ConnectorConfig, MetadataField, RecursiveAs, RepeatedNull, TimeUnit, UnionsAs};
use crate::table::{Column, ColumnType, Mode, check_column_name, same_name};

/// Why a schema has no columns, or its columns do not fit the table's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Unmappable {
    /// What to do with the records.
    pub kind: UnmappableKind,
    /// Which field or column, and what to do about it.
    pub message: String,
}

/// What an [`Unmappable`] schema means for its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnmappableKind {
    /// The schema itself (recursion, too wide a decimal, names): its records are dead letters.
    Schema,
    /// The table's column is of another type or mode: a hold.
    TypeConflict,
    /// The table or its layout lacks a column that the schema has: evolve, or hold.
    MissingColumn,
}

impl Unmappable {
    pub(super) fn schema(message: impl Into<String>) -> Self {
        Self { kind: UnmappableKind::Schema, message: message.into() }
    }
    pub(super) fn conflict(message: impl Into<String>) -> Self {
        Self { kind: UnmappableKind::TypeConflict, message: message.into() }
    }
    pub(super) fn missing(message: impl Into<String>) -> Self {
        Self { kind: UnmappableKind::MissingColumn, message: message.into() }
    }
}

/// One `[table.columns]` entry, read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Override {
    pub ty: Option<ColumnType>,
    pub unit: Option<TimeUnit>,
    pub mode: Option<Mode>,
    pub name: Option<String>,
}

/// What a connector's file says about turning records into rows, read once.
#[derive(Debug, Clone)]
pub struct DecodeOptions {
    pub(super) metadata: Vec<(MetadataField, String)>,
    pub(super) repeated_null: RepeatedNull,
    pub(super) recursive: RecursiveAs,
    pub(super) unions: UnionsAs,
    pub(super) overrides: BTreeMap<String, Override>,
    /// NUMERIC, BIGNUMERIC, TIME and DATETIME as text: must be what the table's `LayoutHistory` was made with.
    pub text_literals: bool,
}

impl DecodeOptions {
    /// Reads `[table]` of a connector.
    ///
    /// # Errors
    /// A message with every mistake in `columns`, `metadata` and `metadata_names`, joined by `; `.
    pub fn new(connector: &ConnectorConfig, text_literals: bool) -> Result<Self, String> {
        let table = &connector.table;
        let mut mistakes = Vec::new();
        let mut overrides = BTreeMap::new();
        for (path, stated) in &table.columns {
            let mut read = Override { unit: stated.unit, name: stated.name.clone(), ..Override::default() };
            match stated.ty.as_deref().map(str::parse).transpose() {
                Ok(ty) => read.ty = ty,
                Err(e) => mistakes.push(format!("[table.columns] {path}: {e}")),
            }
            match stated.mode.as_deref().map(str::to_ascii_uppercase).as_deref() {
                None => {}
                Some("NULLABLE") => read.mode = Some(Mode::Nullable),
                Some("REQUIRED") => read.mode = Some(Mode::Required),
                Some("REPEATED") => read.mode = Some(Mode::Repeated),
                Some(other) => mistakes.push(format!("[table.columns] {path}: mode `{other}` is none of NULLABLE, REQUIRED, REPEATED")),
            }
            if let Some(Err(e)) = stated.name.as_deref().map(check_column_name) {
                mistakes.push(format!("[table.columns] {path}: {e}"));
            }
            overrides.insert(path.clone(), read);
        }
        let mut metadata: Vec<(MetadataField, String)> = Vec::new();
        for &field in &table.metadata {
            let name = table.metadata_names.get(&field).cloned().unwrap_or_else(|| field.default_name().to_owned());
            if let Err(e) = check_column_name(&name) {
                mistakes.push(format!("[table] metadata_names: {e}"));
            }
            if metadata.iter().any(|(f, n)| *f == field || same_name(n, &name)) {
                mistakes.push(format!("[table] metadata: column `{name}` comes twice"));
            }
            metadata.push((field, name));
        }
        if !mistakes.is_empty() {
            return Err(mistakes.join("; "));
        }
        Ok(Self {
            metadata,
            repeated_null: table.repeated_null,
            recursive: table.recursive,
            unions: table.unions,
            overrides,
            text_literals,
        })
    }

    /// Whether rows need the record's headers (parsing them costs: do not ask for them otherwise).
    pub fn wants_headers(&self) -> bool {
        self.metadata.iter().any(|(field, _)| *field == MetadataField::Headers)
    }

    /// The columns about the record itself.
    pub fn metadata_columns(&self) -> Vec<Column> {
        self.metadata.iter().map(|(field, name)| metadata_column(*field, name)).collect()
    }

    /// Adds the metadata columns to the payload's.
    pub(super) fn with_metadata(&self, mut columns: Vec<Column>) -> Result<Vec<Column>, Unmappable> {
        for column in self.metadata_columns() {
            if columns.iter().any(|c| same_name(&c.name, &column.name)) {
                return Err(Unmappable::schema(format!(
                    "metadata column `{0}` has the name of a field of the record: rename it under [table.metadata_names], or the field under [table.columns]",
                    column.name
                )));
            }
            columns.push(column);
        }
        Ok(columns)
    }
}

fn metadata_column(field: MetadataField, name: &str) -> Column {
    let column = |name: &str, ty, mode, description: Option<&str>| Column {
        name: name.to_owned(),
        ty,
        mode,
        description: description.map(str::to_owned),
    };
    let (ty, mode, description) = match field {
        MetadataField::Topic => (ColumnType::String(None), Mode::Nullable, "Kafka topic of the record"),
        MetadataField::Partition => (ColumnType::Int64, Mode::Nullable, "Kafka partition of the record"),
        MetadataField::Offset => (ColumnType::Int64, Mode::Nullable, "Kafka offset of the record"),
        MetadataField::Timestamp => (ColumnType::Timestamp, Mode::Nullable, "Kafka timestamp of the record"),
        MetadataField::Key => (ColumnType::Bytes(None), Mode::Nullable, "Kafka key of the record"),
        MetadataField::Headers => {
            let header = vec![
                column("key", ColumnType::String(None), Mode::Nullable, None),
                column("value", ColumnType::Bytes(None), Mode::Nullable, None),
            ];
            (ColumnType::Struct(header), Mode::Repeated, "Kafka headers of the record")
        }
        MetadataField::SchemaId => (ColumnType::String(None), Mode::Nullable, "Schema that the record was written with"),
        MetadataField::IngestedAt => (ColumnType::Timestamp, Mode::Nullable, "When the worker decoded the record"),
    };
    column(name, ty, mode, Some(description))
}
