//! Reads a stored row back as cells.

use super::check::{each_packed, is_packable};
use super::plan::{FieldPlan, MessagePlan, NO_COLUMN, Proto};
use super::scalar;
use super::wire::{Raw, Reader};
use crate::embedded::bigquery::schema::{ColumnType, Mode, Schema};
use crate::embedded::bigquery::values::{Cell, civil};

/// The cells of a row that [`super::check::row`] accepted; those not `wanted` are left NULL. What cannot be read is NULL too: it was
/// checked.
pub(crate) fn row(plan: &MessagePlan, bytes: &[u8], wanted: Option<&[bool]>) -> Vec<Cell> {
    let mut cells = vec![Cell::Null; plan.columns];
    for field in &plan.fields {
        if field.column != NO_COLUMN && field.repeated {
            cells[field.column] = Cell::List(Vec::new());
        } else if let (Some(text), true) = (&field.proto_default, field.column != NO_COLUMN) {
            cells[field.column] = proto_default(field, text);
        }
    }
    let mut reader = Reader::new(bytes);
    while let (false, Ok((number, raw))) = (reader.is_empty(), reader.field()) {
        let Some(field) = plan.field(number).filter(|f| f.column != NO_COLUMN) else { continue };
        if wanted.is_some_and(|w| !w.get(field.column).copied().unwrap_or(false)) {
            continue;
        }
        match &mut cells[field.column] {
            Cell::List(list) => push(field, raw, list),
            cell => *cell = one(field, raw),
        }
    }
    cells
}

/// The change type and sequence number of a CDC row.
pub(crate) fn change(plan: &MessagePlan, bytes: &[u8]) -> (Option<String>, Option<String>) {
    let mut result = (None, None);
    let mut reader = Reader::new(bytes);
    while let (false, Ok((number, raw))) = (reader.is_empty(), reader.field()) {
        if let (Some(field), Raw::Bytes(text)) = (plan.field(number).filter(|f| f.column == NO_COLUMN), raw) {
            let text = Some(String::from_utf8_lossy(text).into_owned());
            if field.required { result.0 = text } else { result.1 = text }
        }
    }
    result
}

fn push(field: &FieldPlan, raw: Raw<'_>, list: &mut Vec<Cell>) {
    match raw {
        Raw::Bytes(bytes) if is_packable(&field.proto) => {
            // Checked when it was stored: a malformed list ends here.
            let _checked = each_packed(&field.proto, bytes, |raw| {
                list.push(one(field, raw));
                Ok(())
            });
        }
        _ => list.push(one(field, raw)),
    }
}

fn one(field: &FieldPlan, raw: Raw<'_>) -> Cell {
    match (&field.proto, raw) {
        (Proto::Message(plan), Raw::Bytes(bytes)) => {
            let cells = row(plan, bytes, None);
            if field.target.kind() != Some(ColumnType::Range) {
                return Cell::Record(cells);
            }
            match <[Cell; 2]>::try_from(cells) {
                Ok(ends) => Cell::Range(Box::new(ends)),
                Err(_) => Cell::Null,
            }
        }
        _ => scalar::unbounded(field, raw).map_or(Cell::Null, |value| value.into_cell()),
    }
}

/// `default_value` of a descriptor, as far as clients set it: numbers, booleans, text.
fn proto_default(field: &FieldPlan, text: &str) -> Cell {
    match field.target.kind() {
        Some(ColumnType::Bool) => Cell::Bool(text == "true"),
        Some(ColumnType::Int64) => text.parse().map_or(Cell::Null, Cell::Int),
        Some(ColumnType::Float64) => text.parse().map_or(Cell::Null, Cell::Float),
        Some(ColumnType::Bytes) => Cell::Bytes(text.as_bytes().to_vec()),
        Some(ColumnType::Timestamp) => text.parse().map_or(Cell::Null, Cell::Timestamp),
        Some(ColumnType::Date) => text.parse().ok().or_else(|| civil::parse_date(text)).map_or(Cell::Null, Cell::Date),
        _ => Cell::Text(text.to_owned()),
    }
}

/// Cells of an older row in the shape of the schema as it is now: columns are only ever added at the end of their level.
pub(crate) fn widened(mut cells: Vec<Cell>, schema: &Schema) -> Vec<Cell> {
    for column in schema.columns.iter().skip(cells.len()) {
        cells.push(if column.mode == Mode::Repeated { Cell::List(Vec::new()) } else { Cell::Null });
    }
    for (cell, column) in cells.iter_mut().zip(&schema.columns) {
        if *cell == Cell::Null && column.mode == Mode::Repeated {
            *cell = Cell::List(Vec::new());
        }
    }
    cells
}
