//! Streams of type COMMITTED: created, appended to at an offset, finalized.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use googleapis_tonic_google_cloud_bigquery_storage_v1::google::cloud::bigquery::storage::v1 as storage;
use http::uri::PathAndQuery;
use parking_lot::Mutex;
use storage::write_stream::Type;
use storage::{CreateWriteStreamRequest, FinalizeWriteStreamRequest, FinalizeWriteStreamResponse, WriteStream};
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::answer::{Outcome, withheld};
use super::connection::Connection;
use super::pool::{Pool, Shared};
use crate::bigquery::classify::Refusal;
use crate::bigquery::rest::encode_path;
use crate::bigquery::trust::advice;
use crate::bigquery::{Append, AppendFailure, ErrorClass, StreamLine, WriteStreams};
use crate::table::TableName;

const CREATE: &str = "/google.cloud.bigquery.storage.v1.BigQueryWrite/CreateWriteStream";
const FINALIZE: &str = "/google.cloud.bigquery.storage.v1.BigQueryWrite/FinalizeWriteStream";
/// Between two creations of this process. The service slows down above 40 to 50 a second, of a whole project (its documentation, "quotas").
const CREATE_EVERY: Duration = Duration::from_millis(50);

/// See [`WriteStreams`].
pub(crate) struct CreatedStreams {
    shared: Arc<Shared>,
    channel: Mutex<Option<Channel>>,
    /// When the next stream may be created.
    create_at: Mutex<Instant>,
}

impl CreatedStreams {
    /// Shares endpoint, tokens and settings with the pool; its connections are beside the pool's, one for each stream that is written to.
    pub(crate) fn new(pool: &Pool) -> Self {
        Self { shared: pool.shared().clone(), channel: Mutex::default(), create_at: Mutex::new(Instant::now()) }
    }

    /// One channel for the unary calls; it reconnects by itself. Made lazily, inside the runtime.
    fn channel(&self) -> Channel {
        self.channel.lock().get_or_insert_with(|| self.shared.endpoint.connect_lazy()).clone()
    }

    async fn unary<Q, A>(&self, method: &'static str, routing: String, request: Q) -> Result<A, AppendFailure>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let auth = match self.shared.tokens.headers().await {
            Ok(auth) => auth,
            Err(error) => {
                let class = if error.transient { ErrorClass::Transient } else { ErrorClass::Unauthenticated };
                return Err(AppendFailure { class, message: error.message, row_errors: Vec::new(), maybe_durable: false });
            }
        };
        let mut headers = auth.headers;
        match http::HeaderValue::from_str(&routing) {
            Ok(value) => headers.insert("x-goog-request-params", value),
            Err(error) => return Err(failure(&Status::invalid_argument(error.to_string()))),
        };
        let request = tonic::Request::from_parts(MetadataMap::from_headers(headers), tonic::Extensions::default(), request);
        let mut client = tonic::client::Grpc::new(self.channel());
        let call = async {
            client.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
            let codec = tonic_prost::ProstCodec::<Q, A>::default();
            client.unary(request, PathAndQuery::from_static(method), codec).await
        };
        let limit = self.shared.settings.append_timeout;
        let answer = match tokio::time::timeout(limit, call).await {
            Ok(answer) => answer,
            Err(_) => Err(Status::deadline_exceeded(format!("no answer within append_timeout ({limit:?})"))),
        };
        answer.map(tonic::Response::into_inner).map_err(|status| {
            if status.code() == Code::Unauthenticated {
                self.shared.tokens.invalidate(auth.generation);
            }
            failure(&status)
        })
    }

    /// Waits for this process's turn to create a stream.
    async fn turn_to_create(&self) {
        let at = {
            let mut next = self.create_at.lock();
            let at = (*next).max(Instant::now());
            *next = at + CREATE_EVERY;
            at
        };
        tokio::time::sleep_until(at.into()).await;
    }
}

fn failure(status: &Status) -> AppendFailure {
    let refusal = Refusal::from_status(status);
    let words = refusal.describe();
    AppendFailure { class: refusal.class(), message: format!("{words}{}", advice(&words)), row_errors: Vec::new(), maybe_durable: false }
}

#[async_trait]
impl WriteStreams for CreatedStreams {
    async fn create(&self, table: &TableName) -> Result<Arc<str>, AppendFailure> {
        self.turn_to_create().await;
        let parent = table.resource();
        let routing = format!("parent={}", encode_path(&parent));
        let write_stream = Some(WriteStream { r#type: Type::Committed.into(), ..Default::default() });
        let made: WriteStream = self.unary(CREATE, routing, CreateWriteStreamRequest { parent, write_stream }).await?;
        Ok(Arc::from(made.name))
    }

    async fn finalize(&self, stream: &str) -> Result<u64, AppendFailure> {
        let routing = format!("name={}", encode_path(stream));
        let request = FinalizeWriteStreamRequest { name: stream.to_owned() };
        let answer: FinalizeWriteStreamResponse = self.unary(FINALIZE, routing, request).await?;
        u64::try_from(answer.row_count).map_err(|_| AppendFailure {
            class: ErrorClass::Unknown,
            message: format!("BigQuery says that {stream} has {} rows", answer.row_count),
            row_errors: Vec::new(),
            maybe_durable: false,
        })
    }

    fn open(&self, stream: &Arc<str>) -> Box<dyn StreamLine> {
        Box::new(Line { shared: self.shared.clone(), stream: stream.clone(), connection: None })
    }
}

/// See [`StreamLine`].
struct Line {
    shared: Arc<Shared>,
    stream: Arc<str>,
    connection: Option<Arc<Connection>>,
}

impl Line {
    /// The open connection, unless it cannot carry rows of this layout: it saw one stream only, and a server may ignore another schema for
    /// it.
    fn connection(&mut self, append: &Append) -> Arc<Connection> {
        if let Some(connection) = self.connection.as_ref().filter(|connection| connection.is_open() && connection.suits(append)) {
            return connection.clone();
        }
        self.drain();
        let connection = Connection::open_stream(self.shared.next_id(), &self.stream, self.shared.clone());
        self.connection = Some(connection.clone());
        connection
    }

    fn drain(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.drain();
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.drain();
    }
}

#[async_trait]
impl StreamLine for Line {
    async fn append(&mut self, append: Append, offset: u64) -> BoxFuture<'static, Outcome> {
        let permits = self.shared.permits(&append);
        loop {
            let connection = self.connection(&append);
            // Closed while we waited, or it took another layout: nothing was sent, take another one.
            let Some(room) = connection.room(permits).await else { continue };
            if append.gate.as_ref().is_some_and(|gate| !gate.is_open()) {
                return futures::future::ready(Err(withheld())).boxed();
            }
            let Some(outcome) = connection.push(&append, Some((&self.stream, offset)), room) else { continue };
            return async move {
                outcome.await.unwrap_or_else(|_| {
                    let message = "the connection's task is gone".to_owned();
                    Err(AppendFailure { class: ErrorClass::Transient, message, row_errors: Vec::new(), maybe_durable: true })
                })
            }
            .boxed();
        }
    }
}
