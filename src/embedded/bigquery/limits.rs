//! Documented limits that cannot be set (quotas; error texts seen live).

/// The largest AppendRows request, whole message.
pub(crate) const APPEND_REQUEST_BYTES: usize = 10_485_760;
/// What gRPC receives at all: larger messages end the RPC before we see them.
pub(crate) const GRPC_RECEIVE_BYTES: usize = 64 << 20;
/// The largest insertAll request and row.
pub(crate) const INSERT_ALL_BYTES: usize = 10 << 20;
/// Rows in an insertAll request.
pub(crate) const INSERT_ALL_ROWS: usize = 50_000;
/// The largest REST body that is read at all.
pub(crate) const REST_BODY_BYTES: usize = 64 << 20;
/// URL and headers of a REST request.
pub(crate) const REST_HEAD_BYTES: usize = 16 << 10;
/// Row errors that fit into one answer; the service's list is limited by its size.
pub(crate) const ROW_ERRORS_LISTED: usize = 100;
/// Streams in one BatchCommitWriteStreams.
pub(crate) const COMMIT_STREAMS: usize = 10_000;
