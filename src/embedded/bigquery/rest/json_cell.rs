//! Values of insertAll: JSON to cells, by column (loading-data-cloud-storage-json, data-types).

use base64::Engine;
use serde_json::{Map, Value};

use crate::embedded::bigquery::grpc::names::today;
use crate::embedded::bigquery::rows::plan::PartitionBounds;
use crate::embedded::bigquery::rows::scalar::outside;
use crate::embedded::bigquery::schema::column::same_name;
use crate::embedded::bigquery::schema::table_rules::Partitioning;
use crate::embedded::bigquery::schema::{Column, ColumnType, Mode, Schema, default_value};
use crate::embedded::bigquery::values::{Cell, civil, json_text};

/// What is wrong with a value: where, and in BigQuery's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub location: String,
    pub message: String,
    /// The row does not fit the schema, as opposed to a bad value in a good place.
    pub is_mismatch: bool,
}

fn fault(location: &str, message: impl Into<String>) -> Fault {
    Fault { location: location.to_owned(), message: message.into(), is_mismatch: false }
}

/// A row's cells in the schema's order. Missing columns get their default.
pub(super) fn row(
    object: &Map<String, Value>,
    schema: &Schema,
    partitioning: &Partitioning,
    ignore_unknown: bool,
) -> Result<Vec<Cell>, Fault> {
    let cells = record(object, &schema.columns, "", ignore_unknown)?;
    if let Partitioning::TimeColumn(index, _) = partitioning {
        let day = match cells.get(*index) {
            Some(Cell::Date(days)) => Some(*days),
            Some(Cell::Datetime(micros) | Cell::Timestamp(micros)) => Some(micros.div_euclid(civil::DAY_MICROS)),
            _ => None,
        };
        if let Some(day) = day.filter(|day| !PartitionBounds.takes(*day, today())) {
            let name = &schema.columns[*index].name;
            return Err(fault(name, outside(name, day)));
        }
    }
    Ok(cells)
}

fn record(object: &Map<String, Value>, columns: &[Column], path: &str, ignore_unknown: bool) -> Result<Vec<Cell>, Fault> {
    let mut cells: Vec<Option<Cell>> = vec![None; columns.len()];
    for (key, value) in object {
        let at = format!("{path}{key}");
        match columns.iter().position(|column| same_name(&column.name, key)) {
            Some(index) => cells[index] = Some(one(value, &columns[index], &at, ignore_unknown)?),
            None if ignore_unknown => {}
            None => return Err(Fault { is_mismatch: true, ..fault(&at, format!("no such field: {at}.")) }),
        }
    }
    let filled = cells.into_iter().zip(columns).map(|(cell, column)| {
        let at = format!("{path}{}", column.name);
        let cell = match (cell, &column.default) {
            (Some(cell), _) => cell,
            (None, Some(expression)) if path.is_empty() => {
                default_value::evaluate(expression, column).map_err(|problem| fault(&at, problem))?
            }
            (None, _) if column.mode == Mode::Repeated => Cell::List(Vec::new()),
            (None, _) => Cell::Null,
        };
        if cell == Cell::Null && column.mode == Mode::Required {
            return Err(fault(&at, format!("Missing required field: Msg_0_CLOUD_QUERY_TABLE.{at}.")));
        }
        Ok(cell)
    });
    filled.collect()
}

fn one(value: &Value, column: &Column, at: &str, ignore_unknown: bool) -> Result<Cell, Fault> {
    match (column.mode, value) {
        (Mode::Repeated, Value::Null) => Ok(Cell::List(Vec::new())),
        (Mode::Repeated, Value::Array(items)) => {
            let items = items.iter().map(|item| match item {
                Value::Null => Err(fault(at, format!("Only optional fields can be set to NULL. Field: {at}; Value: NULL"))),
                item => single(item, column, at, ignore_unknown),
            });
            items.collect::<Result<Vec<_>, _>>().map(Cell::List)
        }
        (Mode::Repeated, _) => Err(fault(at, format!("Repeated field must be imported as a JSON array. Field: {at}."))),
        (_, Value::Null) => Ok(Cell::Null),
        (_, Value::Array(_)) if column.kind != ColumnType::Json => Err(fault(at, format!("Array specified for non-repeated field: {at}."))),
        _ => single(value, column, at, ignore_unknown),
    }
}

