//! `millrace run`: one worker, until it is told to stop.

use std::path::PathBuf;

use clap::Args;

use super::{Exit, authorities};
use crate::config::{self, Loaded};
use crate::telemetry::{logs, metrics};
use crate::watchdog;

/// The two places where configuration lies.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// What all workers share: Kafka, registry, BigQuery.
    #[arg(long, value_name = "FILE", default_value = "millrace.toml")]
    pub config: PathBuf,
    /// The folder of connector files.
    #[arg(long, value_name = "FOLDER", default_value = "connectors")]
    pub connectors: PathBuf,
}

impl ConfigArgs {
    /// Reads both; every mistake goes to stderr, one a line.
    pub fn load(&self) -> Result<Loaded, Exit> {
        config::load(&self.config, &self.connectors).map_err(|errors| {
            eprintln!("{errors}");
            if !self.config.exists() || !self.connectors.exists() {
                eprintln!("millrace: --config names the file of the fleet, --connectors the folder of connector files");
            }
            Exit::Usage
        })
    }

    /// Reads both, and leaves out connector files with mistakes where there is another one. Mistakes go to stderr, one a line.
    pub fn load_usable(&self) -> Result<Loaded, Exit> {
        self.load().or_else(|exit| config::load_usable(&self.config, &self.connectors).ok_or(exit))
    }
}

/// Runs a worker. Connector files with mistakes are left out, where there is another one to run: they are named on stderr and in `/status`,
/// and taken when they are mended.
pub fn run(args: &ConfigArgs) -> Exit {
    let loaded = match args.load_usable() {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    if let Err(error) = authorities::trust(&loaded.fleet) {
        eprintln!("millrace: {error}");
        return Exit::Failed;
    }
    match start(loaded) {
        Ok(()) => Exit::Fine,
        Err(error) => {
            eprintln!("millrace: {error:#}");
            Exit::Failed
        }
    }
}

fn start(loaded: Loaded) -> anyhow::Result<()> {
    logs::install(loaded.fleet.worker.log)?;
    let prometheus = metrics::install()?;
    watchdog::start()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("worker").build()?;
    let ended = runtime.block_on(crate::supervisor::run(loaded, prometheus));
    // Blocking work that hangs (a consumer that does not close) must not keep the process.
    runtime.shutdown_background();
    Ok(ended?)
}
