//! The servers that all tests of a run share: each is started by the first test that asks for it.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, bail};
use tempfile::TempDir;

use super::certificates::Certificates;
use super::cluster::Cluster;
use super::emulator::Emulator;
use super::kafka_node;
use super::plane::Plane;
use super::process::last_lines;
use super::registry::Registry;
use super::tokens::TokenIssuer;

/// All servers of a run. Dropping it ends them and removes what they wrote.
pub struct Servers {
    kafka: OnceLock<Cluster>,
    registry: OnceLock<Registry>,
    emulator: OnceLock<Emulator>,
    plane: OnceLock<Plane>,
    certificates: OnceLock<Certificates>,
    tokens: OnceLock<TokenIssuer>,
    // Last: removed after the servers above have ended.
    folder: OnceLock<TempDir>,
}

impl Servers {
    /// None started yet.
    pub fn new() -> Self {
        Self {
            kafka: OnceLock::new(),
            registry: OnceLock::new(),
            emulator: OnceLock::new(),
            plane: OnceLock::new(),
            certificates: OnceLock::new(),
            tokens: OnceLock::new(),
            folder: OnceLock::new(),
        }
    }

    /// Three brokers and a controller.
    pub fn kafka(&self) -> anyhow::Result<&Cluster> {
        once(&self.kafka, || {
            let (lib, certificates) = (kafka_node::library()?, self.certificates()?);
            Cluster::start(&lib, &self.folder("kafka")?, certificates, self.tokens()?.keys()).context("Kafka")
        })
    }

    /// The schema registry.
    pub fn registry(&self) -> anyhow::Result<&Registry> {
        once(&self.registry, || Registry::start(&parts()?, &self.folder("registry")?, self.certificates()?).context("the schema registry"))
    }

    /// The BigQuery emulator, with Google's client to read it back.
    pub fn emulator(&self) -> anyhow::Result<&Emulator> {
        once(&self.emulator, || Emulator::start(&parts()?, &self.folder("emulator")?).context("the BigQuery emulator"))
    }

    /// A Kubernetes control plane.
    pub fn plane(&self) -> anyhow::Result<&Plane> {
        once(&self.plane, || Plane::start(&parts()?, &self.folder("plane")?, self.certificates()?).context("Kubernetes"))
    }

    /// The private authority and what it signed.
    pub fn certificates(&self) -> anyhow::Result<&Certificates> {
        once(&self.certificates, || Certificates::make(&self.folder("certificates")?))
    }

    /// Who signs tokens that the brokers take.
    pub fn tokens(&self) -> anyhow::Result<&TokenIssuer> {
        once(&self.tokens, || TokenIssuer::make(&self.folder("tokens")?))
    }

    /// The last `lines` of the `most` workers of a test that said something last, in the order of their names.
    pub fn worker_output(&self, test: &str, most: usize, lines: usize) -> String {
        let Ok(entries) = self.folder(test).and_then(|folder| Ok(std::fs::read_dir(folder)?)) else { return String::new() };
        let mut logs: Vec<PathBuf> =
            entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "log")).collect();
        logs.sort_by_key(|log| std::cmp::Reverse(log.metadata().and_then(|of| of.modified()).ok()));
        logs.truncate(most);
        logs.sort();
        let name = |log: &Path| log.file_name().unwrap_or_default().to_string_lossy().into_owned();
        logs.iter().map(|log| format!("--- {}\n{}\n", name(log), last_lines(log, lines))).collect()
    }

    /// A folder of this run, made if it is not there.
    pub fn folder(&self, name: &str) -> anyhow::Result<PathBuf> {
        let base = once(&self.folder, || Ok(tempfile::Builder::new().prefix("millrace-live-").tempdir()?))?;
        let folder = base.path().join(name);
        std::fs::create_dir_all(&folder)?;
        Ok(folder)
    }
}

/// Where `tests/live/install` put the servers, all of them.
pub fn parts() -> anyhow::Result<PathBuf> {
    let parts = kafka_node::parts()?;
    if !parts.join("jre/.version").exists() {
        bail!("the servers are not installed in {}: run tests/live/install first", parts.display());
    }
    Ok(parts)
}

/// `OnceLock::get_or_init` for what can fail: a failure is tried again by the next test.
fn once<T>(cell: &OnceLock<T>, make: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<&T> {
    if let Some(made) = cell.get() {
        return Ok(made);
    }
    let made = make()?; // the tests run one after another: nobody else makes it meanwhile
    Ok(cell.get_or_init(|| made))
}
