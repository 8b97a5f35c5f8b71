//! Start and stop.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::transport::server::TcpIncoming;

use super::super::EmbeddedError;
use super::books::Books;
use super::faults::FaultControl;
use super::grpc::service::WriteService;
use super::rest;
use super::settings::Settings;
use super::shared::{Shared, Stall};

/// A running embedded BigQuery. Dropping it ends its servers; [`EmbeddedBigQuery::stop`] does so and waits.
#[derive(Debug)]
pub struct EmbeddedBigQuery {
    shared: Arc<Shared>,
    rest: SocketAddr,
    grpc: SocketAddr,
    servers: Vec<JoinHandle<()>>,
}

/// HTTP/2 windows: as large as a request may be, so that flow control is not what limits a single stream on loopback.
const STREAM_WINDOW: u32 = 12 << 20;
const CONNECTION_WINDOW: u32 = 48 << 20;

impl EmbeddedBigQuery {
    /// Binds both ports on 127.0.0.1 and serves from the current tokio runtime. Errors: a port that cannot be bound.
    pub async fn start(settings: Settings) -> Result<Self, EmbeddedError> {
        let (rest_listener, rest) = bind(settings.rest_port).await?;
        let (grpc_listener, grpc) = bind(settings.grpc_port).await?;
        let shared = Arc::new(Shared::new(settings));
        let servers = vec![
            tokio::spawn(serve_rest(rest_listener, Arc::clone(&shared))),
            tokio::spawn(serve_grpc(grpc_listener, Arc::clone(&shared))),
        ];
        Ok(Self { shared, rest, grpc, servers })
    }

    /// `http://127.0.0.1:<port>`; the API lies below `/bigquery/v2` and also right at the root.
    pub fn rest_url(&self) -> String {
        format!("http://{}", self.rest)
    }

    /// `http://127.0.0.1:<port>`, plain text.
    pub fn grpc_url(&self) -> String {
        format!("http://{}", self.grpc)
    }

    /// Faults: rates, the next one, what fired.
    pub fn faults(&self) -> Arc<FaultControl> {
        Arc::clone(&self.shared.faults)
    }

    /// What landed.
    pub fn books(&self) -> Books {
        Books::new(Arc::clone(&self.shared))
    }

    /// Answers nothing from now on, or again.
    pub fn set_stall(&self, stall: Stall) {
        self.shared.stall.send_replace(stall);
    }

    /// Forgets a created stream (`projects/.../streams/id`) now, as BigQuery does after days without use: whoever names it gets
    /// STREAM_NOT_FOUND, also on a connection that is open. False when there is none.
    pub fn forget_stream(&self, name: &str) -> bool {
        self.shared.streams.forget(name)
    }

    /// Makes a dataset; one that exists is fine. Errors: a bad name.
    pub fn create_dataset(&self, project: &str, dataset: &str) -> Result<(), EmbeddedError> {
        match rest::datasets::make(&self.shared, project, dataset, serde_json::Map::new()) {
            Ok(_) => Ok(()),
            Err(error) if error.http == 409 => Ok(()),
            Err(error) => Err(EmbeddedError::BigQuery(error.message)),
        }
    }

    /// Ends open connections (UNAVAILABLE) and both servers.
    pub async fn stop(mut self) {
        self.shared.shutdown.cancel();
        for mut server in std::mem::take(&mut self.servers) {
            // Open keep-alive connections would hold a graceful end up.
            if tokio::time::timeout(Duration::from_millis(500), &mut server).await.is_err() {
                server.abort();
                let _aborted = server.await;
            }
        }
    }
}

/// A listener on 127.0.0.1 and where it listens.
async fn bind(port: u16) -> Result<(TcpListener, SocketAddr), EmbeddedError> {
    let failed = |source| EmbeddedError::Listen { address: format!("127.0.0.1:{port}"), source };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

impl Drop for EmbeddedBigQuery {
    fn drop(&mut self) {
        self.shared.shutdown.cancel();
        self.servers.iter().for_each(JoinHandle::abort);
    }
}

async fn serve_rest(listener: TcpListener, shared: Arc<Shared>) {
    let shutdown = shared.shutdown.clone();
    let app = axum::Router::new().fallback(move |request: axum::extract::Request| rest::handle(Arc::clone(&shared), request));
    if let Err(error) = axum::serve(listener, app).with_graceful_shutdown(shutdown.cancelled_owned()).await {
        tracing::error!(%error, "the embedded BigQuery's REST server ended");
    }
}

async fn serve_grpc(listener: TcpListener, shared: Arc<Shared>) {
    let shutdown = shared.shutdown.clone();
    let server = tonic::transport::Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(1 << 20)
        .add_service(WriteService(shared));
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    if let Err(error) = server.serve_with_incoming_shutdown(incoming, shutdown.cancelled_owned()).await {
        tracing::error!(%error, "the embedded BigQuery's gRPC server ended");
    }
}
