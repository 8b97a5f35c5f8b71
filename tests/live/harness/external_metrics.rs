//! A stand-in for what answers an HPA's external metrics (prometheus-adapter, KEDA's metrics server): an aggregated API behind the API server,
//! on loopback. What it answers is the test's.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use rustls::ServerConfig;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::certificates::Certificates;
use super::plane::Plane;
use super::process::wait_for;

/// Group and version that it serves, and its name as an APIService.
const API: &str = "external.metrics.k8s.io/v1beta1";
const API_SERVICE: &str = "v1beta1.external.metrics.k8s.io";
const SERVICE: &str = "external-metrics";

/// What an HPA hears.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Answer {
    /// One series of this value.
    Of(u32),
    /// No series: what prometheus-adapter says when its query finds nothing.
    Nothing,
    /// An error: what KEDA says then.
    Failure,
}

/// Asked for each answer with the metric's name; it may block.
type Source = dyn Fn(&str) -> Answer + Send + Sync;

/// The running server. Dropping it takes its API away and ends it.
pub struct ExternalMetrics<'a> {
    asked: Arc<AtomicU64>,
    _registered: Registered<'a>,
    _runtime: Runtime,
}

struct Served {
    source: Box<Source>,
    asked: Arc<AtomicU64>,
}

impl<'a> ExternalMetrics<'a> {
    /// Starts it and waits until the API server hands questions on to it.
    pub fn start(
        plane: &'a Plane,
        certificates: &Certificates,
        source: impl Fn(&str) -> Answer + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0)))?;
        let port = listener.local_addr()?.port();
        let asked = Arc::<AtomicU64>::default();
        let router = Router::new()
            .route(&format!("/apis/{API}"), get(resources))
            .route(&format!("/apis/{API}/namespaces/{{namespace}}/{{metric}}"), get(answer))
            .with_state(Arc::new(Served { source: Box::new(source), asked: Arc::clone(&asked) }));
        let listener = Tls { listener, acceptor: acceptor(certificates)? };
        runtime.spawn(async move { axum::serve(listener, router).await });
        let registered = Registered::at(plane, port, || Ok(()))?;
        Ok(Self { asked, _registered: registered, _runtime: runtime })
    }

    /// Waits until an HPA has heard so many more answers.
    pub fn wait_for_answers(&self, count: u64) -> anyhow::Result<()> {
        let before = self.asked.load(Ordering::SeqCst);
        wait_for("an HPA asks again", Duration::from_secs(60), || Ok((self.asked.load(Ordering::SeqCst) >= before + count).then_some(())))
    }
}

/// The API server hands questions for external metrics on to a server on this machine. Dropping it ends that.
pub struct Registered<'a>(&'a Plane);

impl<'a> Registered<'a> {
    /// Waits until the API server takes the one that listens at `port` with TLS; `check_running` says why it never will.
    pub fn at(plane: &'a Plane, port: u16, mut check_running: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Self> {
        // A name outside the cluster is the one kind of Service whose backend the API server lets be on loopback.
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": SERVICE, "namespace": "default"},
            "spec": {"type": "ExternalName", "externalName": "localhost"},
        });
        let (group, version) = API.split_once('/').context("a group and a version")?;
        let api = json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": API_SERVICE},
            "spec": {
                "group": group, "version": version, "groupPriorityMinimum": 100, "versionPriority": 100, "insecureSkipTLSVerify": true,
                "service": {"name": SERVICE, "namespace": "default", "port": port},
            },
        });
        plane.apply("external-metrics", &[service, api])?;
        let registered = Self(plane);
        wait_for("the API server to take the external metrics", Duration::from_secs(60), || {
            check_running()?;
            let api = plane.get(&["apiservice", API_SERVICE])?;
            let conditions = api["status"]["conditions"].as_array().cloned().unwrap_or_default();
            Ok(conditions.iter().any(|of| of["type"] == "Available" && of["status"] == "True").then_some(()))
        })?;
        Ok(registered)
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        // A dead API would spoil the discovery of all others; the plane may be gone already.
        let _ = self.0.kubectl(&["delete", "apiservice", API_SERVICE, "--ignore-not-found"]);
        let _ = self.0.kubectl(&["delete", "service", SERVICE, "--ignore-not-found"]);
    }
}

async fn resources() -> Json<Value> {
    Json(json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": API, "resources": []}))
}

async fn answer(State(served): State<Arc<Served>>, Path((_, metric)): Path<(String, String)>) -> Response {
    let name = metric.clone();
    let source = Arc::clone(&served);
    let answer = tokio::task::spawn_blocking(move || (source.source)(&name)).await;
    served.asked.fetch_add(1, Ordering::SeqCst);
    let now = chrono::Utc::now().format("%Y-%m-%dT%H:%M:%SZ").to_string();
    let items = match answer {
        Ok(Answer::Of(value)) => json!([{"metricName": metric, "metricLabels": {}, "timestamp": now, "value": value.to_string()}]),
        Ok(Answer::Nothing) => json!([]),
        Ok(Answer::Failure) | Err(_) => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    };
    Json(json!({"kind": "ExternalMetricValueList", "apiVersion": API, "metadata": {}, "items": items})).into_response()
}

fn acceptor(certificates: &Certificates) -> anyhow::Result<TlsAcceptor> {
    let chain = rustls_pemfile::certs(&mut std::fs::read(&certificates.server_cert)?.as_slice()).collect::<Result<Vec<_>, _>>()?;
    let key = rustls_pemfile::private_key(&mut std::fs::read(&certificates.server_key)?.as_slice())?.context("no key")?;
    Ok(TlsAcceptor::from(Arc::new(ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?)))
}

/// TLS in front of axum: one handshake after another, for only the API server comes.
struct Tls {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok((stream, address)) = self.listener.accept().await else { continue };
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}
