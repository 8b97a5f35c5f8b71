//! The BigQuery emulator (local-bigquery), and Google's own Python client that reads a BigQuery back.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::Mutex;

use anyhow::{Context, bail};
use millrace::embedded::ports::free_ports;
use serde_json::{Value, json};

use super::process::{Process, STARTS_WITHIN, bound, wait_for};
use super::registry::get;

/// The project of all tests.
pub const PROJECT: &str = "test";

/// A running emulator.
pub struct Emulator {
    rest_port: u16,
    grpc_port: u16,
    reader: Reader,
    _process: Process,
}

impl Emulator {
    /// Starts it and waits until it answers.
    pub fn start(parts: &Path, folder: &Path) -> anyhow::Result<Self> {
        let [rest_port, grpc_port] = free_ports()?;
        let python = parts.join("python/bin/python");
        let mut process = Process::start("the BigQuery emulator", &python, &folder.join("out.log"), |command| {
            command
                .arg(script("emulator.py"))
                .args(["--host", "127.0.0.1", "--project", PROJECT])
                .args(["--port", &rest_port.to_string(), "--grpc-port", &grpc_port.to_string()])
                .arg("--data-dir")
                .arg(folder.join("data"))
                .env("HOME", folder);
        })?;
        let datasets = format!("http://127.0.0.1:{rest_port}/bigquery/v2/projects/{PROJECT}/datasets");
        wait_for("the emulator answers", STARTS_WITHIN, || {
            process.check_running()?;
            Ok(get(&datasets).ok().filter(|(status, _)| *status == 200))
        })?;
        let reader = Reader::start(&python, Some(&format!("http://127.0.0.1:{rest_port}")), PROJECT)?;
        Ok(Self { rest_port, grpc_port, reader, _process: process })
    }

    /// `[bigquery] rest_endpoint`.
    pub fn rest_endpoint(&self) -> String {
        format!("http://127.0.0.1:{}/bigquery/v2", self.rest_port)
    }

    /// `[bigquery] grpc_endpoint`.
    pub fn grpc_endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.grpc_port)
    }

    /// Google's client on it.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/live/parts").join(name)
}

/// Google's Python client for one BigQuery, as a child that answers line by line (`parts/reader.py`).
pub struct Reader {
    project: String,
    child: Child,
    pipes: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
}

impl Reader {
    /// A client for the BigQuery at this address, without credentials; or for Google's own, with application default credentials.
    pub fn start(python: &Path, address: Option<&str>, project: &str) -> anyhow::Result<Self> {
        let mut child = bound(python)
            .arg(script("reader.py"))
            .args(address)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start reader.py")?;
        let stdin = child.stdin.take().context("no pipe to reader.py")?;
        let stdout = BufReader::new(child.stdout.take().context("no pipe from reader.py")?);
        Ok(Self { project: project.to_owned(), child, pipes: Mutex::new((stdin, stdout)) })
    }

    /// One request of `parts/reader.py`.
    fn ask(&self, mut request: Value) -> anyhow::Result<Value> {
        request["project"] = json!(self.project);
        let mut pipes = self.pipes.lock().map_err(|_| anyhow::anyhow!("a test panicked while reading BigQuery"))?;
        writeln!(pipes.0, "{request}")?;
        let mut line = String::new();
        if pipes.1.read_line(&mut line)? == 0 {
            bail!("reader.py ended at {request}");
        }
        let mut answer: Value = serde_json::from_str(&line)?;
        match answer.get("error") {
            Some(error) => bail!("BigQuery answered {error} to {request}"),
            None => Ok(answer["ok"].take()),
        }
    }

    /// The rows of a query: an object each.
    pub fn query(&self, sql: &str) -> anyhow::Result<Vec<Value>> {
        Ok(serde_json::from_value(self.ask(json!({"sql": sql}))?)?)
    }

    /// All rows of `dataset.table` by `tabledata.list`.
    pub fn rows(&self, table: &str) -> anyhow::Result<Vec<Value>> {
        Ok(serde_json::from_value(self.ask(json!({"rows": format!("{}.{table}", self.project)}))?)?)
    }

    /// The columns of `dataset.table`; `None` when there is no such table.
    pub fn schema(&self, table: &str) -> anyhow::Result<Option<Vec<Value>>> {
        match self.ask(json!({"schema": format!("{}.{table}", self.project)})) {
            Ok(columns) => Ok(Some(serde_json::from_value(columns)?)),
            Err(error) if error.to_string().contains("NotFound") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a dataset.
    pub fn create_dataset(&self, dataset: &str) -> anyhow::Result<()> {
        self.ask(json!({"create_dataset": dataset})).map(drop)
    }

    /// Makes `dataset.table` with these fields, in the REST API's form.
    pub fn create_table(&self, table: &str, fields: &Value) -> anyhow::Result<()> {
        self.ask(json!({"create_table": format!("{}.{table}", self.project), "fields": fields})).map(drop)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // Already ended is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
