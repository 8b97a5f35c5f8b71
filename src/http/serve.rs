//! A listening socket and its end, and what a client may cost.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Connections at a time; others wait to be accepted.
const CONNECTIONS_MAX: usize = 128;
/// How long a client may take for the head of a request, and how long a connection may wait for its next request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// The most that a request's head may take.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Header lines of a request.
const HEADERS_MAX: usize = 64;
/// How long a connection lives, however it is used: a client that reads nothing of its answer holds no place for ever.
const CONNECTION_MAX: Duration = Duration::from_secs(60);
/// What requests at work have when a connection or the server ends.
const LAST_MAX: Duration = Duration::from_secs(1);

/// The address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("[worker] listen = \"{address}\": this address cannot be listened on; choose a free port and an address of this machine")]
pub struct ListenError {
    address: String,
    source: std::io::Error,
}

/// Listens on the address; port 0 takes a free one.
///
/// # Errors
/// When the address is taken or is not this machine's.
pub async fn bind(address: &str) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|source| ListenError { address: address.to_owned(), source })
}

/// A server that runs until it is told to stop. HTTP/1.
pub struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    /// Serves the router on the socket.
    ///
    /// # Errors
    /// When the socket has no address.
    pub fn start(listener: TcpListener, router: Router) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let task = tokio::spawn(accept(listener, router, stop.clone()));
        Ok(Self { address, stop, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more requests; those at work have a second.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if tokio::time::timeout(LAST_MAX * 2, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

async fn accept(listener: TcpListener, router: Router, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let open = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = async {
                // The semaphore is never closed.
                let place = places.clone().acquire_owned().await.ok()?;
                Some((listener.accept().await, place))
            } => accepted,
        };
        match accepted {
            Some((Ok((stream, _)), place)) => {
                let (router, stop) = (router.clone(), stop.clone());
                open.spawn(async move {
                    serve(stream, router, stop).await;
                    drop(place);
                });
            }
            Some((Err(error), _)) => {
                // A client that left again, or no file descriptor: the next one may do.
                tracing::debug!(%error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            None => break,
        }
    }
    open.close();
    open.wait().await;
}

async fn serve(stream: TcpStream, router: Router, stop: CancellationToken) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_BYTES_MAX).max_headers(HEADERS_MAX);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = &mut connection => {
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection ended early");
            }
            return;
        }
        () = stop.cancelled() => {}
        () = tokio::time::sleep(CONNECTION_MAX) => {}
    }
    connection.as_mut().graceful_shutdown();
    // Whether it was in time or not: the connection is dropped.
    let _late = tokio::time::timeout(LAST_MAX, connection).await;
}
