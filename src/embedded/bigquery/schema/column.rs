//! Columns: from the REST form, with every rule on types and their parameters (rest tables, schemas).

use serde_json::{Map, Value};

use super::{default_value, names};
use crate::embedded::bigquery::error::{ApiError, ApiResult};
use crate::embedded::bigquery::values::decimal::DecimalLimits;

/// The types of BigQuery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ColumnType {
    Bool,
    Int64,
    Float64,
    Numeric,
    Bignumeric,
    String,
    Bytes,
    Date,
    Time,
    Datetime,
    Timestamp,
    Json,
    Geography,
    Interval,
    Range,
    Record,
}

impl ColumnType {
    /// From either of its names.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Some(match name.to_ascii_uppercase().as_str() {
            "BOOL" | "BOOLEAN" => Self::Bool,
            "INT64" | "INTEGER" => Self::Int64,
            "FLOAT64" | "FLOAT" => Self::Float64,
            "NUMERIC" => Self::Numeric,
            "BIGNUMERIC" => Self::Bignumeric,
            "STRING" => Self::String,
            "BYTES" => Self::Bytes,
            "DATE" => Self::Date,
            "TIME" => Self::Time,
            "DATETIME" => Self::Datetime,
            "TIMESTAMP" => Self::Timestamp,
            "JSON" => Self::Json,
            "GEOGRAPHY" => Self::Geography,
            "INTERVAL" => Self::Interval,
            "RANGE" => Self::Range,
            "RECORD" | "STRUCT" => Self::Record,
            _ => return None,
        })
    }

    /// The name that tables.get answers.
    pub(crate) fn rest_name(self) -> &'static str {
        match self {
            Self::Bool => "BOOLEAN",
            Self::Int64 => "INTEGER",
            Self::Float64 => "FLOAT",
            Self::Numeric => "NUMERIC",
            Self::Bignumeric => "BIGNUMERIC",
            Self::String => "STRING",
            Self::Bytes => "BYTES",
            Self::Date => "DATE",
            Self::Time => "TIME",
            Self::Datetime => "DATETIME",
            Self::Timestamp => "TIMESTAMP",
            Self::Json => "JSON",
            Self::Geography => "GEOGRAPHY",
            Self::Interval => "INTERVAL",
            Self::Range => "RANGE",
            Self::Record => "RECORD",
        }
    }
}

/// Whether a column takes NULL or a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Nullable,
    Required,
    Repeated,
}

impl Mode {
    pub(crate) fn rest_name(self) -> &'static str {
        match self {
            Self::Nullable => "NULLABLE",
            Self::Required => "REQUIRED",
            Self::Repeated => "REPEATED",
        }
    }
}

/// One column, as far as values and descriptors are concerned; its other properties stay in the table's REST resource.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Column {
    pub name: String,
    pub kind: ColumnType,
    pub mode: Mode,
    pub description: String,
    /// Of a RECORD.
    pub fields: Vec<Column>,
    /// Code points of STRING, bytes of BYTES.
    pub max_length: Option<u64>,
    /// P and S of NUMERIC, BIGNUMERIC.
    pub parameters: Option<(u32, u32)>,
    /// Of a RANGE.
    pub range_element: Option<ColumnType>,
    /// An SQL expression.
    pub default: Option<String>,
    /// TIMESTAMP in picoseconds.
    pub picoseconds: bool,
}

impl Column {
    /// Limits of a decimal column.
    pub(crate) fn decimal_limits(&self) -> DecimalLimits {
        DecimalLimits { type_scale: if self.kind == ColumnType::Bignumeric { 38 } else { 9 }, parameters: self.parameters }
    }
}

/// A table's columns.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Schema {
    pub columns: Vec<Column>,
}

const MAX_COLUMNS: usize = 10_000;
const MAX_DEPTH: usize = 15;

impl Schema {
    /// From `schema.fields` of a table resource. `fields` is put into the form that tables.get answers (type names, modes).
    pub(crate) fn from_rest(fields: &mut [Value]) -> ApiResult<Self> {
        let mut count = 0;
        let columns = level(fields, 1, &mut count)?;
        Ok(Self { columns })
    }

    /// Index of a column, its name's case ignored.
    pub(crate) fn position(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| same_name(&column.name, name))
    }
}

/// Column names are equal when they differ in case only.
pub(crate) fn same_name(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b) || (!(a.is_ascii() && b.is_ascii()) && a.to_lowercase() == b.to_lowercase())
}

