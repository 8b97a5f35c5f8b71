//! The rate over HTTP: `GET /rate`, `POST /rate` with a number of records a second as the body.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::rate::Rate;

/// Serves the rate on loopback; port 0 takes a free one. The task ends when it is aborted.
///
/// # Errors
/// When the port is taken.
pub async fn serve_rate(rate: Arc<Rate>, port: u16) -> std::io::Result<(SocketAddr, JoinHandle<()>)> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let address = listener.local_addr()?;
    let router = Router::new().route("/rate", get(show).post(change)).with_state(rate);
    let server = tokio::spawn(async move {
        // `serve` never returns an error (axum's documentation).
        let _ = axum::serve(listener, router).await;
    });
    Ok((address, server))
}

async fn show(State(rate): State<Arc<Rate>>) -> String {
    format!("{}\n", rate.get())
}

async fn change(State(rate): State<Arc<Rate>>, body: String) -> (StatusCode, String) {
    match body.trim().parse::<u64>() {
        Ok(per_second) => {
            rate.set(per_second);
            (StatusCode::OK, format!("{per_second}\n"))
        }
        Err(_) => (StatusCode::BAD_REQUEST, format!("`{}` is no number of records a second\n", body.trim())),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_rate_changes_and_rubbish_is_refused() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let rate = Arc::new(Rate::new(5));
        let (address, server) = serve_rate(rate.clone(), 0).await.unwrap();
        let client = reqwest::Client::new();
        let url = format!("http://{address}/rate");
        assert_eq!(client.post(&url).body("900").send().await.unwrap().status(), 200);
        assert_eq!(rate.get(), 900);
        assert_eq!(client.post(&url).body("fast").send().await.unwrap().status(), 400);
        assert_eq!(client.get(&url).send().await.unwrap().text().await.unwrap(), "900\n");
        server.abort();
    }
}
