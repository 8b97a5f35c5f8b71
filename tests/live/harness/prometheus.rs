//! A real Prometheus that scrapes the pods of a release, as the chart's PodMonitor has it done.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use millrace::embedded::ports::free_ports;
use serde_json::{Value, json};

use super::process::{Process, wait_for};
use super::registry::get;

/// The chart's `podMonitor.interval`.
const SCRAPED_EVERY: &str = "15s";
const STARTS_WITHIN: Duration = Duration::from_secs(60);
/// A pod that came or went is seen within this time.
const FOLLOWED_EVERY: Duration = Duration::from_secs(1);

/// A running server. Dropping it ends it.
pub struct Prometheus {
    port: u16,
    started: SystemTime,
    ending: Arc<AtomicBool>,
    follower: Option<JoinHandle<()>>,
    _process: Process,
}

impl Prometheus {
    /// Scrapes the pods whose ports lie in the kubelet's folder `pods`, as those of `namespace`; writes to `folder`.
    pub fn start(program: &Path, folder: &Path, pods: &Path, namespace: &str) -> anyhow::Result<Self> {
        let [port] = free_ports()?;
        let (config, targets) = (folder.join("prometheus.json"), folder.join("targets.json"));
        write_targets(&targets, pods, namespace).context("targets for Prometheus")?;
        let jobs = json!([{"job_name": "pods", "file_sd_configs": [{"files": [&targets], "refresh_interval": "1s"}]}]);
        std::fs::write(&config, json!({"global": {"scrape_interval": SCRAPED_EVERY}, "scrape_configs": jobs}).to_string())?;
        let mut process = Process::start("Prometheus", program, &folder.join("prometheus.log"), |command| {
            command.arg("--config.file").arg(&config).arg("--storage.tsdb.path").arg(folder.join("prometheus"));
            command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        })?;
        wait_for("Prometheus", STARTS_WITHIN, || {
            process.check_running()?;
            Ok(get(&format!("http://127.0.0.1:{port}/-/ready")).ok().filter(|(status, _)| *status == 200).map(drop))
        })?;
        let ending = Arc::<AtomicBool>::default();
        let (end, pods, namespace) = (Arc::clone(&ending), pods.to_owned(), namespace.to_owned());
        let follower = std::thread::spawn(move || {
            while !end.load(Ordering::SeqCst) {
                if let Err(error) = write_targets(&targets, &pods, &namespace) {
                    eprintln!("      Prometheus' targets: {error:#}");
                }
                std::thread::sleep(FOLLOWED_EVERY);
            }
        });
        Ok(Self { port, started: SystemTime::now(), ending, follower: Some(follower), _process: process })
    }

    /// Where it is asked.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The values that a query of one series has had since the start, each as often as it changed; nothing for the seconds without one.
    pub fn values_of(&self, query: &str) -> anyhow::Result<Vec<u64>> {
        let seconds = |time: SystemTime| anyhow::Ok(time.duration_since(SystemTime::UNIX_EPOCH)?.as_secs());
        let (start, end) = (seconds(self.started)?, seconds(SystemTime::now())?);
        let asked = [("query", query), ("start", &start.to_string()), ("end", &end.to_string()), ("step", "1")];
        let url = reqwest::Url::parse_with_params(&format!("{}/api/v1/query_range", self.url()), asked)?;
        let (status, body) = get(url.as_str())?;
        anyhow::ensure!(status == 200, "Prometheus: {status}: {body}");
        let answer: Value = serde_json::from_str(&body)?;
        let series = answer["data"]["result"].as_array().context("no result")?;
        let points = series.iter().filter_map(|one| one["values"].as_array()).flatten();
        let mut values: Vec<u64> = points.filter_map(|point| point[1].as_str()?.parse().ok()).collect();
        values.dedup();
        Ok(values)
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::SeqCst);
        if let Some(follower) = self.follower.take() {
            let _ = follower.join(); // it has said what went wrong
        }
    }
}

fn write_targets(file: &Path, pods: &Path, namespace: &str) -> anyhow::Result<()> {
    let folders: Vec<PathBuf> = std::fs::read_dir(pods)?.flatten().map(|pod| pod.path()).collect();
    let targets: Vec<Value> = folders
        .iter()
        .filter(|pod| pod.join("pid").exists())
        .filter_map(|pod| {
            let (name, port) = (pod.file_name()?.to_str()?, std::fs::read_to_string(pod.join("port")).ok()?);
            Some(json!({"targets": [format!("127.0.0.1:{}", port.trim())], "labels": {"namespace": namespace, "pod": name}}))
        })
        .collect();
    let new = file.with_extension("new");
    std::fs::write(&new, Value::Array(targets).to_string())?;
    Ok(std::fs::rename(new, file)?) // whole or not at all
}
