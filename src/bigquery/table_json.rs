//! Between BigQuery's JSON of a table and our [`Column`]s; merging new columns into the raw JSON.

use serde_json::{Map, Value, json};

use super::{TableSpec, TableState, TimePartition};
use crate::config::PartitionEvery;
use crate::table::{Column, ColumnType, Diff, Mode, TableName};

/// The longest description of a column (BigQuery's limit), in characters.
const DESCRIPTION_MAX: usize = 1024;

/// A table as `tables.get` gave it: the raw resource, kept whole, and what we read of it.
#[derive(Debug, Clone)]
pub(crate) struct TableResource {
    pub(crate) raw: Value,
    pub(crate) state: TableState,
}

impl TableResource {
    /// Reads the resource. Columns of a type that this version does not know are left out of `state` (nothing can be written to them) and
    /// stay in `raw`.
    pub(crate) fn parse(raw: Value) -> Result<Self, String> {
        let columns = parse_fields(raw.pointer("/schema/fields"))?;
        let creation_time_ms = number(&raw, "creationTime").unwrap_or_default();
        let time_partition =
            raw.get("timePartitioning").map(|p| TimePartition { column: p.get("field").and_then(Value::as_str).map(str::to_owned) });
        let etag = raw.get("etag").and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(Self { state: TableState { columns, etag, creation_time_ms, time_partition }, raw })
    }

    /// When the table (metadata or rows) changed last, milliseconds since the epoch.
    pub(crate) fn last_modified_ms(&self) -> Option<i64> {
        number(&self.raw, "lastModifiedTime")
    }

    /// The raw schema, for comparing.
    pub(crate) fn schema(&self) -> Option<&Value> {
        self.raw.get("schema")
    }

    /// Where the table lives.
    pub(crate) fn location(&self) -> Option<&str> {
        self.raw.get("location").and_then(Value::as_str)
    }
}

fn number(raw: &Value, key: &str) -> Option<i64> {
    match raw.get(key)? {
        Value::String(text) => text.parse().ok(),
        other => other.as_i64(),
    }
}

fn parse_fields(fields: Option<&Value>) -> Result<Vec<Column>, String> {
    let Some(fields) = fields.and_then(Value::as_array) else { return Ok(Vec::new()) };
    fields.iter().filter_map(|field| parse_field(field).transpose()).collect()
}

fn parse_field(field: &Value) -> Result<Option<Column>, String> {
    let name = field.get("name").and_then(Value::as_str).ok_or("a field without a name in the table's schema")?;
    let ty_name = field.get("type").and_then(Value::as_str).ok_or_else(|| format!("field `{name}` of the table has no type"))?;
    let length = || number(field, "maxLength").and_then(|n| u64::try_from(n).ok());
    let decimal = || {
        let precision = number(field, "precision").and_then(|n| u32::try_from(n).ok())?;
        Some((precision, number(field, "scale").and_then(|n| u32::try_from(n).ok()).unwrap_or(0)))
    };
    let ty = match ty_name {
        "BOOLEAN" | "BOOL" => ColumnType::Bool,
        "INTEGER" | "INT64" => ColumnType::Int64,
        "FLOAT" | "FLOAT64" => ColumnType::Float64,
        "NUMERIC" => ColumnType::Numeric(decimal()),
        "BIGNUMERIC" => ColumnType::BigNumeric(decimal()),
        "STRING" => ColumnType::String(length()),
        "BYTES" => ColumnType::Bytes(length()),
        "DATE" => ColumnType::Date,
        "TIME" => ColumnType::Time,
        "DATETIME" => ColumnType::DateTime,
        "TIMESTAMP" => ColumnType::Timestamp,
        "JSON" => ColumnType::Json,
        "GEOGRAPHY" => ColumnType::Geography,
        "INTERVAL" => ColumnType::Interval,
        "RECORD" | "STRUCT" => ColumnType::Struct(parse_fields(field.get("fields"))?),
        "RANGE" => match field.pointer("/rangeElementType/type").and_then(Value::as_str) {
            Some("DATE") => ColumnType::Range(Box::new(ColumnType::Date)),
            Some("DATETIME") => ColumnType::Range(Box::new(ColumnType::DateTime)),
            Some("TIMESTAMP") => ColumnType::Range(Box::new(ColumnType::Timestamp)),
            _ => return Ok(None),
        },
        _ => return Ok(None),
    };
    let mode = match field.get("mode").and_then(Value::as_str) {
        Some("REQUIRED") => Mode::Required,
        Some("REPEATED") => Mode::Repeated,
        _ => Mode::Nullable,
    };
    let description = field.get("description").and_then(Value::as_str).map(str::to_owned);
    Ok(Some(Column { name: name.to_owned(), ty, mode, description }))
}

