//! Which stream a request is for: the rules of first and later requests and of multiplexing.

use std::sync::Arc;

use bytes::Bytes;
use googleapis_tonic_google_cloud_bigquery_storage_v1::google::cloud::bigquery::storage::v1 as pb;
use pb::append_rows_request::MissingValueInterpretation as Missing;
use pb::storage_error::StorageErrorCode;
use tonic::Code;

use super::codec::AppendMessage;
use super::connection::{Connection, Refusal};
use super::names::{self, StreamName};
use super::status::WriteError;
use crate::embedded::bigquery::rows::descriptor::Descriptor;
use crate::embedded::bigquery::state::streams::WriteStream;

/// Where a connection's rows go at the moment.
pub(super) struct Target {
    pub name: String,
    pub parsed: StreamName,
    pub created: Option<Arc<WriteStream>>,
    pub schema: Bytes,
    pub descriptor: Arc<Descriptor>,
}

impl Connection {
    /// Finds the target of a request by the rules of first and later requests and of multiplexing.
    pub(super) fn aim(&mut self, message: &AppendMessage) -> Result<(), Refusal> {
        let entity = if message.write_stream.is_empty() { self.entity().to_owned() } else { message.write_stream.clone() };
        let refuse = |text: &str| -> Result<(), Refusal> { Err(WriteError::invalid(&entity, text).into()) };
        if message.arrow_rows.is_some() {
            return Err(WriteError::new(Code::Unimplemented, None, &entity, "Arrow rows are not supported here.").into());
        }
        let schema = message.proto_rows.as_ref().and_then(|data| data.writer_schema.clone());
        if message.proto_rows.as_ref().and_then(|data| data.rows.as_ref()).is_none_or(Bytes::is_empty) {
            return refuse("Rows must be specified in the request.");
        }
        match Missing::try_from(message.default_missing_value_interpretation) {
            Ok(Missing::DefaultValue) => self.fill_defaults = true,
            Ok(Missing::NullValue) => self.fill_defaults = false,
            Ok(Missing::Unspecified) => {}
            Err(_) => return refuse("Invalid default_missing_value_interpretation."),
        }
        let Some(first) = self.first.clone() else {
            if message.write_stream.is_empty() {
                return refuse("The first request on the connection must specify write_stream.");
            }
            let Some(schema) = schema else { return refuse("The first request on the connection must specify writer_schema.") };
            self.first = Some(message.write_stream.clone());
            return self.retarget(&message.write_stream, schema);
        };
        if !message.write_stream.is_empty() && message.write_stream != first {
            self.is_multiplexed = true;
        }
        if self.is_multiplexed && message.write_stream.is_empty() {
            return refuse("write_stream must be specified in every request of a connection that writes to several streams.");
        }
        let is_same = message.write_stream.is_empty() || message.write_stream == self.entity();
        match (is_same, schema) {
            (true, None) => Ok(()),
            // A connection that saw one stream only ignores a new schema: clients reconnect for it.
            (true, Some(_)) if !self.is_multiplexed => Ok(()),
            (true, Some(schema)) if self.target.as_ref().is_some_and(|t| t.schema == schema) => Ok(()),
            (_, Some(schema)) => self.retarget(&message.write_stream, schema),
            (false, None) => refuse("writer_schema must be specified when the destination changes."),
        }
    }

    fn retarget(&mut self, name: &str, schema: Bytes) -> Result<(), Refusal> {
        let parsed = names::stream(name)?;
        if self.is_multiplexed && (!parsed.is_default || self.target.as_ref().is_some_and(|t| t.created.is_some())) {
            return Err(WriteError::invalid(name, "Multiplexing is supported for default streams only.").into());
        }
        let descriptor = Arc::new(Descriptor::parse(&schema).map_err(|problem| WriteError::invalid(name, problem))?);
        let created = if parsed.is_default { None } else { Some(self.open(name)?) };
        self.target = Some(Target { name: name.to_owned(), parsed, created, schema, descriptor });
        Ok(())
    }

    /// Takes a created stream: one connection has it, the newest.
    fn open(&mut self, name: &str) -> Result<Arc<WriteStream>, WriteError> {
        let stream = self.shared.streams.get(name);
        let stream = stream.ok_or_else(|| {
            WriteError::new(Code::NotFound, Some(StorageErrorCode::StreamNotFound), name, "Requested entity was not found.")
        })?;
        if let Some(before) = stream.state.lock().owner.replace(self.lease.clone()) {
            before.cancel();
        }
        Ok(stream)
    }

    pub(super) fn target(&self) -> Result<&Target, WriteError> {
        self.target.as_ref().ok_or_else(|| WriteError::invalid("", "The first request on the connection must specify write_stream."))
    }
}
