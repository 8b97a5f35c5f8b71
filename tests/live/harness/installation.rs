//! millrace as its user installs it: a folder with `millrace.toml` and `connectors/`, and workers that are started in it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use millrace::embedded::ports::free_ports;
use toml::{Table, Value};

use super::emulator::PROJECT;
use super::process::Process;
use super::servers::Servers;
use super::worker::Worker;

/// The folder of one test's fleet.
pub struct Installation {
    folder: PathBuf,
    fleet: Table,
    started: std::cell::Cell<u32>,
}

impl Installation {
    /// For the servers of this run: plaintext brokers, the registry, the emulator.
    pub fn new(servers: &Servers, test: &str) -> anyhow::Result<Self> {
        let emulator = servers.emulator()?;
        let mut new = Self::without_bigquery(servers, test)?;
        new.set("bigquery", "project", PROJECT);
        new.set("bigquery", "credentials", "none");
        new.set("bigquery", "rest_endpoint", emulator.rest_endpoint());
        new.set("bigquery", "grpc_endpoint", emulator.grpc_endpoint());
        new.set("bigquery", "text_literals", true); // the emulator does not know the packed forms of NUMERIC, TIME, DATETIME
        Ok(new)
    }

    /// The same, but where rows go is still to be set.
    pub fn without_bigquery(servers: &Servers, test: &str) -> anyhow::Result<Self> {
        let (kafka, registry) = (servers.kafka()?, servers.registry()?);
        let folder = servers.folder(test)?;
        std::fs::create_dir_all(folder.join("connectors"))?;
        let mut new = Self { folder, fleet: Table::new(), started: std::cell::Cell::new(0) };
        new.set("kafka", "bootstrap.servers", kafka.bootstrap());
        new.set("kafka", "session.timeout.ms", 10_000);
        new.set("registry", "urls", vec![registry.url()]);
        new.set("worker", "memory", "128 MiB");
        Ok(new)
    }

    /// Sets a key of `millrace.toml` for workers that start from now on.
    pub fn set(&mut self, section: &str, key: &str, value: impl Into<Value>) {
        let section = self.fleet.entry(section).or_insert_with(|| Value::Table(Table::new()));
        section.as_table_mut().expect("sections are tables").insert(key.to_owned(), value.into());
    }

    /// Takes a section of `millrace.toml` away.
    pub fn drop_section(&mut self, section: &str) {
        self.fleet.remove(section);
    }

    /// Takes a key of `millrace.toml` away.
    pub fn unset(&mut self, section: &str, key: &str) {
        if let Some(section) = self.fleet.get_mut(section).and_then(Value::as_table_mut) {
            section.remove(key);
        }
    }

    /// Writes `connectors/<name>.toml`.
    pub fn connector(&self, name: &str, text: &str) -> anyhow::Result<()> {
        Ok(std::fs::write(self.folder.join("connectors").join(format!("{name}.toml")), text)?)
    }

    /// Where the files are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Starts a worker and waits until it is live.
    pub fn start(&self) -> anyhow::Result<Worker> {
        let (number, config, port) = self.written()?;
        Worker::start(&config, &self.folder.join("connectors"), &self.folder.join(format!("worker-{number}.log")), port)
    }

    /// The same by another program, which becomes the worker.
    pub fn start_by(&self, program: &str, prepare: impl FnOnce(&mut Command)) -> anyhow::Result<Worker> {
        let (number, config, port) = self.written()?;
        let log = self.folder.join(format!("worker-{number}.log"));
        Worker::start_by(program, prepare, &config, &self.folder.join("connectors"), (&log, port))
    }

    /// Runs `millrace check`: whether it found nothing wrong, and what it printed.
    pub fn check(&self) -> anyhow::Result<(bool, String)> {
        let (number, config, _) = self.written()?;
        let log = self.folder.join(format!("check-{number}.log"));
        let mut check = Process::start("millrace check", env!("CARGO_BIN_EXE_millrace"), &log, |command| {
            command.args(["check", "--timeout", "20s", "--config"]).arg(config);
            command.arg("--connectors").arg(self.folder.join("connectors"));
        })?;
        let fine = check.wait(Duration::from_secs(120))?.success();
        Ok((fine, std::fs::read_to_string(&log)?))
    }

    /// Runs a command of the program, `words` and then where the files are: its exit code and what it printed.
    pub fn command(&self, words: &[&str]) -> anyhow::Result<(Option<i32>, String)> {
        let (number, config, _) = self.written()?;
        let log = self.folder.join(format!("command-{number}.log"));
        let mut command = Process::start("millrace", env!("CARGO_BIN_EXE_millrace"), &log, |command| {
            command.args(words).arg("--config").arg(config).arg("--connectors").arg(self.folder.join("connectors"));
        })?;
        let code = command.wait(Duration::from_secs(120))?.code();
        Ok((code, std::fs::read_to_string(&log)?))
    }

    /// Writes the next `millrace.toml`: its number, its path, and the port on which a worker with it listens.
    fn written(&self) -> anyhow::Result<(u32, PathBuf, u16)> {
        let number = self.started.get() + 1;
        self.started.set(number);
        let [port] = free_ports()?;
        let mut fleet = self.fleet.clone();
        let worker = fleet.entry("worker").or_insert_with(|| Value::Table(Table::new()));
        worker.as_table_mut().expect("sections are tables").insert("listen".to_owned(), format!("127.0.0.1:{port}").into());
        let config = self.folder.join(format!("millrace-{number}.toml"));
        std::fs::write(&config, toml::to_string(&fleet)?)?;
        Ok((number, config, port))
    }
}

/// A connector's file for Avro from the registry: `topic` to `table`, created and evolved, with the columns that the journal needs.
pub fn avro_connector(topic: &str, table: &str, dead_letters: &str) -> String {
    format!(
        r#"topics = ["{topic}"]

[value]
format = "avro"

[table]
name = "{table}"
create = true
evolve = "add"
metadata = ["partition", "offset"]

[errors]
dead_letter_topic = "{dead_letters}"
"#
    )
}

/// The same connector with appends once a second: the emulator spends its time on appends, hardly on their rows.
pub fn patient(connector: &str) -> String {
    format!("{connector}\n[delivery]\nlinger = \"1s\"\n")
}
