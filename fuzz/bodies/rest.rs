//! Requests to the servers that millrace has: the worker's own API, the embedded registry's and the embedded BigQuery's, through their real
//! sockets on loopback.
//!
//! Input: a line such as `b POST /projects/p/datasets/d/tables` (`w` the worker, `W` the worker without its token, `r` the registry, `b`
//! BigQuery), then the request's body.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use millrace::config::Secret;
use millrace::embedded::bigquery::{EmbeddedBigQuery, Settings};
use millrace::embedded::registry::{EmbeddedRegistry, RegistrySettings};
use millrace::fleet::{DesiredConnector, FleetStatus, Verb};
use millrace::http::{
    ApiToken, ConfigurationStatus, Control, MemoryStatus, Refusal, Server, Status, WorkerState, WorkerStatus, bind, router,
};
use serde_json::Value;

/// Far beyond what any request takes: another thing than a slow machine.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
const TOKEN: &str = "0123456789-never-shown";
/// So many requests see what those before them left behind; then all begins anew.
const REQUESTS_PER_LIFE: u32 = 2_000;

struct Worker;

impl Status for Worker {
    fn worker(&self) -> WorkerStatus {
        WorkerStatus {
            version: "0",
            state: WorkerState::Running,
            started_ms: 0,
            now_ms: 1,
            memory: MemoryStatus { budget_bytes: 1, used_bytes: 0, by_kind: Vec::new(), resident_bytes: None },
            connectors: Vec::new(),
            configuration: ConfigurationStatus::default(),
        }
    }
    fn live(&self) -> Result<(), String> {
        Ok(())
    }
    fn metrics(&self) -> String {
        String::new()
    }
    fn fleet(&self) -> Option<FleetStatus> {
        None
    }
}

#[async_trait]
impl Control for Worker {
    async fn tell(&self, connector: &str, verb: Verb) -> Result<DesiredConnector, Refusal> {
        let unknown = || Refusal::Unknown(connector.to_owned());
        if connector == "stock" { DesiredConnector::after(None, verb, 5, 7).map_err(Refusal::Conflict) } else { Err(unknown()) }
    }
}

/// The servers and a connection to each.
struct Life {
    _worker: Server,
    _registry: EmbeddedRegistry,
    _bigquery: EmbeddedBigQuery,
    worker: Client,
    registry: Client,
    bigquery: Client,
    requests: u32,
}

impl Life {
    async fn begin() -> Self {
        let worker = bind("127.0.0.1:0").await.expect("a port");
        let token = ApiToken::new(Some(&Secret::new(TOKEN)));
        let worker = Server::start(worker, router(Arc::new(Worker), Arc::new(Worker), token)).expect("a server");
        let registry = EmbeddedRegistry::start(RegistrySettings::default()).await.expect("a registry");
        let settings = Settings { metadata_updates_per_10_s: u32::MAX, ..Settings::default() };
        let bigquery = EmbeddedBigQuery::start(settings).await.expect("an embedded BigQuery");
        bigquery.create_dataset("p", "d").expect("a dataset");
        let address = |url: String| url.trim_start_matches("http://").parse().expect("an address");
        let clients =
            (Client::new(worker.address()), Client::new(address(registry.url().to_owned())), Client::new(address(bigquery.rest_url())));
        Self {
            _worker: worker,
            _registry: registry,
            _bigquery: bigquery,
            worker: clients.0,
            registry: clients.1,
            bigquery: clients.2,
            requests: 0,
        }
    }
}

/// An HTTP/1 connection that is made anew when the server has closed it.
struct Client {
    address: SocketAddr,
    connection: Option<http1::SendRequest<Full<Bytes>>>,
}

impl Client {
    fn new(address: SocketAddr) -> Self {
        Self { address, connection: None }
    }

    /// The answer's status and body; `None` when the server closed the connection first.
    async fn send(&mut self, request: Request<Full<Bytes>>) -> Option<(StatusCode, Bytes)> {
        if self.connection.as_ref().is_none_or(|open| open.is_closed()) {
            let stream = tokio::net::TcpStream::connect(self.address).await.expect("the server listens");
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1");
            tokio::spawn(connection);
            self.connection = Some(sender);
        }
        let open = self.connection.as_mut()?;
        open.ready().await.ok()?;
        let answer = open.send_request(request).await.ok()?;
        let status = answer.status();
        answer.into_body().collect().await.ok().map(|body| (status, body.to_bytes()))
    }
}

