//! One connection: an AppendRows RPC on an HTTP/2 connection of its own, with many requests in flight and answers in order.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::FutureExt;
use googleapis_tonic_google_cloud_bigquery_storage_v1::google::cloud::bigquery::storage::v1 as storage;
use http::{HeaderMap, HeaderValue, Method, Request, Version};
use parking_lot::Mutex;
use storage::AppendRowsResponse;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tonic::client::GrpcService;
use tonic::codec::{Codec, Streaming};
use tonic::{Code, Status};

use super::answer::{Outcome, concerns_one_append, needs_fresh_connection, outcome_of, withheld};
use super::outbox::{Outbox, OutboxBody};
use super::pool::Shared;
use super::request::{Head, encode_head};
use crate::bigquery::classify::Refusal;
use crate::bigquery::rest::{encode, encode_path};
use crate::bigquery::trust::advice;
use crate::bigquery::{Append, AppendFailure, ErrorClass};
use crate::table::{SharedLayout, TableName};
use crate::telemetry::levels::{APPEND_CONNECTIONS, APPEND_IN_FLIGHT_BYTES};
use crate::telemetry::panics::panic_words;

#[path = "connection_watch.rs"]
mod watch;

const METHOD: &str = "/google.cloud.bigquery.storage.v1.BigQueryWrite/AppendRows";
/// Says who writes, in BigQuery's own logs.
const TRACE_ID: &str = concat!("millrace:", env!("CARGO_PKG_VERSION"));
/// The largest answer that is read: lists of row errors can be long.
const ANSWER_MAX_BYTES: usize = 64 << 20;

/// One AppendRows RPC.
pub(super) struct Connection {
    /// Rises with every connection of the pool: a larger one is younger.
    pub(super) id: u64,
    /// The location that all its tables share, where it is known.
    pub(super) location: Option<Arc<str>>,
    /// Bytes that may still be sent before an answer; closed with the connection.
    room: Arc<Semaphore>,
    /// Bytes of appends that wait for room.
    queued_bytes: AtomicUsize,
    state: Mutex<State>,
    shared: Arc<Shared>,
}

struct State {
    phase: Phase,
    outbox: Outbox,
    /// Requests without an answer, oldest first.
    waiting: VecDeque<Waiting>,
    pushed: u64,
    /// What the last request was for: its schema need not be said again.
    destination: Option<(Arc<TableName>, SharedLayout)>,
    /// Several streams were seen: requests may change table and schema.
    shared_by_tables: bool,
    last_used: Instant,
}

impl State {
    fn takes(&self, append: &Append) -> bool {
        let same =
            |(table, layout): &(Arc<TableName>, SharedLayout)| **table != *append.table || layout.descriptor == append.layout.descriptor;
        self.shared_by_tables || self.destination.as_ref().is_none_or(same)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// Takes no more appends, waits for the answers of those in flight.
    Draining,
    Closed,
}

struct Waiting {
    number: u64,
    table: Arc<TableName>,
    since: Instant,
    reply: oneshot::Sender<Outcome>,
    room: OwnedSemaphorePermit,
}

/// Counts an append that waits for room, until it has it or is dropped.
struct Queued<'a>(&'a AtomicUsize, usize);

impl<'a> Queued<'a> {
    fn new(counter: &'a AtomicUsize, bytes: usize) -> Self {
        counter.fetch_add(bytes, Ordering::Relaxed);
        Self(counter, bytes)
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}

/// Why the RPC is over.
enum End {
    Status(Status),
    AnswerTimeout,
    Idle,
    NoToken(String),
    Panicked(&'static str),
}

impl Connection {
    /// A connection that opens now, in a task of its own.
    pub(super) fn open(id: u64, location: Option<Arc<str>>, first: &TableName, shared: Arc<Shared>) -> Arc<Self> {
        let routing = match &location {
            Some(location) => format!("write_location=projects/{}/locations/{}", encode(&first.project), encode(location)),
            None => format!("write_stream={}", encode_path(&first.default_stream())),
        };
        Self::open_to(id, location, routing, shared)
    }

