//! Column defaults: literals and the functions that are allowed (default-values).

use super::{Column, ColumnType, Mode};
use crate::embedded::bigquery::values::{Cell, civil, json_text};

/// The default's value now. Errors say what is wrong with the expression.
pub(crate) fn evaluate(expression: &str, column: &Column) -> Result<Cell, String> {
    let text = expression.trim();
    if text.eq_ignore_ascii_case("NULL") {
        return Ok(Cell::Null);
    }
    if column.mode == Mode::Repeated {
        return if matches!(text, "[]" | "ARRAY[]") {
            Ok(Cell::List(Vec::new()))
        } else {
            Err("only an empty array is supported".to_owned())
        };
    }
    if column.kind == ColumnType::Record {
        return Err("a STRUCT default is not supported here".to_owned());
    }
    let micros = chrono::Utc::now().timestamp_micros();
    let call = text.to_ascii_uppercase().replace(' ', "");
    let value = match call.trim_end_matches("()") {
        "CURRENT_TIMESTAMP" => Some((ColumnType::Timestamp, Cell::Timestamp(micros))),
        "CURRENT_DATETIME" => Some((ColumnType::Datetime, Cell::Datetime(micros))),
        "CURRENT_DATE" => Some((ColumnType::Date, Cell::Date(micros.div_euclid(civil::DAY_MICROS)))),
        "CURRENT_TIME" => Some((ColumnType::Time, Cell::Time(micros.rem_euclid(civil::DAY_MICROS)))),
        "GENERATE_UUID" => Some((ColumnType::String, Cell::Text(uuid::Uuid::new_v4().to_string()))),
        "SESSION_USER" => Some((ColumnType::String, Cell::Text("embedded@example.com".to_owned()))),
        "RAND" => Some((ColumnType::Float64, Cell::Float(rand::random::<f64>()))),
        _ => None,
    };
    if let Some((kind, cell)) = value {
        return if kind == column.kind { Ok(cell) } else { Err(format!("{call} is not a {}", column.kind.rest_name())) };
    }
    literal(text, column)
}

fn literal(text: &str, column: &Column) -> Result<Cell, String> {
    let wrong = || format!("{text} is not a literal of type {}", column.kind.rest_name());
    // TYPE 'text' or 'text'
    let quoted = |text: &str| -> Option<String> {
        let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
        let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
        (text.len() >= 2 && !inner.contains(quote)).then(|| inner.to_owned())
    };
    let (prefix, body) = text.split_at(text.find(['\'', '"']).unwrap_or(0));
    let prefix = prefix.trim().to_ascii_uppercase();
    let body = quoted(body);
    let typed = prefix.is_empty() || ColumnType::parse(&prefix) == Some(column.kind);
    match (column.kind, body) {
        (ColumnType::Bool, None) if text.eq_ignore_ascii_case("true") => Ok(Cell::Bool(true)),
        (ColumnType::Bool, None) if text.eq_ignore_ascii_case("false") => Ok(Cell::Bool(false)),
        (ColumnType::Int64, None) => text.parse().map(Cell::Int).map_err(|_| wrong()),
        (ColumnType::Float64, None) => text.parse().ok().filter(|v: &f64| v.is_finite()).map(Cell::Float).ok_or_else(wrong),
        (ColumnType::Numeric | ColumnType::Bignumeric, body) if typed || prefix.is_empty() => {
            let value = column.decimal_limits().read_text(body.as_deref().unwrap_or(text));
            value.map(|v| Cell::Decimal(v.into_big())).map_err(|problem| format!("{text} {problem}"))
        }
        (ColumnType::String, Some(body)) if prefix.is_empty() => {
            let fits = column.max_length.is_none_or(|max| body.chars().count() as u64 <= max);
            if fits { Ok(Cell::Text(body)) } else { Err(wrong()) }
        }
        (ColumnType::Bytes, Some(body)) if prefix == "B" => Ok(Cell::Bytes(body.into_bytes())),
        (ColumnType::Date, Some(body)) if typed => civil::parse_date(&body).map(Cell::Date).ok_or_else(wrong),
        (ColumnType::Time, Some(body)) if typed => civil::parse_time(&body).map(Cell::Time).ok_or_else(wrong),
        (ColumnType::Datetime, Some(body)) if typed => civil::parse_datetime(&body).map(Cell::Datetime).ok_or_else(wrong),
        (ColumnType::Timestamp, Some(body)) if typed => civil::parse_timestamp(&body).map(Cell::Timestamp).ok_or_else(wrong),
        (ColumnType::Json, Some(body)) if prefix == "JSON" => json_text::check_json(&body).map(|()| Cell::Text(body)).map_err(|_| wrong()),
        _ => Err(wrong()),
    }
}