thread_local! {
    static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    static LIFE: RefCell<Option<Life>> = const { RefCell::new(None) };
}

/// What no input may break: no panic, an answer to every request, no failure of the server's own, a refusal that says why in the
/// server's own form, nothing written or shown without the token,
/// the token never in an answer.
pub fn run(input: &[u8]) {
    let at = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let (line, body) = (&input[..at], input.get(at + 1..).unwrap_or_default());
    let Ok(line) = std::str::from_utf8(line) else { return };
    let [to, method, path] = line.splitn(3, ' ').collect::<Vec<_>>()[..] else { return };
    let Ok(method) = Method::from_bytes(method.as_bytes()) else { return };
    // A HEAD or CONNECT says other things about its answer's body; `_control` of the embedded BigQuery makes the faults that are looked for.
    let controls = to == "b" && method != Method::GET && (path.contains("control") || path.contains('%'));
    if !path.starts_with('/') || path.len() > 4_096 || matches!(method, Method::HEAD | Method::CONNECT) || controls {
        return;
    }
    let mut request = Request::builder()
        .method(method.clone())
        .uri(path)
        .header(header::HOST, "localhost")
        .header(header::CONTENT_TYPE, "application/json");
    if to == "w" {
        request = request.header(header::AUTHORIZATION, format!("Bearer {TOKEN}"));
    }
    let Ok(request) = request.body(Full::new(Bytes::copy_from_slice(body))) else { return };
    let path = request.uri().path().to_owned();
    let answer = RUNTIME.with(|runtime| {
        LIFE.with_borrow_mut(|life| {
            runtime.block_on(async {
                if life.as_ref().is_none_or(|life| life.requests >= REQUESTS_PER_LIFE) {
                    *life = None;
                    *life = Some(Life::begin().await);
                }
                let life = life.as_mut()?;
                life.requests += 1;
                let client = match to {
                    "w" | "W" => &mut life.worker,
                    "r" => &mut life.registry,
                    "b" => &mut life.bigquery,
                    _ => return None,
                };
                let outcome = match tokio::time::timeout(ANSWER_TIMEOUT, client.send(request.clone())).await {
                    // The connection may have ended of old age just then.
                    Ok(None) => tokio::time::timeout(ANSWER_TIMEOUT, client.send(request)).await,
                    outcome => outcome,
                };
                Some(outcome.expect("an answer in time").unwrap_or_else(|| panic!("no answer to {method} {path}")))
            })
        })
    });
    let Some((status, body)) = answer else { return };
    // What the embedded BigQuery does not have, it says with 501.
    assert!(
        !status.is_server_error() || (to == "b" && status == StatusCode::NOT_IMPLEMENTED),
        "{status} to {method} {path}: {}",
        String::from_utf8_lossy(&body)
    );
    if status.is_client_error() {
        let shown = String::from_utf8_lossy(&body);
        assert!(refuses(to, status, &body), "{status} to {method} {path} says: {shown:?}");
    }
    assert!(
        input.windows(TOKEN.len()).any(|w| w == TOKEN.as_bytes()) || !body.windows(TOKEN.len()).any(|w| w == TOKEN.as_bytes()),
        "the token is shown"
    );
    let guarded = path == "/status" || path == "/fleet" || path.starts_with("/connectors/");
    if to == "W" && guarded {
        assert!(!status.is_success(), "{method} {path} without the token: {status}");
    }
}

/// Whether a refusal says why: the registry and BigQuery in the forms of their APIs, the worker in a line of text or JSON. Of a path or query
/// that cannot be read, and of a body beyond its limit, the registry's HTTP library tells, in text.
fn refuses(to: &str, status: StatusCode, body: &[u8]) -> bool {
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    let words = |value: &Value| value.as_str().is_some_and(|words| !words.is_empty());
    match to {
        "r" if json.is_null() => !body.is_empty(),
        "r" => words(&json["message"]) && json["error_code"].as_u64().is_some_and(|code| code.to_string().starts_with(status.as_str())),
        "b" => words(&json["error"]["message"]) && json["error"]["code"] == status.as_u16(),
        _ => !body.is_empty() && (json.is_null() || words(&json["error"])),
    }
}