    /// A connection for one created stream only.
    pub(super) fn open_stream(id: u64, stream: &str, shared: Arc<Shared>) -> Arc<Self> {
        Self::open_to(id, None, format!("write_stream={}", encode_path(stream)), shared)
    }

    fn open_to(id: u64, location: Option<Arc<str>>, routing: String, shared: Arc<Shared>) -> Arc<Self> {
        let state = State {
            phase: Phase::Open,
            outbox: Outbox::default(),
            waiting: VecDeque::new(),
            pushed: 0,
            shared_by_tables: false,
            destination: None,
            last_used: Instant::now(),
        };
        let room = Arc::new(Semaphore::new(shared.settings.in_flight_bytes));
        let connection = Arc::new(Self { id, location, room, queued_bytes: AtomicUsize::new(0), state: Mutex::new(state), shared });
        tokio::spawn(connection.clone().run(routing));
        connection
    }

    /// Whether it takes appends.
    pub(super) fn is_open(&self) -> bool {
        self.state.lock().phase == Phase::Open
    }

    /// Bytes in flight, and those that wait for room.
    pub(super) fn load_bytes(&self) -> usize {
        let in_flight = self.shared.settings.in_flight_bytes.saturating_sub(self.room.available_permits());
        in_flight + self.queued_bytes.load(Ordering::Relaxed)
    }

    /// Waits for room for so many bytes; `None` when the connection closes.
    pub(super) async fn room(&self, bytes: u32) -> Option<OwnedSemaphorePermit> {
        let _queued = Queued::new(&self.queued_bytes, bytes as usize);
        self.room.clone().acquire_many_owned(bytes).await.ok()
    }

    /// Whether the last append was for this table: the next one needs no schema.
    pub(super) fn last_was(&self, table: &TableName) -> bool {
        self.state.lock().destination.as_ref().is_some_and(|(last, _)| **last == *table)
    }

    /// Takes no more appends, and closes when those in flight are answered.
    pub(super) fn drain(&self) {
        let mut state = self.state.lock();
        if state.phase == Phase::Open {
            state.phase = Phase::Draining;
        }
    }

    /// Whether rows of this table and layout may go over it. While it has seen one stream only, a server may ignore another schema for that
    /// stream (storage.proto: "subsequent requests"); once several streams share it, each change of schema counts.
    pub(super) fn suits(&self, append: &Append) -> bool {
        let state = self.state.lock();
        state.shared_by_tables
            || state
                .destination
                .as_ref()
                .is_none_or(|(table, layout)| **table != *append.table || layout.descriptor == append.layout.descriptor)
    }

    /// Queues an append, for the table's default stream or for a place in a created one. `None`: it takes no more, use another one.
    pub(super) fn push(
        &self,
        append: &Append,
        place: Option<(&str, u64)>,
        room: OwnedSemaphorePermit,
    ) -> Option<oneshot::Receiver<Outcome>> {
        let (reply, outcome) = oneshot::channel();
        let mut state = self.state.lock();
        if state.phase != Phase::Open {
            return None;
        }
        if !state.takes(append) {
            return None; // it took another layout since it was picked
        }
        let other_table = state.destination.as_ref().is_some_and(|(table, _)| **table != *append.table);
        state.shared_by_tables |= other_table;
        let same = state.destination.as_ref().is_some_and(|(table, layout)| {
            **table == *append.table && (Arc::ptr_eq(layout, &append.layout) || layout.descriptor == append.layout.descriptor)
        });
        let default_stream = if place.is_none() { append.table.default_stream() } else { String::new() };
        let head = Head {
            write_stream: place.map_or(&default_stream, |(stream, _)| stream),
            offset: place.map(|(_, offset)| offset),
            descriptor: (!same).then_some(&append.layout.descriptor),
            trace_id: (state.pushed == 0).then_some(TRACE_ID),
        };
        let head = encode_head(&head, append.rows.len());
        if !same {
            state.destination = Some((append.table.clone(), append.layout.clone()));
        }
        APPEND_IN_FLIGHT_BYTES.rise(room.num_permits());
        let (number, now) = (state.pushed, Instant::now());
        state.pushed += 1;
        state.last_used = now;
        state.waiting.push_back(Waiting { number, table: append.table.clone(), since: now, reply, room });
        state.outbox.push(head, append.rows.clone(), append.gate.clone());
        Some(outcome)
    }

