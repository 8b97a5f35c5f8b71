//! Errors of the Storage Write API: google.rpc.Status with a StorageError among its details, in a response or at the end of an RPC.

use bytes::Bytes;
use googleapis_tonic_google_cloud_bigquery_storage_v1::google::cloud::bigquery::storage::v1 as pb;
use googleapis_tonic_google_cloud_bigquery_storage_v1::google::rpc;
use pb::storage_error::StorageErrorCode;
use prost::Message;
use tonic::{Code, Status};

/// An error before it is decided whether it ends the RPC.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct WriteError {
    pub code: Code,
    pub storage: Option<StorageErrorCode>,
    pub entity: String,
    pub message: String,
}

impl WriteError {
    /// `entity` is the stream's or table's name; the message gets ` Entity: <entity>` as the service does.
    pub(crate) fn new(code: Code, storage: Option<StorageErrorCode>, entity: &str, message: impl std::fmt::Display) -> Self {
        Self { code, storage, entity: entity.to_owned(), message: format!("{message} Entity: {entity}") }
    }

    pub(crate) fn invalid(entity: &str, message: impl std::fmt::Display) -> Self {
        Self::new(Code::InvalidArgument, None, entity, message)
    }

    /// As it stands in a response.
    pub(crate) fn to_rpc(&self) -> rpc::Status {
        let details = self.storage.map(|code| prost_types::Any {
            type_url: "type.googleapis.com/google.cloud.bigquery.storage.v1.StorageError".to_owned(),
            value: pb::StorageError { code: code.into(), entity: self.entity.clone(), error_message: self.message.clone() }.encode_to_vec(),
        });
        rpc::Status { code: self.code as i32, message: self.message.clone(), details: details.into_iter().collect() }
    }

    /// As it ends an RPC: with `grpc-status-details-bin`.
    pub(crate) fn to_status(&self) -> Status {
        if self.storage.is_none() {
            return Status::new(self.code, self.message.clone());
        }
        Status::with_details(self.code, self.message.clone(), Bytes::from(self.to_rpc().encode_to_vec()))
    }

    /// As a response of its own.
    pub(crate) fn to_response(&self, stream: &str) -> pb::AppendRowsResponse {
        pb::AppendRowsResponse {
            write_stream: stream.to_owned(),
            response: Some(pb::append_rows_response::Response::Error(self.to_rpc())),
            ..Default::default()
        }
    }
}
