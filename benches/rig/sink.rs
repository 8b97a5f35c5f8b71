//! A BigQuery that only counts: AppendRows over plain HTTP/2, every request and every row in it parsed, acknowledged in order, dropped.
//!
//! A process of its own (the benchmark's binary, started with `sink`), so that its cost is not the worker's. It takes what a fast service
//! would take; what BigQuery refuses is the business of the tests.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::{Buf, Bytes, BytesMut};
use googleapis_tonic_google_cloud_bigquery_storage_v1::google::cloud::bigquery::storage::v1::{
    CreateWriteStreamRequest, WriteStream, write_stream,
};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc};

use super::fleet::{get, post};
use super::process::Process;
use super::sink_rows::{Destination, Journal, take_request};
use super::sink_tables::Tables;

type Body = BoxBody<Bytes, Infallible>;

/// An AppendRowsResponse with an empty `append_result`, in gRPC's framing.
const ACKNOWLEDGEMENT: Bytes = Bytes::from_static(&[0, 0, 0, 0, 2, 0x0A, 0]);

/// What the sink has taken.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Counts {
    pub rows: u64,
    /// Different (table, partition, offset); only with a journal.
    pub distinct: u64,
    pub appends: u64,
    pub bytes: u64,
    /// From the first append to the last one, seconds.
    pub seconds: f64,
}

/// The sink as its user sees it: a process and an address.
pub struct Sink {
    pub process: Process,
    pub url: String,
}

impl Sink {
    /// Starts one; with a journal it reads each row's `kafka_partition` and `kafka_offset`.
    pub fn start(folder: &Path, journal: bool) -> Result<Self> {
        let kind = if journal { "journal" } else { "count" };
        let arguments = ["sink".to_owned(), kind.to_owned()];
        let mut process = Process::start(&std::env::current_exe()?, &arguments, &folder.join("sink.log"))?;
        let url = process.wait_for_line("sink at ", Duration::from_secs(10))?;
        Ok(Self { process, url })
    }

    pub fn counts(&self) -> Result<Counts> {
        Ok(serde_json::from_str(&get(&format!("{}/counts", self.url))?)?)
    }

    /// Forgets what was counted.
    pub fn reset(&self) -> Result<()> {
        post(&format!("{}/reset", self.url)).map(drop)
    }

    /// From now on every RPC is ended with UNAVAILABLE instead of an answer, or no more.
    pub fn unavailable(&self, unavailable: bool) -> Result<()> {
        post(&format!("{}/{}", self.url, if unavailable { "unavailable" } else { "available" })).map(drop)
    }

    /// From now on requests are taken and not answered, or answered again, those that wait first.
    pub fn silent(&self, silent: bool) -> Result<()> {
        post(&format!("{}/{}", self.url, if silent { "silent" } else { "answer" })).map(drop)
    }
}

struct State {
    tables: Tables,
    journal: Option<Journal>,
    rows: AtomicU64,
    appends: AtomicU64,
    bytes: AtomicU64,
    start: Instant,
    /// Microseconds since `start`; 0 is none yet.
    first: AtomicU64,
    last: AtomicU64,
    silent: AtomicBool,
    unavailable: AtomicBool,
    answer: Notify,
    /// Created ones.
    streams: AtomicU64,
}

/// The process's main: serves until it is killed.
pub fn serve(journal: bool) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async move {
        let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        println!("sink at http://{}", listener.local_addr()?);
        let state = Arc::new(State {
            tables: Tables::default(),
            journal: journal.then(Journal::default),
            rows: AtomicU64::new(0),
            appends: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            start: Instant::now(),
            first: AtomicU64::new(0),
            last: AtomicU64::new(0),
            silent: AtomicBool::new(false),
            unavailable: AtomicBool::new(false),
            answer: Notify::new(),
            streams: AtomicU64::new(0),
        });
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let state = Arc::clone(&state);
            tokio::spawn(async move {
                let service = hyper::service::service_fn(move |request| answer(Arc::clone(&state), request));
                let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                builder.http2().initial_stream_window_size(16 << 20).initial_connection_window_size(32 << 20).max_frame_size(1 << 20);
                // A client that goes away is no error of the sink.
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    })
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    let json = |text: String| Response::new(Full::new(Bytes::from(text)).boxed());
    Ok(match (request.method(), path.as_str()) {
        (&Method::POST, path) if path.ends_with("/AppendRows") => append_rows(state, request),
        (&Method::POST, path) if path.ends_with("/CreateWriteStream") => create_stream(state, request).await,
        (&Method::GET, "/counts") => json(serde_json::to_string(&state.counts()).expect("numbers are JSON")),
        (&Method::POST, "/reset") => {
            state.reset();
            json(String::new())
        }
        (&Method::POST, "/silent") => {
            state.silent.store(true, Ordering::SeqCst);
            json(String::new())
        }
        (&Method::POST, "/answer") => {
            state.silent.store(false, Ordering::SeqCst);
            state.answer.notify_waiters();
            json(String::new())
        }
        (&Method::POST, "/unavailable" | "/available") => {
            state.unavailable.store(path == "/unavailable", Ordering::SeqCst);
            json(String::new())
        }
        (method, path) => {
            let method = method.clone();
            let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            let (status, text) = state.tables.answer(&method, path, &body);
            let mut response = json(text);
            *response.status_mut() = status;
            response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
            response
        }
    })
}

