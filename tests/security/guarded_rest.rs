//! BigQuery's REST API with nothing but a guard: who shows a good token sees one table.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use serde_json::json;

#[derive(Default)]
struct Inner {
    seen: Mutex<Vec<String>>,
    refusals: Mutex<VecDeque<bool>>,
    always_refuses: Mutex<bool>,
}

/// The guard; it ends with the test's runtime.
#[derive(Clone, Default)]
pub struct GuardedRest(Arc<Inner>);

impl GuardedRest {
    /// Starts it; gives its address up to `/projects`.
    pub async fn start(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = axum::Router::new().fallback(answer).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        format!("http://{address}/bigquery/v2")
    }

    /// Of the next requests, these get 401, whatever they show.
    pub fn refuse(&self, next: &[bool]) {
        self.0.refusals.lock().extend(next);
    }

    /// Every request gets 401.
    pub fn refuse_all(&self) {
        *self.0.always_refuses.lock() = true;
    }

    /// The header `authorization` of every request, in order.
    pub fn seen(&self) -> Vec<String> {
        self.0.seen.lock().clone()
    }
}

async fn answer(State(rest): State<GuardedRest>, request: Request) -> Response {
    let authorization = request.headers().get("authorization").map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
    let refused = rest.0.refusals.lock().pop_front().unwrap_or(*rest.0.always_refuses.lock()) || !authorization.starts_with("Bearer ");
    rest.0.seen.lock().push(authorization);
    if refused {
        let message = "Request had invalid authentication credentials. Expected OAuth 2 access token.";
        let body = json!({ "error": { "code": 401, "message": message, "status": "UNAUTHENTICATED",
            "errors": [{ "reason": "authError", "message": "Invalid Credentials" }] } });
        return (StatusCode::UNAUTHORIZED, body.to_string()).into_response();
    }
    let name = request.uri().path().rsplit('/').next().unwrap_or_default();
    let body = json!({
        "id": name, "etag": "v1", "creationTime": "1700000000000", "lastModifiedTime": "1700000000000", "location": "US",
        "schema": { "fields": [{ "name": "n", "type": "INTEGER", "mode": "NULLABLE" }] },
    });
    (StatusCode::OK, body.to_string()).into_response()
}
