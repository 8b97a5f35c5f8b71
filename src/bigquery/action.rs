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

/// How often an append is sent again when BigQuery says FAILED_PRECONDITION (google-cloud-go's managedwriter tries a few times).
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
            // Write servers may not know for minutes a table that `tables.get` shows. One that is really missing is created, or its
            // partitions hold.
            Self::TableNotFound | Self::StreamNotFound if changed_recently => Action::Retry(RetryPace::Lagging),
            Self::TableNotFound | Self::StreamNotFound => Action::Hold(HoldCause::TableMissing),
            Self::TableRecreated => Action::Hold(HoldCause::TableRecreated),

            // After our own change the servers lag; otherwise the table lacks the columns.
            Self::SchemaMismatchExtraFields | Self::SchemaIncompatible if changed_recently => Action::Retry(RetryPace::Lagging),
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

            Self::Transient | Self::AnswerTimeout | Self::Withheld => Action::Retry(RetryPace::Transient),
            Self::Throughput | Self::ConnectionQuota | Self::ResourceExhausted => Action::Retry(RetryPace::Quota),

            Self::RowErrors => Action::DeadLetterRows,
            Self::RequestTooLarge | Self::RowErrorsUnnamed => Action::Split,

            // May mean a table that is not visible yet, or pass by itself: the partitions hold, and it is tried again.
            Self::PermissionDenied if changed_recently => Action::Retry(RetryPace::Lagging),
            Self::PermissionDenied => Action::Hold(HoldCause::PermissionDenied),
            // The first refusal threw the token away; the second one concerns a fresh token.
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
            Self::Withheld => "withheld",
            Self::Unknown => "unknown",
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use googleapis_tonic_google_cloud_bigquery_storage_v1::google::cloud::bigquery::storage::v1::storage_error::StorageErrorCode as S;
    use tonic::Code;

    use super::super::classify::Refusal;
    use super::*;

    const RETRY: Action = Action::Retry(RetryPace::Transient);
    /// Write servers may know the change at any moment.
    const LAGGING: Action = Action::Retry(RetryPace::Lagging);
    const SLOWER: Action = Action::Retry(RetryPace::Quota);

    fn hold(cause: HoldCause) -> Action {
        Action::Hold(cause)
    }

    /// StorageError, gRPC status, BigQuery's words; the class, and the action without and with a recent change.
    type Row = (Option<S>, Code, &'static str, ErrorClass, Action, Action);

    /// Every row of the table of codes in the reference (section 4), with the words that the service was seen to use: what is done at
    /// the first failure, without and with a recent change of the table.
    #[test]
    fn every_code_has_its_action() {
        let rows: Vec<Row> = vec![
            (
                Some(S::TableNotFound),
                Code::NotFound,
                "Table 123:d.t is re-created.",
                ErrorClass::TableRecreated,
                hold(HoldCause::TableRecreated),
                hold(HoldCause::TableRecreated),
            ),
            (
                Some(S::TableNotFound),
                Code::NotFound,
                "Requested entity was not found.",
                ErrorClass::TableNotFound,
                hold(HoldCause::TableMissing),
                LAGGING,
            ),
            (None, Code::NotFound, "Requested entity was not found.", ErrorClass::TableNotFound, hold(HoldCause::TableMissing), LAGGING),
            (Some(S::StreamNotFound), Code::NotFound, "", ErrorClass::StreamNotFound, hold(HoldCause::TableMissing), LAGGING),
            (
                Some(S::StreamFinalized),
                Code::InvalidArgument,
                "Stream has been finalized",
                ErrorClass::StreamFinalized,
                Action::Stop,
                Action::Stop,
            ),
            (None, Code::InvalidArgument, "Stream has been finalized", ErrorClass::StreamFinalized, Action::Stop, Action::Stop),
            (Some(S::StreamAlreadyCommitted), Code::InvalidArgument, "", ErrorClass::StreamAlreadyCommitted, Action::Stop, Action::Stop),
            (Some(S::InvalidStreamType), Code::InvalidArgument, "", ErrorClass::InvalidStreamType, Action::Stop, Action::Stop),
            (Some(S::InvalidStreamState), Code::InvalidArgument, "", ErrorClass::InvalidStreamState, Action::Stop, Action::Stop),
            (
                Some(S::SchemaMismatchExtraFields),
                Code::InvalidArgument,
                "Input schema has more fields than BigQuery schema, extra fields: 'x' Entity: e",
                ErrorClass::SchemaMismatchExtraFields,
                Action::Evolve,
                LAGGING,
            ),
            (
                None,
                Code::InvalidArgument,
                "Input schema has more fields than BigQuery schema, extra fields: 'x' Entity: e",
                ErrorClass::SchemaMismatchExtraFields,
                Action::Evolve,
                LAGGING,
            ),
            (
                None,
                Code::InvalidArgument,
                "Found incompatible fields: 'id' and/or mismatch fields, extra proto fields: 'c' extra bq fields: ''",
                ErrorClass::SchemaIncompatible,
                Action::Evolve,
                LAGGING,
            ),
            (
                None,
                Code::InvalidArgument,
                "The required field x is missing in the proto message",
                ErrorClass::SchemaIncompatible,
                Action::Evolve,
                LAGGING,
            ),
            (
                Some(S::OffsetAlreadyExists),
                Code::AlreadyExists,
                "The offset is within stream, expected offset 1, received 0",
                ErrorClass::OffsetAlreadyExists,
                Action::Stop,
                Action::Stop,
            ),
            (
                None,
                Code::AlreadyExists,
                "The offset is within stream, expected offset 1, received 0",
                ErrorClass::OffsetAlreadyExists,
                Action::Stop,
                Action::Stop,
            ),
            (
                Some(S::OffsetOutOfRange),
                Code::OutOfRange,
                "The offset is beyond stream, expected offset 1, received 100",
                ErrorClass::OffsetOutOfRange,
                Action::Stop,
                Action::Stop,
            ),
            (None, Code::OutOfRange, "The offset is beyond stream", ErrorClass::OffsetOutOfRange, Action::Stop, Action::Stop),
            (Some(S::KmsServiceError), Code::Internal, "", ErrorClass::KmsServiceError, SLOWER, SLOWER),
            (
                Some(S::KmsPermissionDenied),
                Code::PermissionDenied,
                "",
                ErrorClass::KmsPermissionDenied,
                hold(HoldCause::EncryptionKey),
                hold(HoldCause::EncryptionKey),
            ),
            (
                Some(S::CmekNotProvided),
                Code::InvalidArgument,
                "",
                ErrorClass::KmsPermissionDenied,
                hold(HoldCause::EncryptionKey),
                hold(HoldCause::EncryptionKey),
            ),
            (
                Some(S::InvalidCmekProvided),
                Code::InvalidArgument,
                "",
                ErrorClass::KmsPermissionDenied,
                hold(HoldCause::EncryptionKey),
                hold(HoldCause::EncryptionKey),
            ),
            (
                Some(S::CmekEncryptionError),
                Code::Internal,
                "",
                ErrorClass::KmsPermissionDenied,
                hold(HoldCause::EncryptionKey),
                hold(HoldCause::EncryptionKey),
            ),
            (
                None,
                Code::Aborted,
                "Closing the stream because it has been inactive for 600 seconds. Entity: e",
                ErrorClass::Transient,
                RETRY,
                RETRY,
            ),
            (None, Code::Unavailable, "the connection is draining", ErrorClass::Transient, RETRY, RETRY),
            (None, Code::Unavailable, "throttled: Task is overloaded (memory-protection)", ErrorClass::Transient, RETRY, RETRY),
            (None, Code::Cancelled, "", ErrorClass::Transient, RETRY, RETRY),
            (None, Code::Internal, "", ErrorClass::Transient, RETRY, RETRY),
            (None, Code::DeadlineExceeded, "", ErrorClass::Transient, RETRY, RETRY),
            (None, Code::Unknown, "transport error", ErrorClass::Transient, RETRY, RETRY),
            (None, Code::Ok, "the RPC ended", ErrorClass::Transient, RETRY, RETRY),
            (
                None,
                Code::ResourceExhausted,
                "Exceeds 'AppendRows throughput' quota, user_id: 0000005 (status: INSUFFICIENT_TOKENS), you can issue a raise quota request",
                ErrorClass::Throughput,
                SLOWER,
                SLOWER,
            ),
            (None, Code::ResourceExhausted, "Exceeds concurrent connections quota", ErrorClass::ConnectionQuota, SLOWER, SLOWER),
            (None, Code::ResourceExhausted, "Exceeds 'CreateWriteStream requests' quota", ErrorClass::ConnectionQuota, SLOWER, SLOWER),
            (None, Code::ResourceExhausted, "", ErrorClass::ResourceExhausted, SLOWER, SLOWER),
            (
                None,
                Code::InvalidArgument,
                "AppendRows request too large: 11854265 limit 10485760 Entity: e",
                ErrorClass::RequestTooLarge,
                Action::Split,
                Action::Split,
            ),
            (
                None,
                Code::InvalidArgument,
                "Value 20000 for partition column c of the destination table p:d.t is outside the allowed bounds",
                ErrorClass::RowErrorsUnnamed,
                Action::Split,
                Action::Split,
            ),
            (
                None,
                Code::InvalidArgument,
                "something else",
                ErrorClass::InvalidArgument,
                hold(HoldCause::UnknownError),
                hold(HoldCause::UnknownError),
            ),
            (
                None,
                Code::PermissionDenied,
                "Permission 'TABLES_UPDATE_DATA' denied on resource 'r' (or it may not exist).",
                ErrorClass::PermissionDenied,
                hold(HoldCause::PermissionDenied),
                LAGGING,
            ),
            (None, Code::FailedPrecondition, "", ErrorClass::FailedPrecondition, RETRY, RETRY),
            (None, Code::Unauthenticated, "", ErrorClass::Unauthenticated, RETRY, RETRY),
            (None, Code::Unimplemented, "", ErrorClass::Unknown, hold(HoldCause::UnknownError), hold(HoldCause::UnknownError)),
            (None, Code::DataLoss, "", ErrorClass::Unknown, hold(HoldCause::UnknownError), hold(HoldCause::UnknownError)),
        ];
        for (storage, code, message, class, first, after_change) in rows {
            let refusal = Refusal { code, storage, message: message.to_owned() };
            assert_eq!(refusal.class(), class, "{code:?} {storage:?} {message}");
            assert_eq!(class.action(ActionContext::default()), first, "{class:?}");
            assert_eq!(class.action(ActionContext { changed_recently: true, attempts: 0 }), after_change, "{class:?} after a change");
        }
        assert_eq!(ErrorClass::RowErrors.action(ActionContext::default()), Action::DeadLetterRows);
        assert_eq!(ErrorClass::AnswerTimeout.action(ActionContext::default()), RETRY);
    }

    #[test]
    fn what_does_not_pass_ends_in_a_hold() {
        let later = ActionContext { changed_recently: false, attempts: 10 };
        for (class, cause) in [
            (ErrorClass::SchemaMismatchExtraFields, HoldCause::TypeConflict),
            (ErrorClass::SchemaIncompatible, HoldCause::TypeConflict),
            (ErrorClass::Unauthenticated, HoldCause::Unauthenticated),
            (ErrorClass::FailedPrecondition, HoldCause::UnknownError),
        ] {
            assert_eq!(class.action(later), hold(cause), "{class:?}");
        }
    }
}