    /// For the request's body. Where it ends before an append that may not leave, no further ones are taken.
    pub(super) fn poll_outbox<T>(&self, poll: impl FnOnce(&mut Outbox) -> T) -> T {
        let mut state = self.state.lock();
        let polled = poll(&mut state.outbox);
        if state.outbox.is_withheld() && state.phase == Phase::Open {
            state.phase = Phase::Draining;
        }
        polled
    }

    async fn run(self: Arc<Self>, routing: String) {
        self.driven_by(self.watch().polls(self.drive(&routing))).await;
    }

    /// However it ends: appends without an answer would wait for ever, and others would go to a connection that nobody drives.
    async fn driven_by(&self, drive: impl Future<Output = End>) {
        APPEND_CONNECTIONS.rise(1);
        let end = AssertUnwindSafe(drive).catch_unwind().await;
        self.finish(end.unwrap_or_else(|panic| End::Panicked(panic_words(panic.as_ref()))));
        APPEND_CONNECTIONS.fall(1);
    }

    async fn drive(self: &Arc<Self>, routing: &str) -> End {
        let auth = match self.shared.tokens.headers().await {
            Ok(auth) => auth,
            Err(error) if error.transient => return End::Status(Status::unavailable(error.message)),
            Err(error) => return End::NoToken(error.message),
        };
        let end = self.rpc(routing, auth.headers).await;
        if matches!(&end, End::Status(status) if status.code() == Code::Unauthenticated) {
            self.shared.tokens.invalidate(auth.generation);
        }
        end
    }

    async fn rpc(self: &Arc<Self>, routing: &str, mut headers: HeaderMap) -> End {
        headers.insert("content-type", HeaderValue::from_static("application/grpc"));
        headers.insert("te", HeaderValue::from_static("trailers"));
        match HeaderValue::from_str(routing) {
            Ok(value) => headers.insert("x-goog-request-params", value),
            Err(error) => return End::Status(Status::invalid_argument(error.to_string())),
        };
        let mut request = Request::new(tonic::body::Body::new(OutboxBody(self.clone())));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = http::Uri::from_static(METHOD);
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = headers;

        let mut tick = tokio::time::interval(self.shared.settings.tick());
        let mut channel = self.shared.endpoint.connect_lazy();
        let call = async {
            std::future::poll_fn(|cx| GrpcService::<tonic::body::Body>::poll_ready(&mut channel, cx)).await?;
            GrpcService::call(&mut channel, request).await
        };
        tokio::pin!(call);
        // The server may answer the headers only with the first append's answer.
        let response = loop {
            tokio::select! {
                response = &mut call => match response {
                    Ok(response) => break response,
                    Err(error) => return End::Status(Status::from_error(Box::new(error))),
                },
                _ = tick.tick() => if let Some(end) = self.overdue() { return end },
            }
        };
        if let Some(status) = Status::from_header_map(response.headers()).filter(|status| status.code() != Code::Ok) {
            return End::Status(status);
        }
        let http_status = response.status();
        let decoder = tonic_prost::ProstCodec::<(), AppendRowsResponse>::default().decoder();
        let mut answers = Streaming::new_response(decoder, response.into_body(), http_status, None, Some(ANSWER_MAX_BYTES));
        loop {
            tokio::select! {
                answer = answers.message() => match answer {
                    Ok(Some(answer)) => if let Some(end) = self.answered(answer) { return end },
                    Ok(None) => return End::Status(Status::ok("the RPC ended")),
                    Err(status) => return End::Status(status),
                },
                _ = tick.tick() => if let Some(end) = self.overdue() { return end },
            }
        }
    }

