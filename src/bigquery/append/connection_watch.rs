//! The watch over a connection's task.

use std::sync::Arc;

use super::Connection;
use crate::watchdog::{self, Beat};

impl Connection {
    /// Its beat. The last words say what waits for BigQuery's answer.
    pub(super) fn watch(self: &Arc<Self>) -> Beat {
        let connection = Arc::downgrade(self);
        let place = move || {
            let Some(connection) = connection.upgrade() else { return String::new() };
            let state = connection.state.lock();
            let oldest = state.waiting.front().map(|oldest| format!(", the oldest for {}", oldest.table));
            format!("{} appends unanswered{}", state.waiting.len(), oldest.unwrap_or_default())
        };
        watchdog::watch_at(format!("append connection {}", self.id), Arc::new(place))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::bigquery::append::pool::{Pool, PoolSettings};
    use crate::bigquery::auth::TokenSource;
    use crate::bigquery::changes::Changes;
    use crate::table::TableName;
    use crate::watchdog::{Limits, last_words};

    /// A pool whose server takes connections and answers nothing. Inside a runtime.
    fn silent_pool(runtime: &tokio::runtime::Runtime) -> (std::net::TcpListener, Pool) {
        let _tls = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", silent.local_addr().unwrap())).unwrap();
        let tokens = runtime.block_on(TokenSource::new("none", &reqwest::Client::new())).unwrap();
        let settings = PoolSettings {
            connections_max: 1,
            in_flight_bytes: 1024,
            append_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_millis(400),
            location: None,
        };
        let tasks = Arc::new(crate::flow::TokioTasks::new(runtime.handle().clone()));
        (silent, Pool::new(endpoint, Arc::new(tokens), Arc::new(Changes::new(Duration::ZERO, tasks)), settings))
    }

    fn table() -> TableName {
        TableName { project: "p".into(), dataset: "d".into(), table: "t".into() }
    }

    #[test]
    fn a_connection_whose_task_panics_is_closed() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let _inside = runtime.enter();
        let (_silent, pool) = silent_pool(&runtime);
        let connection = Connection::open(770_078, None, &table(), pool.shared().clone());
        assert!(connection.is_open() && runtime.block_on(connection.room(1)).is_some());
        runtime.block_on(connection.driven_by(async { std::panic::panic_any("on purpose") }));
        assert!(!connection.is_open(), "no append is given to it");
        assert!(runtime.block_on(connection.room(1)).is_none(), "whoever waits for room takes another one");
    }

    /// The task waits for a lock that somebody holds for good, as a bug would make it: the process ends, though the place cannot be told.
    #[test]
    fn a_connection_whose_task_blocks_ends_the_process() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let _inside = runtime.enter();
        let limits = Limits { stand_still: Duration::from_millis(500), long_step: Duration::from_secs(5), tick: Duration::from_millis(20) };
        let heard = last_words("append connection 770077", limits);
        let (_silent, pool) = silent_pool(&runtime);
        let connection = Connection::open(770_077, None, &table(), pool.shared().clone());
        let held = connection.state.lock();
        let words = heard.recv_timeout(Duration::from_secs(10)).unwrap();
        drop(held);
        assert!(words.contains("append connection 770077 (where it stands cannot be told: a lock is held)"), "{words}");
    }
}
