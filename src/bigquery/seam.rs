//! What the pipeline sees of BigQuery: two traits, their requests and their errors.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;

use crate::config::{Evolve, PartitionBy};
use crate::flow::HoldCause;
use crate::table::{Column, SharedLayout, TableName};

/// A table as BigQuery's REST API showed it.
#[derive(Debug, Clone, PartialEq)]
pub struct TableState {
    /// Its columns in order.
    pub columns: Vec<Column>,
    /// The version of its metadata, for If-Match.
    pub etag: String,
    /// When it was created, milliseconds since the epoch: another value under the same name is another table.
    pub creation_time_ms: i64,
    /// Its time partitioning, if it has any.
    pub time_partition: Option<TimePartition>,
}

/// A table's time partitioning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimePartition {
    /// The column; `None` is the time of arrival.
    pub column: Option<String>,
}

/// What a connector wants of its table.
#[derive(Debug, Clone)]
pub struct TableSpec {
    /// Create the table when it is missing.
    pub create: bool,
    /// Partitioning of a created table.
    pub partition: Option<PartitionBy>,
    /// Clustering of a created table.
    pub cluster: Vec<String>,
    /// What may be changed in an existing table.
    pub evolve: Evolve,
}

/// Why a table cannot be had as wanted: always a hold, with what to do in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TableError {
    /// The cause of the hold.
    pub cause: HoldCause,
    /// What is wrong with which table and column, and what to do about it.
    pub message: String,
    /// Where BigQuery asked for a certain wait (quota), else the pipeline's own backoff counts.
    pub retry_after: Option<std::time::Duration>,
}

/// Tables over REST. One instance serves all connectors of a worker, so that one table's questions are asked once.
#[async_trait]
pub trait Tables: Send + Sync + 'static {
    /// The table as it is now, `None` when it does not exist.
    async fn get(&self, table: &TableName) -> Result<Option<TableState>, TableError>;

    /// Makes the table have at least the `wanted` columns: returns it as it is when it does, else creates or evolves it as `spec` allows.
    ///
    /// Twenty workers that call this at once with the same columns make at most two patches: a jittered wait, a fresh look, If-Match, and
    /// a fresh look after 412. Existing columns keep everything (descriptions, policy tags, defaults, unknown properties).
    async fn ensure(&self, table: &TableName, spec: &TableSpec, wanted: &[Column]) -> Result<TableState, TableError>;

    /// Whether a change of this table's metadata (ours, or one that we saw by its etag) is so recent that write servers may not know it
    /// yet.
    fn changed_recently(&self, table: &TableName) -> bool;
}

/// Asked right before an append's bytes leave, however long they waited for room: a process that stood still may write no longer, nor may
/// one whose partitions went meanwhile.
pub trait Gate: std::fmt::Debug + Send + Sync {
    /// Whether the append may leave now. Called under a lock: must not block.
    fn is_open(&self) -> bool;
}

/// Rows for one table: all or nothing.
#[derive(Debug, Clone)]
pub struct Append {
    /// The table; rows go to its default stream, unless they are handed to a [`StreamLine`].
    pub table: Arc<TableName>,
    /// Describes the rows.
    pub layout: SharedLayout,
    /// The wire form of `ProtoRows`: for each row the tag 0x0A, its length, its bytes.
    pub rows: Bytes,
    /// How many rows.
    pub row_count: u32,
    /// Asked before the rows leave; without one they always may.
    pub gate: Option<Arc<dyn Gate>>,
}

/// Sends rows over long-lived, pipelined connections that tables share.
///
/// **Promise**: `Ok` means durable: BigQuery acknowledged the rows of this append. `Err` with `maybe_durable == false` means that none of
/// them is. Answers lost on the way are `Err` with `maybe_durable == true`.
pub trait Appender: Send + Sync + 'static {
    /// Hands an append over. Waits (without blocking a thread) while the connection has its limit of bytes in flight; resolves at the
    /// acknowledgement. Appends may overtake each other. It does not try again by itself: the caller does, by [`Action`].
    fn append(&self, append: Append) -> BoxFuture<'static, Result<(), AppendFailure>>;
}

