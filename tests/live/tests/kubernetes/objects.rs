//! What the API server says to the chart's objects, and to a worker that wants more than its Role lists.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::harness::plane::Plane;
use crate::harness::process::wait_for;
use crate::harness::servers::Servers;

const RELEASE: &str = "rights";

/// Every object of the chart is accepted, and a worker's ServiceAccount may do what the Role lists and nothing else.
pub fn the_chart_is_accepted_and_its_role_is_narrow(servers: &Servers) -> anyhow::Result<()> {
    let plane = servers.plane()?;
    let chart = format!("{}/deploy/chart", env!("CARGO_MANIFEST_DIR"));
    plane.helm(&["install", RELEASE, &chart, "--set", &format!("fullnameOverride={RELEASE}")])?;
    // The same objects as deploy/millrace.yaml has them, judged and not kept.
    let rendered = format!("{}/deploy/millrace.yaml", env!("CARGO_MANIFEST_DIR"));
    let _ = plane.kubectl(&["create", "namespace", "millrace"]);
    let judged = plane.kubectl(&["apply", "--dry-run=server", "-f", &rendered])?;
    for kind in ["statefulset", "lease", "role", "rolebinding", "serviceaccount", "poddisruptionbudget", "service", "configmap"] {
        ensure!(judged.contains(kind), "deploy/millrace.yaml has no {kind}: {judged}");
    }
    let lease = plane.get(&["lease", &format!("{RELEASE}-leader")])?;
    ensure!(lease["spec"]["holderIdentity"].is_null(), "the chart ships the Lease empty: {lease}");
    let set = plane.get(&["statefulset", RELEASE])?;
    ensure!(set["spec"]["podManagementPolicy"] == "Parallel" && set["spec"]["replicas"] == 1, "{}", set["spec"]);

    let worker = Worker::new(servers, plane)?;
    let (scale, lease) = (format!("{STATEFUL_SETS}/{RELEASE}/scale"), format!("{LEASES}/{RELEASE}-leader"));
    for path in [&scale, &lease] {
        worker.ask("GET", path, None).with_context(|| format!("GET {path}, which the Role allows"))?;
        // Its controller may write in between: then the version that was read is refused, and read anew.
        wait_for(&format!("PUT {path}, which the Role allows"), Duration::from_secs(60), || {
            let object = worker.ask("GET", path, None)?;
            match worker.ask("PUT", path, Some(&object)) {
                Err(error) if error.to_string().contains("Conflict") => Ok(None),
                answer => answer.map(Some),
            }
        })?;
    }
    let whole = plane.kubectl(&["get", "--raw", &format!("{STATEFUL_SETS}/{RELEASE}")])?;
    let refused = [
        ("GET", format!("{STATEFUL_SETS}/{RELEASE}"), None),
        ("PUT", format!("{STATEFUL_SETS}/{RELEASE}"), Some(whole.as_str())),
        ("DELETE", format!("{STATEFUL_SETS}/{RELEASE}"), None),
        ("GET", STATEFUL_SETS.to_owned(), None),
        ("GET", format!("{STATEFUL_SETS}/other/scale"), None),
        ("GET", format!("{LEASES}/other"), None),
        ("GET", LEASES.to_owned(), None),
        ("POST", LEASES.to_owned(), Some(r#"{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{"name":"own"}}"#)),
        ("DELETE", lease, None),
        ("GET", "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/any".to_owned(), None),
        ("GET", format!("{NAMESPACE}/pods"), None),
        ("GET", format!("{NAMESPACE}/secrets"), None),
        ("GET", format!("{NAMESPACE}/configmaps"), None),
        ("POST", format!("{NAMESPACE}/serviceaccounts/{RELEASE}/token"), Some("{}")),
    ];
    for (verb, path, body) in refused {
        match worker.ask(verb, &path, body) {
            Ok(answer) => anyhow::bail!("a worker may {verb} {path}: {answer}"),
            Err(error) => ensure!(error.to_string().contains("Forbidden"), "{verb} {path}: not refused for its rights: {error}"),
        }
    }
    plane.helm(&["uninstall", RELEASE]).map(drop)
}

/// Both ways of helm to change an object (a three-way merge, and fields that the server knows the owners of) leave alone what the chart
/// does not name. One that replaces the object does not: values.yaml warns of it.
pub fn upgrades_leave_the_replicas_alone(servers: &Servers) -> anyhow::Result<()> {
    let plane = servers.plane()?;
    let chart = format!("{}/deploy/chart", env!("CARGO_MANIFEST_DIR"));
    let replicas = |name: &str| Ok::<_, anyhow::Error>(plane.get(&["statefulset", name])?["spec"]["replicas"].as_u64());
    for (name, way) in [("merged", "--server-side=false"), ("applied", "--server-side=true")] {
        let full_name = format!("fullnameOverride={name}");
        plane.helm(&["install", name, &chart, way, "--set", &full_name])?;
        let scale = format!("{STATEFUL_SETS}/{name}/scale");
        // As the leader does it: through the scale subresource.
        plane.kubectl(&["scale", "statefulset", name, "--replicas=3"])?;
        ensure!(plane.kubectl(&["get", "--raw", &scale])?.contains("\"replicas\":3"), "the scale was not set");
        plane.helm(&["upgrade", name, &chart, way, "--set", &full_name, "--set", "podAnnotations.changed=yes"])?;
        let set = plane.get(&["statefulset", name])?;
        ensure!(set["spec"]["template"]["metadata"]["annotations"]["changed"] == "yes", "{way}: nothing was upgraded");
        ensure!(replicas(name)? == Some(3), "{way}: the upgrade made {:?} of 3 replicas", replicas(name)?);
        if name == "merged" {
            plane.helm(&["upgrade", name, &chart, way, "--force-replace", "--set", &full_name])?;
            ensure!(replicas(name)? == Some(1), "values.yaml says that a replacement resets the replicas: {:?}", replicas(name)?);
        }
        plane.helm(&["uninstall", name])?;
    }
    Ok(())
}

const NAMESPACE: &str = "/api/v1/namespaces/default";
const STATEFUL_SETS: &str = "/apis/apps/v1/namespaces/default/statefulsets";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/default/leases";

/// A worker's identity, and requests in its name.
struct Worker {
    token: String,
    ca: String,
    server: String,
    body: std::path::PathBuf,
}

impl Worker {
    fn new(servers: &Servers, plane: &Plane) -> anyhow::Result<Self> {
        let token = plane.kubectl(&["create", "token", RELEASE, "--duration=1h"])?.trim().to_owned();
        let body = servers.folder("rights")?.join("body.json");
        Ok(Self { token, ca: plane.ca().display().to_string(), server: plane.url(), body })
    }

    /// The answer's body; an error with the API server's reason otherwise.
    fn ask(&self, verb: &str, path: &str, body: Option<&str>) -> anyhow::Result<String> {
        std::fs::write(&self.body, body.unwrap_or_default())?;
        let answer = Command::new("curl")
            .args(["-sS", "--cacert", &self.ca, "-X", verb, "-w", "\n%{http_code}"])
            .args(["-H", &format!("Authorization: Bearer {}", self.token), "-H", "Content-Type: application/json"])
            .args(body.is_some().then(|| ["--data-binary".to_owned(), format!("@{}", self.body.display())]).into_iter().flatten())
            .arg(format!("{}{path}", self.server))
            .output()?;
        let text = String::from_utf8(answer.stdout)?;
        let (body, status) = text.rsplit_once('\n').with_context(|| String::from_utf8_lossy(&answer.stderr).into_owned())?;
        ensure!(status.starts_with('2'), "{status}: {}", body.lines().filter(|line| line.contains("reason")).collect::<String>());
        Ok(body.to_owned())
    }
}
