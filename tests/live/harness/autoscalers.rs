//! The real autoscalers that read Prometheus for an HPA: KEDA, and prometheus-adapter. `kube/autoscalers` builds them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use millrace::embedded::ports::free_ports;
use serde_json::json;

use super::certificates::Certificates;
use super::external_metrics::Registered;
use super::plane::Plane;
use super::process::Process;
use super::servers::{Servers, parts};

/// KEDA's namespace, as its own manifests have it.
const NAMESPACE: &str = "keda";
const ESTABLISHED_WITHIN: Duration = Duration::from_secs(60);

/// The programs of one autoscaler, which answer the HPA's questions. Dropping it ends them.
pub struct Autoscaler<'a> {
    // First: the API server asks no longer when the programs end.
    _registered: Registered<'a>,
    _programs: Vec<Process>,
}

/// A program that `kube/autoscalers` built.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    let program = parts()?.join("autoscalers").join(name);
    if !program.exists() {
        bail!("no {}: run tests/live/kube/autoscalers, which takes half an hour, first", program.display());
    }
    Ok(program)
}

/// KEDA: its CRDs, its operator, its metrics API server. Its webhooks, which only refuse objects with mistakes, are not there.
pub fn keda<'a>(servers: &Servers, plane: &'a Plane, folder: &Path) -> anyhow::Result<Autoscaler<'a>> {
    let (operator, adapter, crds) = (program("keda-operator")?, program("keda-adapter")?, program("crds")?);
    let crds = crds.to_str().context("a path in UTF-8")?;
    plane.apply("namespace-keda", &[json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})])?;
    plane.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", crds])?; // one of them may be there already
    let within = format!("--timeout={}s", ESTABLISHED_WITHIN.as_secs());
    plane.kubectl(&["wait", "--for=condition=Established", &within, "-f", crds])?;

    let certificates = servers.certificates()?;
    let [asked, metrics, probes, api, api_metrics] = free_ports()?;
    let local = |port: u16| format!("127.0.0.1:{port}");
    let environment = [("KEDA_CLUSTER_OBJECT_NAMESPACE", NAMESPACE), ("POD_NAMESPACE", NAMESPACE), ("WATCH_NAMESPACE", "")];
    let own = side(&folder.join("operator"), certificates, &certificates.server_cert, &certificates.server_key)?;
    let mut operator = Process::start("KEDA's operator", operator, &folder.join("keda-operator.log"), |command| {
        command.env("KUBECONFIG", plane.kubeconfig_file()).envs(environment).arg("--cert-dir").arg(own);
        command.args(["--metrics-service-bind-address", &local(asked), "--metrics-bind-address", &local(metrics)]);
        command.args(["--health-probe-bind-address", &local(probes)]);
    })?;
    let own = side(&folder.join("adapter"), certificates, &certificates.client_cert, &certificates.client_key)?;
    let mut adapter = Process::start("KEDA's metrics API server", adapter, &folder.join("keda-adapter.log"), |command| {
        served(command, plane, certificates, api);
        command.env("KUBECONFIG", plane.kubeconfig_file()).envs(environment).arg("--cert-dir").arg(own);
        command.args(["--metrics-service-address", &format!("localhost:{asked}"), "--port", &api_metrics.to_string()]);
    })?;
    let registered = Registered::at(plane, api, || operator.check_running().and_then(|()| adapter.check_running()))?;
    Ok(Autoscaler { _registered: registered, _programs: vec![operator, adapter] })
}

/// prometheus-adapter with a configuration, asking the Prometheus at `prometheus`.
pub fn prometheus_adapter<'a>(
    servers: &Servers,
    plane: &'a Plane,
    folder: &Path,
    prometheus: &str,
    configuration: &str,
) -> anyhow::Result<Autoscaler<'a>> {
    let certificates = servers.certificates()?;
    let [api] = free_ports()?;
    let file = folder.join("adapter.yaml");
    std::fs::write(&file, configuration)?;
    let log = folder.join("prometheus-adapter.log");
    let mut adapter = Process::start("prometheus-adapter", program("prometheus-adapter")?, &log, |command| {
        served(command, plane, certificates, api);
        command.arg("--config").arg(file);
        command.args(["--prometheus-url", prometheus, "--metrics-relist-interval", "15s"]); // its default is longer than a test
    })?;
    let registered = Registered::at(plane, api, || adapter.check_running())?;
    Ok(Autoscaler { _registered: registered, _programs: vec![adapter] })
}

/// What both metrics API servers want: where they listen, and how they know who asks.
fn served(command: &mut std::process::Command, plane: &Plane, certificates: &Certificates, port: u16) {
    command.args(["--bind-address", "127.0.0.1", "--secure-port", &port.to_string()]);
    command.arg("--tls-cert-file").arg(&certificates.server_cert).arg("--tls-private-key-file").arg(&certificates.server_key);
    for of in ["--authentication-kubeconfig", "--authorization-kubeconfig", "--lister-kubeconfig"] {
        command.arg(of).arg(plane.kubeconfig_file());
    }
}

/// The folder with the certificates of one side between KEDA's two programs, by the names that they look for.
fn side(folder: &Path, certificates: &Certificates, certificate: &Path, key: &Path) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(folder)?;
    for (from, name) in [(certificates.ca.as_path(), "ca.crt"), (certificate, "tls.crt"), (key, "tls.key")] {
        std::fs::copy(from, folder.join(name)).with_context(|| from.display().to_string())?;
    }
    Ok(folder.to_owned())
}
