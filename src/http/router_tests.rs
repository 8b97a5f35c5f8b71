//! The paths, the token, and what a client may cost.

use super::*;
use crate::config::Secret;
use crate::fleet::{DesiredConnector, FleetStatus};
use crate::http::Server;
use crate::http::{ConfigurationStatus, FileMistake, MemoryStatus, WorkerState, WorkerStatus};
use crate::pipeline::{ConnectorState, ConnectorStatus, HoldStatus, PartitionStatus};

struct Fake(WorkerStatus, Result<(), String>);

impl Status for Fake {
    fn live(&self) -> Result<(), String> {
        self.1.clone()
    }
    fn worker(&self) -> WorkerStatus {
        self.0.clone()
    }
    fn metrics(&self) -> String {
        "millrace_build_info 1\n".to_owned()
    }
    fn fleet(&self) -> Option<FleetStatus> {
        None
    }
}

#[async_trait::async_trait]
impl Control for Fake {
    async fn tell(&self, connector: &str, verb: Verb) -> Result<DesiredConnector, Refusal> {
        match connector {
            "r" => DesiredConnector::after(None, verb, 5, 7).map_err(Refusal::Conflict),
            "busy" => Err(Refusal::Unavailable("brokers are away".to_owned())),
            other => Err(Refusal::Unknown(other.to_owned())),
        }
    }
}

const TOKEN: &str = "0123456789abcdef0123";

fn connector(name: &str, state: ConnectorState, message: Option<&str>) -> ConnectorStatus {
    ConnectorStatus {
        name: name.to_owned(),
        state,
        since_ms: 1_000,
        message: message.map(str::to_owned),
        partitions: Vec::new(),
        tables: Vec::new(),
        freshness: None,
        shards: Vec::new(),
        dead_letters: 0,
        skipped: 0,
    }
}

fn worker(now_ms: i64, connectors: Vec<ConnectorStatus>) -> WorkerStatus {
    let memory = MemoryStatus { budget_bytes: 1, used_bytes: 0, by_kind: vec![("plans", 0)], resident_bytes: None };
    WorkerStatus {
        version: "0",
        state: WorkerState::Running,
        started_ms: 0,
        now_ms,
        memory,
        connectors,
        configuration: ConfigurationStatus::default(),
    }
}

/// Serves it on a port of its own and sends a request's bytes; gives all that came back.
async fn send(fake: Fake, token: Option<&str>, request: &[u8]) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let fake = Arc::new(fake);
    let token = ApiToken::new(token.map(Secret::new).as_ref());
    let server = Server::start(listener, router(fake.clone(), fake, token)).unwrap();
    let mut stream = tokio::net::TcpStream::connect(server.address()).await.unwrap();
    let mut answer = Vec::new();
    // A server that refuses early closes while we still write.
    let _closed = stream.write_all(request).await;
    let _reset = stream.read_to_end(&mut answer).await;
    server.stop().await;
    String::from_utf8(answer).unwrap()
}

fn parts(answer: &str) -> (u16, String) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

async fn ask(worker: WorkerStatus, path: &str) -> (u16, String) {
    ask_of(Fake(worker, Ok(())), path).await
}