fn level(fields: &mut [Value], depth: usize, count: &mut usize) -> ApiResult<Vec<Column>> {
    if depth > MAX_DEPTH + 1 {
        return Err(ApiError::invalid(format!("Too many nested fields: RECORD columns may be nested {MAX_DEPTH} levels deep.")));
    }
    *count += fields.len();
    if *count > MAX_COLUMNS {
        return Err(ApiError::invalid(format!("Too many total leaf fields: the limit is {MAX_COLUMNS} columns, nested columns counted.")));
    }
    let mut seen = std::collections::HashSet::new();
    let mut columns = Vec::with_capacity(fields.len());
    for field in fields {
        let object = field.as_object_mut().ok_or_else(|| ApiError::invalid("Invalid value for: schema.fields is not an object"))?;
        let column = column(object, depth, count)?;
        if !seen.insert(column.name.to_lowercase()) {
            return Err(ApiError::invalid(format!(
                "Duplicate field name: {} (field names are compared without regard to case).",
                column.name
            )));
        }
        columns.push(column);
    }
    Ok(columns)
}

fn text<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    object.get(key).and_then(Value::as_str)
}

/// An int64 of the REST API: a string, or a number.
pub(crate) fn int64(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

fn column(object: &mut Map<String, Value>, depth: usize, count: &mut usize) -> ApiResult<Column> {
    let name = text(object, "name").unwrap_or_default().to_owned();
    names::check_column(&name)?;
    let fail = |message: String| ApiError::invalid(format!("{message} (field: {name})"));
    let type_name = text(object, "type").ok_or_else(|| fail("Field type is required.".to_owned()))?.to_owned();
    let kind = ColumnType::parse(&type_name).filter(|kind| *kind != ColumnType::Interval);
    let kind = kind.ok_or_else(|| fail(format!("Invalid value for type: {type_name} is not a valid value")))?;
    let mode = match text(object, "mode").unwrap_or("NULLABLE").to_ascii_uppercase().as_str() {
        "NULLABLE" | "" => Mode::Nullable,
        "REQUIRED" => Mode::Required,
        "REPEATED" => Mode::Repeated,
        other => return Err(fail(format!("Invalid value for mode: {other} is not a valid value"))),
    };
    let description = text(object, "description").unwrap_or_default().to_owned();
    if description.chars().count() > 1024 {
        return Err(fail("The description for field is too long. The maximum length is 1024 characters.".to_owned()));
    }
    let number = |key: &str| -> ApiResult<Option<i64>> {
        object.get(key).filter(|v| !v.is_null()).map(|v| int64(v).ok_or_else(|| fail(format!("Invalid value for: {key}")))).transpose()
    };
    let max_length = number("maxLength")?;
    if max_length.is_some_and(|l| l <= 0 || !matches!(kind, ColumnType::String | ColumnType::Bytes)) {
        return Err(fail("maxLength must be positive and is allowed for STRING and BYTES only.".to_owned()));
    }
    let parameters = decimal_parameters(kind, number("precision")?, number("scale")?).map_err(fail)?;
    let picoseconds = match number("timestampPrecision")? {
        None | Some(6) => false,
        Some(12) if kind == ColumnType::Timestamp => true,
        Some(_) => return Err(fail("timestampPrecision must be 6 or 12 and is allowed for TIMESTAMP only.".to_owned())),
    };
    let range_element = range_element(kind, object).map_err(fail)?;
    let default = text(object, "defaultValueExpression").filter(|d| !d.is_empty()).map(str::to_owned);
    let fields = match object.get_mut("fields").and_then(Value::as_array_mut) {
        Some(fields) if kind == ColumnType::Record => level(fields, depth + 1, count)?,
        Some(fields) if !fields.is_empty() => return Err(fail("Only RECORD fields may have nested fields.".to_owned())),
        _ => Vec::new(),
    };
    if kind == ColumnType::Record && fields.is_empty() {
        return Err(fail(format!("Field {name} is type RECORD but has no schema")));
    }
    object.insert("type".to_owned(), Value::from(kind.rest_name()));
    object.insert("mode".to_owned(), Value::from(mode.rest_name()));
    let column = Column {
        name,
        kind,
        mode,
        description,
        fields,
        max_length: max_length.map(|l| l as u64),
        parameters,
        range_element,
        default,
        picoseconds,
    };
    if let Some(expression) = &column.default {
        default_value::evaluate(expression, &column)
            .map_err(|problem| ApiError::invalid(format!("Invalid default value expression for column {}: {problem}", column.name)))?;
    }
    Ok(column)
}

fn decimal_parameters(kind: ColumnType, precision: Option<i64>, scale: Option<i64>) -> Result<Option<(u32, u32)>, String> {
    let (max_scale, whole) = match kind {
        ColumnType::Numeric => (9, 29),
        ColumnType::Bignumeric => (38, 38),
        _ if precision.is_some() || scale.is_some() => {
            return Err("precision and scale are allowed for NUMERIC and BIGNUMERIC only.".to_owned());
        }
        _ => return Ok(None),
    };
    let Some(p) = precision else {
        return if scale.is_some() { Err("scale is given without precision.".to_owned()) } else { Ok(None) };
    };
    let s = scale.unwrap_or(0);
    // Two pages, two rules: max(1,S) <= P <= S+29, and P-S >= 1. Both are enforced.
    if !(0..=max_scale).contains(&s) || p < s.max(1) || p > s + whole || p - s < 1 {
        return Err(format!("Invalid precision {p} and scale {s}: scale 0 to {max_scale}, precision S+1 to S+{whole}."));
    }
    Ok(Some((p as u32, s as u32)))
}

fn range_element(kind: ColumnType, object: &Map<String, Value>) -> Result<Option<ColumnType>, String> {
    let element = object.get("rangeElementType").and_then(|e| text(e.as_object()?, "type"));
    match (kind, element.map(ColumnType::parse)) {
        (ColumnType::Range, Some(Some(e @ (ColumnType::Date | ColumnType::Datetime | ColumnType::Timestamp)))) => Ok(Some(e)),
        (ColumnType::Range, _) => Err("RANGE needs rangeElementType DATE, DATETIME or TIMESTAMP.".to_owned()),
        (_, None) => Ok(None),
        (_, Some(_)) => Err("rangeElementType is allowed for RANGE only.".to_owned()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(field: Value) -> ApiResult<Schema> {
        Schema::from_rest(&mut [field])
    }

    #[test]
    fn what_a_column_may_be() {
        for good in [
            json!({"name": "a", "type": "INT64"}),
            json!({"name": "a", "type": "string", "mode": "required", "maxLength": "10"}),
            json!({"name": "a", "type": "NUMERIC", "precision": "38", "scale": 9}),
            json!({"name": "a", "type": "BIGNUMERIC", "precision": 76, "scale": 38}),
            json!({"name": "a", "type": "RANGE", "rangeElementType": {"type": "DATE"}}),
            json!({"name": "a", "type": "STRING", "defaultValueExpression": "'x'"}),
            json!({"name": "a", "type": "RECORD", "fields": [{"name": "b", "type": "BOOL"}]}),
        ] {
            assert!(parse(good.clone()).is_ok(), "{good}");
        }
        for (bad, part) in [
            (json!({"name": "a"}), "type is required"),
            (json!({"name": "a", "type": "TEXT"}), "not a valid value"),
            (json!({"name": "a", "type": "INTERVAL"}), "not a valid value"),
            (json!({"name": "a", "type": "INT64", "mode": "LIST"}), "Invalid value for mode"),
            (json!({"name": "a", "type": "INT64", "maxLength": "3"}), "maxLength"),
            (json!({"name": "a", "type": "NUMERIC", "scale": 3}), "without precision"),
            (json!({"name": "a", "type": "NUMERIC", "precision": 3, "scale": 3}), "precision"),
            (json!({"name": "a", "type": "NUMERIC", "precision": 30}), "precision"),
            (json!({"name": "a", "type": "NUMERIC", "precision": 20, "scale": 10}), "precision"),
            (json!({"name": "a", "type": "INT64", "precision": 3}), "NUMERIC and BIGNUMERIC only"),
            (json!({"name": "a", "type": "RANGE"}), "rangeElementType"),
            (json!({"name": "a", "type": "RECORD"}), "has no schema"),
            (json!({"name": "a", "type": "STRING", "description": "x".repeat(1025)}), "too long"),
            (json!({"name": "a", "type": "INT64", "defaultValueExpression": "'x'"}), "default value"),
            (json!({"name": "_PARTITIONTIME", "type": "INT64"}), "_PARTITION"),
        ] {
            let error = parse(bad.clone()).unwrap_err();
            assert!(error.message.contains(part), "{bad}: {}", error.message);
            assert_eq!((error.http, error.reason), (400, "invalid"));
        }
    }

    #[test]
    fn depth_count_and_case() {
        let mut field = json!({"name": "leaf", "type": "STRING"});
        for _ in 0..15 {
            field = json!({"name": "r", "type": "RECORD", "fields": [field]});
        }
        assert!(parse(field.clone()).is_ok());
        assert!(parse(json!({"name": "r", "type": "RECORD", "fields": [field]})).is_err());
        let mut many: Vec<Value> = (0..10_001).map(|i| json!({"name": format!("c{i}"), "type": "STRING"})).collect();
        assert!(Schema::from_rest(&mut many[..10_000]).is_ok());
        assert!(Schema::from_rest(&mut many).is_err());
        assert!(Schema::from_rest(&mut [json!({"name": "A", "type": "STRING"}), json!({"name": "a", "type": "STRING"})]).is_err());
    }
}
