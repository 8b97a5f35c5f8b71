//! The paths.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};

use super::control::{Control, Refusal};
use super::page::PAGE;
use super::token::ApiToken;
use super::view::{Readiness, Status};
use crate::fleet::Verb;

/// The most that a request's body may hold: nothing here needs one.
const BODY_BYTES_MAX: usize = 4 * 1024;
const PATHS: &str = "paths: / /status /fleet /metrics /health/live /health/ready, POST /connectors/<name>/pause|resume|restart|stop\n";

/// `/` (page), `/status` and `/fleet` (JSON), `/metrics` (Prometheus), `/health/live`, `/health/ready`,
/// `POST /connectors/<name>/pause|resume|restart|stop`. What needs the token: see the room's own words.
pub fn router(status: Arc<dyn Status>, control: Arc<dyn Control>, token: ApiToken) -> Router {
    let guarded = Router::new()
        .route("/status", get(worker))
        .route("/fleet", get(fleet))
        .method_not_allowed_fallback(no_such_method)
        .layer(from_fn_with_state(token.clone(), readers))
        .with_state(status.clone());
    let telling = Router::new()
        .route("/connectors/{name}/{verb}", post(tell))
        .method_not_allowed_fallback(no_such_method)
        .layer(from_fn_with_state(token, writers))
        .with_state(control);
    Router::new()
        .route("/", get(async || Html(PAGE)))
        .route("/metrics", get(metrics))
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
        .method_not_allowed_fallback(no_such_method)
        .with_state(status)
        .merge(guarded)
        .merge(telling)
        .fallback(async || (StatusCode::NOT_FOUND, PATHS))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
}

/// A path that is there, but not with this method.
async fn no_such_method() -> Response {
    (StatusCode::METHOD_NOT_ALLOWED, PATHS).into_response()
}

/// Who reads needs the token where one is set.
async fn readers(State(token): State<ApiToken>, headers: HeaderMap, request: Request, next: Next) -> Response {
    if token.is_set() && !token.is_in(&headers) { unauthorized() } else { next.run(request).await }
}

/// Who writes needs the token, and one must be set.
async fn writers(State(token): State<ApiToken>, headers: HeaderMap, request: Request, next: Next) -> Response {
    if !token.is_set() {
        let why =
            "nothing can be told over HTTP without [worker] api_token in millrace.toml; `millrace connectors` does it through Kafka\n";
        return (StatusCode::FORBIDDEN, why).into_response();
    }
    if token.is_in(&headers) { next.run(request).await } else { unauthorized() }
}

fn unauthorized() -> Response {
    let why = "needs the header `Authorization: Bearer ` with [worker] api_token of millrace.toml\n";
    (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], why).into_response()
}

/// The body is read so that its limit holds; it says nothing.
async fn tell(State(control): State<Arc<dyn Control>>, Path((name, verb)): Path<(String, String)>, _body: Bytes) -> Response {
    let Some(verb) = Verb::of(&verb) else { return (StatusCode::NOT_FOUND, PATHS).into_response() };
    match control.tell(&name, verb).await {
        Ok(wish) => (StatusCode::ACCEPTED, Json(serde_json::json!({ "connector": name, "wish": wish }))).into_response(),
        Err(refusal) => {
            let code = match refusal {
                Refusal::Unknown(_) => StatusCode::NOT_FOUND,
                Refusal::Conflict(_) => StatusCode::CONFLICT,
                Refusal::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            };
            (code, Json(serde_json::json!({ "connector": name, "error": refusal.to_string() }))).into_response()
        }
    }
}

async fn worker(State(status): State<Arc<dyn Status>>) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], Json(status.worker())).into_response()
}

async fn fleet(State(status): State<Arc<dyn Status>>) -> Response {
    match status.fleet() {
        Some(fleet) => ([(header::CACHE_CONTROL, "no-store")], Json(fleet)).into_response(),
        None => (StatusCode::NOT_FOUND, "[scaling] mode = \"off\": this worker knows nothing of others\n").into_response(),
    }
}

async fn metrics(State(status): State<Arc<dyn Status>>) -> Response {
    // The exporter's page grows with tables and partitions: rendering it may take milliseconds, so not on a thread of the runtime.
    match tokio::task::spawn_blocking(move || status.metrics()).await {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response(),
        Err(error) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("rendering metrics failed: {}\n", crate::telemetry::panics::join_words(error)))
                .into_response()
        }
    }
}

async fn live(State(status): State<Arc<dyn Status>>) -> Response {
    match status.live() {
        Ok(()) => Json(serde_json::json!({ "live": true })).into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, Json(serde_json::json!({ "live": false, "reason": reason }))).into_response(),
    }
}

async fn ready(State(status): State<Arc<dyn Status>>) -> Response {
    let readiness = Readiness::of(&status.worker());
    let code = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(readiness)).into_response()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
#[path = "router_tests.rs"]
mod tests;
