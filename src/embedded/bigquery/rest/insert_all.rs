//! tabledata.insertAll: rows with errors of their own, insertId, limits.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::request::Call;
use super::{Answer, json_cell};
use crate::embedded::bigquery::error::{ApiError, ApiResult};
use crate::embedded::bigquery::fault_class::{FaultClass, Point};
use crate::embedded::bigquery::grpc::names;
use crate::embedded::bigquery::limits::{INSERT_ALL_BYTES, INSERT_ALL_ROWS};
use crate::embedded::bigquery::shared::Shared;
use crate::embedded::bigquery::state::TableKey;
use crate::embedded::bigquery::state::catalog::Destination;

/// How long an insertId is remembered.
const REMEMBERED: Duration = Duration::from_secs(60);

/// insertIds of the last minute by table id.
#[derive(Debug, Default)]
pub(crate) struct InsertIds(Mutex<HashMap<(u64, String), Instant>>);

impl InsertIds {
    /// Whether an id is new for this table; remembers it.
    fn is_new(&self, table: u64, id: &str, now: Instant) -> bool {
        let mut ids = self.0.lock();
        if ids.len() > 100_000 {
            ids.retain(|_, at| now.duration_since(*at) < REMEMBERED);
        }
        ids.insert((table, id.to_owned()), now).is_none_or(|at| now.duration_since(at) >= REMEMBERED)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    #[serde(borrow)]
    rows: Option<Vec<Row<'a>>>,
    skip_invalid_rows: Option<bool>,
    ignore_unknown_values: Option<bool>,
    template_suffix: Option<String>,
    trace_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Row<'a> {
    insert_id: Option<String>,
    #[serde(borrow)]
    json: &'a RawValue,
}

pub(super) fn insert_all(shared: &Arc<Shared>, key: &TableKey, call: &Call) -> ApiResult<Answer> {
    if call.body.len() > INSERT_ALL_BYTES {
        return Err(ApiError::new(413, "requestTooLarge", format!("Request payload size exceeds the limit: {INSERT_ALL_BYTES} bytes.")));
    }
    let body: Body<'_> =
        serde_json::from_slice(&call.body).map_err(|error| ApiError::new(400, "parseError", format!("Parse Error: {error}")))?;
    let rows = body.rows.unwrap_or_default();
    if rows.is_empty() {
        return Err(ApiError::invalid("No rows present in the request."));
    }
    if rows.len() > INSERT_ALL_ROWS {
        return Err(ApiError::invalid(format!(
            "too many rows present in the request, limit: {INSERT_ALL_ROWS} row count: {}.",
            rows.len()
        )));
    }
    if body.template_suffix.is_some() {
        return Err(ApiError::new(501, "notImplemented", "templateSuffix is not implemented here."));
    }
    if body.trace_id.as_ref().is_some_and(|id| id.len() > 36 || !id.is_ascii()) {
        return Err(ApiError::invalid("traceId has at most 36 ASCII characters."));
    }
    if rows.iter().any(|row| row.insert_id.as_ref().is_some_and(|id| id.len() > 128)) {
        return Err(ApiError::invalid("insertId has at most 128 characters."));
    }
    let (name, decorator) = key.table.split_once('$').map_or((key.table.as_str(), None), |(name, decorator)| (name, Some(decorator)));
    let key = TableKey::new(&key.project, &key.dataset, name);
    // Streaming servers see the table through the write clock, each request through another server.
    let Destination::Table(table, version) = shared.catalog.destination(&key, shared.visibility.observer(), Instant::now()) else {
        return Err(ApiError::not_found(format_args!("Table {key}")));
    };
    if let Some(decorator) = decorator {
        names::check_decorator(decorator, &version.partitioning, &key.to_string()).map_err(|error| ApiError::invalid(error.message))?;
    }
    if let Some(fault) = shared.faults.draw(Point::InsertAll, &key.dotted()) {
        let reason = if fault.class == FaultClass::InsertAllStopped { "stopped" } else { "backendError" };
        let errors: Vec<Value> = (0..rows.len()).map(|index| row_error(index, reason, "", "")).collect();
        return Ok(Answer::Json(json!({"kind": "bigquery#tableDataInsertAllResponse", "insertErrors": errors})));
    }
    let ignore_unknown = body.ignore_unknown_values == Some(true);
    let mut good = Vec::new();
    let mut bad: Vec<(usize, json_cell::Fault)> = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let object: Result<Map<String, Value>, _> = serde_json::from_str(row.json.get());
        let mismatch = |message: String| json_cell::Fault { location: String::new(), message, is_mismatch: false };
        let cells = match object {
            Ok(object) => json_cell::row(&object, &version.schema, &version.partitioning, ignore_unknown),
            Err(error) => Err(mismatch(format!("The row is not a JSON object: {error}"))),
        };
        match cells {
            Ok(cells) => good.push((index, cells)),
            Err(fault) => bad.push((index, fault)),
        }
    }
    // After a mismatch with the schema nothing lands, whatever skipInvalidRows says.
    let is_stopped = !bad.is_empty() && (body.skip_invalid_rows != Some(true) || bad.iter().any(|(_, fault)| fault.is_mismatch));
    let mut errors: Vec<(usize, Value)> =
        bad.iter().map(|(index, fault)| (*index, row_error(*index, "invalid", &fault.location, &fault.message))).collect();
    if is_stopped {
        errors.extend(good.iter().map(|(index, _)| (*index, row_error(*index, "stopped", "", ""))));
    } else {
        let now = Instant::now();
        let mut in_request = HashSet::new();
        let is_new = |index: &usize| match &rows[*index].insert_id {
            Some(id) => in_request.insert(id.clone()) && shared.insert_ids.is_new(table.id, id, now),
            None => true,
        };
        let mut is_new = is_new;
        good.retain(|(index, _)| is_new(index));
        table.store.lock().push_cells(good.into_iter().map(|(_, cells)| cells).collect());
    }
    errors.sort_by_key(|(index, _)| *index);
    let mut answer = json!({"kind": "bigquery#tableDataInsertAllResponse"});
    if !errors.is_empty() {
        answer["insertErrors"] = errors.into_iter().map(|(_, error)| error).collect();
    }
    Ok(Answer::Json(answer))
}

fn row_error(index: usize, reason: &str, location: &str, message: &str) -> Value {
    json!({"index": index, "errors": [{"reason": reason, "location": location, "debugInfo": "", "message": message}]})
}
