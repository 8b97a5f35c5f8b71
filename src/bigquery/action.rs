//! The one match from a failed append's class to what is done about it.

use super::{Action, ErrorClass, RetryPace};
use crate::flow::HoldCause;

/// What the answer to a failure depends on besides its class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ActionContext {
    /// [`super::Tables::changed_recently`] of the append's table: write servers may not know its columns, or the table, yet.
    pub changed_recently: bool,
    /// How often this append failed before: 0 at its first failure.
    pub attempts: u32,
}

/// How often an append is sent again when BigQuery says FAILED_PRECONDITION (google-cloud-go's managedwriter: a few times).
const PRECONDITION_ATTEMPTS: u32 = 3;
/// How often the table is asked for its columns before an append that "has more fields" is a conflict.
const EVOLVE_ATTEMPTS: u32 = 3;

impl ErrorClass {
    /// What to do. Follows the table of gRPC codes and StorageErrors in BigQuery's documentation, with two departures towards caution:
    /// an INVALID_ARGUMENT that nobody knows and a FAILED_PRECONDITION that stays hold their partitions (shown, tried again) instead of
    /// ending the connector. [`Action::Stop`] is left for what only a bug of ours can cause on a default stream.
    pub fn action(self, context: ActionContext) -> Action {
        let ActionContext { changed_recently, attempts } = context;
        match self {
            // A table that `tables.get` knows may be unknown to write servers for minutes; missing for good, it is created or held.
            Self::TableNotFound | Self::StreamNotFound if changed_recently => Action::Retry(RetryPace::Transient),
            Self::TableNotFound | Self::StreamNotFound => Action::Hold(HoldCause::TableMissing),
            Self::TableRecreated => Action::Hold(HoldCause::TableRecreated),

            // After our own change the servers lag; otherwise the table lacks the columns.
            Self::SchemaMismatchExtraFields | Self::SchemaIncompatible if changed_recently => Action::Retry(RetryPace::Transient),
            Self::SchemaMismatchExtraFields if attempts < EVOLVE_ATTEMPTS => Action::Evolve,
            Self::SchemaIncompatible if attempts == 0 => Action::Evolve,
            Self::SchemaMismatchExtraFields | Self::SchemaIncompatible => Action::Hold(HoldCause::TypeConflict),

            // Offsets, finalize and commit exist on created streams only; on a default stream these are ours to have caused.
            Self::StreamFinalized
            | Self::StreamAlreadyCommitted
            | Self::InvalidStreamType
            | Self::InvalidStreamState
            | Self::OffsetAlreadyExists
            | Self::OffsetOutOfRange => Action::Stop,

            Self::KmsServiceError => Action::Retry(RetryPace::Quota),
            Self::KmsPermissionDenied => Action::Hold(HoldCause::EncryptionKey),

            Self::Transient | Self::AnswerTimeout => Action::Retry(RetryPace::Transient),
            Self::Throughput | Self::ConnectionQuota | Self::ResourceExhausted => Action::Retry(RetryPace::Quota),

            Self::RowErrors => Action::DeadLetterRows,
            Self::RequestTooLarge | Self::RowErrorsUnnamed => Action::Split,

            // May mean a table that is not visible yet, or be a stray: held and looked at again.
            Self::PermissionDenied if changed_recently => Action::Retry(RetryPace::Transient),
            Self::PermissionDenied => Action::Hold(HoldCause::PermissionDenied),
            // The token was thrown away when this came; a second refusal is meant.
            Self::Unauthenticated if attempts == 0 => Action::Retry(RetryPace::Transient),
            Self::Unauthenticated => Action::Hold(HoldCause::Unauthenticated),
            Self::FailedPrecondition if attempts < PRECONDITION_ATTEMPTS => Action::Retry(RetryPace::Transient),
            Self::FailedPrecondition | Self::InvalidArgument | Self::Unknown => Action::Hold(HoldCause::UnknownError),
        }
    }

    /// The name in metric labels and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TableNotFound => "table_not_found",
            Self::TableRecreated => "table_recreated",
            Self::StreamNotFound => "stream_not_found",
            Self::StreamFinalized => "stream_finalized",
            Self::StreamAlreadyCommitted => "stream_already_committed",
            Self::InvalidStreamType => "invalid_stream_type",
            Self::InvalidStreamState => "invalid_stream_state",
            Self::SchemaMismatchExtraFields => "schema_mismatch_extra_fields",
            Self::SchemaIncompatible => "schema_incompatible",
            Self::OffsetAlreadyExists => "offset_already_exists",
            Self::OffsetOutOfRange => "offset_out_of_range",
            Self::KmsServiceError => "kms_service_error",
            Self::KmsPermissionDenied => "kms_permission_denied",
            Self::Transient => "transient",
            Self::Throughput => "throughput",
            Self::ConnectionQuota => "connection_quota",
            Self::ResourceExhausted => "resource_exhausted",
            Self::RowErrors => "row_errors",
            Self::RowErrorsUnnamed => "row_errors_unnamed",
            Self::RequestTooLarge => "request_too_large",
            Self::InvalidArgument => "invalid_argument",
            Self::PermissionDenied => "permission_denied",
            Self::FailedPrecondition => "failed_precondition",
            Self::Unauthenticated => "unauthenticated",
            Self::AnswerTimeout => "answer_timeout",
            Self::Unknown => "unknown",
        }
    }
}