/// A stream of type COMMITTED for an exactly-once connector. Its rows are counted like all others; ending one is no part of what is
/// measured.
async fn create_stream(state: Arc<State>, request: Request<Incoming>) -> Response<Body> {
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    // Behind gRPC's head of five bytes.
    let asked = CreateWriteStreamRequest::decode(body.get(5..).unwrap_or_default()).expect("a CreateWriteStreamRequest");
    let name = format!("{}/streams/{}", asked.parent, state.streams.fetch_add(1, Ordering::Relaxed));
    let made = WriteStream { name, r#type: write_stream::Type::Committed.into(), ..WriteStream::default() }.encode_to_vec();
    let length = u32::try_from(made.len()).expect("a name is short").to_be_bytes();
    let message = [&[0], &length[..], &made].concat();
    let (answers, mut waiting) = mpsc::channel::<Frame<Bytes>>(2);
    // The channel has room for both.
    let _ = answers.send(Frame::data(Bytes::from(message))).await;
    end(&answers, "0").await;
    drop(answers);
    let frames = futures::stream::poll_fn(move |cx| waiting.poll_recv(cx).map(|frame| frame.map(Ok::<_, Infallible>)));
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(frames)));
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/grpc"));
    response
}

fn append_rows(state: Arc<State>, request: Request<Incoming>) -> Response<Body> {
    let (answers, mut waiting) = mpsc::channel::<Frame<Bytes>>(1024);
    tokio::spawn(read_requests(state, request.into_body(), answers));
    let frames = futures::stream::poll_fn(move |cx| waiting.poll_recv(cx).map(|frame| frame.map(Ok::<_, Infallible>)));
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(frames)));
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/grpc"));
    response
}

async fn read_requests(state: Arc<State>, mut body: Incoming, answers: mpsc::Sender<Frame<Bytes>>) {
    let (mut buffer, mut destination) = (BytesMut::new(), Destination::default());
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else { continue };
        buffer.extend_from_slice(&data);
        // gRPC: a compression flag, four bytes of length, the message.
        while buffer.len() >= 5 {
            let length = u32::from_be_bytes([buffer[1], buffer[2], buffer[3], buffer[4]]) as usize;
            if buffer.len() < 5 + length {
                buffer.reserve(5 + length - buffer.len());
                break;
            }
            buffer.advance(5);
            let message = buffer.split_to(length).freeze();
            if state.unavailable.load(Ordering::SeqCst) {
                return end(&answers, "14").await;
            }
            let rows = take_request(&message, &mut destination, state.journal.as_ref()).expect("an AppendRowsRequest");
            state.count(rows, length);
            while state.silent.load(Ordering::SeqCst) {
                // With a limit, for the notice may come between the look and the wait.
                let _ = tokio::time::timeout(Duration::from_millis(100), state.answer.notified()).await;
            }
            if answers.send(Frame::data(ACKNOWLEDGEMENT)).await.is_err() {
                return;
            }
        }
    }
    end(&answers, "0").await;
}

/// Ends an RPC with a status of gRPC.
async fn end(answers: &mpsc::Sender<Frame<Bytes>>, status: &'static str) {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", http::HeaderValue::from_static(status));
    // The client may have gone without waiting for it.
    let _ = answers.send(Frame::trailers(trailers)).await;
}

impl State {
    fn count(&self, rows: u64, bytes: usize) {
        let now = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        let _ = self.first.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        self.last.fetch_max(now, Ordering::Relaxed);
        self.appends.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.rows.fetch_add(rows, Ordering::Release);
    }

    fn counts(&self) -> Counts {
        let rows = self.rows.load(Ordering::Acquire);
        Counts {
            rows,
            distinct: self.journal.as_ref().map_or(0, Journal::distinct),
            appends: self.appends.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            seconds: self.last.load(Ordering::Relaxed).saturating_sub(self.first.load(Ordering::Relaxed)) as f64 / 1e6,
        }
    }

    fn reset(&self) {
        for count in [&self.rows, &self.appends, &self.bytes, &self.first, &self.last] {
            count.store(0, Ordering::Release);
        }
    }
}
