//! The fleet as its user installs it: the chart, by helm, on the control plane, its pods as processes.

use std::cell::RefCell;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Map, Value, json};

use super::emulator::PROJECT;
use super::kubelet::Kubelet;
use super::plane::Plane;
use super::process::wait_for;
use super::registry::get;
use super::servers::Servers;

/// A release of the chart. Its pods run as long as it lives.
pub struct Release<'a> {
    /// Where it is installed.
    pub plane: &'a Plane,
    /// What runs its pods.
    pub kubelet: Kubelet,
    name: String,
    folder: PathBuf,
    values: RefCell<Value>,
}

/// Who holds the Lease.
#[derive(Debug, PartialEq, Eq)]
pub struct Leader(String);

impl Leader {
    /// The pod that it runs in.
    pub fn pod(&self) -> &str {
        millrace::leader::holder_name(&self.0)
    }
}

impl<'a> Release<'a> {
    /// Installs the chart as release `name`, with `scaling` as its limits and one connector. `server`: the API server as the workers see
    /// it.
    pub fn install(
        servers: &Servers,
        plane: &'a Plane,
        server: &str,
        (test, name): (&str, &str),
        worker: Value,
        scaling: Value,
        connector: &str,
    ) -> anyhow::Result<Self> {
        let folder = servers.folder(test)?;
        let values = json!({
            "fullnameOverride": name,
            "millrace": {
                "kafka": {"bootstrap.servers": servers.kafka()?.bootstrap(), "session.timeout.ms": 10_000},
                "registry": {"urls": [servers.registry()?.url()]},
                "bigquery": {
                    "project": PROJECT, "credentials": "none", "text_literals": true,
                    "rest_endpoint": servers.emulator()?.rest_endpoint(), "grpc_endpoint": servers.emulator()?.grpc_endpoint(),
                },
                "worker": merged(json!({"listen": "0.0.0.0:8080", "log": "text", "memory": "64 MiB"}), worker),
                "scaling": merged(json!({"mode": "kubernetes"}), scaling),
            },
            "connectors": {name: connector},
        });
        let kubelet = Kubelet::start(plane, server, name, (&servers.folder(&format!("pods-{name}"))?, &folder))?;
        let release = Self { plane, kubelet, name: name.to_owned(), folder, values: RefCell::new(values) };
        release.helm("install")?;
        Ok(release)
    }

    /// Changes a value and upgrades the release.
    pub fn upgrade(&self, pointer: &str, value: Value) -> anyhow::Result<()> {
        *self.values.borrow_mut().pointer_mut(pointer).with_context(|| format!("no value {pointer}"))? = value;
        self.helm("upgrade")
    }

    fn helm(&self, verb: &str) -> anyhow::Result<()> {
        let file = self.folder.join("values.json");
        std::fs::write(&file, self.values.borrow().to_string())?;
        let chart = format!("{}/deploy/chart", env!("CARGO_MANIFEST_DIR"));
        let file = file.to_str().context("a path in UTF-8")?;
        self.plane.helm(&[verb, &self.name, &chart, "--values", file]).map(drop)
    }

    /// Its name, and its StatefulSet's.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The StatefulSet.
    pub fn stateful_set(&self) -> anyhow::Result<Value> {
        self.plane.get(&["statefulset", &self.name])
    }

    /// Workers that are asked for.
    pub fn replicas(&self) -> anyhow::Result<u64> {
        self.stateful_set()?["spec"]["replicas"].as_u64().context("no replicas")
    }

    /// Waits until so many workers are asked for, or more or fewer, as `enough` says; returns how many.
    pub fn wait_for_replicas(&self, what: &str, within: Duration, enough: impl Fn(u64) -> bool) -> anyhow::Result<u64> {
        let mut last = 0;
        let reached = wait_for(what, within, || {
            last = self.replicas().unwrap_or(last); // the API server may be away
            Ok(enough(last).then_some(last))
        });
        reached.with_context(|| format!("{last} workers are asked for; the last decision: {}", self.decision()))
    }

    /// Waits until as many pods are ready as are asked for.
    pub fn wait_until_ready(&self, within: Duration) -> anyhow::Result<u64> {
        wait_for("every worker ready", within, || {
            let set = self.stateful_set()?;
            let (asked, ready) = (set["spec"]["replicas"].as_u64(), set["status"]["readyReplicas"].as_u64());
            Ok(asked.filter(|asked| Some(*asked) == ready))
        })
    }

    /// The Lease's holder: one process of a pod. A pod whose process was killed comes back as another holder.
    pub fn leader(&self) -> anyhow::Result<Option<Leader>> {
        let lease = self.plane.get(&["lease", &format!("{}-leader", self.name)])?;
        let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
        Ok((!holder.is_empty()).then(|| Leader(holder.to_owned())))
    }

    /// Waits until another process than `former` leads.
    pub fn wait_for_another_leader(&self, former: &Leader, within: Duration) -> anyhow::Result<Leader> {
        wait_for("another leader", within, || Ok(self.leader()?.filter(|leader| leader != former)))
    }

    /// `GET /fleet` of the first pod that answers; all are asked until one does.
    pub fn fleet(&self) -> anyhow::Result<Value> {
        wait_for("no worker answers GET /fleet", Duration::from_secs(30), || {
            for ordinal in 0..20 {
                let Ok(url) = self.kubelet.url(&format!("{}-{ordinal}", self.name)) else { continue };
                if let Ok((200, body)) = get(&format!("{url}/fleet")) {
                    return Ok(Some(serde_json::from_str(&body)?));
                }
            }
            Ok(None)
        })
    }

    /// What the fleet says it decided last, for messages.
    pub fn decision(&self) -> String {
        self.fleet().map_or_else(|error| error.to_string(), |fleet| fleet["decided"].to_string())
    }

    /// Sets the replicas by hand.
    pub fn scale_by_hand(&self, replicas: u64) -> anyhow::Result<()> {
        self.plane.kubectl(&["scale", "statefulset", &self.name, &format!("--replicas={replicas}")]).map(drop)
    }

    /// Ends all workers cleanly and takes everything away.
    pub fn uninstall(self) -> anyhow::Result<()> {
        self.plane.helm(&["uninstall", &self.name])?;
        wait_for("the end of all pods", Duration::from_secs(60), || {
            let pods = self.plane.get(&["pods", "-l", &format!("app.kubernetes.io/instance={}", self.name)])?;
            Ok(pods["items"].as_array().is_some_and(Vec::is_empty).then_some(()))
        })?;
        ensure!(self.folder.exists(), "the folder of the test is gone");
        Ok(())
    }
}

fn merged(mut base: Value, more: Value) -> Value {
    if let (Some(base), Value::Object(more)) = (base.as_object_mut(), more) {
        base.extend(Map::from_iter(more));
    }
    base
}
