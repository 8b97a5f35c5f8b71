//! Rows in the REST API's form: `{"f": [{"v": ...}]}`.

use serde_json::{Value, json};

use crate::embedded::bigquery::schema::{Column, ColumnType, Mode};
use crate::embedded::bigquery::values::Cell;

/// A row of tabledata.list and of query results.
pub(crate) fn row(cells: &[Cell], columns: &[Column], int64_timestamps: bool) -> Value {
    let values = cells.iter().zip(columns).map(|(cell, column)| json!({"v": value(cell, column, int64_timestamps)}));
    json!({"f": values.collect::<Vec<_>>()})
}

fn value(cell: &Cell, column: &Column, int64_timestamps: bool) -> Value {
    match cell {
        Cell::Null if column.mode == Mode::Repeated => json!([]),
        Cell::Null => Value::Null,
        Cell::List(cells) => cells.iter().map(|cell| json!({"v": single(cell, column, int64_timestamps)})).collect(),
        cell => single(cell, column, int64_timestamps),
    }
}

fn single(cell: &Cell, column: &Column, int64_timestamps: bool) -> Value {
    match cell {
        Cell::Null => Value::Null,
        Cell::Record(cells) if column.kind == ColumnType::Record => {
            // Nested columns that were added later.
            let mut cells = cells.clone();
            cells.resize(column.fields.len(), Cell::Null);
            row(&cells, &column.fields, int64_timestamps)
        }
        cell => Value::String(cell.rest_text(int64_timestamps)),
    }
}

/// The columns as REST describes them in a query's answer.
pub(crate) fn schema(columns: &[Column]) -> Value {
    json!({"fields": columns.iter().map(field).collect::<Vec<_>>()})
}

fn field(column: &Column) -> Value {
    let mut field = json!({"name": column.name, "type": column.kind.rest_name(), "mode": column.mode.rest_name()});
    if column.kind == ColumnType::Record {
        field["fields"] = column.fields.iter().map(self::field).collect();
    }
    if let Some(element) = column.range_element {
        field["rangeElementType"] = json!({"type": element.rest_name()});
    }
    field
}
