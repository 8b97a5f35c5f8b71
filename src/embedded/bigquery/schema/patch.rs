//! What tables.patch and tables.update may change (managing-table-schemas).

use serde_json::{Map, Value};

use super::column::same_name;
use super::{Column, Mode, Schema};
use crate::embedded::bigquery::error::{ApiError, ApiResult};

/// Properties that the service sets and a caller cannot.
pub(crate) const OUTPUT_ONLY: [&str; 14] = [
    "kind",
    "etag",
    "id",
    "selfLink",
    "tableReference",
    "numBytes",
    "numLongTermBytes",
    "numRows",
    "creationTime",
    "lastModifiedTime",
    "type",
    "location",
    "streamingBuffer",
    "numActiveLogicalBytes",
];

/// The resource after a patch: named properties are replaced, `null` removes, labels are merged by key, the fields array is replaced whole.
pub(crate) fn merged(current: &Map<String, Value>, change: &Map<String, Value>) -> Map<String, Value> {
    let mut result = current.clone();
    for (key, value) in change {
        if OUTPUT_ONLY.contains(&key.as_str()) {
            continue;
        }
        match (value, result.get_mut(key)) {
            (Value::Null, _) => drop(result.remove(key)),
            (Value::Object(new), Some(Value::Object(old))) if key != "schema" => {
                for (name, value) in new {
                    if value.is_null() {
                        old.remove(name);
                    } else {
                        old.insert(name.clone(), value.clone());
                    }
                }
            }
            _ => drop(result.insert(key.clone(), value.clone())),
        }
    }
    if let (Some(old), Some(new)) = (fields(current), result.get_mut("schema").and_then(|s| s.get_mut("fields")?.as_array_mut())) {
        keep_governance_tags(old, new);
    }
    result
}

fn fields(resource: &Map<String, Value>) -> Option<&Vec<Value>> {
    resource.get("schema")?.get("fields")?.as_array()
}

/// `dataGovernanceTagsInfo` stays when a patch omits it; every other property that is left out is lost.
fn keep_governance_tags(old: &[Value], new: &mut [Value]) {
    for field in new {
        let name = field.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let Some(before) = old.iter().find(|o| o.get("name").and_then(Value::as_str).is_some_and(|n| same_name(n, &name))) else {
            continue;
        };
        if let (Some(tags), Some(object)) = (before.get("dataGovernanceTagsInfo"), field.as_object_mut()) {
            object.entry("dataGovernanceTagsInfo").or_insert_with(|| tags.clone());
        }
    }
}

/// Whether `new` may follow `old`. `table` is `p:d.t`, for messages.
pub(crate) fn check_columns(table: &str, old: &Schema, new: &Schema) -> ApiResult<()> {
    level(table, "", &old.columns, &new.columns)
}

fn mismatch(table: &str, what: std::fmt::Arguments<'_>) -> ApiError {
    ApiError::invalid(format!("Provided Schema does not match Table {table}. {what}"))
}

fn level(table: &str, path: &str, old: &[Column], new: &[Column]) -> ApiResult<()> {
    for (position, column) in old.iter().enumerate() {
        let name = format!("{path}{}", column.name);
        let found = new.iter().enumerate().find(|(_, n)| same_name(&n.name, &column.name));
        let Some((place, now)) = found else { return Err(mismatch(table, format_args!("Field {name} is missing in new schema"))) };
        if now.kind != column.kind || now.range_element != column.range_element {
            let (from, to) = (column.kind.rest_name(), now.kind.rest_name());
            return Err(mismatch(table, format_args!("Field {name} has changed type from {from} to {to}")));
        }
        if now.mode != column.mode && (column.mode, now.mode) != (Mode::Required, Mode::Nullable) {
            let (from, to) = (column.mode.rest_name(), now.mode.rest_name());
            return Err(mismatch(table, format_args!("Field {name} has changed mode from {from} to {to}.")));
        }
        if now.parameters != column.parameters || now.max_length != column.max_length || now.picoseconds != column.picoseconds {
            // Widening by the API is not documented for certain: refused, DDL does it.
            return Err(mismatch(table, format_args!("Field {name} has changed its type parameters")));
        }
        level(table, &format!("{name}."), &column.fields, &now.fields)?;
        if place != position {
            return Err(ApiError::new(412, "conditionNotMet", "Precondition Failed"));
        }
    }
    for column in new.iter().filter(|n| !old.iter().any(|o| same_name(&o.name, &n.name))) {
        let name = format!("{path}{}", column.name);
        if column.mode == Mode::Required {
            return Err(mismatch(table, format_args!("Cannot add required fields to an existing schema. (field: {name})")));
        }
        if column.default.is_some() {
            return Err(mismatch(table, format_args!("Cannot add a field with a default value to an existing schema. (field: {name})")));
        }
    }
    Ok(())
}