/// Write streams of type COMMITTED, for exactly once: each has one writer, numbers its rows from 0, and can be ended for good.
///
/// Errors of all calls are [`AppendFailure`]s: classes and actions are the same. None is tried again by itself.
#[async_trait]
pub trait WriteStreams: Send + Sync + 'static {
    /// A new stream of this table: its full name (`projects/../datasets/../tables/../streams/..`). Creations of a process are spread over
    /// time (the service takes 10,000 an hour and project). An answer that was lost leaves a stream that nobody uses.
    async fn create(&self, table: &TableName) -> Result<Arc<str>, AppendFailure>;
    /// Ends a stream: when this is answered, no append to it lands any more, and the answer is how many rows did. May be asked again.
    async fn finalize(&self, stream: &str) -> Result<u64, AppendFailure>;
    /// A way to append to a stream. Its connection opens with the first append; the service gives a stream to the connection that came
    /// last.
    fn open(&self, stream: &Arc<str>) -> Box<dyn StreamLine>;
}

/// The way to one created stream: a connection that is opened when needed, and again when it ended.
#[async_trait]
pub trait StreamLine: Send {
    /// Hands rows over that must land at `offset` (the number of rows before them), all or none. Appends leave in the order of these calls.
    /// Waits while the connection has its limit of bytes in flight; what it returns resolves at the acknowledgement.
    ///
    /// `Err(OffsetAlreadyExists)`: the stream has rows there already; `Err(OffsetOutOfRange)`: rows before these are missing. What either
    /// means the caller knows: whether an append of its own without an answer is behind it.
    async fn append(&mut self, append: Append, offset: u64) -> BoxFuture<'static, Result<(), AppendFailure>>;
}

/// A row that BigQuery rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowError {
    /// Its index in the append, from 0.
    pub index: u32,
    /// BigQuery's words.
    pub message: String,
}

/// An append that was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{class:?}: {message}")]
pub struct AppendFailure {
    /// What kind of failure.
    pub class: ErrorClass,
    /// gRPC status, StorageError and BigQuery's words.
    pub message: String,
    /// Rejected rows; the list may be incomplete.
    pub row_errors: Vec<RowError>,
    /// The rows may be in the table all the same (the answer was lost).
    pub maybe_durable: bool,
}

/// The kinds of failure of an append: what `errors_total{class}` counts. One for each row of the tables in BigQuery's documentation
/// (Storage Write API: storage.proto, StorageErrorCode and gRPC codes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names are BigQuery's own")]
pub enum ErrorClass {
    TableNotFound,
    TableRecreated,
    StreamNotFound,
    StreamFinalized,
    StreamAlreadyCommitted,
    InvalidStreamType,
    InvalidStreamState,
    SchemaMismatchExtraFields,
    SchemaIncompatible,
    OffsetAlreadyExists,
    OffsetOutOfRange,
    KmsServiceError,
    KmsPermissionDenied,
    Transient,
    Throughput,
    ConnectionQuota,
    ResourceExhausted,
    RowErrors,
    /// Rows are refused, but the answer does not say which.
    RowErrorsUnnamed,
    RequestTooLarge,
    InvalidArgument,
    PermissionDenied,
    FailedPrecondition,
    Unauthenticated,
    AnswerTimeout,
    /// It was not sent: its [`Gate`] was closed when its turn came.
    Withheld,
    Unknown,
}

/// How soon to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryPace {
    /// 100 ms growing by 1.3 to 60 s (java-bigquerystorage's).
    Transient,
    /// 100 ms growing by 1.3 to 2 s: write servers may know a change of the table at any moment.
    Lagging,
    /// Slower: quotas refill in 10 s and in 10 minutes; 1 s growing by 2 to 120 s.
    Quota,
}

/// What to do about a failed append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Send it again.
    Retry(RetryPace),
    /// Send it again in two halves; a lone row is a dead letter.
    Split,
    /// Take the named rows out (dead letters), send the rest again.
    DeadLetterRows,
    /// Make sure that the table has the columns, then send it again on a fresh connection.
    Evolve,
    /// The partitions concerned hold.
    Hold(HoldCause),
    /// A bug of ours: end the connector with a message.
    Stop,
}
