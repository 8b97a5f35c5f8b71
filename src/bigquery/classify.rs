//! What BigQuery answered (gRPC status, StorageError, row errors, message) mapped to the class of the failure.

use googleapis_tonic_google_cloud_bigquery_storage_v1::google::cloud::bigquery::storage::v1 as storage;
use prost::Message;
use storage::storage_error::StorageErrorCode;
use tonic::Code;

use super::ErrorClass;

/// The type URL's end of a `StorageError` among a status's details.
const STORAGE_ERROR: &str = "google.cloud.bigquery.storage.v1.StorageError";

/// A refusal as it arrived: inside a response, or as the end of the RPC.
pub(crate) struct Refusal {
    pub(crate) code: Code,
    pub(crate) storage: Option<StorageErrorCode>,
    pub(crate) message: String,
}

/// The wire form of `google.rpc.Status`, for the `grpc-status-details-bin` trailer.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

impl Refusal {
    /// From `response.error` of an AppendRows response.
    pub(crate) fn from_parts(code: i32, message: String, details: &[prost_types::Any]) -> Self {
        Self { code: Code::from_i32(code), storage: storage_code(details), message }
    }

    /// From the status that ended the RPC; details are in its binary trailer.
    pub(crate) fn from_status(status: &tonic::Status) -> Self {
        let details = RpcStatus::decode(status.details()).map(|s| s.details).unwrap_or_default();
        let mut message = status.message().to_owned();
        if let Some(source) = std::error::Error::source(status) {
            message = format!("{message}: {}", super::rest::source_chain(source));
        }
        Self { code: status.code(), storage: storage_code(&details), message }
    }

    /// The class.
    pub(crate) fn class(&self) -> ErrorClass {
        let text = self.message.to_ascii_lowercase();
        let has = |part: &str| text.contains(part);
        if has("is re-created") || has("is recreated") {
            return ErrorClass::TableRecreated;
        }
        if let Some(class) = self.storage.and_then(storage_class) {
            return class;
        }
        match self.code {
            Code::Aborted
            | Code::Unavailable
            | Code::Cancelled
            | Code::Internal
            | Code::DeadlineExceeded
            | Code::Unknown
            // The RPC ended before this append was answered.
            | Code::Ok => ErrorClass::Transient,
            Code::ResourceExhausted if has("throughput") => ErrorClass::Throughput,
            Code::ResourceExhausted if has("connection") || has("createwritestream") => ErrorClass::ConnectionQuota,
            Code::ResourceExhausted => ErrorClass::ResourceExhausted,
            Code::InvalidArgument => invalid_argument(&has),
            Code::NotFound => ErrorClass::TableNotFound,
            Code::AlreadyExists => ErrorClass::OffsetAlreadyExists,
            Code::OutOfRange => ErrorClass::OffsetOutOfRange,
            Code::PermissionDenied => ErrorClass::PermissionDenied,
            Code::FailedPrecondition => ErrorClass::FailedPrecondition,
            Code::Unauthenticated => ErrorClass::Unauthenticated,
            Code::Unimplemented | Code::DataLoss => ErrorClass::Unknown,
        }
    }

    /// BigQuery's words behind the names of its codes.
    pub(crate) fn describe(&self) -> String {
        match self.storage {
            Some(storage) => format!("{:?} {}: {}", self.code, storage.as_str_name(), self.message),
            None => format!("{:?}: {}", self.code, self.message),
        }
    }
}

fn storage_class(code: StorageErrorCode) -> Option<ErrorClass> {
    Some(match code {
        StorageErrorCode::Unspecified => return None,
        StorageErrorCode::TableNotFound => ErrorClass::TableNotFound,
        StorageErrorCode::StreamAlreadyCommitted => ErrorClass::StreamAlreadyCommitted,
        StorageErrorCode::StreamNotFound => ErrorClass::StreamNotFound,
        StorageErrorCode::InvalidStreamType => ErrorClass::InvalidStreamType,
        StorageErrorCode::InvalidStreamState => ErrorClass::InvalidStreamState,
        StorageErrorCode::StreamFinalized => ErrorClass::StreamFinalized,
        StorageErrorCode::SchemaMismatchExtraFields => ErrorClass::SchemaMismatchExtraFields,
        StorageErrorCode::OffsetAlreadyExists => ErrorClass::OffsetAlreadyExists,
        StorageErrorCode::OffsetOutOfRange => ErrorClass::OffsetOutOfRange,
        StorageErrorCode::KmsServiceError => ErrorClass::KmsServiceError,
        // Set-up or access of the key: all the same to do.
        StorageErrorCode::CmekNotProvided
        | StorageErrorCode::InvalidCmekProvided
        | StorageErrorCode::CmekEncryptionError
        | StorageErrorCode::KmsPermissionDenied => ErrorClass::KmsPermissionDenied,
    })
}

fn invalid_argument(has: &dyn Fn(&str) -> bool) -> ErrorClass {
    if has("request too large") {
        ErrorClass::RequestTooLarge
    } else if has("has more fields than") || has("no such field") || has("extra fields") {
        ErrorClass::SchemaMismatchExtraFields
    } else if has("incompatible fields") || has("mismatch fields") || has("missing in the proto message") || has("schema mismatch") {
        ErrorClass::SchemaIncompatible
    } else if has("errors found while processing rows") || has("outside the allowed bounds") {
        ErrorClass::RowErrorsUnnamed
    } else if has("stream has been finalized") {
        ErrorClass::StreamFinalized
    } else {
        ErrorClass::InvalidArgument
    }
}

fn storage_code(details: &[prost_types::Any]) -> Option<StorageErrorCode> {
    details
        .iter()
        .filter(|any| any.type_url.ends_with(STORAGE_ERROR))
        .find_map(|any| storage::StorageError::decode(any.value.as_slice()).ok())
        .and_then(|error| StorageErrorCode::try_from(error.code).ok())
        .filter(|code| *code != StorageErrorCode::Unspecified)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    fn storage_error(code: StorageErrorCode) -> prost_types::Any {
        let error = storage::StorageError { code: code.into(), entity: "e".into(), error_message: "m".into() };
        prost_types::Any { type_url: format!("type.googleapis.com/{STORAGE_ERROR}"), value: error.encode_to_vec() }
    }

    #[test]
    fn a_storage_error_is_found_among_the_details_of_an_answer() {
        let other = prost_types::Any { type_url: "type.googleapis.com/google.rpc.DebugInfo".into(), value: vec![1, 2, 3] };
        let details = [other, storage_error(StorageErrorCode::KmsServiceError)];
        let refusal = Refusal::from_parts(13, "m".into(), &details);
        assert_eq!(refusal.class(), ErrorClass::KmsServiceError);
        assert_eq!(refusal.describe(), "Internal KMS_SERVICE_ERROR: m");
    }

    #[test]
    fn a_storage_error_is_found_in_the_trailer_of_the_rpc() {
        let status = RpcStatus { code: 3, message: "m".into(), details: vec![storage_error(StorageErrorCode::SchemaMismatchExtraFields)] };
        let status = tonic::Status::with_details(Code::InvalidArgument, "m", status.encode_to_vec().into());
        assert_eq!(Refusal::from_status(&status).class(), ErrorClass::SchemaMismatchExtraFields);
        let plain = tonic::Status::new(Code::InvalidArgument, "AppendRows request too large: 2 limit 1");
        assert_eq!(Refusal::from_status(&plain).class(), ErrorClass::RequestTooLarge);
    }
}