/// A column as `tables.insert` and `tables.patch` take it.
pub(crate) fn field_json(column: &Column) -> Value {
    let mut field = Map::new();
    field.insert("name".into(), column.name.clone().into());
    let mut decimal = |name: &'static str, parameters: &Option<(u32, u32)>| {
        if let Some((precision, scale)) = parameters {
            field.insert("precision".into(), precision.to_string().into());
            if *scale > 0 {
                field.insert("scale".into(), scale.to_string().into());
            }
        }
        name
    };
    let ty = match &column.ty {
        ColumnType::Bool => "BOOLEAN",
        ColumnType::Int64 => "INTEGER",
        ColumnType::Float64 => "FLOAT",
        ColumnType::Numeric(parameters) => decimal("NUMERIC", parameters),
        ColumnType::BigNumeric(parameters) => decimal("BIGNUMERIC", parameters),
        ColumnType::String(_) => "STRING",
        ColumnType::Bytes(_) => "BYTES",
        ColumnType::Date => "DATE",
        ColumnType::Time => "TIME",
        ColumnType::DateTime => "DATETIME",
        ColumnType::Timestamp => "TIMESTAMP",
        ColumnType::Json => "JSON",
        ColumnType::Geography => "GEOGRAPHY",
        ColumnType::Interval => "INTERVAL",
        ColumnType::Range(_) => "RANGE",
        ColumnType::Struct(_) => "RECORD",
    };
    field.insert("type".into(), ty.into());
    match &column.ty {
        ColumnType::String(Some(length)) | ColumnType::Bytes(Some(length)) => {
            field.insert("maxLength".into(), length.to_string().into());
        }
        ColumnType::Range(of) => {
            let of = match **of {
                ColumnType::Date => "DATE",
                ColumnType::DateTime => "DATETIME",
                _ => "TIMESTAMP",
            };
            field.insert("rangeElementType".into(), json!({ "type": of }));
        }
        ColumnType::Struct(fields) => {
            field.insert("fields".into(), fields.iter().map(field_json).collect());
        }
        _ => {}
    }
    let mode = match column.mode {
        Mode::Nullable => "NULLABLE",
        Mode::Required => "REQUIRED",
        Mode::Repeated => "REPEATED",
    };
    field.insert("mode".into(), mode.into());
    if let Some(description) = &column.description {
        field.insert("description".into(), description.chars().take(DESCRIPTION_MAX).collect::<String>().into());
    }
    Value::Object(field)
}

/// The body of `tables.insert`.
pub(crate) fn create_body(table: &TableName, spec: &TableSpec, columns: &[Column]) -> Value {
    let mut body = json!({
        "tableReference": { "projectId": table.project, "datasetId": table.dataset, "tableId": table.table },
        "schema": { "fields": columns.iter().map(field_json).collect::<Vec<_>>() },
    });
    if let Some(partition) = &spec.partition {
        let every = match partition.every {
            PartitionEvery::Hour => "HOUR",
            PartitionEvery::Day => "DAY",
            PartitionEvery::Month => "MONTH",
            PartitionEvery::Year => "YEAR",
        };
        let mut time = json!({ "type": every });
        if let Some(column) = &partition.by {
            time["field"] = column.clone().into();
        }
        if let Some(expire) = partition.expire {
            time["expirationMs"] = expire.get().as_millis().to_string().into();
        }
        body["timePartitioning"] = time;
        if partition.require_filter {
            body["requirePartitionFilter"] = true.into();
        }
    }
    if !spec.cluster.is_empty() {
        body["clustering"] = json!({ "fields": spec.cluster });
    }
    body
}

/// Applies additions and relaxations to a raw array of fields: what is there keeps its place and every property, known to us or not; new
/// fields come last in their level. Errors when a column to add is there already (with a type that this version does not know).
pub(crate) fn merge(fields: &mut Vec<Value>, difference: &Diff) -> Result<(), String> {
    for missing in &difference.missing {
        let level = level(fields, &missing.parent)?;
        if level.iter().any(|field| named(field, &missing.column.name)) {
            return Err(format!("column `{}` has a type that millrace does not know", missing.column.name));
        }
        level.push(field_json(&missing.column));
    }
    for path in &difference.relax {
        let Some((name, parent)) = path.split_last() else { continue };
        let level = level(fields, parent)?;
        let field = level.iter_mut().find(|field| named(field, name)).and_then(Value::as_object_mut);
        field.ok_or_else(|| format!("column `{}` is gone", path.join(".")))?.insert("mode".into(), "NULLABLE".into());
    }
    Ok(())
}

fn level<'a>(fields: &'a mut Vec<Value>, parent: &[String]) -> Result<&'a mut Vec<Value>, String> {
    let Some((first, rest)) = parent.split_first() else { return Ok(fields) };
    let inner = fields
        .iter_mut()
        .find(|field| named(field, first))
        .and_then(Value::as_object_mut)
        .map(|record| record.entry("fields").or_insert_with(|| Value::Array(Vec::new())))
        .and_then(Value::as_array_mut)
        .ok_or_else(|| format!("column `{first}` is no RECORD"))?;
    level(inner, rest)
}

