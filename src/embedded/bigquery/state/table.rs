//! One table: its metadata with history, and its rows.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::{Mutex, RwLock};
use serde_json::{Map, Value, json};

use super::TableKey;
use super::store::{Change, Segment, Store};
use crate::embedded::bigquery::rows::bind::TableTraits;
use crate::embedded::bigquery::schema::Schema;
use crate::embedded::bigquery::schema::table_rules::{Partitioning, primary_key_columns};
use crate::embedded::bigquery::values::Cell;
use crate::embedded::bigquery::visibility::Observer;

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// A table. Deleted and made again it is another one.
#[derive(Debug)]
pub(crate) struct Table {
    /// Unique in this process.
    pub id: u64,
    pub key: TableKey,
    pub created: Instant,
    pub created_ms: i64,
    pub meta: RwLock<Meta>,
    pub store: Mutex<Store>,
}

/// Metadata as REST sees it, and its past.
#[derive(Debug)]
pub(crate) struct Meta {
    /// What callers set, in the form of tables.get.
    pub resource: Map<String, Value>,
    pub etag: String,
    pub modified_ms: i64,
    /// Never empty; the last is the newest.
    pub history: Vec<Version>,
}

/// A state of the metadata, as far as writers are concerned.
#[derive(Debug, Clone)]
pub(crate) struct Version {
    pub number: u64,
    pub since: Instant,
    pub schema: Arc<Schema>,
    pub partitioning: Partitioning,
    pub primary_key: bool,
}

impl Version {
    /// What binding a descriptor needs to know.
    pub(crate) fn traits(&self) -> TableTraits {
        let partition_column = match self.partitioning {
            Partitioning::TimeColumn(index, _) => Some(index),
            _ => None,
        };
        TableTraits { partition_column, primary_key: self.primary_key, fill_defaults: false }
    }
}

impl Meta {
    pub(crate) fn newest(&self) -> &Version {
        &self.history[self.history.len() - 1]
    }
}

/// Now, in milliseconds since the epoch.
pub(crate) fn now_ms() -> i64 {
    chrono::Utc::now().timestamp_millis()
}

impl Table {
    pub(crate) fn new(key: TableKey, resource: Map<String, Value>, schema: Schema, partitioning: Partitioning) -> Self {
        let (created, created_ms) = (Instant::now(), now_ms());
        let primary_key = !primary_key_columns(&resource).is_empty();
        let version = Version { number: 1, since: created, schema: Arc::new(schema), partitioning, primary_key };
        let meta = Meta { resource, etag: etag(), modified_ms: created_ms, history: vec![version] };
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        Self { id, key, created, created_ms, meta: RwLock::new(meta), store: Mutex::default() }
    }

    /// Replaces the metadata.
    pub(crate) fn change(&self, resource: Map<String, Value>, schema: Schema, partitioning: Partitioning) {
        let mut meta = self.meta.write();
        let primary_key = !primary_key_columns(&resource).is_empty();
        let before = meta.newest();
        let number = if *before.schema == schema { before.number } else { before.number + 1 };
        let version = Version { number, since: Instant::now(), schema: Arc::new(schema), partitioning, primary_key };
        meta.history.push(version);
        meta.resource = resource;
        meta.etag = etag();
        meta.modified_ms = now_ms();
    }

    /// The newest version that a connection knows.
    pub(crate) fn version_for(&self, observer: Observer, now: Instant) -> Version {
        let meta = self.meta.read();
        let known = meta.history.iter().rev().find(|version| observer.knows(version.since, now));
        known.unwrap_or(&meta.history[0]).clone()
    }

    /// The newest schema.
    pub(crate) fn schema(&self) -> Arc<Schema> {
        Arc::clone(&self.meta.read().newest().schema)
    }

    /// The resource as tables.get answers it.
    pub(crate) fn to_rest(&self, location: &str, base: &str) -> Value {
        let (rows, bytes) = {
            let store = self.store.lock();
            (store.rows(), store.bytes())
        };
        let meta = self.meta.read();
        let mut resource = meta.resource.clone();
        let TableKey { project, dataset, table } = &self.key;
        let link = format!("{base}/projects/{project}/datasets/{dataset}/tables/{table}");
        for (key, value) in [
            ("kind", json!("bigquery#table")),
            ("etag", json!(meta.etag)),
            ("id", json!(self.key.to_string())),
            ("selfLink", json!(link)),
            ("tableReference", self.key.reference()),
            ("type", json!("TABLE")),
            ("location", json!(location)),
            ("creationTime", json!(self.created_ms.to_string())),
            ("lastModifiedTime", json!(meta.modified_ms.to_string())),
            ("numRows", json!(rows.to_string())),
            ("numBytes", json!(bytes.to_string())),
            ("numLongTermBytes", json!("0")),
        ] {
            resource.insert(key.to_owned(), value);
        }
        Value::Object(resource)
    }

    /// Calls `f` for each row, in the order of arrival, with all columns of the newest schema; those not `wanted` may be NULL. `f` returns
    /// whether to go on. Tables with a primary key that took changes show what is left of them.
    pub(crate) fn each_row(&self, wanted: Option<&[bool]>, mut f: impl FnMut(Vec<Cell>) -> bool) {
        let (schema, keys) = {
            let meta = self.meta.read();
            (Arc::clone(&meta.newest().schema), primary_key_columns(&meta.resource))
        };
        let segments = self.store.lock().snapshot();
        if keys.is_empty() {
            segments.iter().all(|segment| segment.each(&schema, wanted, &mut |row, _| f(row)));
            return;
        }
        let keys: Vec<usize> = keys.iter().filter_map(|name| schema.position(name)).collect();
        for row in merged(&segments, &schema, &keys) {
            if !f(row) {
                return;
            }
        }
    }
}

/// Rows after all changes: an UPSERT replaces the row of its key, a DELETE removes it; of two changes of one key the one with the higher
/// sequence number counts, of equal ones the later.
fn merged(segments: &[Arc<Segment>], schema: &Schema, keys: &[usize]) -> Vec<Vec<Cell>> {
    let mut rows: Vec<Option<Vec<Cell>>> = Vec::new();
    let mut by_key: HashMap<String, (usize, Option<Vec<u64>>)> = HashMap::new();
    for segment in segments {
        segment.each(schema, None, &mut |row, change| {
            let Some(Change { delete, sequence }) = change else {
                rows.push(Some(row));
                return true;
            };
            let key = format!("{:?}", keys.iter().map(|k| &row[*k]).collect::<Vec<_>>());
            let row = (!delete).then_some(row);
            match by_key.get_mut(&key) {
                Some((_, newest)) if *newest > sequence => {}
                Some((index, newest)) => {
                    rows[*index] = row;
                    *newest = sequence;
                }
                None => {
                    by_key.insert(key, (rows.len(), sequence));
                    rows.push(row);
                }
            }
            true
        });
    }
    rows.into_iter().flatten().collect()
}

/// A new etag.
fn etag() -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(uuid::Uuid::new_v4())
}
