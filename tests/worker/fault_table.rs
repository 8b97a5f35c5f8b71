//! Every class of fault of the embedded BigQuery, and what a worker does about it.

use millrace::embedded::bigquery::FaultClass as C;

/// What is expected of a worker that meets a fault once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Expected {
    /// The append is sent again; counted under this class.
    Retry(&'static str),
    /// The append is sent again, and may have landed before: counted as possible duplicates, too.
    RetryLanded(&'static str),
    /// Several rows in two halves, counted under this class; nothing is a dead letter.
    Split(&'static str),
    /// The table is looked at and the append sent again.
    Evolve(&'static str),
    /// The partition holds for this cause and goes on by itself; counted under this class.
    Hold(&'static str, &'static str),
    /// As [`Self::Hold`], and the message asks for a report: only a bug of ours can cause it on a default stream.
    Stop(&'static str),
    /// A late answer: nothing is counted.
    Nothing,
    /// A REST call that is made again within the call: nothing holds for longer than a plan takes.
    RestRetry,
    /// A REST call's refusal: the partition holds for this cause and goes on by itself.
    RestHold(&'static str),
    /// As [`Self::RestHold`], but for at least half a minute: BigQuery's own advice.
    RestLongHold(&'static str),
    /// `tables.get` says that it is not there, or `tables.insert` that it is: looked at again, and settled.
    RestLook,
    /// A worker makes no such call: unary RPCs of the Storage Write API, insertAll.
    NeverMet,
}

/// What is expected. No wildcard: a new class of fault does not compile without its row here.
pub fn expected(class: C) -> Expected {
    use Expected::{Evolve, Hold, NeverMet, Nothing, RestHold, RestLongHold, RestLook, RestRetry, Retry, RetryLanded, Split, Stop};
    match class {
        C::Unavailable
        | C::ConnectionDrain
        | C::Overloaded
        | C::Aborted
        | C::Internal
        | C::InternalAnswer
        | C::Cancelled
        | C::DeadlineExceeded
        | C::Unknown
        | C::EndOfStream
        | C::StreamClosed
        | C::ConnectUnavailable => Retry("transient"),
        C::LostAck => RetryLanded("transient"),
        C::HoldResponse => RetryLanded("answer_timeout"),
        C::SlowResponse => Nothing,
        C::ResourceExhausted => Retry("throughput"),
        C::ConnectionQuota => Retry("connection_quota"),
        C::Unauthenticated => Retry("unauthenticated"),
        C::FailedPrecondition => Retry("failed_precondition"),
        C::KmsServiceError => Retry("kms_service_error"),
        C::RequestTooLarge => Split("request_too_large"),
        C::SchemaMismatchExtraFields => Evolve("schema_mismatch_extra_fields"),
        C::SchemaIncompatible => Evolve("schema_incompatible"),
        C::RejectBefore => Hold("unknown_error", "invalid_argument"),
        C::PermissionDenied => Hold("permission_denied", "permission_denied"),
        C::TableNotFound => Hold("table_missing", "table_not_found"),
        C::TableRecreated => Hold("table_recreated", "table_recreated"),
        C::StreamNotFound => Hold("table_missing", "stream_not_found"),
        C::CmekNotProvided | C::InvalidCmekProvided | C::CmekEncryptionError | C::KmsPermissionDenied => {
            Hold("encryption_key", "kms_permission_denied")
        }
        C::StreamFinalized => Stop("stream_finalized"),
        C::StreamAlreadyCommitted => Stop("stream_already_committed"),
        C::InvalidStreamType => Stop("invalid_stream_type"),
        C::InvalidStreamState => Stop("invalid_stream_state"),
        C::OffsetAlreadyExists => Stop("offset_already_exists"),
        C::OffsetOutOfRange => Stop("offset_out_of_range"),
        C::UnaryUnavailable | C::UnaryAborted | C::UnaryInternal | C::UnaryResourceExhausted | C::UnaryLostAnswer => NeverMet,
        C::InsertAllStopped | C::InsertAllBackendError => NeverMet,
        C::RestBackendError500
        | C::RestInternal500
        | C::RestBadGateway502
        | C::RestUnavailable503
        | C::RestUnavailable503Html
        | C::RestGatewayTimeout504
        | C::RestLostAnswer
        | C::RestSlow
        | C::RestRateLimitExceeded
        | C::RestTooManyRequests429
        | C::RestJobRateLimitExceeded
        | C::RestJobBackendError
        | C::RestJobInternalError
        | C::RestTableUnavailable
        | C::RestResourceInUse
        | C::RestTimeout
        | C::RestUnauthorized401 => RestRetry,
        C::RestNotFound => RestLook,
        C::RestInvalid | C::RestBadRequest | C::RestInvalidQuery | C::RestRequestTooLarge => RestHold("type_conflict"),
        C::RestResourcesExceeded | C::RestBillingTierLimitExceeded | C::RestResponseTooLarge | C::RestNotImplemented => {
            RestHold("unknown_error")
        }
        C::RestDuplicate | C::RestConditionNotMet => RestHold("table_service_unavailable"),
        C::RestQuotaExceeded => RestLongHold("table_service_unavailable"),
        C::RestAccessDenied | C::RestBillingNotEnabled | C::RestBlocked => RestLongHold("permission_denied"),
    }
}
