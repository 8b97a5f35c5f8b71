//! One append connection: its target, its writer schema, and what a request does.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use googleapis_tonic_google_cloud_bigquery_storage_v1::google::cloud::bigquery::storage::v1 as pb;
use pb::append_rows_request::MissingValueInterpretation as Missing;
use pb::storage_error::StorageErrorCode;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::codec::{AppendMessage, SizedAppend};
use super::names;
use super::status::WriteError;
use super::target::Target;
use crate::embedded::bigquery::fault_class::{AppendEffect, Point};
use crate::embedded::bigquery::limits::{APPEND_REQUEST_BYTES, ROW_ERRORS_LISTED};
use crate::embedded::bigquery::rows::bind::{Misfit, TableTraits, bind};
use crate::embedded::bigquery::rows::check;
use crate::embedded::bigquery::rows::plan::MessagePlan;
use crate::embedded::bigquery::rows::wire::RowsReader;
use crate::embedded::bigquery::schema::{default_value, wire};
use crate::embedded::bigquery::shared::Shared;
use crate::embedded::bigquery::state::Table;
use crate::embedded::bigquery::state::catalog::Destination;
use crate::embedded::bigquery::state::table::Version;
use crate::embedded::bigquery::values::Cell;
use crate::embedded::bigquery::visibility::Observer;

/// What a request leads to.
pub(crate) enum Outcome {
    Reply(Box<pb::AppendRowsResponse>),
    /// With milliseconds to wait.
    SlowReply(Box<pb::AppendRowsResponse>, u64),
    End(WriteError),
    /// The response ends without a status of its own.
    EndOfStream,
    /// Neither this nor any later request is answered.
    Silence,
}

/// A refusal: in the response, or at the end of the RPC.
pub(super) enum Refusal {
    Answer(Box<pb::AppendRowsResponse>),
    End(WriteError),
}

impl From<WriteError> for Refusal {
    fn from(error: WriteError) -> Self {
        Self::End(error)
    }
}

/// An open connection.
pub(crate) struct Connection {
    pub(super) shared: Arc<Shared>,
    observer: Observer,
    pub(super) first: Option<String>,
    pub(super) is_multiplexed: bool,
    /// The stream of the request before, taken apart, with its writer schema.
    pub(super) target: Option<Target>,
    pub(super) fill_defaults: bool,
    plans: HashMap<PlanKey, Arc<MessagePlan>>,
    /// The schema version that each table's writer has been told.
    told: HashMap<u64, u64>,
    pub(super) lease: CancellationToken,
}

/// Table (by id: two of one name differ), schema version, descriptor (its wire form), defaults on.
type PlanKey = (u64, u64, Bytes, bool);

