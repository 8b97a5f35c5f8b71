//! A pod's own credentials: the variables, the token and the CA that every pod finds in one fixed place, and a token that is rotated there.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::harness::installation::{Installation, avro_connector};
use crate::harness::plane::Plane;
use crate::harness::process::wait_for;
use crate::harness::servers::Servers;

const TEST: &str = "kubernetes::a_pod_leads_with_its_own_credentials";
const NAME: &str = "inside";
/// Where pods have them; only this process and its children see what lies there.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const MOUNTED: &str =
    "mount -t tmpfs tmpfs \"$(readlink -f /var/run)\" && mkdir -p \"$0\" && mount --bind \"$1\" \"$0\" && shift && exec \"$@\"";

/// A worker in a mount namespace of its own leads and resizes with what a pod finds; its token is revoked, and it goes on with the next
/// one.
pub fn a_pod_leads_with_its_own_credentials(servers: &Servers) -> anyhow::Result<()> {
    let inside = |command: &mut Command, folder: &Path| {
        // The superuser may mount; others may as the superuser of a user namespace, where the machine allows it.
        let root = rustix::process::geteuid().is_root();
        command.arg(if root { "-m" } else { "-rm" }).args(["sh", "-c", MOUNTED, ACCOUNT]).arg(folder);
    };
    let mut tried = Command::new("unshare");
    inside(&mut tried, Path::new("/"));
    if !tried.arg("true").output().is_ok_and(|tried| tried.status.success()) {
        eprintln!("      not tried: this machine lets nobody mount");
        return Ok(());
    }
    let plane = servers.plane()?;
    let chart = format!("{}/deploy/chart", env!("CARGO_MANIFEST_DIR"));
    plane.helm(&["install", NAME, &chart, "--set", &format!("fullnameOverride={NAME}")])?;
    servers.kafka()?.create_topic(NAME, 4, &[])?;
    servers.kafka()?.create_topic("inside.dead", 1, &[])?;
    servers.emulator()?.reader().create_dataset(NAME)?;
    let mut installation = Installation::new(servers, TEST)?;
    for (key, value) in [("mode", "kubernetes"), ("fleet_id", NAME), ("report_interval", "500ms"), ("decide_interval", "1s")] {
        installation.set("scaling", key, value);
    }
    installation.set("scaling", "min", 2);
    installation.connector(NAME, &avro_connector(NAME, "inside.rows", "inside.dead"))?;

    let account = installation.folder().join("serviceaccount");
    std::fs::create_dir_all(&account)?;
    std::fs::copy(plane.ca(), account.join("ca.crt"))?;
    std::fs::write(account.join("namespace"), "default")?;
    give_token(plane, &account, "first")?;
    let url = plane.url();
    let (host, port) = url.trim_start_matches("https://").rsplit_once(':').context("a port")?;
    let mut worker = installation.start_by("unshare", |command| {
        inside(command, &account);
        command.arg(env!("CARGO_BIN_EXE_millrace")).env_remove("KUBECONFIG");
        command.env("KUBERNETES_SERVICE_HOST", host).env("KUBERNETES_SERVICE_PORT", port);
        command.env("POD_NAME", format!("{NAME}-0")).env("POD_NAMESPACE", "default");
        command.env("MILLRACE_STATEFULSET", NAME).env("MILLRACE_LEASE", format!("{NAME}-leader"));
    })?;
    let lease = || plane.get(&["lease", &format!("{NAME}-leader")]).map(|lease| lease["spec"].clone());
    wait_for("it leads", Duration::from_secs(60), || {
        worker.process().check_running()?;
        Ok(lease()?["holderIdentity"].as_str().is_some_and(|holder| holder.starts_with("inside-0_")).then_some(()))
    })?;
    let replicas = || anyhow::Ok(plane.get(&["statefulset", NAME])?["spec"]["replicas"].as_u64());
    wait_for("the raise to min", Duration::from_secs(60), || Ok((replicas()? == Some(2)).then_some(())))?;

    // A token is void as soon as the object is gone that it was given for.
    plane.kubectl(&["delete", "secret", "inside-first"])?;
    std::thread::sleep(Duration::from_secs(20));
    let before = lease()?["renewTime"].clone();
    std::thread::sleep(Duration::from_secs(6));
    ensure!(lease()?["renewTime"] == before, "the first token is still taken");
    give_token(plane, &account, "second")?;
    wait_for("it leads with the next token", Duration::from_secs(120), || Ok((lease()?["renewTime"] != before).then_some(())))?;
    worker.terminate()?;
    ensure!(lease()?["holderIdentity"].as_str().is_none_or(str::is_empty), "a clean stop lets go of the lease");
    plane.helm(&["uninstall", NAME]).map(drop)
}

/// A token as a kubelet writes one: whole or not at all.
fn give_token(plane: &Plane, account: &Path, number: &str) -> anyhow::Result<()> {
    let secret = format!("{NAME}-{number}");
    plane.kubectl(&["create", "secret", "generic", &secret])?;
    let bound = ["--bound-object-kind", "Secret", "--bound-object-name", &secret];
    let token = plane.kubectl(&[&["create", "token", NAME, "--duration=1h"][..], &bound].concat())?;
    std::fs::write(account.join("token.new"), token.trim())?;
    Ok(std::fs::rename(account.join("token.new"), account.join("token"))?)
}
