//! Schemas, subjects and versions over HTTP.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::routing::{get, post};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::{Answer, ApiError, ok};
use super::schema::{Reference, StoredSchema};
use super::store::Store;

pub(super) type Shared = Arc<Mutex<Store>>;

/// The part of the API about schemas, subjects and versions.
pub(super) fn router(store: Shared) -> Router {
    Router::new()
        .route("/", get(async || ok(json!({}))))
        .route("/schemas/types", get(async || ok(json!(["AVRO"]))))
        .route("/schemas/ids/{id}", get(by_id))
        .route("/schemas/ids/{id}/schema", get(text_by_id))
        .route("/schemas/ids/{id}/subjects", get(subjects_of_id))
        .route("/schemas/ids/{id}/versions", get(versions_of_id))
        .route("/schemas/guids/{guid}", get(by_guid))
        .route("/subjects", get(subjects))
        .route("/subjects/{subject}", post(lookup).delete(delete_subject))
        .route("/subjects/{subject}/versions", get(versions).post(register))
        .route("/subjects/{subject}/versions/{version}", get(version).delete(delete_version))
        .route("/subjects/{subject}/versions/{version}/schema", get(version_text))
        .route("/subjects/{subject}/versions/{version}/referencedby", get(referenced_by))
        .with_state(store)
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Asked {
    deleted: bool,
    permanent: bool,
    subject_prefix: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Posted {
    schema: String,
    schema_type: Option<String>,
    #[serde(default)]
    references: Vec<Reference>,
}

/// The schema in a request's body.
pub(super) fn posted(body: &[u8]) -> Result<(String, Vec<Reference>), ApiError> {
    let posted: Posted = serde_json::from_slice(body).map_err(ApiError::bad_body)?;
    match posted.schema_type.as_deref() {
        None | Some("AVRO") => Ok((posted.schema, posted.references)),
        Some(other) => Err(ApiError::invalid_schema(format!("Invalid schema type {other}: this registry holds AVRO only"))),
    }
}

fn with_references(mut body: Value, schema: &StoredSchema) -> Value {
    body["schema"] = json!(schema.text);
    body["guid"] = json!(schema.guid);
    if !schema.references.is_empty() {
        body["references"] = json!(schema.references);
    }
    body
}

fn number(id: &str) -> Result<u32, ApiError> {
    id.parse().map_err(|_| ApiError { code: 404, message: "HTTP 404 Not Found".to_owned() })
}

fn found(store: &Store, id: u32) -> Result<&StoredSchema, ApiError> {
    store.schemas.get(&id).ok_or_else(|| ApiError::schema_not_found(id))
}

async fn by_id(State(store): State<Shared>, Path(id): Path<String>) -> Answer {
    let store = store.lock();
    ok(with_references(json!({}), found(&store, number(&id)?)?))
}

async fn text_by_id(State(store): State<Shared>, Path(id): Path<String>) -> Answer {
    let store = store.lock();
    let schema = found(&store, number(&id)?)?;
    ok(serde_json::from_str::<Value>(&schema.text).map_err(ApiError::bad_body)?)
}

async fn by_guid(State(store): State<Shared>, Path(guid): Path<String>) -> Answer {
    let store = store.lock();
    let schema = store.schemas.iter().find(|(_, s)| s.guid == guid).ok_or_else(|| ApiError::schema_not_found(&guid))?;
    ok(with_references(json!({ "id": schema.0 }), schema.1))
}

async fn subjects_of_id(State(store): State<Shared>, Path(id): Path<String>, Query(asked): Query<Asked>) -> Answer {
    let store = store.lock();
    let id = number(&id)?;
    found(&store, id)?;
    let mut names: Vec<&str> = store.places(id, asked.deleted).into_iter().map(|(s, _)| s).collect();
    names.dedup();
    ok(names)
}

async fn versions_of_id(State(store): State<Shared>, Path(id): Path<String>, Query(asked): Query<Asked>) -> Answer {
    let store = store.lock();
    let id = number(&id)?;
    found(&store, id)?;
    let places = store.places(id, asked.deleted);
    ok(places.into_iter().map(|(s, v)| json!({ "subject": s, "version": v })).collect::<Vec<_>>())
}

async fn subjects(State(store): State<Shared>, Query(asked): Query<Asked>) -> Answer {
    let store = store.lock();
    let prefix = asked.subject_prefix.unwrap_or_default();
    ok(store.subjects(asked.deleted).into_iter().filter(|s| s.starts_with(&prefix)).collect::<Vec<_>>())
}

async fn lookup(State(store): State<Shared>, Path(subject): Path<String>, Query(asked): Query<Asked>, body: Bytes) -> Answer {
    let store = store.lock();
    let (text, references) = posted(&body)?;
    store.versions(&subject, asked.deleted)?;
    let schema = store.parse(&text, references)?;
    let (id, version) = store.lookup(&subject, &schema, asked.deleted)?;
    ok(with_references(json!({ "subject": subject, "id": id, "version": version }), &schema))
}

async fn register(State(store): State<Shared>, Path(subject): Path<String>, body: Bytes) -> Answer {
    let (text, references) = posted(&body)?;
    let mut store = store.lock();
    let id = store.register(&subject, &text, references)?;
    ok(json!({ "id": id, "guid": found(&store, id)?.guid }))
}

async fn delete_subject(State(store): State<Shared>, Path(subject): Path<String>, Query(asked): Query<Asked>) -> Answer {
    ok(store.lock().delete_subject(&subject, asked.permanent)?)
}

async fn versions(State(store): State<Shared>, Path(subject): Path<String>, Query(asked): Query<Asked>) -> Answer {
    ok(store.lock().versions(&subject, asked.deleted)?.into_iter().map(|(n, _)| n).collect::<Vec<_>>())
}

async fn version(State(store): State<Shared>, Path((subject, asked)): Path<(String, String)>, Query(query): Query<Asked>) -> Answer {
    let store = store.lock();
    let (number, version) = store.version(&subject, &asked, query.deleted)?;
    ok(with_references(json!({ "subject": subject, "version": number, "id": version.id }), found(&store, version.id)?))
}

async fn version_text(State(store): State<Shared>, Path((subject, asked)): Path<(String, String)>, Query(query): Query<Asked>) -> Answer {
    let store = store.lock();
    let (_, version) = store.version(&subject, &asked, query.deleted)?;
    ok(serde_json::from_str::<Value>(&found(&store, version.id)?.text).map_err(ApiError::bad_body)?)
}

async fn referenced_by(State(store): State<Shared>, Path((subject, asked)): Path<(String, String)>) -> Answer {
    let store = store.lock();
    let (number, _) = store.version(&subject, &asked, true)?;
    ok(store.referrers(&subject, number))
}

async fn delete_version(State(store): State<Shared>, Path((subject, asked)): Path<(String, String)>, Query(query): Query<Asked>) -> Answer {
    ok(store.lock().delete_version(&subject, &asked, query.permanent)?)
}