impl Connection {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let observer = shared.visibility.observer();
        Self {
            shared,
            observer,
            first: None,
            is_multiplexed: false,
            target: None,
            fill_defaults: false,
            plans: HashMap::new(),
            told: HashMap::new(),
            lease: CancellationToken::new(),
        }
    }

    /// The stream of the last request, for messages.
    pub(crate) fn entity(&self) -> &str {
        self.target.as_ref().map_or("", |target| &target.name)
    }

    /// Cancelled when another connection opens the created stream of this one.
    pub(crate) fn taken_over(&self) -> CancellationToken {
        self.lease.clone()
    }

    /// Does what a request asks for.
    pub(crate) fn handle(&mut self, request: &SizedAppend) -> Outcome {
        let name = if request.message.write_stream.is_empty() { self.entity().to_owned() } else { request.message.write_stream.clone() };
        let dotted = names::stream(&name).map_or_else(|_| name.clone(), |parsed| parsed.key.dotted());
        let fault = self.shared.faults.draw(Point::Append, &dotted);
        let effect = fault.and_then(|fault| fault.class.append_effect());
        match effect {
            Some(AppendEffect::End(code, storage, text)) => return Outcome::End(WriteError::new(code, storage, &name, text)),
            Some(AppendEffect::Answer(code, storage, text)) => {
                // The request is refused, but it is still the one that names target and schema.
                if let Err(Refusal::End(error)) = self.aim(&request.message) {
                    return Outcome::End(error);
                }
                return Outcome::Reply(Box::new(WriteError::new(code, storage, &name, text).to_response(&name)));
            }
            Some(AppendEffect::Eof) => return Outcome::EndOfStream,
            _ => {}
        }
        let reply = match self.append(request) {
            Ok(reply) => Box::new(reply),
            Err(Refusal::Answer(reply)) => reply,
            Err(Refusal::End(error)) => return Outcome::End(error),
        };
        match effect {
            Some(AppendEffect::LostAck) => Outcome::End(WriteError::new(Code::Unavailable, None, &name, "Connection reset by peer")),
            Some(AppendEffect::Hold) => Outcome::Silence,
            Some(AppendEffect::Slow) => Outcome::SlowReply(reply, fault.map_or(0, |fault| fault.slow_ms)),
            _ => Outcome::Reply(reply),
        }
    }

    fn append(&mut self, request: &SizedAppend) -> Result<pb::AppendRowsResponse, Refusal> {
        let SizedAppend { message, size } = request;
        if *size > APPEND_REQUEST_BYTES {
            let entity = if message.write_stream.is_empty() { self.entity() } else { &message.write_stream };
            let text = format!("AppendRows request too large: {size} limit {APPEND_REQUEST_BYTES}");
            return Err(WriteError::invalid(entity, text).into());
        }
        self.aim(message)?;
        if !self.shared.take_append_bytes(*size) {
            let text = "Exceeds 'AppendRows throughput' quota, user_id: project0000000000 (status: INSUFFICIENT_TOKENS), you can issue a raise quota request through Google Cloud Console.";
            return Err(WriteError::new(Code::ResourceExhausted, None, self.entity(), text).into());
        }
        let (table, version) = self.destination()?;
        let plan = self.plan(&table, &version)?;
        let fill = self.fill(message, &version, &plan)?;
        let rows = message.proto_rows.as_ref().and_then(|data| data.rows.clone()).unwrap_or_default();
        let count = self.check_rows(&plan, &rows)?;
        let offset = self.store(message, &table, &plan, &fill, &rows, count)?;
        let updated_schema = self.news(&table, &version);
        Ok(pb::AppendRowsResponse {
            updated_schema,
            row_errors: Vec::new(),
            write_stream: self.entity().to_owned(),
            response: Some(pb::append_rows_response::Response::AppendResult(pb::append_rows_response::AppendResult { offset })),
        })
    }

    fn destination(&self) -> Result<(Arc<Table>, Version), Refusal> {
        let target = self.target()?;
        let now = Instant::now();
        let key = &target.parsed.key;
        let not_found = |text: String| WriteError::new(Code::NotFound, Some(StorageErrorCode::TableNotFound), &target.name, text);
        let (table, version) = match self.shared.catalog.destination(key, self.observer, now) {
            Destination::Table(table, version) => (table, version),
            Destination::Recreated => return Err(not_found(format!("Table {key} is re-created.")).into()),
            Destination::Missing => return Err(not_found("Requested entity was not found.".to_owned()).into()),
        };
        if target.created.as_ref().is_some_and(|stream| !Arc::ptr_eq(&stream.table, &table)) {
            let gone =
                WriteError::new(Code::NotFound, Some(StorageErrorCode::StreamNotFound), &target.name, "Requested entity was not found.");
            return Err(gone.into());
        }
        if let Some(decorator) = &target.parsed.decorator {
            names::check_decorator(decorator, &version.partitioning, &target.name)?;
        }
        Ok((table, version))
    }

    fn plan(&mut self, table: &Arc<Table>, version: &Version) -> Result<Arc<MessagePlan>, Refusal> {
        let fill_defaults = self.fill_defaults;
        let target = self.target()?;
        let key = (table.id, version.number, target.schema.clone(), fill_defaults);
        if let Some(plan) = self.plans.get(&key) {
            return Ok(Arc::clone(plan));
        }
        let mut traits: TableTraits = version.traits();
        traits.fill_defaults = fill_defaults;
        let plan = bind(&target.descriptor, &version.schema, traits).map_err(|misfit| {
            let error = match misfit {
                Misfit::ExtraFields(text) => {
                    WriteError::new(Code::InvalidArgument, Some(StorageErrorCode::SchemaMismatchExtraFields), &target.name, text)
                }
                Misfit::Incompatible(text) => WriteError::invalid(&target.name, text),
            };
            Refusal::Answer(Box::new(error.to_response(&target.name)))
        })?;
        let plan = Arc::new(plan);
        self.plans.insert(key, Arc::clone(&plan));
        Ok(plan)
    }

    /// Values for columns that rows leave unset.
    fn fill(&self, message: &AppendMessage, version: &Version, plan: &MessagePlan) -> Result<Arc<[(usize, Cell)]>, Refusal> {
        let map = &message.missing_value_interpretations;
        let refuse = |text: String| Err(WriteError::invalid(self.entity(), text).into());
        for (column, interpretation) in map {
            if version.schema.position(column).is_none() {
                return refuse(format!("missing_value_interpretations names the column {column}, which the table does not have."));
            }
            if !matches!(Missing::try_from(*interpretation), Ok(Missing::NullValue | Missing::DefaultValue)) {
                return refuse(format!("missing_value_interpretations of {column} is unspecified."));
            }
        }
        let mut fill = Vec::new();
        for (index, column) in version.schema.columns.iter().enumerate() {
            let Some(expression) = &column.default else { continue };
            let in_descriptor = plan.fields.iter().any(|field| field.column == index);
            let stated = map.iter().find(|(name, _)| crate::embedded::bigquery::schema::column::same_name(name, &column.name));
            let wanted = match stated {
                Some((_, interpretation)) => *interpretation == Missing::DefaultValue as i32,
                None => !in_descriptor || self.fill_defaults,
            };
            if wanted {
                let value = default_value::evaluate(expression, column).map_err(|problem| WriteError::invalid(self.entity(), problem))?;
                fill.push((index, value));
            }
        }
        Ok(fill.into())
    }

    fn check_rows(&self, plan: &MessagePlan, rows: &[u8]) -> Result<u64, Refusal> {
        let today = names::today();
        let mut count = 0;
        let mut row_errors = Vec::new();
        for row in RowsReader::new(rows) {
            let Ok(row) = row else { return Err(WriteError::invalid(self.entity(), "The request is not a valid message.").into()) };
            if let Err(message) = check::row(plan, row, today)
                && row_errors.len() < ROW_ERRORS_LISTED
            {
                row_errors.push(pb::RowError { index: count, code: pb::row_error::RowErrorCode::FieldsError.into(), message });
            }
            count += 1;
        }
        if count == 0 {
            return Err(WriteError::invalid(self.entity(), "Rows must be specified in the request.").into());
        }
        if row_errors.is_empty() {
            return Ok(count as u64);
        }
        let text = "Errors found while processing rows. Please refer to the row_errors field for details. The list may not be complete because of the size limitations.";
        let mut response = WriteError::invalid(self.entity(), text).to_response(self.entity());
        response.row_errors = row_errors;
        Err(Refusal::Answer(Box::new(response)))
    }

    fn store(
        &self,
        message: &AppendMessage,
        table: &Table,
        plan: &Arc<MessagePlan>,
        fill: &Arc<[(usize, Cell)]>,
        rows: &Bytes,
        count: u64,
    ) -> Result<Option<i64>, Refusal> {
        let target = self.target()?;
        let answer = |code, storage, text: String| {
            let error = WriteError::new(code, storage, &target.name, text);
            Err(Refusal::Answer(Box::new(error.to_response(&target.name))))
        };
        let Some(stream) = &target.created else {
            if message.offset.is_some() {
                return answer(Code::InvalidArgument, None, "Offset cannot be specified on the default stream.".to_owned());
            }
            table.store.lock().push_proto(plan, fill, rows, count);
            return Ok(None);
        };
        let mut state = stream.state.lock();
        if !stream.lives(&mut state) {
            return answer(Code::NotFound, Some(StorageErrorCode::StreamNotFound), "Requested entity was not found.".to_owned());
        }
        if state.finalized {
            return answer(Code::InvalidArgument, Some(StorageErrorCode::StreamFinalized), "Stream has been finalized".to_owned());
        }
        let expected = state.rows as i64;
        match message.offset {
            Some(offset) if offset < expected => {
                let text = format!("The offset is within stream, expected offset {expected}, received {offset}");
                return answer(Code::AlreadyExists, Some(StorageErrorCode::OffsetAlreadyExists), text);
            }
            Some(offset) if offset > expected => {
                let text = format!("The offset is beyond stream, expected offset {expected}, received {offset}");
                return answer(Code::OutOfRange, Some(StorageErrorCode::OffsetOutOfRange), text);
            }
            _ => {}
        }
        stream.append(&mut state, plan, fill, rows, count);
        Ok(Some(expected))
    }

    /// The new schema, once, on a connection that is older than the change.
    fn news(&mut self, table: &Arc<Table>, version: &Version) -> Option<pb::TableSchema> {
        let told = self.told.entry(table.id).or_insert(version.number);
        (*told < version.number).then(|| {
            *told = version.number;
            wire::table_schema(&version.schema)
        })
    }
}
