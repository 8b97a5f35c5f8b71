//! What a table may be beside its columns: partitioning, clustering, keys, texts (partitioned-tables, clustered-tables,
//! primary-foreign-keys, rest tables).

use serde_json::{Map, Value};

use super::column::{int64, same_name};
use super::{Column, ColumnType, Mode, Schema};
use crate::embedded::bigquery::error::{ApiError, ApiResult};

/// Granularity of a time partitioning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Granularity {
    Hour,
    Day,
    Month,
    Year,
}

/// How a table is partitioned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Partitioning {
    None,
    IngestionTime(Granularity),
    /// Index of a top-level column.
    TimeColumn(usize, Granularity),
    /// Index of a top-level INT64 column.
    IntegerRange(usize),
}

/// Checks a table resource against its columns.
pub(crate) fn check(resource: &Map<String, Value>, schema: &Schema) -> ApiResult<Partitioning> {
    let length = |key: &str| resource.get(key).and_then(Value::as_str).map_or(0, |t| t.chars().count());
    if length("description") > 16_384 {
        return Err(ApiError::invalid("The table description is too long. The maximum length is 16384 characters."));
    }
    if let Some(labels) = resource.get("labels").and_then(Value::as_object) {
        for (key, value) in labels {
            if key.is_empty() || key.chars().count() > 63 || value.as_str().is_none_or(|v| v.chars().count() > 63) {
                return Err(ApiError::invalid(format!("Invalid label \"{key}\": keys and values have at most 63 characters.")));
            }
        }
    }
    cluster(resource, schema)?;
    primary_key(resource, schema)?;
    partitioning(resource, schema)
}

fn top_level<'a>(schema: &'a Schema, name: &str, what: &str) -> ApiResult<(usize, &'a Column)> {
    let found = schema.columns.iter().enumerate().find(|(_, column)| same_name(&column.name, name));
    found.ok_or_else(|| ApiError::invalid(format!("The field specified for {what} cannot be found in the schema. Invalid field: {name}.")))
}

/// The partitioning that a resource asks for.
pub(crate) fn partitioning(resource: &Map<String, Value>, schema: &Schema) -> ApiResult<Partitioning> {
    let time = resource.get("timePartitioning").and_then(Value::as_object);
    let range = resource.get("rangePartitioning").and_then(Value::as_object);
    match (time, range) {
        (None, None) => Ok(Partitioning::None),
        (Some(_), Some(_)) => Err(ApiError::invalid("Only one of timePartitioning and rangePartitioning may be given.")),
        (Some(time), None) => time_partitioning(time, schema),
        (None, Some(range)) => range_partitioning(range, schema),
    }
}

fn time_partitioning(time: &Map<String, Value>, schema: &Schema) -> ApiResult<Partitioning> {
    let granularity = match time.get("type").and_then(Value::as_str) {
        Some("HOUR") => Granularity::Hour,
        Some("DAY") => Granularity::Day,
        Some("MONTH") => Granularity::Month,
        Some("YEAR") => Granularity::Year,
        other => {
            let given = other.unwrap_or("(none)");
            return Err(ApiError::invalid(format!("Invalid value for timePartitioning.type: {given} is not a valid value")));
        }
    };
    if time.get("expirationMs").filter(|v| !v.is_null()).is_some_and(|v| int64(v).is_none_or(|ms| ms <= 0)) {
        return Err(ApiError::invalid("Invalid value for timePartitioning.expirationMs: it must be positive."));
    }
    let Some(field) = time.get("field").filter(|v| !v.is_null()) else { return Ok(Partitioning::IngestionTime(granularity)) };
    let (index, column) = top_level(schema, field.as_str().unwrap_or_default(), "time partitioning")?;
    let kind_takes = match column.kind {
        ColumnType::Date => granularity != Granularity::Hour,
        ColumnType::Timestamp | ColumnType::Datetime => true,
        _ => false,
    };
    if !kind_takes || column.mode == Mode::Repeated {
        return Err(ApiError::invalid(format!(
            "The field specified for partitioning can only be of type TIMESTAMP, DATE or DATETIME (no hours for DATE) and not REPEATED. The type found is: {} {}.",
            column.mode.rest_name(),
            column.kind.rest_name()
        )));
    }
    Ok(Partitioning::TimeColumn(index, granularity))
}

fn range_partitioning(range: &Map<String, Value>, schema: &Schema) -> ApiResult<Partitioning> {
    let (index, column) = top_level(schema, range.get("field").and_then(Value::as_str).unwrap_or_default(), "range partitioning")?;
    if column.kind != ColumnType::Int64 || column.mode == Mode::Repeated {
        return Err(ApiError::invalid("The field specified for range partitioning must be a top-level INTEGER that is not REPEATED."));
    }
    let bound = |key: &str| range.get("range").and_then(|r| int64(r.get(key)?));
    let (Some(start), Some(end), Some(interval)) = (bound("start"), bound("end"), bound("interval")) else {
        return Err(ApiError::invalid("rangePartitioning.range needs start, end and interval."));
    };
    let ranges = (i128::from(end) - i128::from(start) + i128::from(interval) - 1).checked_div(i128::from(interval));
    if interval <= 0 || end <= start || ranges.is_none_or(|n| n > 10_000) {
        return Err(ApiError::invalid("rangePartitioning.range: start < end, interval > 0, at most 10000 ranges."));
    }
    Ok(Partitioning::IntegerRange(index))
}

