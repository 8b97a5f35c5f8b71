//! Compatibility levels, compatibility checks and modes over HTTP.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};

use super::compatibility::Level;
use super::error::{Answer, ApiError, ok};
use super::routes::{Shared, posted};
use super::store::Mode;

/// The part of the API about levels, checks and modes.
pub(super) fn router(store: Shared) -> Router {
    Router::new()
        .route("/config", get(level).put(set_level).delete(reset_level))
        .route("/config/{subject}", get(level_of).put(set_level_of).delete(reset_level_of))
        .route("/mode", get(mode).put(set_mode))
        .route("/mode/{subject}", get(mode_of).put(set_mode_of).delete(reset_mode_of))
        .route("/compatibility/subjects/{subject}/versions", post(check_all))
        .route("/compatibility/subjects/{subject}/versions/{version}", post(check_one))
        .with_state(store)
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Asked {
    default_to_global: bool,
    verbose: bool,
}

fn level_in(body: &[u8]) -> Result<Level, ApiError> {
    let body: Value = serde_json::from_slice(body).map_err(ApiError::bad_body)?;
    body["compatibility"].as_str().and_then(Level::parse).ok_or_else(ApiError::invalid_level)
}

fn mode_in(body: &[u8]) -> Result<Mode, ApiError> {
    let body: Value = serde_json::from_slice(body).map_err(ApiError::bad_body)?;
    serde_json::from_value(body["mode"].clone()).map_err(|_| ApiError::invalid_mode())
}

async fn level(State(store): State<Shared>) -> Answer {
    ok(json!({ "compatibilityLevel": store.lock().level }))
}

async fn set_level(State(store): State<Shared>, body: Bytes) -> Answer {
    let level = level_in(&body)?;
    store.lock().level = level;
    ok(json!({ "compatibility": level }))
}

async fn reset_level(State(store): State<Shared>) -> Answer {
    let before = std::mem::take(&mut store.lock().level);
    ok(json!({ "compatibilityLevel": before }))
}

async fn level_of(State(store): State<Shared>, Path(subject): Path<String>, Query(asked): Query<Asked>) -> Answer {
    let store = store.lock();
    let own = store.levels.get(&subject).copied();
    let level = own.or(asked.default_to_global.then_some(store.level)).ok_or_else(|| ApiError::level_not_set(&subject))?;
    ok(json!({ "compatibilityLevel": level }))
}

async fn set_level_of(State(store): State<Shared>, Path(subject): Path<String>, body: Bytes) -> Answer {
    let level = level_in(&body)?;
    store.lock().levels.insert(subject, level);
    ok(json!({ "compatibility": level }))
}

async fn reset_level_of(State(store): State<Shared>, Path(subject): Path<String>) -> Answer {
    let before = store.lock().levels.remove(&subject).ok_or_else(|| ApiError::subject_not_found(&subject))?;
    ok(json!({ "compatibilityLevel": before }))
}

async fn mode(State(store): State<Shared>) -> Answer {
    ok(json!({ "mode": store.lock().mode }))
}

async fn set_mode(State(store): State<Shared>, body: Bytes) -> Answer {
    let mode = mode_in(&body)?;
    store.lock().mode = mode;
    ok(json!({ "mode": mode }))
}

async fn mode_of(State(store): State<Shared>, Path(subject): Path<String>, Query(asked): Query<Asked>) -> Answer {
    let store = store.lock();
    let own = store.modes.get(&subject).copied();
    let mode = own.or(asked.default_to_global.then_some(store.mode)).ok_or_else(|| ApiError::mode_not_set(&subject))?;
    ok(json!({ "mode": mode }))
}

async fn set_mode_of(State(store): State<Shared>, Path(subject): Path<String>, body: Bytes) -> Answer {
    let mode = mode_in(&body)?;
    store.lock().modes.insert(subject, mode);
    ok(json!({ "mode": mode }))
}

async fn reset_mode_of(State(store): State<Shared>, Path(subject): Path<String>) -> Answer {
    let before = store.lock().modes.remove(&subject).ok_or_else(|| ApiError::subject_not_found(&subject))?;
    ok(json!({ "mode": before }))
}

async fn check_all(State(store): State<Shared>, Path(subject): Path<String>, Query(asked): Query<Asked>, body: Bytes) -> Answer {
    check(&store, &subject, None, asked.verbose, &body)
}

async fn check_one(
    State(store): State<Shared>,
    Path((subject, version)): Path<(String, String)>,
    Query(asked): Query<Asked>,
    body: Bytes,
) -> Answer {
    check(&store, &subject, Some(&version), asked.verbose, &body)
}

fn check(store: &Shared, subject: &str, version: Option<&str>, verbose: bool, body: &[u8]) -> Answer {
    let store = store.lock();
    let (text, references) = posted(body)?;
    let schema = store.parse(&text, references)?;
    let complaints = store.complaints(subject, &schema.whole, version)?;
    let mut answer = json!({ "is_compatible": complaints.is_empty() });
    if verbose {
        answer["messages"] = json!(complaints);
    }
    ok(answer)
}