async fn ask_of(fake: Fake, path: &str) -> (u16, String) {
    parts(&send(fake, None, format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await)
}

/// The code of a request to a worker with the token, with this `Authorization`.
async fn code(method: &str, path: &str, authorization: Option<&str>) -> u16 {
    let header = authorization.map(|value| format!("Authorization: {value}\r\n")).unwrap_or_default();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n{header}Connection: close\r\n\r\n");
    parts(&send(Fake(worker(1_000, Vec::new()), Ok(())), Some(TOKEN), request.as_bytes()).await).0
}

#[tokio::test]
async fn with_a_token_what_tells_much_needs_it_and_the_probes_do_not() {
    let good = format!("Bearer {TOKEN}");
    for path in ["/", "/metrics", "/health/live", "/health/ready"] {
        assert_eq!(code("GET", path, None).await, 200, "{path}");
    }
    for wrong in [None, Some("Bearer 0123456789abcdef012"), Some("Basic 0123456789abcdef0123"), Some("Bearer")] {
        assert_eq!(code("GET", "/status", wrong).await, 401, "{wrong:?}");
        assert_eq!(code("GET", "/fleet", wrong).await, 401, "{wrong:?}");
        assert_eq!(code("POST", "/connectors/r/pause", wrong).await, 401, "{wrong:?}");
    }
    assert_eq!(code("GET", "/status", Some(&good)).await, 200);
    assert_eq!(code("GET", "/fleet", Some(&good)).await, 404, "mode is off");
    for (path, expected) in [
        ("/connectors/r/pause", 202),
        ("/connectors/r/resume", 202),
        ("/connectors/r/restart", 202),
        ("/connectors/r/stop", 202),
        ("/connectors/r/dance", 404),
        ("/connectors/nobody/pause", 404),
        ("/connectors/busy/stop", 503),
    ] {
        assert_eq!(code("POST", path, Some(&good)).await, expected, "{path}");
    }
    for method in ["GET", "PUT", "DELETE"] {
        assert_eq!(code(method, "/connectors/r/stop", Some(&good)).await, 405, "{method}");
    }
}

#[tokio::test]
async fn a_method_that_a_path_does_not_have_is_refused_with_the_paths_and_behind_the_token() {
    for path in ["/", "/status", "/fleet", "/metrics", "/health/live", "/connectors/r/stop"] {
        let ask = async |token: &str| {
            let request = format!("PATCH {path} HTTP/1.1\r\nHost: x\r\n{token}Content-Length: 0\r\nConnection: close\r\n\r\n");
            parts(&send(Fake(worker(1_000, Vec::new()), Ok(())), Some(TOKEN), request.as_bytes()).await)
        };
        let (code, why) = ask(&format!("Authorization: Bearer {TOKEN}\r\n")).await;
        assert!(code == 405 && why.contains("/health/live"), "{path}: {code} {why}");
        let guarded = path == "/status" || path == "/fleet" || path.starts_with("/connectors/");
        assert_eq!(ask("").await.0, if guarded { 401 } else { 405 }, "{path}");
    }
}

#[tokio::test]
async fn without_a_token_nothing_can_be_written() {
    let request =
        b"POST /connectors/r/stop HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let (code, why) = parts(&send(Fake(worker(1_000, Vec::new()), Ok(())), None, request).await);
    assert!(code == 403 && why.contains("api_token"), "{why}");
}

#[tokio::test]
async fn large_requests_are_refused() {
    let head = |more: String, length: usize| {
        format!("POST /connectors/r/stop HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n{more}Content-Length: {length}\r\n\r\n")
    };
    let code = async |request: String| parts(&send(Fake(worker(1_000, Vec::new()), Ok(())), Some(TOKEN), request.as_bytes()).await).0;
    assert_eq!(code(head("Connection: close\r\n".to_owned(), 4096) + &"x".repeat(4096)).await, 202);
    assert_eq!(code(head("Connection: close\r\n".to_owned(), 5000) + &"x".repeat(5000)).await, 413);
    assert_eq!(code(head(format!("X-Long: {}\r\n", "x".repeat(40_000)), 0)).await, 431);
    let many: String = (0..100).map(|n| format!("X-{n}: y\r\n")).collect();
    assert_eq!(code(head(many, 0)).await, 431);
}

#[tokio::test]
async fn a_client_that_is_slow_with_its_head_or_idle_is_let_go_and_others_are_served_meanwhile() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let fake = Arc::new(Fake(worker(1_000, Vec::new()), Ok(())));
    let server = Server::start(listener, router(fake.clone(), fake, ApiToken::new(None))).unwrap();
    let begun = std::time::Instant::now();
    let mut slow = tokio::net::TcpStream::connect(server.address()).await.unwrap();
    slow.write_all(b"GET /status HTT").await.unwrap();
    let mut idle = tokio::net::TcpStream::connect(server.address()).await.unwrap();
    let mut other = tokio::net::TcpStream::connect(server.address()).await.unwrap();
    other.write_all(b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    other.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("200 OK") && begun.elapsed() < std::time::Duration::from_secs(5), "{answer}");
    for stream in [&mut slow, &mut idle] {
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(std::time::Duration::from_secs(20), stream.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "still open after {:?}", begun.elapsed());
    }
    server.stop().await;
}

