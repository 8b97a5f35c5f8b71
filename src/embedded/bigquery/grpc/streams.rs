//! The unary methods: create, get, finalize, flush, commit.

use std::sync::Arc;
use std::time::Instant;

use googleapis_tonic_google_cloud_bigquery_storage_v1::google::cloud::bigquery::storage::v1 as pb;
use pb::storage_error::StorageErrorCode;
use pb::write_stream::{Type, WriteMode};
use prost_types::Timestamp;
use tonic::{Code, Status};

use super::names;
use super::status::WriteError;
use crate::embedded::bigquery::fault_class::{AppendEffect, Point};
use crate::embedded::bigquery::limits::COMMIT_STREAMS;
use crate::embedded::bigquery::schema::wire;
use crate::embedded::bigquery::shared::Shared;
use crate::embedded::bigquery::state::Table;
use crate::embedded::bigquery::state::catalog::Destination;
use crate::embedded::bigquery::state::streams::{StreamKind, WriteStream};
use crate::embedded::bigquery::state::table::{Version, now_ms};

fn timestamp(ms: i64) -> Timestamp {
    Timestamp { seconds: ms.div_euclid(1000), nanos: (ms.rem_euclid(1000) * 1_000_000) as i32 }
}

/// Runs a method between the faults that strike before it and those that lose its answer.
async fn faulty<T>(shared: &Shared, target: &str, method: impl FnOnce() -> Result<T, WriteError>) -> Result<T, Status> {
    shared.wait_out_stall(true).await;
    let effect = shared.faults.draw(Point::Unary, target).and_then(|fault| fault.class.append_effect());
    if let Some(AppendEffect::End(code, storage, text)) = effect {
        return Err(WriteError::new(code, storage, target, text).to_status());
    }
    let answer = method().map_err(|error| error.to_status());
    if effect == Some(AppendEffect::LostAck) {
        return Err(Status::unavailable("Connection reset by peer"));
    }
    answer
}

/// The table that a new connection sees.
fn visible(shared: &Shared, parent: &str) -> Result<(Arc<Table>, Version), WriteError> {
    let (key, decorator) = names::table(parent)?;
    let not_found = |text: String| WriteError::new(Code::NotFound, Some(StorageErrorCode::TableNotFound), parent, text);
    match shared.catalog.destination(&key, shared.visibility.observer(), Instant::now()) {
        Destination::Table(table, version) => {
            if let Some(decorator) = decorator {
                names::check_decorator(&decorator, &version.partitioning, parent)?;
            }
            Ok((table, version))
        }
        Destination::Recreated => Err(not_found(format!("Table {key} is re-created."))),
        Destination::Missing => Err(not_found("Requested entity was not found.".to_owned())),
    }
}

fn find(shared: &Shared, name: &str) -> Result<Arc<WriteStream>, WriteError> {
    let parsed = names::stream(name)?;
    let gone = || WriteError::new(Code::NotFound, Some(StorageErrorCode::StreamNotFound), name, "Requested entity was not found.");
    let stream = shared.streams.get(name).ok_or_else(gone)?;
    // A stream dies with its table.
    let table = shared.catalog.table(&parsed.key).map_err(|_| gone())?;
    if Arc::ptr_eq(&table, &stream.table) { Ok(stream) } else { Err(gone()) }
}

fn describe(stream: &WriteStream, location: &str, schema: Option<pb::TableSchema>) -> pb::WriteStream {
    let kind = match stream.kind {
        StreamKind::Committed => Type::Committed,
        StreamKind::Buffered => Type::Buffered,
        StreamKind::Pending => Type::Pending,
    };
    pb::WriteStream {
        name: stream.name.clone(),
        r#type: kind.into(),
        create_time: Some(timestamp(stream.created_ms)),
        commit_time: stream.state.lock().committed_ms.map(timestamp),
        table_schema: schema,
        write_mode: WriteMode::Insert.into(),
        location: location.to_lowercase(),
    }
}

/// CreateWriteStream.
pub(crate) async fn create(shared: Arc<Shared>, request: pb::CreateWriteStreamRequest) -> Result<pb::WriteStream, Status> {
    let parent = request.parent.clone();
    faulty(&shared, &parent, || {
        let kind = match request.write_stream.as_ref().map(pb::WriteStream::r#type) {
            Some(Type::Committed) => StreamKind::Committed,
            Some(Type::Buffered) => StreamKind::Buffered,
            Some(Type::Pending) => StreamKind::Pending,
            _ => return Err(WriteError::invalid(&parent, "The type of the write stream must be specified.")),
        };
        let (table, version) = visible(&shared, &parent)?;
        let stream = shared.streams.create(table, kind).ok_or_else(|| {
            let text = "Exceeds 'CreateWriteStream requests' quota, user_id: project0000000000 (status: INSUFFICIENT_TOKENS)";
            WriteError::new(Code::ResourceExhausted, None, &parent, text)
        })?;
        Ok(describe(&stream, &shared.settings.location, Some(wire::table_schema(&version.schema))))
    })
    .await
}

/// GetWriteStream; also of `_default`.
pub(crate) async fn get(shared: Arc<Shared>, request: pb::GetWriteStreamRequest) -> Result<pb::WriteStream, Status> {
    let name = request.name.clone();
    faulty(&shared, &name, || {
        let is_full = request.view() == pb::WriteStreamView::Full;
        let parsed = names::stream(&name)?;
        let parent = name.split("/streams/").next().unwrap_or(&name).trim_end_matches("/_default");
        let (_, version) = visible(&shared, parent)?;
        let schema = is_full.then(|| wire::table_schema(&version.schema));
        if !parsed.is_default {
            return Ok(describe(&*find(&shared, &name)?, &shared.settings.location, schema));
        }
        Ok(pb::WriteStream {
            name: name.clone(),
            r#type: Type::Committed.into(),
            table_schema: schema,
            write_mode: WriteMode::Insert.into(),
            location: shared.settings.location.to_lowercase(),
            ..Default::default()
        })
    })
    .await
}

