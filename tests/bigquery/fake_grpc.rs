//! A Storage Write server that answers as a test's script says, and remembers what it was sent.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use googleapis_tonic_google_cloud_bigquery_storage_v1::google::cloud::bigquery::storage::v1 as storage;
use googleapis_tonic_google_cloud_bigquery_storage_v1::google::rpc;
use parking_lot::Mutex;
use prost::Message;
use storage::append_rows_request::Rows;
use storage::append_rows_response::{AppendResult, Response as Answer};
use storage::storage_error::StorageErrorCode;
use storage::{AppendRowsRequest, AppendRowsResponse};
use tokio::sync::mpsc;
use tonic::codegen::{BoxFuture, Service};
use tonic::{Code, Status};

/// What the server does with a request.
#[derive(Clone)]
pub enum Reply {
    Ok,
    /// An acknowledgement that also tells of a changed schema.
    OkUpdated,
    /// An error inside the response.
    Error(Code, StorageErrorCode, &'static str),
    /// These rows are bad.
    Rows(Vec<(i64, &'static str)>),
    /// No answer, ever.
    Silent,
    /// The RPC ends.
    End(Code, &'static str),
    /// An acknowledgement; a moment later, without being asked, the RPC ends.
    OkThenEnd(Code, &'static str),
    /// From now on nothing is read from this connection.
    StopReading,
}

/// A request as it came.
#[derive(Clone)]
pub struct Seen {
    /// Counts RPCs from 0.
    pub connection: usize,
    pub stream: String,
    pub trace_id: String,
    /// The name of the descriptor, where one was sent.
    pub schema: Option<String>,
    pub rows: Vec<Vec<u8>>,
    /// `x-goog-request-params`.
    pub routing: String,
    /// The header `authorization`, empty without.
    pub authorization: String,
}

type Script = Arc<dyn Fn(usize, &Seen) -> (Reply, Duration) + Send + Sync>;

/// The server; it ends with the test's runtime.
pub struct Fake {
    pub address: SocketAddr,
    pub seen: Arc<Mutex<Vec<Seen>>>,
}

impl Fake {
    /// `script(number of the request on its connection, request)` gives the reply and how long it takes.
    pub async fn start(script: impl Fn(usize, &Seen) -> (Reply, Duration) + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let service = Rpc { script: Arc::new(script), seen: seen.clone(), connections: Arc::default() };
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        tokio::spawn(tonic::transport::Server::builder().serve_with_incoming(service, incoming));
        Self { address, seen }
    }

    pub fn endpoint(&self) -> Option<String> {
        Some(format!("http://{}", self.address))
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }
}

#[derive(Clone)]
struct Rpc {
    script: Script,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
}

impl Service<http::Request<tonic::body::Body>> for Rpc {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        assert_eq!(request.uri().path(), "/google.cloud.bigquery.storage.v1.BigQueryWrite/AppendRows");
        let rpc = self.clone();
        Box::pin(async move {
            let codec = tonic_prost::ProstCodec::<AppendRowsResponse, AppendRowsRequest>::default();
            let mut grpc = tonic::server::Grpc::new(codec).max_decoding_message_size(16 << 20);
            Ok(grpc.streaming(rpc, request).await)
        })
    }
}

impl tonic::server::StreamingService<AppendRowsRequest> for Rpc {
    type Response = AppendRowsResponse;
    type ResponseStream = tokio_stream::wrappers::ReceiverStream<Result<AppendRowsResponse, Status>>;
    type Future = BoxFuture<tonic::Response<Self::ResponseStream>, Status>;

    fn call(&mut self, request: tonic::Request<tonic::Streaming<AppendRowsRequest>>) -> Self::Future {
        let connection = self.connections.fetch_add(1, Ordering::SeqCst);
        let header = |name| request.metadata().get(name).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
        let (routing, authorization) = (header("x-goog-request-params"), header("authorization"));
        let (script, seen) = (self.script.clone(), self.seen.clone());
        let (answers, stream) = mpsc::channel(1024);
        let (replies, mut due) = mpsc::channel::<(Reply, tokio::time::Instant)>(1024);
        tokio::spawn(async move {
            while let Some((reply, at)) = due.recv().await {
                tokio::time::sleep_until(at).await;
                if let Some(answer) = answer(reply)
                    && (answers.send(answer).await.is_err())
                {
                    return;
                }
            }
        });
        let mut requests = request.into_inner();
        tokio::spawn(async move {
            let mut number = 0;
            while let Ok(Some(request)) = requests.message().await {
                let request = read(connection, &routing, &authorization, request);
                seen.lock().push(request.clone());
                let (reply, takes) = script(number, &request);
                number += 1;
                let stop = matches!(reply, Reply::StopReading);
                let at = tokio::time::Instant::now() + takes;
                if let Reply::OkThenEnd(code, words) = reply {
                    replies.send((Reply::Ok, at)).await.unwrap();
                    replies.send((Reply::End(code, words), at + Duration::from_millis(100))).await.unwrap();
                } else {
                    replies.send((reply, at)).await.unwrap();
                }
                if stop {
                    std::future::pending::<()>().await;
                }
            }
        });
        Box::pin(async move { Ok(tonic::Response::new(tokio_stream::wrappers::ReceiverStream::new(stream))) })
    }
}

fn read(connection: usize, routing: &str, authorization: &str, request: AppendRowsRequest) -> Seen {
    let Some(Rows::ProtoRows(data)) = request.rows else { panic!("no proto rows") };
    let schema = data.writer_schema.map(|schema| schema.proto_descriptor.unwrap().name().to_owned());
    let rows = data.rows.unwrap_or_default().serialized_rows.into_iter().map(|row| row.to_vec()).collect();
    Seen {
        connection,
        stream: request.write_stream,
        trace_id: request.trace_id,
        schema,
        rows,
        routing: routing.to_owned(),
        authorization: authorization.to_owned(),
    }
}

fn answer(reply: Reply) -> Option<Result<AppendRowsResponse, Status>> {
    let response = |answer| AppendRowsResponse { response: Some(answer), ..Default::default() };
    match reply {
        Reply::Ok => Some(Ok(response(Answer::AppendResult(AppendResult { offset: None })))),
        Reply::OkUpdated => Some(Ok(AppendRowsResponse {
            updated_schema: Some(storage::TableSchema::default()),
            ..response(Answer::AppendResult(AppendResult { offset: None }))
        })),
        Reply::Error(code, storage_code, message) => {
            let details = storage::StorageError { code: storage_code.into(), ..Default::default() };
            let any = prost_types::Any {
                type_url: "type.googleapis.com/google.cloud.bigquery.storage.v1.StorageError".into(),
                value: details.encode_to_vec(),
            };
            Some(Ok(response(Answer::Error(rpc::Status { code: code as i32, message: message.into(), details: vec![any] }))))
        }
        Reply::Rows(rows) => {
            let row_errors =
                rows.into_iter().map(|(index, message)| storage::RowError { index, code: 1, message: message.into() }).collect();
            let message = "Errors found while processing rows. Please refer to the row_errors field for details.";
            let status = rpc::Status { code: Code::InvalidArgument as i32, message: message.into(), details: Vec::new() };
            Some(Ok(AppendRowsResponse { row_errors, ..response(Answer::Error(status)) }))
        }
        Reply::End(code, message) => Some(Err(Status::new(code, message))),
        Reply::Silent | Reply::StopReading | Reply::OkThenEnd(..) => None,
    }
}
