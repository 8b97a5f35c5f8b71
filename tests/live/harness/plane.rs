//! A Kubernetes control plane on loopback: etcd, kube-apiserver, kube-controller-manager, one program of three names. No kubelet, no
//! scheduler.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Context, bail};
use millrace::embedded::ports::free_ports;
use serde_json::{Value, json};

use super::certificates::Certificates;
use super::process::{Process, STARTS_WITHIN, wait_for};

/// What is needed of the controller manager.
const CONTROLLERS: [&str; 6] = [
    "statefulset-controller",
    "garbage-collector-controller",
    "disruption-controller",
    "namespace-controller",
    "serviceaccount-controller",
    "horizontal-pod-autoscaler-controller",
];
/// On by default from Kubernetes 1.35 on: an HPA that follows every step (`tolerance`).
const FEATURES: [&str; 2] = ["--feature-gates", "HPAConfigurableTolerance=true"];

/// A running control plane.
pub struct Plane {
    program: PathBuf,
    clients: Clients,
    folder: PathBuf,
    certificates: Files,
    port: u16,
    etcd_port: u16,
    api_server: Mutex<Option<Process>>,
    _controllers: Process,
    // Last: the others need it until they end.
    _etcd: Process,
}

struct Files {
    ca: PathBuf,
    /// Certificate and key.
    server: [PathBuf; 2],
    client: [PathBuf; 2],
}

impl Plane {
    /// Starts it and waits until it can be used.
    pub fn start(parts: &Path, folder: &Path, certificates: &Certificates) -> anyhow::Result<Self> {
        let program = parts.join("kube/kube");
        let [port, etcd_port, peer_port] = free_ports()?;
        new_signing_key(folder)?;
        let token = uuid::Uuid::new_v4().to_string();
        std::fs::write(folder.join("admin.token"), &token)?;
        std::fs::write(folder.join("tokens.csv"), format!("{token},admin,admin,system:masters\n"))?;
        let etcd = Process::start("etcd", &program, &folder.join("etcd.out.log"), |command| {
            let (client, peer) = (format!("http://127.0.0.1:{etcd_port}"), format!("http://127.0.0.1:{peer_port}"));
            command.args(["etcd", "--unsafe-no-fsync", "--log-level", "warn", "--logger", "zap", "--data-dir"]).arg(folder.join("etcd"));
            command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client, "--listen-peer-urls", &peer]);
            command.args(["--initial-advertise-peer-urls", &peer, "--initial-cluster", &format!("default={peer}")]);
        })?;
        let files = Files {
            ca: certificates.ca.clone(),
            server: [certificates.server_cert.clone(), certificates.server_key.clone()],
            client: [certificates.client_cert.clone(), certificates.client_key.clone()],
        };
        let user = json!({"token": token});
        std::fs::write(folder.join("admin.kubeconfig"), kubeconfig(&address(port), &files.ca, &user).to_string())?;
        let mut api_server = api_server(&program, folder, &files, port, etcd_port)?;
        let clients = Clients { programs: parts.join("kubernetes-clients"), folder: folder.to_owned() };
        clients.wait_until_ready(|| api_server.check_running())?; // the controllers give up after ten seconds
        let mut controllers = Process::start("kube-controller-manager", &program, &folder.join("controllers.out.log"), |command| {
            command.args(["controller-manager", "--leader-elect=false", "--secure-port", "0", "--profiling=false"]);
            command.args(FEATURES).args(["--horizontal-pod-autoscaler-sync-period", "1s"]); // 15 s where nobody waits for it
            command.args(["--controllers", &CONTROLLERS.join(","), "--kubeconfig"]).arg(folder.join("admin.kubeconfig"));
        })?;
        wait_for("the controllers' first work", STARTS_WITHIN, || {
            controllers.check_running()?;
            Ok(clients.run("kubectl", &["get", "serviceaccount", "default"]).ok())
        })?;
        let api_server = Mutex::new(Some(api_server));
        let (folder, certificates) = (folder.to_owned(), files);
        Ok(Self { program, clients, folder, certificates, port, etcd_port, api_server, _controllers: controllers, _etcd: etcd })
    }

    fn lock(&self) -> anyhow::Result<std::sync::MutexGuard<'_, Option<Process>>> {
        self.api_server.lock().map_err(|_| anyhow::anyhow!("a test panicked while it held the API server"))
    }

    /// The API server's address.
    pub fn url(&self) -> String {
        address(self.port)
    }

    /// The authority that signed its certificate.
    pub fn ca(&self) -> &Path {
        &self.certificates.ca
    }

    /// The file with the token of a user that may do everything.
    pub fn admin_token_file(&self) -> PathBuf {
        self.folder.join("admin.token")
    }

    /// SIGKILL to the API server.
    pub fn kill_api_server(&self) -> anyhow::Result<()> {
        self.lock()?.take().context("the API server does not run")?.kill()
    }

    /// Starts it again and waits until it answers.
    pub fn start_api_server(&self) -> anyhow::Result<()> {
        let mut started = api_server(&self.program, &self.folder, &self.certificates, self.port, self.etcd_port)?;
        self.clients.wait_until_ready(|| started.check_running())?;
        *self.lock()? = Some(started);
        Ok(())
    }

    /// Another key for the tokens of ServiceAccounts: from the API server's next start on, every token that was given out is refused.
    pub fn replace_signing_key(&self) -> anyhow::Result<()> {
        new_signing_key(&self.folder)
    }

    /// For programs in the name of a user that may do everything.
    pub fn kubeconfig_file(&self) -> PathBuf {
        self.folder.join("admin.kubeconfig")
    }

    /// What `kubectl` prints; an error when it fails, with what it says.
    pub fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.clients.run("kubectl", arguments)
    }

    /// Writes a StatefulSet's `spec.replicas` to a file, a line each time that the object changes.
    pub fn watch_replicas(&self, name: &str, to: &Path) -> anyhow::Result<Process> {
        Process::start("kubectl get --watch", self.clients.programs.join("kubectl"), to, |command| {
            command.env("KUBECONFIG", self.kubeconfig_file()).env("HOME", &self.folder);
            command.args(["get", "statefulset", name, "--watch", "--output", r#"jsonpath={.spec.replicas}{"\n"}"#]);
        })
    }

    /// An object as JSON.
    pub fn get(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.kubectl(&[&["get", "-o", "json"], arguments].concat())?)?)
    }

    /// Applies objects, which the API server holds against their schemas to the last field. `name` is the file's, of which there may be many.
    pub fn apply(&self, name: &str, objects: &[Value]) -> anyhow::Result<String> {
        self.apply_with(name, objects, &[])
    }

    /// The same, judged by the API server and not kept.
    pub fn judge(&self, name: &str, objects: &[Value]) -> anyhow::Result<String> {
        self.apply_with(name, objects, &["--dry-run=server"])
    }

    fn apply_with(&self, name: &str, objects: &[Value], more: &[&str]) -> anyhow::Result<String> {
        let file = self.folder.join(format!("{name}.json"));
        std::fs::write(&file, json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string())?;
        let file = file.to_str().context("a path in UTF-8")?;
        self.kubectl(&[&["apply", "--validate=strict", "-f", file], more].concat())
    }

    /// What `helm` prints; an error when it fails, with what it says.
    pub fn helm(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.clients.run("helm", arguments)
    }

    /// A kubeconfig for a ServiceAccount, with a token of its own.
    pub fn service_account(&self, name: &str) -> anyhow::Result<Value> {
        let token = self.kubectl(&["create", "token", name, "--duration=1h"])?;
        Ok(kubeconfig(&self.url(), self.ca(), &json!({"token": token.trim()})))
    }
}