fn named(field: &Value, name: &str) -> bool {
    field.get("name").and_then(Value::as_str).is_some_and(|n| n.to_lowercase() == name.to_lowercase())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;
    use crate::config::{Evolve, PartitionBy};
    use crate::table::diff;

    fn column(name: &str, ty: ColumnType, mode: Mode) -> Column {
        Column { name: name.into(), ty, mode, description: None }
    }

    #[test]
    fn every_type_survives_json() {
        use ColumnType as T;
        let types = vec![
            T::Bool,
            T::Int64,
            T::Float64,
            T::Numeric(None),
            T::Numeric(Some((20, 4))),
            T::BigNumeric(Some((50, 0))),
            T::BigNumeric(None),
            T::String(None),
            T::String(Some(10)),
            T::Bytes(Some(3)),
            T::Date,
            T::Time,
            T::DateTime,
            T::Timestamp,
            T::Json,
            T::Geography,
            T::Interval,
            T::Range(Box::new(T::Date)),
            T::Struct(vec![column("x", T::Int64, Mode::Repeated)]),
        ];
        for (ty, mode) in types.into_iter().zip([Mode::Nullable, Mode::Required, Mode::Repeated].into_iter().cycle()) {
            let wanted = Column { description: Some("d".into()), ..column("c", ty, mode) };
            assert_eq!(parse_field(&field_json(&wanted)).unwrap(), Some(wanted));
        }
    }

    /// Policy tags, defaults, collation, rounding and what nobody has heard of stay, in order; new fields are last in their level.
    #[test]
    fn a_merge_keeps_every_property_of_what_is_there() {
        let present = json!([
            { "name": "Id", "type": "INTEGER", "mode": "REQUIRED", "policyTags": { "names": ["p"] }, "futureProperty": [1, 2] },
            { "name": "r", "type": "RECORD", "mode": "REPEATED", "description": "rec", "fields": [
                { "name": "a", "type": "STRING", "maxLength": "5", "collation": "und:ci", "defaultValueExpression": "'x'" } ] },
            { "name": "odd", "type": "FOREIGN", "foreignTypeDefinition": "x" },
        ]);
        let resource = TableResource::parse(json!({ "etag": "e", "creationTime": "5", "schema": { "fields": present } })).unwrap();
        assert_eq!((resource.state.columns.len(), resource.state.creation_time_ms), (2, 5));
        let wanted = [
            column("id", ColumnType::Int64, Mode::Nullable),
            column("n", ColumnType::Numeric(Some((9, 2))), Mode::Required),
            column("r", ColumnType::Struct(vec![column("b", ColumnType::Date, Mode::Nullable)]), Mode::Repeated),
        ];
        let mut fields = present.as_array().unwrap().clone();
        merge(&mut fields, &diff(&resource.state.columns, &wanted, Evolve::AddAndRelax)).unwrap();
        let expected = json!([
            { "name": "Id", "type": "INTEGER", "mode": "NULLABLE", "policyTags": { "names": ["p"] }, "futureProperty": [1, 2] },
            { "name": "r", "type": "RECORD", "mode": "REPEATED", "description": "rec", "fields": [
                { "name": "a", "type": "STRING", "maxLength": "5", "collation": "und:ci", "defaultValueExpression": "'x'" },
                { "name": "b", "type": "DATE", "mode": "NULLABLE" } ] },
            { "name": "odd", "type": "FOREIGN", "foreignTypeDefinition": "x" },
            { "name": "n", "type": "NUMERIC", "precision": "9", "scale": "2", "mode": "NULLABLE" },
        ]);
        assert_eq!(Value::Array(fields.clone()), expected);

        let odd = [column("ODD", ColumnType::Int64, Mode::Nullable)];
        assert!(merge(&mut fields, &diff(&resource.state.columns, &odd, Evolve::Add)).unwrap_err().contains("ODD"));
    }

    #[test]
    fn a_created_table_is_partitioned_and_clustered_as_wanted() {
        let spec = TableSpec {
            create: true,
            partition: Some(PartitionBy {
                by: Some("ts".into()),
                every: PartitionEvery::Month,
                expire: Some(crate::config::HumanDuration::from_secs(86_400)),
                require_filter: true,
            }),
            cluster: vec!["a".into(), "b".into()],
            evolve: Evolve::Add,
        };
        let table = TableName { project: "p".into(), dataset: "d".into(), table: "t".into() };
        let columns = [Column { description: Some("é".repeat(2000)), ..column("ts", ColumnType::Timestamp, Mode::Required) }];
        let body = create_body(&table, &spec, &columns);
        assert_eq!(body["timePartitioning"], json!({ "type": "MONTH", "field": "ts", "expirationMs": "86400000" }));
        assert_eq!((&body["requirePartitionFilter"], &body["clustering"]), (&json!(true), &json!({ "fields": ["a", "b"] })));
        assert_eq!(body["tableReference"], json!({ "projectId": "p", "datasetId": "d", "tableId": "t" }));
        assert_eq!(body["schema"]["fields"][0]["mode"], "REQUIRED");
        assert_eq!(body["schema"]["fields"][0]["description"].as_str().unwrap().chars().count(), 1024);
    }
}
