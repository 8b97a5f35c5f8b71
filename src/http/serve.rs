//! A listening socket and its end.

use std::net::SocketAddr;

use axum::Router;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("[worker] listen = \"{address}\": {source}")]
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

/// A server that runs until it is told to stop.
pub struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<std::io::Result<()>>,
}

impl Server {
    /// Serves the router on the socket.
    ///
    /// # Errors
    /// When the socket has no address.
    pub fn start(listener: TcpListener, router: Router) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move { axum::serve(listener, router).with_graceful_shutdown(stopped.cancelled_owned()).await });
        Ok(Self { address, stop, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more requests; those at work have a second.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if tokio::time::timeout(std::time::Duration::from_secs(1), &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}