/// kubectl and helm, in the name of a user that may do everything.
struct Clients {
    programs: PathBuf,
    folder: PathBuf,
}

impl Clients {
    fn run(&self, name: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let done = Command::new(self.programs.join(name))
            .args(arguments)
            .env("KUBECONFIG", self.folder.join("admin.kubeconfig"))
            .env("HOME", &self.folder) // where both keep caches
            .output()
            .with_context(|| format!("{name} (tests/deploy/install)"))?;
        if !done.status.success() {
            bail!("{name} {}: {}", arguments.join(" "), String::from_utf8_lossy(&done.stderr).trim());
        }
        Ok(String::from_utf8(done.stdout)?)
    }

    fn wait_until_ready(&self, mut check_running: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
        wait_for("the API server", STARTS_WITHIN, || {
            check_running()?;
            Ok(self.run("kubectl", &["get", "--raw", "/readyz"]).ok().map(drop))
        })
    }
}

fn address(port: u16) -> String {
    format!("https://127.0.0.1:{port}")
}

fn kubeconfig(server: &str, ca: &Path, user: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "live",
        "clusters": [{"name": "live", "cluster": {"server": server, "certificate-authority": ca}}],
        "users": [{"name": "live", "user": user}],
        "contexts": [{"name": "live", "context": {"cluster": "live", "user": "live", "namespace": "default"}}],
    })
}

fn new_signing_key(folder: &Path) -> anyhow::Result<()> {
    let done = Command::new("openssl").args(["genrsa", "-out"]).arg(folder.join("sa.key")).arg("2048").output()?;
    if !done.status.success() {
        bail!("openssl genrsa: {}", String::from_utf8_lossy(&done.stderr));
    }
    Ok(())
}

fn api_server(program: &Path, folder: &Path, certificates: &Files, port: u16, etcd_port: u16) -> anyhow::Result<Process> {
    Process::start("kube-apiserver", program, &folder.join("apiserver.out.log"), |command| {
        command.args([
            "apiserver",
            "--bind-address",
            "127.0.0.1",
            "--advertise-address",
            "127.0.0.1",
            "--endpoint-reconciler-type",
            "none",
        ]);
        command.args(FEATURES);
        command.args(["--secure-port", &port.to_string(), "--etcd-servers", &format!("http://127.0.0.1:{etcd_port}")]);
        command.args(["--service-cluster-ip-range", "10.0.0.0/24", "--authorization-mode", "RBAC", "--profiling=false"]);
        let ([server, server_key], [client, client_key]) = (&certificates.server, &certificates.client);
        command.arg("--tls-cert-file").arg(server).arg("--tls-private-key-file").arg(server_key);
        // What servers of further APIs, such as KEDA's, know the API server by, and the user that it asks for.
        command.arg("--proxy-client-cert-file").arg(client).arg("--proxy-client-key-file").arg(client_key);
        command.arg("--requestheader-client-ca-file").arg(&certificates.ca).args(["--requestheader-allowed-names", "client"]);
        command.args(["--requestheader-username-headers", "X-Remote-User", "--requestheader-group-headers", "X-Remote-Group"]);
        command.args(["--requestheader-extra-headers-prefix", "X-Remote-Extra-"]);
        command.arg("--cert-dir").arg(folder.join("pki")).arg("--token-auth-file").arg(folder.join("tokens.csv"));
        command.args(["--service-account-issuer", &address(port), "--service-account-key-file"]).arg(folder.join("sa.key"));
        command.arg("--service-account-signing-key-file").arg(folder.join("sa.key"));
    })
}
