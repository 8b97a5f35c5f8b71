//! The REST API v2: one handler that reads the body, lets faults strike, and routes by method and path.

pub(super) mod control;
pub(super) mod datasets;
pub(super) mod insert_all;
pub(super) mod jobs;
pub(super) mod json_cell;
pub(super) mod request;
pub(super) mod row_json;
pub(super) mod tabledata;
pub(super) mod tables;

use std::sync::Arc;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::error::{ApiError, ApiResult};
use super::fault_class::{Point, RestEffect};
use super::shared::Shared;
use super::state::TableKey;
use request::Call;

/// A successful answer: JSON, or nothing (204).
pub(super) enum Answer {
    Json(Value),
    Empty,
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        match self {
            Self::Json(value) => {
                let etag = value.get("etag").and_then(Value::as_str).and_then(|etag| http::HeaderValue::from_str(etag).ok());
                let mut response = axum::Json(value).into_response();
                if let Some(etag) = etag {
                    response.headers_mut().insert(http::header::ETAG, etag);
                }
                response
            }
            Self::Empty => http::StatusCode::NO_CONTENT.into_response(),
        }
    }
}

/// Answers any request.
pub(super) async fn handle(shared: Arc<Shared>, request: axum::extract::Request) -> Response {
    let call = match Call::read(request).await {
        Ok(call) => call,
        Err(error) => return error.into_response(),
    };
    if call.path.first().is_some_and(|part| part == "_control") {
        return control::handle(shared, call).await;
    }
    shared.wait_out_stall(false).await;
    let fault = shared.faults.draw(Point::Rest, &call.dotted());
    let effect = fault.and_then(|fault| fault.class.rest_effect());
    match effect {
        Some(RestEffect::Error(http, reason, message)) => return ApiError::new(http, reason, message).into_response(),
        Some(RestEffect::Html(status)) => return html(status),
        _ => {}
    }
    let answer = route(&shared, &call).await;
    match effect {
        Some(RestEffect::LostAnswer) => html(502),
        Some(RestEffect::Slow) => {
            tokio::time::sleep(Duration::from_millis(fault.map_or(0, |fault| fault.slow_ms))).await;
            answer.into_response()
        }
        _ => answer.into_response(),
    }
}

/// What a proxy answers.
fn html(status: u16) -> Response {
    let status = http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::BAD_GATEWAY);
    let body = format!("<!DOCTYPE html>\n<html lang=en>\n<title>Error {0}</title>\n<p>{0}. That's an error.", status.as_u16());
    (status, [(http::header::CONTENT_TYPE, "text/html; charset=UTF-8")], body).into_response()
}

async fn route(shared: &Arc<Shared>, call: &Call) -> ApiResult<Answer> {
    let path: Vec<&str> = call.path.iter().map(String::as_str).collect();
    let method = call.method.as_str();
    match (method, &path[..]) {
        ("GET", ["projects", p, "datasets"]) => datasets::list(shared, p),
        ("POST", ["projects", p, "datasets"]) => datasets::insert(shared, p, call),
        ("GET", ["projects", p, "datasets", d]) => datasets::get(shared, p, d),
        ("DELETE", ["projects", p, "datasets", d]) => datasets::delete(shared, p, d, call),
        ("GET", ["projects", p, "datasets", d, "tables"]) => tables::list(shared, p, d, call),
        ("POST", ["projects", p, "datasets", d, "tables"]) => tables::insert(shared, p, d, call),
        ("GET", ["projects", p, "datasets", d, "tables", t]) => tables::get(shared, &TableKey::new(p, d, t)),
        ("PATCH", ["projects", p, "datasets", d, "tables", t]) => tables::patch(shared, &TableKey::new(p, d, t), call),
        ("PUT", ["projects", p, "datasets", d, "tables", t]) => tables::update(shared, &TableKey::new(p, d, t), call),
        ("DELETE", ["projects", p, "datasets", d, "tables", t]) => tables::delete(shared, &TableKey::new(p, d, t)),
        ("GET", ["projects", p, "datasets", d, "tables", t, "data"]) => tabledata::list(shared, &TableKey::new(p, d, t), call),
        ("POST", ["projects", p, "datasets", d, "tables", t, "insertAll"]) => insert_all::insert_all(shared, &TableKey::new(p, d, t), call),
        ("POST", ["projects", p, "queries"]) => jobs::query(shared, p, call),
        ("GET", ["projects", p, "queries", id]) => jobs::results(shared, p, id, call),
        ("POST", ["projects", p, "jobs"]) => jobs::insert(shared, p, call),
        ("GET", ["projects", p, "jobs", id]) => jobs::get(shared, p, id),
        _ => Err(ApiError::new(404, "notFound", format!("Not found: {method} /{}", path.join("/")))),
    }
}
