//! Confluent's error codes and their HTTP answers.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;

/// The media type of every answer.
const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";

/// An error as the API shows it: the status is the first three digits of the code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ApiError {
    pub(super) code: u32,
    pub(super) message: String,
}

impl ApiError {
    fn new(code: u32, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
    pub(super) fn subject_not_found(subject: &str) -> Self {
        Self::new(40401, format!("Subject '{subject}' not found."))
    }
    pub(super) fn version_not_found(version: impl std::fmt::Display) -> Self {
        Self::new(40402, format!("Version {version} not found."))
    }
    pub(super) fn schema_not_found(what: impl std::fmt::Display) -> Self {
        Self::new(40403, format!("Schema {what} not found"))
    }
    pub(super) fn subject_soft_deleted(subject: &str) -> Self {
        Self::new(40404, format!("Subject '{subject}' was soft deleted. Set permanent=true to delete permanently"))
    }
    pub(super) fn subject_not_soft_deleted(subject: &str) -> Self {
        Self::new(40405, format!("Subject '{subject}' was not deleted first before being permanently deleted"))
    }
    pub(super) fn version_soft_deleted(subject: &str, version: u32) -> Self {
        Self::new(40406, format!("Subject '{subject}' Version {version} was soft deleted. Set permanent=true to delete permanently"))
    }
    pub(super) fn version_not_soft_deleted(subject: &str, version: u32) -> Self {
        Self::new(40407, format!("Subject '{subject}' Version {version} was not deleted first before being permanently deleted"))
    }
    pub(super) fn level_not_set(subject: &str) -> Self {
        Self::new(40408, format!("Subject '{subject}' does not have subject-level compatibility configured"))
    }
    pub(super) fn mode_not_set(subject: &str) -> Self {
        Self::new(40409, format!("Subject '{subject}' does not have subject-level mode configured"))
    }
    pub(super) fn incompatible(reason: &str) -> Self {
        Self::new(409, format!("Schema being registered is incompatible with an earlier schema: {reason}"))
    }
    pub(super) fn invalid_schema(reason: impl std::fmt::Display) -> Self {
        Self::new(42201, format!("Invalid schema: {reason}"))
    }
    pub(super) fn invalid_version(version: &str) -> Self {
        Self::new(
            42202,
            format!(
                "The specified version '{version}' is not a valid version id. Allowed values are between [1, 2^31-1] and the string \"latest\""
            ),
        )
    }
    pub(super) fn invalid_level() -> Self {
        Self::new(
            42203,
            "Invalid compatibility level. Valid values are none, backward, forward, full, backward_transitive, forward_transitive, and \
             full_transitive",
        )
    }
    pub(super) fn invalid_mode() -> Self {
        Self::new(42204, "Invalid mode. Valid values are READWRITE, READONLY, READONLY_OVERRIDE and IMPORT")
    }
    pub(super) fn read_only(subject: &str) -> Self {
        Self::new(42205, format!("Subject {subject} is in read-only mode"))
    }
    pub(super) fn still_referenced(subject: &str, version: u32) -> Self {
        Self::new(42206, format!("One or more references exist to the schema {{subject={subject},version={version}}}."))
    }
    pub(super) fn bad_body(reason: impl std::fmt::Display) -> Self {
        Self::new(400, format!("Unable to process JSON: {reason}"))
    }
    pub(super) fn unauthorized() -> Self {
        Self::new(401, "Unauthorized")
    }
    pub(super) fn down() -> Self {
        Self::new(50003, "Error while forwarding the request to the primary")
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = if self.code >= 10_000 { self.code / 100 } else { self.code };
        let status = u16::try_from(status).ok().and_then(|s| StatusCode::from_u16(s).ok()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = json!({ "error_code": self.code, "message": self.message }).to_string();
        (status, [(header::CONTENT_TYPE, MEDIA_TYPE)], body).into_response()
    }
}

/// What a handler gives: a JSON body with the API's media type, or an error.
pub(super) type Answer = Result<Response, ApiError>;

/// A JSON body with the API's media type.
pub(super) fn ok(body: impl Serialize) -> Answer {
    let text = serde_json::to_string(&body).map_err(ApiError::bad_body)?;
    Ok(([(header::CONTENT_TYPE, MEDIA_TYPE)], text).into_response())
}

/// The answer to a path that the API does not have.
pub(super) async fn no_such_path() -> ApiError {
    ApiError::new(404, "HTTP 404 Not Found")
}

/// The answer to a method that the path does not have.
pub(super) async fn no_such_method() -> ApiError {
    ApiError::new(405, "HTTP 405 Method Not Allowed")
}