/// Partitioning cannot be changed but for expiry and filter; keys keep their columns.
pub(crate) fn check_partitioning(table: &str, old: &Map<String, Value>, new: &Map<String, Value>) -> ApiResult<()> {
    let shape = |resource: &Map<String, Value>| {
        let time = resource.get("timePartitioning").filter(|v| !v.is_null());
        let part = |key: &str| time.and_then(|t| t.get(key)).and_then(Value::as_str).unwrap_or_default().to_lowercase();
        (time.is_some(), part("type"), part("field"), resource.get("rangePartitioning").filter(|v| !v.is_null()).cloned())
    };
    let (before, after) = (shape(old), shape(new));
    if before == after {
        return Ok(());
    }
    let was_partitioned = before.0 || before.3.is_some();
    let is_partitioned = after.0 || after.3.is_some();
    Err(ApiError::invalid(match (was_partitioned, is_partitioned) {
        (false, _) => "Cannot convert non-partitioned table to partitioned table.".to_owned(),
        (true, false) => "Cannot convert partitioned table to non-partitioned table.".to_owned(),
        _ => format!("Cannot change partitioning/clustering spec of table {table}."),
    }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;
    use serde_json::json;

    fn schema(fields: Value) -> Schema {
        Schema::from_rest(&mut fields.as_array().unwrap().clone()).unwrap()
    }

    #[test]
    fn changes_by_rule() {
        let old = json!([{"name": "a", "type": "INT64", "mode": "REQUIRED"}, {"name": "r", "type": "RECORD", "fields": [{"name": "x", "type": "STRING"}]}]);
        let a = json!({"name": "a", "type": "INT64", "mode": "REQUIRED"});
        let r = json!({"name": "r", "type": "RECORD", "fields": [{"name": "x", "type": "STRING"}]});
        let record = |fields: Value| json!({"name": "r", "type": "RECORD", "fields": fields});
        let x = json!({"name": "x", "type": "STRING"});
        for (new, expected) in [
            (json!([a, r, {"name": "b", "type": "STRING"}]), None),
            (json!([a, r, {"name": "b", "type": "STRING", "mode": "REPEATED"}]), None),
            (json!([{"name": "A", "type": "INTEGER", "mode": "NULLABLE"}, r]), None),
            (json!([a, record(json!([x, {"name": "y", "type": "STRING"}]))]), None),
            (json!([a, {"name": "b", "type": "STRING"}, r]), Some((412, "Precondition Failed"))),
            (
                json!([a, r, {"name": "b", "type": "STRING", "mode": "REQUIRED"}]),
                Some((400, "Cannot add required fields to an existing schema. (field: b)")),
            ),
            (json!([a, record(json!([x, {"name": "y", "type": "STRING", "mode": "REQUIRED"}]))]), Some((400, "(field: r.y)"))),
            (json!([r]), Some((400, "Field a is missing in new schema"))),
            (json!([a, record(json!([{"name": "z", "type": "STRING"}]))]), Some((400, "Field r.x is missing in new schema"))),
            (
                json!([{"name": "a", "type": "NUMERIC", "mode": "REQUIRED"}, r]),
                Some((400, "Field a has changed type from INTEGER to NUMERIC")),
            ),
            (
                json!([a, {"name": "r", "type": "RECORD", "mode": "REPEATED", "fields": [x]}]),
                Some((400, "has changed mode from NULLABLE to REPEATED.")),
            ),
            (
                json!([a, record(json!([{"name": "x", "type": "STRING", "mode": "REQUIRED"}]))]),
                Some((400, "has changed mode from NULLABLE to REQUIRED.")),
            ),
            (json!([a, record(json!([{"name": "x", "type": "STRING", "maxLength": "4"}]))]), Some((400, "type parameters"))),
            (json!([a, r, {"name": "b", "type": "STRING", "defaultValueExpression": "'x'"}]), Some((400, "default value"))),
        ] {
            let answer = check_columns("p:d.t", &schema(old.clone()), &schema(new.clone()));
            match expected {
                None => assert_eq!(answer, Ok(()), "{new}"),
                Some((http, part)) => {
                    let error = answer.expect_err(&new.to_string());
                    assert!(error.http == http && error.message.contains(part), "{new}: {error:?}");
                }
            }
        }
    }

    #[test]
    fn a_patch_replaces_the_fields_and_keeps_the_rest() {
        let current = json!({"description": "d", "labels": {"a": "1", "b": "2"}, "unknown": 1, "schema": {"fields": [
            {"name": "a", "type": "STRING", "policyTags": {"names": ["t"]}, "dataGovernanceTagsInfo": {"k": "v"}}]}});
        let change = json!({"description": null, "labels": {"a": null, "c": "3"}, "etag": "x", "schema": {"fields": [{"name": "A", "type": "STRING"}]}});
        let after = Value::Object(merged(current.as_object().unwrap(), change.as_object().unwrap()));
        let expected = json!({"labels": {"b": "2", "c": "3"}, "unknown": 1, "schema": {"fields": [
            {"name": "A", "type": "STRING", "dataGovernanceTagsInfo": {"k": "v"}}]}});
        assert_eq!(after, expected);
    }

    #[test]
    fn partitioning_stays() {
        let of = |v: Value| v.as_object().unwrap().clone();
        let day = of(json!({"timePartitioning": {"type": "DAY", "field": "ts"}}));
        assert!(
            check_partitioning("t", &day, &of(json!({"timePartitioning": {"type": "DAY", "field": "TS", "expirationMs": "5"}}))).is_ok()
        );
        assert!(check_partitioning("t", &day, &of(json!({"timePartitioning": {"type": "HOUR", "field": "ts"}}))).is_err());
        assert!(check_partitioning("t", &of(json!({})), &day).unwrap_err().message.contains("Cannot convert non-partitioned"));
        assert!(check_partitioning("t", &day, &of(json!({}))).is_err());
    }
}
