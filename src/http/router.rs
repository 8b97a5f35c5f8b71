//! The paths.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};

use super::page::PAGE;
use super::view::{Readiness, Status};

/// The most that a request's body may hold: nothing here takes one.
const BODY_BYTES_MAX: usize = 4 * 1024;

/// `/` (page), `/status` and `/fleet` (JSON), `/metrics` (Prometheus), `/health/live`, `/health/ready`.
pub fn router(status: Arc<dyn Status>) -> Router {
    Router::new()
        .route("/", get(async || Html(PAGE)))
        .route("/status", get(worker))
        .route("/fleet", get(fleet))
        .route("/metrics", get(metrics))
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
        .fallback(async || (StatusCode::NOT_FOUND, "paths: / /status /fleet /metrics /health/live /health/ready\n"))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(status)
}

async fn worker(State(status): State<Arc<dyn Status>>) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], Json(status.worker())).into_response()
}

async fn fleet(State(status): State<Arc<dyn Status>>) -> Response {
    match status.fleet() {
        Some(fleet) => ([(header::CACHE_CONTROL, "no-store")], Json(fleet)).into_response(),
        None => (StatusCode::NOT_FOUND, "[scaling] mode = \"off\": this worker knows nothing of others\n").into_response(),
    }
}

async fn metrics(State(status): State<Arc<dyn Status>>) -> Response {
    // The exporter's page grows with tables and partitions: rendering it may take milliseconds, so not on a thread of the runtime.
    match tokio::task::spawn_blocking(move || status.metrics()).await {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response(),
        Err(error) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("rendering metrics failed: {}\n", crate::telemetry::panics::join_words(error)))
                .into_response()
        }
    }
}

async fn live(State(status): State<Arc<dyn Status>>) -> Response {
    match status.live() {
        Ok(()) => Json(serde_json::json!({ "live": true })).into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, Json(serde_json::json!({ "live": false, "reason": reason }))).into_response(),
    }
}

async fn ready(State(status): State<Arc<dyn Status>>) -> Response {
    let readiness = Readiness::of(&status.worker());
    let code = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(readiness)).into_response()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::fleet::FleetStatus;
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

    /// Serves it on a port of its own and asks.
    async fn ask(worker: WorkerStatus, path: &str) -> (u16, String) {
        ask_of(Fake(worker, Ok(())), path).await
    }

    async fn ask_of(fake: Fake, path: &str) -> (u16, String) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(axum::serve(listener, router(Arc::new(fake))).into_future());
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        server.abort();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
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
        assert_eq!(
            body,
            r#"{"ready":true,"reasons":[],"holds":["connector `h` holds t[0], t[3]: table_missing: create it"],"mistakes":[]}"#
        );
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
        let (code, body) = ask(one(ConnectorState::Unreachable, Some("brokers unreachable since noon")), "/health/ready").await;
        assert_eq!(code, 503);
        assert!(body.contains("is unreachable: brokers unreachable since noon"), "{body}");
    }

    /// A restart mends a wedged thread. It mends nothing that is away, held or stalled: then the worker lives, whatever else it says.
    #[tokio::test]
    async fn liveness_fails_only_where_a_restart_helps() {
        for state in [
            ConnectorState::Holding,
            ConnectorState::Stalled,
            ConnectorState::Unreachable,
            ConnectorState::Failed,
            ConnectorState::Starting,
        ] {
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
}
