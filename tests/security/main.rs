//! Connections that must be secured: TLS with a private authority, mutual TLS, basic auth, bearer tokens, and Google's credentials against
//! token servers on loopback. Brokers are tests/live's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod aws;
mod aws_signature;
mod bigquery_tls;
#[path = "../live/harness/certificates.rs"]
#[allow(dead_code, reason = "brokers need more of it")]
mod certificates;
mod credentials;
#[path = "../bigquery/fake_grpc.rs"]
#[allow(dead_code, reason = "appends misbehave in more ways in tests/bigquery")]
mod fake_grpc;
mod front;
mod guarded_rest;
mod logged;
mod registry;
mod token_server;
mod token_tls;

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use millrace::bigquery::{Append, TableSpec};
use millrace::config::{BigQueryConfig, Evolve, HumanDuration};
use millrace::table::{Column, ColumnType, LayoutHistory, Mode, SharedLayout, TableName};

/// A folder of the test's own with a private authority in it.
pub fn authority() -> (tempfile::TempDir, certificates::Certificates) {
    let folder = tempfile::tempdir().unwrap();
    let certificates = certificates::Certificates::make(folder.path()).unwrap();
    (folder, certificates)
}

/// `[bigquery]` with these endpoints and these credentials.
pub fn bigquery_config(rest: String, grpc: String, credentials: &str) -> BigQueryConfig {
    let mut config: BigQueryConfig = serde_json::from_value(serde_json::json!({ "project": "p", "credentials": credentials })).unwrap();
    (config.rest_endpoint, config.grpc_endpoint) = (Some(rest), Some(grpc));
    config.append_timeout = HumanDuration::from_secs(20);
    config.connections_max = 1;
    config
}

pub fn table(name: &str) -> Arc<TableName> {
    Arc::new(TableName { project: "p".into(), dataset: "d".into(), table: name.into() })
}

pub fn columns() -> Vec<Column> {
    vec![Column { name: "n".into(), ty: ColumnType::Int64, mode: Mode::Nullable, description: None }]
}

pub fn created() -> TableSpec {
    TableSpec { create: true, partition: None, cluster: Vec::new(), evolve: Evolve::Add }
}

pub fn layout() -> SharedLayout {
    LayoutHistory::new().include(&columns()).unwrap()
}

/// One row, with 1 in the only column.
pub fn one_row(table: &Arc<TableName>) -> Append {
    let layout = layout();
    let tag = u8::try_from(layout.columns[0].number << 3).unwrap();
    Append { table: table.clone(), layout, rows: Bytes::from(vec![0x0A, 2, tag, 1]), row_count: 1, gate: None }
}

/// Writes a file for the program under test.
pub fn file(folder: &tempfile::TempDir, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}
