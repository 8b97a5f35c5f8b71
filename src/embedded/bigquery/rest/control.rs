//! `/_control/...`: what another process needs: faults, stall, books, rows. Not part of BigQuery's API; faults and stalls do not strike it.
//!
//! | call | what it does |
//! |---|---|
//! | `GET /_control/faults` | `{"faults": {"rates": {...}, "slow_ms": n}, "fired": {class: n}}` |
//! | `PUT /_control/faults` | replaces the rates: `{"rates": {...}}`, or `{"preset": "heavy"}` |
//! | `POST /_control/faults` | fires the next one: `{"class": "lost_ack", "table": "d.t", "times": 1}` |
//! | `POST /_control/stall` | `{"stall": "off" or "appends" or "all"}` |
//! | `POST /_control/forget_stream` | `{"stream": "projects/.../streams/id"}`: forgotten as after days without use; 404 when there is none |
//! | `GET /_control/books` | `{"tables": [{"project", "dataset", "table", "rows", "bytes", "metadata_updates": {"accepted", "refused", "rate_limited"}}]}` |
//! | `GET /_control/rows?table=p.d.t&columns=a,b` | a JSON array of values a line, in the order of arrival |

use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::request::Call;
use crate::embedded::bigquery::books::Books;
use crate::embedded::bigquery::error::{ApiError, ApiResult};
use crate::embedded::bigquery::fault_class::FaultClass;
use crate::embedded::bigquery::faults::Faults;
use crate::embedded::bigquery::shared::{Shared, Stall};
use crate::embedded::bigquery::state::TableKey;
use crate::embedded::bigquery::values::Cell;

#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Rates {
    Preset { preset: String },
    Given(Faults),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Next {
    class: FaultClass,
    table: Option<String>,
    #[serde(default = "once")]
    times: u32,
}

/// Each waits in a list until it fires.
const TIMES_MAX: u32 = 10_000;

fn once() -> u32 {
    1
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetStall {
    stall: Stall,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Forget {
    stream: String,
}

/// Answers a control call.
pub(super) async fn handle(shared: Arc<Shared>, call: Call) -> Response {
    let path: Vec<&str> = call.path.iter().skip(1).map(String::as_str).collect();
    let answer = match (call.method.as_str(), &path[..]) {
        ("GET", ["faults"]) => Ok(faults(&shared)),
        ("PUT", ["faults"]) => set_faults(&shared, &call),
        ("POST", ["faults"]) => fire_next(&shared, &call),
        ("POST", ["stall"]) => call.json().map(|SetStall { stall }| {
            shared.stall.send_replace(stall);
            json!({"stall": stall})
        }),
        ("POST", ["forget_stream"]) => call.json().and_then(|Forget { stream }| {
            let forgotten = shared.streams.forget(&stream);
            if forgotten { Ok(json!({"forgotten": stream})) } else { Err(ApiError::not_found(format_args!("Stream {stream}"))) }
        }),
        ("GET", ["books"]) => Ok(json!({"tables": Books::new(shared).tables()})),
        ("GET", ["rows"]) => return rows(&shared, &call).unwrap_or_else(IntoResponse::into_response),
        (method, _) => Err(ApiError::not_found(format_args!("{method} /_control/{}", path.join("/")))),
    };
    answer.map(axum::Json).into_response()
}

fn faults(shared: &Shared) -> Value {
    json!({"faults": shared.faults.get(), "fired": shared.faults.fired()})
}

fn set_faults(shared: &Shared, call: &Call) -> ApiResult<Value> {
    let faults = match call.json()? {
        Rates::Given(faults) => faults,
        Rates::Preset { preset } => {
            Faults::by_name(&preset).ok_or_else(|| ApiError::invalid(format!("no preset {preset}: none, some, heavy")))?
        }
    };
    shared.faults.set(faults);
    Ok(self::faults(shared))
}

fn fire_next(shared: &Shared, call: &Call) -> ApiResult<Value> {
    let next: Next = call.json()?;
    if next.times > TIMES_MAX {
        return Err(ApiError::invalid(format!("times: {} is above {TIMES_MAX}", next.times)));
    }
    (0..next.times).for_each(|_| shared.faults.fire_next(next.class, next.table.as_deref()));
    Ok(faults(shared))
}

/// Rows as lines, made by a blocking thread at the reader's pace.
fn rows(shared: &Arc<Shared>, call: &Call) -> ApiResult<Response> {
    const CHUNK: usize = 64 << 10;
    let name = call.query.get("table").cloned().unwrap_or_default();
    let parts: Vec<String> = name.split('.').map(str::to_owned).collect();
    let Ok([project, dataset, table]) = <[String; 3]>::try_from(parts) else {
        return Err(ApiError::invalid("table must be project.dataset.table"));
    };
    let columns: Vec<String> = call.query.get("columns").map(|c| c.split(',').map(str::to_owned).collect()).unwrap_or_default();
    let schema = shared.catalog.table(&TableKey::new(&project, &dataset, &table))?.schema();
    if let Some(unknown) = columns.iter().find(|c| schema.position(c).is_none()) {
        return Err(ApiError::invalid(format!("no such column: {unknown}")));
    }
    let books = Books::new(Arc::clone(shared));
    let (sender, receiver) = mpsc::channel::<Bytes>(8);
    tokio::task::spawn_blocking(move || {
        let names: Vec<&str> = columns.iter().map(String::as_str).collect();
        let mut chunk = Vec::with_capacity(CHUNK + 4096);
        let read = books.read(&project, &dataset, &table, &names, |cells| {
            let line = Value::Array(cells.iter().map(Cell::plain_json).collect());
            chunk.extend_from_slice(line.to_string().as_bytes());
            chunk.push(b'\n');
            chunk.len() < CHUNK || sender.blocking_send(std::mem::take(&mut chunk).into()).is_ok()
        });
        // A table deleted meanwhile ends the lines early; a reader that left needs none.
        if read.is_ok() && !chunk.is_empty() {
            let _left = sender.blocking_send(chunk.into());
        }
    });
    let lines = futures::stream::unfold(receiver, |mut receiver| async move {
        let chunk = receiver.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(chunk), receiver))
    });
    Ok(([(http::header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}
