//! tabledata.list: rows, paged.

use std::sync::Arc;

use serde_json::json;

use super::request::Call;
use super::{Answer, row_json};
use crate::embedded::bigquery::error::{ApiError, ApiResult};
use crate::embedded::bigquery::shared::Shared;
use crate::embedded::bigquery::state::TableKey;
use crate::embedded::bigquery::values::Cell;

/// The largest page; also a page without `maxResults`.
const PAGE_ROWS: u64 = 10_000;

pub(super) fn list(shared: &Arc<Shared>, key: &TableKey, call: &Call) -> ApiResult<Answer> {
    let table = shared.catalog.table(key)?;
    let schema = table.schema();
    let limit = call.number("maxResults")?.unwrap_or(PAGE_ROWS).min(PAGE_ROWS);
    let start = match call.number("pageToken")? {
        Some(token) => token,
        None => call.number("startIndex")?.unwrap_or(0),
    };
    let int64_timestamps = call.flag("formatOptions.useInt64Timestamp");
    let indices: Vec<usize> = match call.query.get("selectedFields").filter(|fields| !fields.is_empty()) {
        None => (0..schema.columns.len()).collect(),
        Some(fields) => {
            let found =
                fields.split(',').map(|name| schema.position(name).ok_or_else(|| ApiError::invalid(format!("No such field: {name}."))));
            let mut found = found.collect::<ApiResult<Vec<usize>>>()?;
            found.sort_unstable();
            found
        }
    };
    let columns: Vec<_> = indices.iter().map(|index| schema.columns[*index].clone()).collect();
    let mut rows = Vec::new();
    let mut seen = 0;
    table.each_row(None, |row| {
        if seen >= start && seen < start + limit {
            let cells: Vec<Cell> = indices.iter().map(|index| row[*index].clone()).collect();
            rows.push(row_json::row(&cells, &columns, int64_timestamps));
        }
        seen += 1;
        true
    });
    let etag = table.meta.read().etag.clone();
    let mut answer = json!({"kind": "bigquery#tableDataList", "etag": etag, "totalRows": seen.to_string()});
    if start + (rows.len() as u64) < seen {
        answer["pageToken"] = json!((start + rows.len() as u64).to_string());
    }
    answer["rows"] = rows.into();
    Ok(Answer::Json(answer))
}
