//! BigQuery's REST API for tables, in memory: ETags, If-Match, counts of what was done, failures on demand.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use parking_lot::Mutex;
use serde_json::{Value, json};

#[derive(Default)]
pub struct Store {
    pub tables: BTreeMap<String, Value>,
    version: u64,
    pub gets: usize,
    pub creates: usize,
    pub patches: usize,
    pub refused_patches: usize,
    /// Answers that come before any other: status and body.
    pub failures: VecDeque<(u16, String)>,
}

impl Store {
    /// Puts a table there as if somebody else had made it.
    pub fn put(&mut self, name: &str, creation_time_ms: i64, fields: Value) {
        self.version += 1;
        let table = json!({
            "id": name, "etag": format!("v{}", self.version), "creationTime": creation_time_ms.to_string(),
            "lastModifiedTime": creation_time_ms.to_string(), "location": "EU", "schema": { "fields": fields },
        });
        self.tables.insert(name.to_owned(), table);
    }
}

#[derive(Clone, Default)]
pub struct Rest(pub Arc<Mutex<Store>>);

impl Rest {
    /// Starts the server; gives its address up to `/projects`.
    pub async fn start(&self) -> Option<String> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = axum::Router::new()
            .route("/v2/projects/p/datasets/{dataset}/tables", post(create))
            .route("/v2/projects/p/datasets/{dataset}/tables/{table}", get(read).patch(patch).post(permissions))
            .route("/v2/projects/p/datasets/{dataset}", get(dataset))
            .with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Some(format!("http://{address}/v2"))
    }
}

fn refuse(code: u16, reason: &str, message: &str) -> Response {
    let body = json!({ "error": { "code": code, "message": message, "errors": [{ "reason": reason, "message": message }] } });
    (StatusCode::from_u16(code).unwrap(), body.to_string()).into_response()
}

fn failure(store: &mut Store) -> Option<Response> {
    let (code, body) = store.failures.pop_front()?;
    Some((StatusCode::from_u16(code).unwrap(), body).into_response())
}

async fn dataset(Path(dataset): Path<String>) -> Response {
    if dataset == "d" {
        let body = json!({ "datasetReference": { "projectId": "p", "datasetId": "d" }, "location": "EU" });
        (StatusCode::OK, body.to_string()).into_response()
    } else {
        refuse(404, "notFound", "Not found: Dataset p:x")
    }
}

async fn read(State(rest): State<Rest>, Path((_, table)): Path<(String, String)>) -> Response {
    let mut store = rest.0.lock();
    store.gets += 1;
    if let Some(failure) = failure(&mut store) {
        return failure;
    }
    match store.tables.get(&table) {
        Some(table) => (StatusCode::OK, table.to_string()).into_response(),
        None => refuse(404, "notFound", "Not found: Table p:d.t"),
    }
}

async fn create(State(rest): State<Rest>, Path(dataset): Path<String>, body: Bytes) -> Response {
    let mut store = rest.0.lock();
    if dataset != "d" {
        return refuse(404, "notFound", "Not found: Dataset p:x");
    }
    let mut table: Value = serde_json::from_slice(&body).unwrap();
    let name = table["tableReference"]["tableId"].as_str().unwrap().to_owned();
    if store.tables.contains_key(&name) {
        return refuse(409, "duplicate", "Already Exists: Table p:d.t");
    }
    store.version += 1;
    store.creates += 1;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis().to_string();
    table["etag"] = format!("v{}", store.version).into();
    table["creationTime"] = now.clone().into();
    table["lastModifiedTime"] = now.into();
    store.tables.insert(name, table.clone());
    (StatusCode::OK, table.to_string()).into_response()
}

async fn patch(State(rest): State<Rest>, Path((_, name)): Path<(String, String)>, headers: HeaderMap, body: Bytes) -> Response {
    let mut store = rest.0.lock();
    let Some(mut table) = store.tables.get(&name).cloned() else { return refuse(404, "notFound", "Not found: Table p:d.t") };
    let condition = headers.get("if-match").expect("a patch without If-Match").to_str().unwrap();
    if table["etag"] != condition {
        store.refused_patches += 1;
        return refuse(412, "conditionNotMet", "Precondition check failed.");
    }
    let patch: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(patch.as_object().unwrap().keys().collect::<Vec<_>>(), ["schema"], "only the schema is touched");
    let before = table["schema"]["fields"].as_array().unwrap().clone();
    let after = patch["schema"]["fields"].as_array().unwrap();
    if after.len() < before.len() || after.iter().zip(&before).any(|(a, b)| a["name"] != b["name"]) {
        return refuse(400, "invalid", "Provided Schema does not match Table p:d.t. Field x is missing in new schema");
    }
    store.version += 1;
    store.patches += 1;
    table["schema"] = patch["schema"].clone();
    table["etag"] = format!("v{}", store.version).into();
    store.tables.insert(name, table.clone());
    (StatusCode::OK, table.to_string()).into_response()
}

async fn permissions(Path((_, table)): Path<(String, String)>) -> Response {
    if table.ends_with(":testIamPermissions") && table.starts_with('t') {
        (StatusCode::OK, json!({ "permissions": ["bigquery.tables.get"] }).to_string()).into_response()
    } else {
        (StatusCode::NOT_FOUND, "Not Found").into_response()
    }
}
