//! The stand-in kubelet (`kube/kubelet.py`): each pod of the fleet is a worker process on this machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use super::plane::Plane;
use super::process::Process;
use super::registry::get;

/// A running kubelet. Dropping it ends it, and its pods with it.
pub struct Kubelet {
    process: Process,
    state: PathBuf,
}

impl Kubelet {
    /// For the pods of a release of the chart. `server`: the API server as the pods are to see it. What it keeps lies in `state`, whose
    /// path has no colon (kubeconfigs lie there, and their variable is a list); its log and the pods' in `logs`.
    pub fn start(plane: &Plane, server: &str, release: &str, (state, logs): (&Path, &Path)) -> anyhow::Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/live/kube/kubelet.py");
        let process = Process::start("the kubelet", "python3", &logs.join("kubelet.log"), |command| {
            command.arg(script).args(["--server", &plane.url(), "--pods-server", server]);
            command.arg("--ca").arg(plane.ca()).arg("--token-file").arg(plane.admin_token_file());
            command.args(["--selector", &format!("app.kubernetes.io/instance={release}")]);
            command.arg("--state").arg(state).arg("--logs").arg(logs).args(["--program", env!("CARGO_BIN_EXE_millrace")]);
        })?;
        Ok(Self { process, state: state.to_owned() })
    }

    /// Leaves pods from this ordinal on Pending; `None` starts those that wait.
    pub fn hold_from(&self, ordinal: Option<u32>) -> anyhow::Result<()> {
        let file = self.state.join("hold");
        match ordinal {
            Some(ordinal) => Ok(std::fs::write(file, ordinal.to_string())?),
            None => Ok(std::fs::remove_file(file)?),
        }
    }

    /// Gives every pod a new token.
    pub fn rotate_tokens(&self) -> anyhow::Result<()> {
        self.process.signal("HUP")
    }

    /// Sends a signal to a pod's process.
    pub fn signal(&self, pod: &str, signal: &str) -> anyhow::Result<()> {
        let id = self.file(pod, "pid")?;
        let done = Command::new("sh").args(["-c", "kill -s \"$1\" \"$2\"", "sh", signal, &id]).status()?;
        ensure!(done.success(), "cannot send {signal} to {pod} ({id})");
        Ok(())
    }

    /// The folder with one for each pod that runs: its `pid`, its `port`.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Where a pod listens.
    pub fn url(&self, pod: &str) -> anyhow::Result<String> {
        Ok(format!("http://127.0.0.1:{}", self.file(pod, "port")?))
    }

    /// The sum of a metric's series over all pods that answer.
    pub fn sum_of(&self, metric: &str) -> f64 {
        let Ok(entries) = std::fs::read_dir(&self.state) else { return 0.0 };
        let ports = entries.flatten().filter_map(|pod| std::fs::read_to_string(pod.path().join("port")).ok());
        let pages = ports.filter_map(|port| get(&format!("http://127.0.0.1:{port}/metrics")).ok());
        let of = |line: &str| {
            let (series, value) = line.rsplit_once(' ')?;
            (series.split('{').next() == Some(metric)).then(|| value.parse::<f64>().ok()).flatten()
        };
        pages.map(|(_, page)| page.lines().filter_map(of).sum::<f64>()).sum()
    }

    fn file(&self, pod: &str, name: &str) -> anyhow::Result<String> {
        let file = self.state.join(pod).join(name);
        std::fs::read_to_string(&file).with_context(|| format!("{}: does {pod} run?", file.display()))
    }
}