fn single(value: &Value, column: &Column, at: &str, ignore_unknown: bool) -> Result<Cell, Fault> {
    let shown = || value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let bad = |what: &str| fault(at, format!("Cannot convert value to {what} (bad value): {}", shown()));
    match (column.kind, value) {
        (ColumnType::Record, Value::Object(object)) => record(object, &column.fields, &format!("{at}."), ignore_unknown).map(Cell::Record),
        (ColumnType::Record, _) => Err(fault(at, format!("This field: {at} is not a record."))),
        (ColumnType::Range, Value::Object(object)) => range(object, column, at),
        (ColumnType::Json, Value::String(text)) => {
            json_text::check_json(text).map(|()| Cell::Text(text.clone())).map_err(|problem| fault(at, format!("Value of {at} {problem}")))
        }
        (ColumnType::Json, value) => Ok(Cell::Text(value.to_string())),
        (_, Value::Object(_)) => Err(fault(at, format!("This field: {at} is not a record."))),
        (ColumnType::Bool, Value::Bool(v)) => Ok(Cell::Bool(*v)),
        (ColumnType::Bool, Value::String(v)) => match v.to_ascii_lowercase().as_str() {
            "true" | "t" | "yes" | "y" | "1" => Ok(Cell::Bool(true)),
            "false" | "f" | "no" | "n" | "0" => Ok(Cell::Bool(false)),
            _ => Err(bad("boolean")),
        },
        (ColumnType::Int64, Value::Number(number)) => number.as_i64().map(Cell::Int).ok_or_else(|| bad("integer")),
        (ColumnType::Int64, Value::String(text)) => text.parse().map(Cell::Int).map_err(|_| bad("integer")),
        (ColumnType::Float64, Value::Number(number)) => number.as_f64().map(Cell::Float).ok_or_else(|| bad("double")),
        (ColumnType::Float64, Value::String(text)) => float(text).map(Cell::Float).ok_or_else(|| bad("double")),
        (ColumnType::Numeric | ColumnType::Bignumeric, Value::Number(_) | Value::String(_)) => {
            let value = column.decimal_limits().read_text(&shown());
            value
                .map(|v| Cell::Decimal(v.into_big()))
                .map_err(|problem| fault(at, format!("Invalid {} value: {} {problem}", column.kind.rest_name(), shown())))
        }
        (ColumnType::String, Value::String(_) | Value::Number(_) | Value::Bool(_)) => {
            let text = shown();
            match column.max_length {
                Some(max) if text.chars().count() as u64 > max => Err(fault(
                    at,
                    format!("Field {at}: STRING({max}) has maximum length {max} but got a value with length {}", text.chars().count()),
                )),
                _ => Ok(Cell::Text(text)),
            }
        }
        (ColumnType::Timestamp, Value::Number(number)) => {
            // Seconds since the epoch.
            let micros = match number.as_i64() {
                Some(seconds) => seconds.checked_mul(1_000_000),
                None => number.as_f64().map(|seconds| (seconds * 1e6).round() as i64),
            };
            micros.filter(|m| civil::TIMESTAMP_RANGE_MICROS.contains(m)).map(Cell::Timestamp).ok_or_else(|| bad("timestamp"))
        }
        (kind, Value::String(text)) => text_value(kind, text, column, at).ok_or_else(|| bad(&kind.rest_name().to_lowercase()))?,
        (kind, _) => Err(bad(&kind.rest_name().to_lowercase())),
    }
}

fn text_value(kind: ColumnType, text: &str, column: &Column, at: &str) -> Option<Result<Cell, Fault>> {
    Some(Ok(match kind {
        ColumnType::Date => Cell::Date(civil::parse_date(text)?),
        ColumnType::Time => Cell::Time(civil::parse_time(text)?),
        ColumnType::Datetime => Cell::Datetime(civil::parse_datetime(text)?),
        ColumnType::Timestamp => Cell::Timestamp(civil::parse_timestamp(text)?),
        ColumnType::Bytes => {
            let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
            if let Some(max) = column.max_length.filter(|max| bytes.len() as u64 > *max) {
                let length = bytes.len();
                return Some(Err(fault(
                    at,
                    format!("Field {at}: BYTES({max}) has maximum length {max} but got a value with length {length}"),
                )));
            }
            Cell::Bytes(bytes)
        }
        ColumnType::Geography => json_text::check_geography(text).ok().map(|()| Cell::Text(text.to_owned()))?,
        ColumnType::Interval => json_text::check_interval(text).ok().map(|()| Cell::Text(text.to_owned()))?,
        _ => return None,
    }))
}

/// A finite number, or `NaN`, `inf`, `+inf`, `-inf` in any case; an overflow is an error.
fn float(text: &str) -> Option<f64> {
    match text.to_ascii_lowercase().as_str() {
        "nan" => Some(f64::NAN),
        "inf" | "+inf" | "infinity" | "+infinity" => Some(f64::INFINITY),
        "-inf" | "-infinity" => Some(f64::NEG_INFINITY),
        other => other.parse().ok().filter(|v: &f64| v.is_finite()),
    }
}

fn range(object: &Map<String, Value>, column: &Column, at: &str) -> Result<Cell, Fault> {
    let element =
        Column { kind: column.range_element.unwrap_or(ColumnType::Date), mode: Mode::Nullable, range_element: None, ..column.clone() };
    let end = |key: &str| match object.get(key) {
        None | Some(Value::Null) => Ok(Cell::Null),
        Some(value) => single(value, &element, &format!("{at}.{key}"), false),
    };
    if let Some(key) = object.keys().find(|key| !matches!(key.as_str(), "start" | "end")) {
        return Err(fault(at, format!("no such field: {at}.{key}.")));
    }
    let ends = [end("start")?, end("end")?];
    if ends[0].compare(&ends[1]).is_some_and(|order| order.is_ge()) {
        return Err(fault(at, format!("Range start must be less than range end in {at}.")));
    }
    Ok(Cell::Range(Box::new(ends)))
}