#[tokio::test]
async fn readiness_says_why_not() {
    let mut holding = connector("h", ConnectorState::Holding, Some("first"));
    let hold = HoldStatus { cause: "table_missing", message: "create it".to_owned(), since_ms: 1 };
    for partition in [0, 3] {
        holding.partitions.push(PartitionStatus {
            topic: "t".to_owned(),
            partition,
            position: 1,
            records: 0,
            bytes: 0,
            committed: None,
            lag_records: None,
            resting_since_ms: None,
            stream: None,
            hold: Some(hold.clone()),
        });
    }
    let (code, body) = ask(worker(1_000, vec![connector("r", ConnectorState::Running, None), holding.clone()]), "/health/ready").await;
    assert_eq!(code, 200);
    assert_eq!(body, r#"{"ready":true,"reasons":[],"holds":["connector `h` holds t[0], t[3]: table_missing: create it"],"mistakes":[]}"#);
    let failed = connector("f", ConnectorState::Failed, Some("fenced"));
    let (code, body) = ask(worker(1_000, vec![failed, holding]), "/health/ready").await;
    assert_eq!(code, 503);
    assert!(body.starts_with(r#"{"ready":false,"reasons":["connector `f` is failed: fenced"],"#), "{body}");
}

#[tokio::test]
async fn a_file_with_a_mistake_is_named_and_costs_no_readiness() {
    let mut worker = worker(1_000, vec![connector("r", ConnectorState::Running, None)]);
    let message = "connectors/r.toml:3:1: topcs: did you mean `topics`?".to_owned();
    worker.configuration.mistakes.push(FileMistake { connector: Some("r".to_owned()), since_ms: 1, message });
    let (code, body) = ask(worker, "/health/ready").await;
    assert_eq!((code, body.contains("r.toml:3:1") && body.contains("\"mistakes\":[\"")), (200, true), "{body}");
}

#[tokio::test]
async fn a_member_that_owns_nothing_is_ready_and_one_that_has_not_joined_is_not() {
    let one = |state, message| worker(60_000, vec![connector("s", state, message)]);
    assert_eq!(ask(one(ConnectorState::Starting, None), "/health/ready").await.0, 503, "however long it takes");
    assert_eq!(ask(one(ConnectorState::Idle, None), "/health/ready").await.0, 200);
    assert_eq!(
        ask(one(ConnectorState::Waiting, Some("for others")), "/health/ready").await.0,
        200,
        "or a rolling upgrade would stand still"
    );
    let (code, body) = ask(one(ConnectorState::Unreachable, Some("brokers unreachable since noon")), "/health/ready").await;
    assert_eq!(code, 503);
    assert!(body.contains("is unreachable: brokers unreachable since noon"), "{body}");
}

/// A restart mends a wedged thread. It mends nothing that is away, held or stalled: then the worker lives, whatever else it says.
#[tokio::test]
async fn liveness_fails_only_where_a_restart_helps() {
    for state in
        [ConnectorState::Holding, ConnectorState::Stalled, ConnectorState::Unreachable, ConnectorState::Failed, ConnectorState::Starting]
    {
        let worker = worker(60_000, vec![connector("c", state, Some("for good"))]);
        assert_eq!(ask(worker, "/health/live").await.0, 200, "{state:?}");
    }
    let wedged = Fake(worker(1_000, Vec::new()), Err("wedged: thread shard-0-c".to_owned()));
    let (code, body) = ask_of(wedged, "/health/live").await;
    assert_eq!((code, body.as_str()), (503, r#"{"live":false,"reason":"wedged: thread shard-0-c"}"#));
}

#[tokio::test]
async fn the_other_paths() {
    let one = || worker(1_000, vec![connector("r", ConnectorState::Running, None)]);
    assert_eq!(ask(one(), "/health/live").await, (200, r#"{"live":true}"#.to_owned()));
    assert_eq!(ask(one(), "/metrics").await, (200, "millrace_build_info 1\n".to_owned()));
    let (code, status) = ask(one(), "/status").await;
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!((code, &status["connectors"][0]["state"]), (200, &"running".into()));
    let (code, page) = ask(one(), "/").await;
    assert!(code == 200 && page.contains("/status") && !page.contains("http://") && !page.contains("https://"));
    assert_eq!(ask(one(), "/nothing").await.0, 404);
    let (code, why) = ask(one(), "/fleet").await;
    assert!(code == 404 && why.contains("mode = \"off\""), "{why}");
}
