//! A way to the API server on which one write of the scale can be held: what is between a leader's recheck and its write takes as long as a
//! test wants.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{Method, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use tokio::runtime::Runtime;
use tokio::sync::Notify;

use super::process::wait_for;

/// A running gate. Plain HTTP on loopback in front, TLS behind; tokens pass through.
pub struct ApiGate {
    url: String,
    road: Arc<Road>,
    _runtime: Runtime,
}

struct Road {
    server: String,
    client: reqwest::Client,
    armed: AtomicBool,
    caught: AtomicBool,
    go_on: Notify,
    outcome: AtomicU16,
}

impl ApiGate {
    /// In front of the API server at `server`, whose certificate `ca` signed.
    pub fn start(server: &str, ca: &Path) -> anyhow::Result<Self> {
        let ca = reqwest::Certificate::from_pem(&std::fs::read(ca)?)?;
        let client = reqwest::Client::builder().add_root_certificate(ca).build()?;
        let road = Arc::new(Road {
            server: server.to_owned(),
            client,
            armed: AtomicBool::new(false),
            caught: AtomicBool::new(false),
            go_on: Notify::new(),
            outcome: AtomicU16::new(0),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(tokio::net::TcpListener::bind(("127.0.0.1", 0)))?;
        let url = format!("http://{}", listener.local_addr()?);
        let router = Router::new().fallback(pass).with_state(Arc::clone(&road));
        runtime.spawn(async move { axum::serve(listener, router).await });
        Ok(Self { url, road, _runtime: runtime })
    }

    /// The API server's address through it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Holds the next write of a scale.
    pub fn arm(&self) {
        self.road.caught.store(false, Ordering::SeqCst);
        self.road.outcome.store(0, Ordering::SeqCst);
        self.road.armed.store(true, Ordering::SeqCst);
    }

    /// Waits until one is held.
    pub fn wait_until_caught(&self, within: Duration) -> anyhow::Result<()> {
        wait_for("a write of the scale", within, || Ok(self.road.caught.load(Ordering::SeqCst).then_some(())))
    }

    /// Lets it go on, though its sender may have given it up long ago; returns the API server's answer to it.
    pub fn release(&self) -> anyhow::Result<u16> {
        self.road.go_on.notify_one();
        let answered = || Ok(Some(self.road.outcome.load(Ordering::SeqCst)).filter(|status| *status != 0));
        wait_for("the answer to the held write", Duration::from_secs(20), answered).context("the gate")
    }
}

async fn pass(State(road): State<Arc<Road>>, request: Request<Body>) -> Response {
    // A task of its own: it must go on when the sender hangs up.
    match tokio::spawn(forward(road, request)).await {
        Ok(Ok(answer)) => answer,
        _ => StatusCode::BAD_GATEWAY.into_response(),
    }
}

async fn forward(road: Arc<Road>, request: Request<Body>) -> anyhow::Result<Response> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let body: Bytes = axum::body::to_bytes(body, 1 << 20).await?;
    let resizes = parts.method == Method::PUT && parts.uri.path().ends_with("/scale");
    let held = resizes && road.armed.swap(false, Ordering::SeqCst);
    if held {
        road.caught.store(true, Ordering::SeqCst);
        road.go_on.notified().await;
    }
    let mut headers = parts.headers;
    headers.remove("host");
    let answer = road.client.request(parts.method, format!("{}{path}", road.server)).headers(headers).body(body).send().await?;
    let status = answer.status();
    if held {
        road.outcome.store(status.as_u16(), Ordering::SeqCst);
    }
    let kind = answer.headers().get("content-type").cloned();
    let mut response = (status, answer.bytes().await?).into_response();
    if let Some(kind) = kind {
        response.headers_mut().insert("content-type", kind);
    }
    Ok(response)
}
