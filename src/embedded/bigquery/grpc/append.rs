//! An AppendRows RPC from its opening to its end: reading, pacing, stalls, faults, idle close; answers in order.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::Stream;
use futures::future::BoxFuture;
use googleapis_tonic_google_cloud_bigquery_storage_v1::google::cloud::bigquery::storage::v1::AppendRowsResponse;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::server::StreamingService;
use tonic::{Request, Response, Status, Streaming};

use super::codec::SizedAppend;
use super::connection::{Connection, Outcome};
use super::service::routing_header;
use super::status::WriteError;
use crate::embedded::bigquery::fault_class::{AppendEffect, Point};
use crate::embedded::bigquery::shared::Shared;

/// The method.
pub(crate) struct AppendRows(pub Arc<Shared>);

/// Answers that wait for the client; more block the connection.
const ANSWERS: usize = 64;

type Answer = (Instant, Result<AppendRowsResponse, Status>);

impl StreamingService<SizedAppend> for AppendRows {
    type Response = AppendRowsResponse;
    type ResponseStream = Pin<Box<dyn Stream<Item = Result<AppendRowsResponse, Status>> + Send>>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<SizedAppend>>) -> Self::Future {
        let shared = Arc::clone(&self.0);
        Box::pin(async move {
            routing_header(&shared, request.metadata())?;
            if let Some(fault) = shared.faults.draw(Point::Connect, "")
                && let Some(AppendEffect::End(code, storage, text)) = fault.class.append_effect()
            {
                return Err(WriteError { code, storage, entity: String::new(), message: text.to_owned() }.to_status());
            }
            let Some(slot) = ConnectionSlot::take(&shared) else {
                return Err(Status::resource_exhausted(
                    "Exceeds 'Concurrent connections' quota, user_id: project0000000000 (status: INSUFFICIENT_TOKENS)",
                ));
            };
            let (sender, receiver) = mpsc::channel(ANSWERS);
            tokio::spawn(serve(shared, request.into_inner(), sender, slot));
            let answers = futures::stream::unfold(receiver, |mut receiver: mpsc::Receiver<Answer>| async move {
                let (due, answer) = receiver.recv().await?;
                tokio::time::sleep_until(due).await;
                Some((answer, receiver))
            });
            Ok(Response::new(Box::pin(answers) as Self::ResponseStream))
        })
    }
}

/// Counts an open connection.
struct ConnectionSlot(Arc<Shared>);

impl ConnectionSlot {
    fn take(shared: &Arc<Shared>) -> Option<Self> {
        let before = shared.connections.fetch_add(1, Ordering::Relaxed);
        let slot = Self(Arc::clone(shared));
        (before < shared.settings.max_connections).then_some(slot)
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn serve(shared: Arc<Shared>, mut requests: Streaming<SizedAppend>, answers: mpsc::Sender<Answer>, _slot: ConnectionSlot) {
    let mut connection = Connection::new(Arc::clone(&shared));
    let mut free_at = Instant::now();
    loop {
        shared.wait_out_stall(true).await;
        let taken_over = connection.taken_over();
        let next = tokio::select! {
            next = tokio::time::timeout(shared.settings.idle_close, requests.message()) => next,
            () = shared.shutdown.cancelled() => return end(&answers, Status::unavailable("the connection is draining")).await,
            () = taken_over.cancelled() => return end(&answers, Status::aborted("Closing the stream because another connection has opened it.")).await,
            () = answers.closed() => return,
        };
        let request = match next {
            Ok(Ok(Some(request))) => request,
            // The client has sent its last request, or is gone.
            Ok(Ok(None) | Err(_)) => return,
            Err(_) => {
                let seconds = shared.settings.idle_close.as_secs();
                let text = format!("Closing the stream because it has been inactive for {seconds} seconds.");
                let idle = WriteError::new(tonic::Code::Aborted, None, connection.entity(), text);
                return end(&answers, idle.to_status()).await;
            }
        };
        shared.wait_out_stall(true).await;
        if let Some(rate) = shared.settings.connection_bytes_per_s {
            free_at = free_at.max(Instant::now()) + Duration::from_secs_f64(request.size as f64 / rate.max(1) as f64);
            tokio::time::sleep_until(free_at).await;
        }
        let mut due = Instant::now() + shared.settings.append_latency;
        let answer = match connection.handle(&request) {
            Outcome::Reply(response) => Ok(*response),
            Outcome::SlowReply(response, wait_ms) => {
                due += Duration::from_millis(wait_ms);
                Ok(*response)
            }
            Outcome::End(error) => return end_at(&answers, due, error.to_status()).await,
            Outcome::EndOfStream => return,
            Outcome::Silence => return silence(requests, &answers, &shared).await,
        };
        if answers.send((due, answer)).await.is_err() {
            return;
        }
    }
}

async fn end(answers: &mpsc::Sender<Answer>, status: Status) {
    end_at(answers, Instant::now(), status).await;
}

async fn end_at(answers: &mpsc::Sender<Answer>, due: Instant, status: Status) {
    // The client may be gone already; then nobody misses the answer.
    let _gone = answers.send((due, Err(status))).await;
}

/// Takes requests and answers none until the client gives up.
async fn silence(mut requests: Streaming<SizedAppend>, answers: &mpsc::Sender<Answer>, shared: &Shared) {
    loop {
        tokio::select! {
            next = requests.message() => if !matches!(next, Ok(Some(_))) { break },
            () = answers.closed() => return,
            () = shared.shutdown.cancelled() => return,
        }
    }
    // The client has closed its half and waits: it gets no answer either, until it leaves.
    tokio::select! {
        () = answers.closed() => {}
        () = shared.shutdown.cancelled() => {}
    }
}
