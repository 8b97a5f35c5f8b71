//! REST errors in BigQuery's body form (error-messages).

use axum::response::{IntoResponse, Response};
use serde_json::json;

/// An error of the REST API: HTTP status, BigQuery's reason, and words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub http: u16,
    pub reason: &'static str,
    pub message: String,
    pub location: Option<String>,
}

/// What a REST handler returns.
pub(crate) type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    pub(crate) fn new(http: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { http, reason, message: message.into(), location: None }
    }

    /// 400 `invalid`.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(400, "invalid", message)
    }

    /// 400 `invalidQuery`.
    pub(crate) fn invalid_query(message: impl Into<String>) -> Self {
        Self { location: Some("query".to_owned()), ..Self::new(400, "invalidQuery", message) }
    }

    /// 404 `notFound`: `Not found: Table p:d.t`.
    pub(crate) fn not_found(what: impl std::fmt::Display) -> Self {
        Self::new(404, "notFound", format!("Not found: {what}"))
    }

    /// 409 `duplicate`: `Already Exists: Table p:d.t`.
    pub(crate) fn duplicate(what: impl std::fmt::Display) -> Self {
        Self::new(409, "duplicate", format!("Already Exists: {what}"))
    }

    fn status_text(&self) -> &'static str {
        match self.http {
            400 | 413 => "INVALID_ARGUMENT",
            401 => "UNAUTHENTICATED",
            403 => "PERMISSION_DENIED",
            404 => "NOT_FOUND",
            409 => "ALREADY_EXISTS",
            412 => "FAILED_PRECONDITION",
            429 => "RESOURCE_EXHAUSTED",
            501 => "UNIMPLEMENTED",
            503 => "UNAVAILABLE",
            504 => "DEADLINE_EXCEEDED",
            _ => "INTERNAL",
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut item = json!({"domain": "global", "reason": self.reason, "message": self.message});
        if let Some(location) = &self.location {
            item["location"] = json!(location);
        }
        let body = json!({"error": {"code": self.http, "message": self.message, "errors": [item], "status": self.status_text()}});
        let status = http::StatusCode::from_u16(self.http).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
        (status, axum::Json(body)).into_response()
    }
}