fn created_only(name: &str, what: &str) -> Result<(), WriteError> {
    if names::stream(name)?.is_default {
        let text = format!("{what} is not supported on the default stream.");
        return Err(WriteError::new(Code::InvalidArgument, Some(StorageErrorCode::InvalidStreamType), name, text));
    }
    Ok(())
}

/// FinalizeWriteStream: answers the row count; a second one answers the same.
pub(crate) async fn finalize(
    shared: Arc<Shared>,
    request: pb::FinalizeWriteStreamRequest,
) -> Result<pb::FinalizeWriteStreamResponse, Status> {
    let name = request.name.clone();
    faulty(&shared, &name, || {
        created_only(&name, "FinalizeWriteStream")?;
        let stream = find(&shared, &name)?;
        let mut state = stream.state.lock();
        state.finalized = true;
        Ok(pb::FinalizeWriteStreamResponse { row_count: state.rows as i64 })
    })
    .await
}

/// FlushRows: shows the rows of a BUFFERED stream up to an offset, which is included.
pub(crate) async fn flush(shared: Arc<Shared>, request: pb::FlushRowsRequest) -> Result<pb::FlushRowsResponse, Status> {
    let name = request.write_stream.clone();
    faulty(&shared, &name, || {
        created_only(&name, "FlushRows")?;
        let stream = find(&shared, &name)?;
        if stream.kind != StreamKind::Buffered {
            let text = "FlushRows is supported for BUFFERED streams only.";
            return Err(WriteError::new(Code::InvalidArgument, Some(StorageErrorCode::InvalidStreamType), &name, text));
        }
        let mut state = stream.state.lock();
        let offset = request.offset.ok_or_else(|| WriteError::invalid(&name, "The offset must be specified."))?;
        if offset < 0 || offset as u64 >= state.rows {
            let text = format!("The flush offset {offset} is beyond the end of the stream, which has {} rows.", state.rows);
            return Err(WriteError::new(Code::OutOfRange, Some(StorageErrorCode::OffsetOutOfRange), &name, text));
        }
        if (offset as u64) < state.flushed {
            let text = format!("The offset {offset} is already flushed.");
            return Err(WriteError::new(Code::AlreadyExists, Some(StorageErrorCode::OffsetAlreadyExists), &name, text));
        }
        stream.show(&mut state, offset as u64 + 1);
        Ok(pb::FlushRowsResponse { offset })
    })
    .await
}

/// BatchCommitWriteStreams: all or nothing; without `commit_time` it failed, and `stream_errors` says why.
pub(crate) async fn batch_commit(
    shared: Arc<Shared>,
    request: pb::BatchCommitWriteStreamsRequest,
) -> Result<pb::BatchCommitWriteStreamsResponse, Status> {
    let parent = request.parent.clone();
    faulty(&shared, &parent, || {
        let (key, _) = names::table(&parent)?;
        if request.write_streams.is_empty() || request.write_streams.len() > COMMIT_STREAMS {
            return Err(WriteError::invalid(&parent, format_args!("BatchCommitWriteStreams takes 1 to {COMMIT_STREAMS} streams.")));
        }
        let mut streams = Vec::new();
        let mut stream_errors = Vec::new();
        for name in &request.write_streams {
            if names::stream(name)?.key != key {
                return Err(WriteError::invalid(name, format_args!("The stream does not belong to the table {parent}.")));
            }
            if streams.iter().any(|stream: &Arc<WriteStream>| stream.name == *name) {
                return Err(WriteError::invalid(name, "The stream is named twice."));
            }
            match committable(&shared, name) {
                Ok(stream) => streams.push(stream),
                Err(error) => stream_errors.push(error),
            }
        }
        if !stream_errors.is_empty() {
            return Ok(pb::BatchCommitWriteStreamsResponse { commit_time: None, stream_errors });
        }
        let now = now_ms();
        for stream in streams {
            let mut state = stream.state.lock();
            state.committed_ms = Some(now);
            let end = state.rows;
            stream.show(&mut state, end);
        }
        Ok(pb::BatchCommitWriteStreamsResponse { commit_time: Some(timestamp(now)), stream_errors: Vec::new() })
    })
    .await
}

fn committable(shared: &Shared, name: &str) -> Result<Arc<WriteStream>, pb::StorageError> {
    let error = |code: StorageErrorCode, text: &str| pb::StorageError {
        code: code.into(),
        entity: name.to_owned(),
        error_message: format!("{text} Entity: {name}"),
    };
    let stream = find(shared, name).map_err(|e| error(e.storage.unwrap_or(StorageErrorCode::StreamNotFound), &e.message))?;
    let state = stream.state.lock();
    if stream.kind != StreamKind::Pending {
        return Err(error(StorageErrorCode::InvalidStreamType, "The stream is not of type PENDING."));
    }
    if state.committed_ms.is_some() {
        return Err(error(StorageErrorCode::StreamAlreadyCommitted, "The stream is already committed."));
    }
    if !state.finalized {
        return Err(error(StorageErrorCode::InvalidStreamState, "The stream is not finalized."));
    }
    drop(state);
    Ok(stream)
}
