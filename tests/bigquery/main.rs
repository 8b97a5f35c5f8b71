//! `src/bigquery` against servers that misbehave as told: appends (pipelining, lost answers, multiplexing) and tables (evolution by many
//! workers at once); and evolution by a fleet of worker processes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod appends;
mod created;
mod embedded;
mod evolution;
mod fake_grpc;
mod fake_rest;
mod fleet_evolution;
#[allow(dead_code, reason = "each folder uses its part of it")]
#[path = "../machine/mod.rs"]
mod machine;
mod tables;
mod worker_processes;

use std::sync::Arc;

use bytes::Bytes;
use millrace::bigquery::{Append, BigQuery};
use millrace::config::{BigQueryConfig, ByteSize, HumanDuration};
use millrace::table::{Layout, SharedLayout, TableName};
use prost::Message;

/// Held by a test that measures times while it keeps both cores busy, so that no other one's work is measured with its own.
pub static MEASURING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A configuration for servers of a test: no credentials, short times.
pub fn config(rest: Option<String>, grpc: Option<String>) -> BigQueryConfig {
    let mut config: BigQueryConfig = serde_json::from_value(serde_json::json!({ "project": "p", "credentials": "none" })).unwrap();
    config.rest_endpoint = rest;
    config.grpc_endpoint = grpc;
    config.append_timeout = HumanDuration::from_secs(20);
    config.connection_in_flight = ByteSize::mib(4);
    config.connections_max = 1;
    config
}

pub async fn connect(config: &BigQueryConfig) -> BigQuery {
    millrace::bigquery::connect(config, None).await.unwrap()
}

pub fn table(name: &str) -> Arc<TableName> {
    Arc::new(TableName { project: "p".into(), dataset: "d".into(), table: name.into() })
}

/// A layout whose descriptor is told apart by its name.
pub fn layout(name: &str) -> SharedLayout {
    let descriptor = prost_types::DescriptorProto { name: Some(name.to_owned()), ..Default::default() };
    Arc::new(Layout { version: 1, descriptor: descriptor.encode_to_vec().into(), columns: Vec::new(), text_literals: false })
}

/// An append of rows with these bytes.
pub fn append(table: &Arc<TableName>, layout: &SharedLayout, rows: &[&[u8]]) -> Append {
    let mut wire = Vec::new();
    for row in rows {
        wire.push(0x0A);
        prost::encoding::encode_varint(row.len() as u64, &mut wire);
        wire.extend_from_slice(row);
    }
    Append {
        table: table.clone(),
        layout: layout.clone(),
        rows: Bytes::from(wire),
        row_count: u32::try_from(rows.len()).unwrap(),
        gate: None,
    }
}
