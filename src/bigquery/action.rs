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
    use tonic::Code as C;

    use super::super::classify::Refusal;
    use super::ErrorClass as E;
    use super::HoldCause as H;
    use super::*;

    const RETRY: Action = Action::Retry(RetryPace::Transient);
    const STOP: Action = Action::Stop;
    /// Write servers may know the change at any moment.
    const LAGGING: Action = Action::Retry(RetryPace::Lagging);
    const SLOWER: Action = Action::Retry(RetryPace::Quota);

    fn hold(cause: HoldCause) -> Action {
        Action::Hold(cause)
    }

    /// StorageError, gRPC status, BigQuery's words; the class, and the action without and with a recent change.
    type Row = (Option<S>, C, &'static str, ErrorClass, Action, Action);

    /// Every row of the table of codes in the reference (section 4), with the words that the service was seen to use: what is done at
    /// the first failure, without and with a recent change of the table.
    #[test]
    fn every_code_has_its_action() {
        let rows: Vec<Row> = vec![
            (
                Some(S::TableNotFound),
                C::NotFound,
                "Table 123:d.t is re-created.",
                E::TableRecreated,
                hold(H::TableRecreated),
                hold(H::TableRecreated),
            ),
            (Some(S::TableNotFound), C::NotFound, "Requested entity was not found.", E::TableNotFound, hold(H::TableMissing), LAGGING),
            (None, C::NotFound, "Requested entity was not found.", E::TableNotFound, hold(H::TableMissing), LAGGING),
            (Some(S::StreamNotFound), C::NotFound, "", E::StreamNotFound, hold(H::TableMissing), LAGGING),
            (Some(S::StreamFinalized), C::InvalidArgument, "Stream has been finalized", E::StreamFinalized, STOP, STOP),
            (None, C::InvalidArgument, "Stream has been finalized", E::StreamFinalized, STOP, STOP),
            (Some(S::StreamAlreadyCommitted), C::InvalidArgument, "", E::StreamAlreadyCommitted, STOP, STOP),
            (Some(S::InvalidStreamType), C::InvalidArgument, "", E::InvalidStreamType, STOP, STOP),
            (Some(S::InvalidStreamState), C::InvalidArgument, "", E::InvalidStreamState, STOP, STOP),
            (
                Some(S::SchemaMismatchExtraFields),
                C::InvalidArgument,
                "Input schema has more fields than BigQuery schema, extra fields: 'x' Entity: e",
                E::SchemaMismatchExtraFields,
                Action::Evolve,
                LAGGING,
            ),
            (
                None,
                C::InvalidArgument,
                "Input schema has more fields than BigQuery schema, extra fields: 'x' Entity: e",
                E::SchemaMismatchExtraFields,
                Action::Evolve,
                LAGGING,
            ),
            (
                None,
                C::InvalidArgument,
                "Found incompatible fields: 'id' and/or mismatch fields, extra proto fields: 'c' extra bq fields: ''",
                E::SchemaIncompatible,
                Action::Evolve,
                LAGGING,
            ),
            (
                None,
                C::InvalidArgument,
                "The required field x is missing in the proto message",
                E::SchemaIncompatible,
                Action::Evolve,
                LAGGING,
            ),
            (
                Some(S::OffsetAlreadyExists),
                C::AlreadyExists,
                "The offset is within stream, expected offset 1, received 0",
                E::OffsetAlreadyExists,
                STOP,
                STOP,
            ),
            (None, C::AlreadyExists, "The offset is within stream, expected offset 1, received 0", E::OffsetAlreadyExists, STOP, STOP),
            (
                Some(S::OffsetOutOfRange),
                C::OutOfRange,
                "The offset is beyond stream, expected offset 1, received 100",
                E::OffsetOutOfRange,
                STOP,
                STOP,
            ),
            (None, C::OutOfRange, "The offset is beyond stream", E::OffsetOutOfRange, STOP, STOP),
            (Some(S::KmsServiceError), C::Internal, "", E::KmsServiceError, SLOWER, SLOWER),
            (Some(S::KmsPermissionDenied), C::PermissionDenied, "", E::KmsPermissionDenied, hold(H::EncryptionKey), hold(H::EncryptionKey)),
            (Some(S::CmekNotProvided), C::InvalidArgument, "", E::KmsPermissionDenied, hold(H::EncryptionKey), hold(H::EncryptionKey)),
            (Some(S::InvalidCmekProvided), C::InvalidArgument, "", E::KmsPermissionDenied, hold(H::EncryptionKey), hold(H::EncryptionKey)),
            (Some(S::CmekEncryptionError), C::Internal, "", E::KmsPermissionDenied, hold(H::EncryptionKey), hold(H::EncryptionKey)),
            (None, C::Aborted, "Closing the stream because it has been inactive for 600 seconds. Entity: e", E::Transient, RETRY, RETRY),
            (None, C::Unavailable, "the connection is draining", E::Transient, RETRY, RETRY),
            (None, C::Unavailable, "throttled: Task is overloaded (memory-protection)", E::Transient, RETRY, RETRY),
            (None, C::Cancelled, "", E::Transient, RETRY, RETRY),
            (None, C::Internal, "", E::Transient, RETRY, RETRY),
            (None, C::DeadlineExceeded, "", E::Transient, RETRY, RETRY),
            (None, C::Unknown, "transport error", E::Transient, RETRY, RETRY),
            (None, C::Ok, "the RPC ended", E::Transient, RETRY, RETRY),
            (
                None,
                C::ResourceExhausted,
                "Exceeds 'AppendRows throughput' quota, user_id: 0000005 (status: INSUFFICIENT_TOKENS), you can issue a raise quota request",
                E::Throughput,
                SLOWER,
                SLOWER,
            ),
            (None, C::ResourceExhausted, "Exceeds concurrent connections quota", E::ConnectionQuota, SLOWER, SLOWER),
            (None, C::ResourceExhausted, "Exceeds 'CreateWriteStream requests' quota", E::ConnectionQuota, SLOWER, SLOWER),
            (None, C::ResourceExhausted, "", E::ResourceExhausted, SLOWER, SLOWER),
            (
                None,
                C::InvalidArgument,
                "AppendRows request too large: 11854265 limit 10485760 Entity: e",
                E::RequestTooLarge,
                Action::Split,
                Action::Split,
            ),
            (
                None,
                C::InvalidArgument,
                "Value 20000 for partition column c of the destination table p:d.t is outside the allowed bounds",
                E::RowErrorsUnnamed,
                Action::Split,
                Action::Split,
            ),
            (None, C::InvalidArgument, "something else", E::InvalidArgument, hold(H::UnknownError), hold(H::UnknownError)),
            (
                None,
                C::PermissionDenied,
                "Permission 'TABLES_UPDATE_DATA' denied on resource 'r' (or it may not exist).",
                E::PermissionDenied,
                hold(H::PermissionDenied),
                LAGGING,
            ),
            (None, C::FailedPrecondition, "", E::FailedPrecondition, RETRY, RETRY),
            (None, C::Unauthenticated, "", E::Unauthenticated, RETRY, RETRY),
            (None, C::Unimplemented, "", E::Unknown, hold(H::UnknownError), hold(H::UnknownError)),
            (None, C::DataLoss, "", E::Unknown, hold(H::UnknownError), hold(H::UnknownError)),
        ];
        for (storage, code, message, class, first, after_change) in rows {
            let refusal = Refusal { code, storage, message: message.to_owned() };
            assert_eq!(refusal.class(), class, "{code:?} {storage:?} {message}");
            assert_eq!(class.action(ActionContext::default()), first, "{class:?}");
            assert_eq!(class.action(ActionContext { changed_recently: true, attempts: 0 }), after_change, "{class:?} after a change");
        }
        assert_eq!(E::RowErrors.action(ActionContext::default()), Action::DeadLetterRows);
        assert_eq!(E::AnswerTimeout.action(ActionContext::default()), RETRY);
    }

    #[test]
    fn what_does_not_pass_ends_in_a_hold() {
        let later = ActionContext { changed_recently: false, attempts: 10 };
        for (class, cause) in [
            (E::SchemaMismatchExtraFields, H::TypeConflict),
            (E::SchemaIncompatible, H::TypeConflict),
            (E::Unauthenticated, H::Unauthenticated),
            (E::FailedPrecondition, H::UnknownError),
        ] {
            assert_eq!(class.action(later), hold(cause), "{class:?}");
        }
    }
}
