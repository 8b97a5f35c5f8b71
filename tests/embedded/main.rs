//! The embedded BigQuery as its users see it: Google's own Python clients, and what needs other settings than they have.
//!
//! `python_clients` makes a virtual environment with `tests/python/install` (network, once).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod lag;
mod speed;
mod streams;

use std::path::Path;
use std::process::Command;

use millrace::embedded::bigquery::{EmbeddedBigQuery, Settings};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_clients() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python");
    let installed = Command::new(folder.join("install")).output().unwrap();
    assert!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
    let python = String::from_utf8(installed.stdout).unwrap().trim().to_owned();
    let bigquery = EmbeddedBigQuery::start(Settings::default()).await.unwrap();
    let mut script = Command::new(python);
    script.arg(folder.join("embedded_bigquery.py"));
    script.env("MILLRACE_REST_URL", bigquery.rest_url()).env("MILLRACE_GRPC_URL", bigquery.grpc_url()).env("PYTHONDONTWRITEBYTECODE", "1");
    let run = tokio::task::spawn_blocking(move || script.output()).await.unwrap().unwrap();
    let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    println!("{out}");
    assert!(run.status.success(), "{out}\n{err}");
    bigquery.stop().await;
}