fn cluster(resource: &Map<String, Value>, schema: &Schema) -> ApiResult<()> {
    let Some(clustering) = resource.get("clustering").filter(|v| !v.is_null()) else { return Ok(()) };
    let fields: Vec<&str> = clustering.get("fields").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    if fields.is_empty() || fields.len() > 4 {
        return Err(ApiError::invalid("Clustering needs 1 to 4 fields."));
    }
    for field in fields {
        let (_, column) = top_level(schema, field, "clustering")?;
        use ColumnType::{Bignumeric, Bool, Date, Datetime, Geography, Int64, Numeric, Range, String, Timestamp};
        let takes = matches!(column.kind, Bignumeric | Bool | Date | Datetime | Geography | Int64 | Numeric | Range | String | Timestamp);
        if !takes || column.mode == Mode::Repeated {
            let (mode, kind) = (column.mode.rest_name(), column.kind.rest_name());
            return Err(ApiError::invalid(format!(
                "Clustering is not supported on fields of type {kind} and mode {mode}. (field: {field})"
            )));
        }
    }
    Ok(())
}

/// Names of the primary key's columns.
pub(crate) fn primary_key_columns(resource: &Map<String, Value>) -> Vec<String> {
    let key = resource.get("tableConstraints").and_then(|c| c.get("primaryKey")?.get("columns")?.as_array());
    key.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn primary_key(resource: &Map<String, Value>, schema: &Schema) -> ApiResult<()> {
    let columns = primary_key_columns(resource);
    if columns.len() > 16 {
        return Err(ApiError::invalid("A primary key has at most 16 columns."));
    }
    for name in columns {
        let (_, column) = top_level(schema, &name, "the primary key")?;
        use ColumnType::{Bignumeric, Bool, Bytes, Date, Datetime, Int64, Numeric, String, Timestamp};
        let takes = matches!(column.kind, Bignumeric | Bool | Bytes | Date | Datetime | Int64 | Numeric | String | Timestamp);
        if !takes || column.mode == Mode::Repeated {
            return Err(ApiError::invalid(format!("Column {name} of type {} cannot be part of a primary key.", column.kind.rest_name())));
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;
    use serde_json::json;

    fn verdict(extra: Value) -> Result<Partitioning, String> {
        let mut fields = [
            json!({"name": "ts", "type": "TIMESTAMP"}),
            json!({"name": "day", "type": "DATE"}),
            json!({"name": "n", "type": "INT64"}),
            json!({"name": "x", "type": "FLOAT64"}),
            json!({"name": "days", "type": "DATE", "mode": "REPEATED"}),
            json!({"name": "b", "type": "BYTES"}),
        ];
        let schema = Schema::from_rest(&mut fields).unwrap();
        check(extra.as_object().unwrap(), &schema).map_err(|e| e.message)
    }

    #[test]
    fn tables_by_rule() {
        for good in [
            json!({}),
            json!({"timePartitioning": {"type": "DAY"}}),
            json!({"timePartitioning": {"type": "HOUR", "field": "TS"}}),
            json!({"timePartitioning": {"type": "MONTH", "field": "day", "expirationMs": "1000"}}),
            json!({"rangePartitioning": {"field": "n", "range": {"start": "0", "end": "10000", "interval": "1"}}}),
            json!({"clustering": {"fields": ["n", "day"]}}),
            json!({"tableConstraints": {"primaryKey": {"columns": ["n", "b"]}}}),
        ] {
            assert!(verdict(good.clone()).is_ok(), "{good}");
        }
        for bad in [
            json!({"timePartitioning": {"type": "WEEK"}}),
            json!({"timePartitioning": {"type": "DAY", "field": ""}}),
            json!({"timePartitioning": {"type": "DAY", "field": "nosuch"}}),
            json!({"timePartitioning": {"type": "HOUR", "field": "day"}}),
            json!({"timePartitioning": {"type": "DAY", "field": "days"}}),
            json!({"timePartitioning": {"type": "DAY", "field": "n"}}),
            json!({"timePartitioning": {"type": "DAY", "expirationMs": "0"}}),
            json!({"rangePartitioning": {"field": "n", "range": {"start": "0", "end": "10001", "interval": "1"}}}),
            json!({"rangePartitioning": {"field": "ts", "range": {"start": "0", "end": "10", "interval": "1"}}}),
            json!({"clustering": {"fields": []}}),
            json!({"clustering": {"fields": ["n", "day", "ts", "n", "n"]}}),
            json!({"clustering": {"fields": ["x"]}}),
            json!({"clustering": {"fields": ["b"]}}),
            json!({"clustering": {"fields": ["days"]}}),
            json!({"tableConstraints": {"primaryKey": {"columns": ["x"]}}}),
            json!({"description": "x".repeat(16_385)}),
            json!({"labels": {"k": "v".repeat(64)}}),
        ] {
            assert!(verdict(bad.clone()).is_err(), "{bad}");
        }
    }
}