    /// What time says: an append without an answer for too long, or nothing to do for long.
    fn overdue(&self) -> Option<End> {
        let state = self.state.lock();
        let settings = &self.shared.settings;
        match state.waiting.front() {
            Some(oldest) => (oldest.since.elapsed() > settings.append_timeout).then_some(End::AnswerTimeout),
            None if state.phase == Phase::Draining => Some(End::Idle),
            None => (state.last_used.elapsed() > settings.idle_timeout).then_some(End::Idle),
        }
    }

    /// Hands an answer to the oldest append without one.
    fn answered(&self, response: AppendRowsResponse) -> Option<End> {
        let (waiting, drained) = {
            let mut state = self.state.lock();
            let waiting = state.waiting.pop_front();
            (waiting, state.phase == Phase::Draining && state.waiting.is_empty())
        };
        let Some(waiting) = waiting else {
            return Some(End::Status(Status::internal("BigQuery answered more appends than were sent")));
        };
        if response.updated_schema.is_some() {
            self.shared.changes.note_change(&waiting.table, Duration::ZERO);
        }
        let outcome = outcome_of(response);
        if let Err(failure) = &outcome
            && needs_fresh_connection(failure.class)
        {
            self.shared.mark_stale(&waiting.table, self.id);
        }
        APPEND_IN_FLIGHT_BYTES.fall(waiting.room.num_permits());
        // Nobody listens any more when the connector was stopped.
        let _ = waiting.reply.send(outcome);
        drained.then_some(End::Idle)
    }

    /// Closes the connection and fails what has no answer: perhaps durable if the transport had all of it, surely not otherwise.
    fn finish(&self, end: End) {
        let (waiting, taken, is_withheld) = {
            let mut state = self.state.lock();
            state.phase = Phase::Closed;
            state.outbox.end();
            (std::mem::take(&mut state.waiting), state.outbox.taken_whole(), state.outbox.is_withheld())
        };
        self.room.close();
        let (class, message) = match end {
            End::Idle => (ErrorClass::Transient, "the connection was closed".to_owned()),
            End::NoToken(words) => (ErrorClass::Unauthenticated, words),
            End::Panicked(words) => (ErrorClass::Transient, format!("the connection's task panicked ({words}): please report it")),
            End::AnswerTimeout => {
                let limit = self.shared.settings.append_timeout;
                (ErrorClass::AnswerTimeout, format!("no answer within append_timeout ({limit:?}); the connection was given up"))
            }
            End::Status(status) => {
                let refusal = Refusal::from_status(&status);
                let words = refusal.describe();
                (refusal.class(), format!("{words}{}", advice(&words)))
            }
        };
        if waiting.is_empty() {
            tracing::debug!(connection = self.id, class = class.as_str(), message, "append connection closed");
            return;
        }
        tracing::warn!(connection = self.id, class = class.as_str(), unanswered = waiting.len(), message, "append connection ended");
        // Answers come in order: a refusal that ends the RPC is that of the first append without an answer. It says nothing of the others, whose
        // tables may be other ones.
        let refuses_one = concerns_one_append(class);
        for (place, append) in waiting.into_iter().enumerate() {
            let refused = refuses_one && place == 0;
            if refused && needs_fresh_connection(class) {
                self.shared.mark_stale(&append.table, self.id);
            }
            if is_withheld && append.number >= taken {
                APPEND_IN_FLIGHT_BYTES.fall(append.room.num_permits());
                let _ = append.reply.send(Err(withheld()));
                continue;
            }
            let maybe_durable = append.number < taken && !refused;
            let (class, message) = if refuses_one && !refused {
                (ErrorClass::Transient, format!("the connection ended with the refusal of another append ({message})"))
            } else {
                (class, message.clone())
            };
            APPEND_IN_FLIGHT_BYTES.fall(append.room.num_permits());
            let _ = append.reply.send(Err(AppendFailure { class, message, row_errors: Vec::new(), maybe_durable }));
        }
    }
}
