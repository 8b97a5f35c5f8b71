//! One worker: the real binary, and what it says about itself over HTTP.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

use super::process::{Process, STARTS_WITHIN, wait_for};
use super::registry::{get, get_again};

/// A running `millrace run`. Dropping it kills it.
pub struct Worker {
    process: Process,
    url: String,
}

impl Worker {
    /// Starts it and waits until it is live.
    pub fn start(config: &Path, connectors: &Path, log: &Path, port: u16) -> anyhow::Result<Self> {
        Self::start_by(env!("CARGO_BIN_EXE_millrace"), |_| {}, config, connectors, (log, port))
    }

    /// The same by a program that becomes it, with the arguments and variables that `prepare` gives.
    pub fn start_by(
        program: &str,
        prepare: impl FnOnce(&mut Command),
        config: &Path,
        connectors: &Path,
        (log, port): (&Path, u16),
    ) -> anyhow::Result<Self> {
        let process = Process::start("millrace", program, log, |command| {
            prepare(command);
            command.arg("run").arg("--config").arg(config).arg("--connectors").arg(connectors);
        })?;
        let mut worker = Self { process, url: format!("http://127.0.0.1:{port}") };
        wait_for("a live worker", STARTS_WITHIN, || {
            worker.process.check_running()?;
            Ok(get(&format!("{}/health/live", worker.url)).ok().filter(|(status, _)| *status == 200))
        })?;
        Ok(worker)
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Status code and body of a path.
    pub fn get(&self, path: &str) -> anyhow::Result<(u16, String)> {
        get_again(&format!("{}{path}", self.url))
            .with_context(|| format!("{path} of the worker; its output closes with:\n{}", self.process.log_end()))
    }

    /// `/status`.
    pub fn status(&self) -> anyhow::Result<Value> {
        let (code, body) = self.get("/status")?;
        if code != 200 {
            bail!("/status answered {code}: {body}");
        }
        Ok(serde_json::from_str(&body)?)
    }

    /// The sum of a metric's series that carry all of these labels; 0 when there is none yet.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> anyhow::Result<f64> {
        let (_, text) = self.get("/metrics")?;
        let mut sum = 0.0;
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let (found, found_labels) = series.split_once('{').unwrap_or((series, ""));
            let carries = |(key, value): &(&str, &str)| found_labels.contains(&format!("{key}=\"{value}\""));
            if found == name && labels.iter().all(carries) {
                sum += value.parse::<f64>().with_context(|| format!("no number in {line}"))?;
            }
        }
        Ok(sum)
    }

    /// Waits until a metric is at least `least`.
    pub fn wait_for_metric(&mut self, name: &str, labels: &[(&str, &str)], least: f64, within: Duration) -> anyhow::Result<()> {
        let mut last = 0.0;
        let reached = wait_for(name, within, || {
            self.process.check_running()?;
            last = self.metric(name, labels)?;
            Ok((last >= least).then_some(()))
        });
        reached.with_context(|| format!("{name}{labels:?} is {last}, wanted {least}"))
    }

    /// Waits until this worker has exactly `count` partitions of a connector.
    pub fn wait_for_partitions(&mut self, connector: &str, count: u32, within: Duration) -> anyhow::Result<()> {
        wait_for(&format!("{count} partitions of {connector}"), within, || {
            self.process.check_running()?;
            Ok((self.metric("millrace_assigned_partitions", &[("connector", connector)])? == f64::from(count)).then_some(()))
        })
    }

    /// SIGTERM: it must end by itself, with exit code 0.
    pub fn terminate(&mut self) -> anyhow::Result<()> {
        self.process.signal("TERM")?;
        let status = self.process.wait(Duration::from_secs(30))?;
        if !status.success() {
            bail!("the worker ended with {status} after SIGTERM; its output closes with:\n{}", self.process.log_end());
        }
        Ok(())
    }
}
