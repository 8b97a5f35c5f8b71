//! The classes of faults: where each strikes and what it answers (bigquery-rules: codes of the Storage Write API, reasons of REST).

use googleapis_tonic_google_cloud_bigquery_storage_v1::google::cloud::bigquery::storage::v1::storage_error::StorageErrorCode as S;
use serde::{Deserialize, Serialize};
use tonic::Code;

/// Where a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    /// A request of an AppendRows connection.
    Append,
    /// A new AppendRows connection.
    Connect,
    /// A unary RPC of the Storage Write API.
    Unary,
    /// A REST call.
    Rest,
    /// An insertAll, inside its 200 answer.
    InsertAll,
}

/// What it does to an AppendRows request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AppendEffect {
    /// The RPC ends with this status; nothing stored.
    End(Code, Option<S>, &'static str),
    /// An `error` in the response; nothing stored, the RPC goes on.
    Answer(Code, Option<S>, &'static str),
    /// Rows stored, then the RPC ends without an answer.
    LostAck,
    /// Rows stored; neither this nor any later request is answered.
    Hold,
    /// Rows stored; the answer comes late.
    Slow,
    /// The response ends without a status.
    Eof,
}

/// What it does to a REST call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RestEffect {
    /// BigQuery's error body.
    Error(u16, &'static str, &'static str),
    /// A status with a body that is not JSON.
    Html(u16),
    /// The call is done, its answer is lost behind a 502.
    LostAnswer,
    /// The answer comes late.
    Slow,
}

macro_rules! classes {
    ($($(#[$doc:meta])* $name:ident = $point:ident $(, append $append:expr)? $(, rest $rest:expr)?;)*) => {
        /// A class of fault; its name in JSON is in snake_case.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum FaultClass { $($(#[$doc])* $name,)* }

        impl FaultClass {
            /// Every class.
            pub const ALL: &'static [FaultClass] = &[$(Self::$name,)*];

            pub(crate) fn point(self) -> Point {
                match self { $(Self::$name => Point::$point,)* }
            }

            pub(crate) fn append_effect(self) -> Option<AppendEffect> {
                use AppendEffect::{Answer, End};
                match self {
                    $($(Self::$name => Some($append),)?)*
                    #[allow(unreachable_patterns, reason = "every class may have one")]
                    _ => None,
                }
            }

            pub(crate) fn rest_effect(self) -> Option<RestEffect> {
                use RestEffect::{Error, Html};
                match self {
                    $($(Self::$name => Some($rest),)?)*
                    #[allow(unreachable_patterns, reason = "every class may have one")]
                    _ => None,
                }
            }
        }
    };
}

classes! {
    /// UNAVAILABLE, RPC ends.
    Unavailable = Append, append End(Code::Unavailable, None, "The service is currently unavailable.");
    /// UNAVAILABLE: the connection is draining.
    ConnectionDrain = Append, append End(Code::Unavailable, None, "the connection is draining");
    /// UNAVAILABLE: memory protection.
    Overloaded = Append, append End(Code::Unavailable, None, "AppendRows request is throttled: Task is overloaded (memory-protection)");
    /// ABORTED, RPC ends.
    Aborted = Append, append End(Code::Aborted, None, "The operation was aborted. Please retry.");
    /// INTERNAL, RPC ends.
    Internal = Append, append End(Code::Internal, None, "Internal error encountered. Please retry.");
    /// INTERNAL inside a response: the RPC goes on.
    InternalAnswer = Append, append Answer(Code::Internal, None, "Internal error encountered. Please retry.");
    /// CANCELLED, RPC ends.
    Cancelled = Append, append End(Code::Cancelled, None, "The operation was cancelled.");
    /// DEADLINE_EXCEEDED, RPC ends.
    DeadlineExceeded = Append, append End(Code::DeadlineExceeded, None, "Deadline exceeded.");
    /// UNKNOWN, RPC ends.
    Unknown = Append, append End(Code::Unknown, None, "Unknown error.");
    /// The RPC ends with OK in mid-stream, as a client's EOF.
    EndOfStream = Append, append AppendEffect::Eof;
    /// Rows are stored, the answer is lost: the RPC ends UNAVAILABLE.
    LostAck = Append, append AppendEffect::LostAck;
    /// Rows are stored, no answer ever comes on this connection.
    HoldResponse = Append, append AppendEffect::Hold;
    /// The answer comes `slow_ms` later.
    SlowResponse = Append, append AppendEffect::Slow;
    /// Refused before anything is read: INVALID_ARGUMENT in the response.
    RejectBefore = Append, append Answer(Code::InvalidArgument, None, "Invalid request.");
    /// RESOURCE_EXHAUSTED: throughput quota.
    ResourceExhausted = Append, append End(Code::ResourceExhausted, None,
        "Exceeds 'AppendRows throughput' quota, user_id: project0000000000 (status: INSUFFICIENT_TOKENS), you can issue a raise quota request through Google Cloud Console. Be sure to include this full error message in the request description.");
    /// RESOURCE_EXHAUSTED at the opening: connections quota.
    ConnectionQuota = Connect, append End(Code::ResourceExhausted, None, "Exceeds 'Concurrent connections' quota, user_id: project0000000000 (status: INSUFFICIENT_TOKENS)");
    /// UNAVAILABLE at the opening of a connection.
    ConnectUnavailable = Connect, append End(Code::Unavailable, None, "The service is currently unavailable.");
    /// UNAUTHENTICATED.
    Unauthenticated = Append, append End(Code::Unauthenticated, None, "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid authentication credential.");
    /// PERMISSION_DENIED.
    PermissionDenied = Append, append End(Code::PermissionDenied, None, "Permission 'TABLES_UPDATE_DATA' denied on resource (or it may not exist).");
    /// FAILED_PRECONDITION.
    FailedPrecondition = Append, append End(Code::FailedPrecondition, None, "The request cannot be executed in the current state.");
    /// NOT_FOUND with TABLE_NOT_FOUND.
    TableNotFound = Append, append End(Code::NotFound, Some(S::TableNotFound), "Requested entity was not found.");
    /// NOT_FOUND: table recreated.
    TableRecreated = Append, append End(Code::NotFound, Some(S::TableNotFound), "Table is re-created.");
    /// NOT_FOUND with STREAM_NOT_FOUND.
    StreamNotFound = Append, append End(Code::NotFound, Some(S::StreamNotFound), "Requested entity was not found.");
    /// INVALID_ARGUMENT with STREAM_FINALIZED.
    StreamFinalized = Append, append Answer(Code::InvalidArgument, Some(S::StreamFinalized), "Stream has been finalized");
    /// The stream is closed by the server: ABORTED.
    StreamClosed = Append, append End(Code::Aborted, None, "Closing the stream because server is closing the connection.");
    /// INVALID_ARGUMENT with STREAM_ALREADY_COMMITTED.
    StreamAlreadyCommitted = Append, append Answer(Code::InvalidArgument, Some(S::StreamAlreadyCommitted), "Stream is already committed");
    /// INVALID_ARGUMENT with INVALID_STREAM_TYPE.
    InvalidStreamType = Append, append Answer(Code::InvalidArgument, Some(S::InvalidStreamType), "Invalid stream type");
    /// INVALID_ARGUMENT with INVALID_STREAM_STATE.
    InvalidStreamState = Append, append Answer(Code::InvalidArgument, Some(S::InvalidStreamState), "Invalid stream state");
    /// INVALID_ARGUMENT with SCHEMA_MISMATCH_EXTRA_FIELDS.
    SchemaMismatchExtraFields = Append, append Answer(Code::InvalidArgument, Some(S::SchemaMismatchExtraFields), "Input schema has more fields than BigQuery schema, extra fields: 'x'");
    /// INVALID_ARGUMENT: incompatible fields, as while a server lags.
    SchemaIncompatible = Append, append Answer(Code::InvalidArgument, None, "Found incompatible fields: 'x' and/or mismatch fields, extra proto fields: 'x' extra bq fields: ''");
    /// ALREADY_EXISTS with OFFSET_ALREADY_EXISTS.
    OffsetAlreadyExists = Append, append Answer(Code::AlreadyExists, Some(S::OffsetAlreadyExists), "The offset is within stream, expected offset 1, received 0");
    /// OUT_OF_RANGE with OFFSET_OUT_OF_RANGE.
    OffsetOutOfRange = Append, append Answer(Code::OutOfRange, Some(S::OffsetOutOfRange), "The offset is beyond stream, expected offset 1, received 100");
    /// INVALID_ARGUMENT: too large.
    RequestTooLarge = Append, append Answer(Code::InvalidArgument, None, "AppendRows request too large: 10485761 limit 10485760");
    /// CMEK_NOT_PROVIDED.
    CmekNotProvided = Append, append Answer(Code::FailedPrecondition, Some(S::CmekNotProvided), "CMEK is not provided");
    /// INVALID_CMEK_PROVIDED.
    InvalidCmekProvided = Append, append Answer(Code::FailedPrecondition, Some(S::InvalidCmekProvided), "Invalid CMEK");
    /// CMEK_ENCRYPTION_ERROR.
    CmekEncryptionError = Append, append Answer(Code::Internal, Some(S::CmekEncryptionError), "CMEK encryption error");
    /// KMS_SERVICE_ERROR.
    KmsServiceError = Append, append Answer(Code::Unavailable, Some(S::KmsServiceError), "KMS service error");
    /// KMS_PERMISSION_DENIED.
    KmsPermissionDenied = Append, append Answer(Code::PermissionDenied, Some(S::KmsPermissionDenied), "KMS permission denied");
    /// A unary RPC: UNAVAILABLE.
    UnaryUnavailable = Unary, append End(Code::Unavailable, None, "The service is currently unavailable.");
    /// A unary RPC: ABORTED.
    UnaryAborted = Unary, append End(Code::Aborted, None, "The operation was aborted. Please retry.");
    /// A unary RPC: INTERNAL.
    UnaryInternal = Unary, append End(Code::Internal, None, "Internal error encountered. Please retry.");
    /// A unary RPC: RESOURCE_EXHAUSTED.
    UnaryResourceExhausted = Unary, append End(Code::ResourceExhausted, None, "Exceeds 'CreateWriteStream requests' quota");
    /// A unary RPC is done, its answer is lost.
    UnaryLostAnswer = Unary, append AppendEffect::LostAck;
    /// 500 `backendError`.
    RestBackendError500 = Rest, rest Error(500, "backendError", "An internal error occurred and the request could not be completed.");
    /// 500 `internalError`.
    RestInternal500 = Rest, rest Error(500, "internalError", "An internal error occurred and the request could not be completed.");
    /// 502 with HTML.
    RestBadGateway502 = Rest, rest Html(502);
    /// 503 `backendError`.
    RestUnavailable503 = Rest, rest Error(503, "backendError", "Error encountered during execution. Retrying may solve the problem.");
    /// 503 without JSON.
    RestUnavailable503Html = Rest, rest Html(503);
    /// 504 with HTML.
    RestGatewayTimeout504 = Rest, rest Html(504);
    /// The call is done, its answer is lost: 502.
    RestLostAnswer = Rest, rest RestEffect::LostAnswer;
    /// The answer comes `slow_ms` later.
    RestSlow = Rest, rest RestEffect::Slow;
    /// 403 `rateLimitExceeded`.
    RestRateLimitExceeded = Rest, rest Error(403, "rateLimitExceeded", "Exceeded rate limits: too many table update operations for this table. For more information, see https://cloud.google.com/bigquery/docs/troubleshoot-quotas");
    /// 429 `rateLimitExceeded`.
    RestTooManyRequests429 = Rest, rest Error(429, "rateLimitExceeded", "Exceeded rate limits: too many api requests per user per method for this user_method.");
    /// 403 `quotaExceeded`.
    RestQuotaExceeded = Rest, rest Error(403, "quotaExceeded", "Quota exceeded: Your project exceeded quota for free query bytes scanned.");
    /// 400 `jobRateLimitExceeded`.
    RestJobRateLimitExceeded = Rest, rest Error(400, "jobRateLimitExceeded", "Exceeded rate limits: jobs");
    /// 400 `jobBackendError`.
    RestJobBackendError = Rest, rest Error(400, "jobBackendError", "The job failed with a backend error.");
    /// 400 `jobInternalError`.
    RestJobInternalError = Rest, rest Error(400, "jobInternalError", "The job failed with an internal error.");
    /// 400 `tableUnavailable`.
    RestTableUnavailable = Rest, rest Error(400, "tableUnavailable", "The table is temporarily unavailable.");
    /// 400 `resourceInUse`.
    RestResourceInUse = Rest, rest Error(400, "resourceInUse", "The resource is in use.");
    /// 400 `timeout`.
    RestTimeout = Rest, rest Error(400, "timeout", "The operation timed out.");
    /// 400 `invalid`.
    RestInvalid = Rest, rest Error(400, "invalid", "Invalid value.");
    /// 400 `badRequest`.
    RestBadRequest = Rest, rest Error(400, "badRequest", "Bad request.");
    /// 400 `invalidQuery`.
    RestInvalidQuery = Rest, rest Error(400, "invalidQuery", "Invalid query.");
    /// 400 `resourcesExceeded`.
    RestResourcesExceeded = Rest, rest Error(400, "resourcesExceeded", "Resources exceeded during query execution.");
    /// 400 `billingTierLimitExceeded`.
    RestBillingTierLimitExceeded = Rest, rest Error(400, "billingTierLimitExceeded", "Billing tier limit exceeded.");
    /// 401 `authError`.
    RestUnauthorized401 = Rest, rest Error(401, "authError", "Request had invalid authentication credentials.");
    /// 403 `accessDenied`.
    RestAccessDenied = Rest, rest Error(403, "accessDenied", "Access Denied: Permission bigquery.tables.get denied (or it may not exist).");
    /// 403 `billingNotEnabled`.
    RestBillingNotEnabled = Rest, rest Error(403, "billingNotEnabled", "Billing has not been enabled for this project.");
    /// 403 `blocked`.
    RestBlocked = Rest, rest Error(403, "blocked", "The operation was blocked.");
    /// 403 `responseTooLarge`.
    RestResponseTooLarge = Rest, rest Error(403, "responseTooLarge", "Response too large to return.");
    /// 404 `notFound`.
    RestNotFound = Rest, rest Error(404, "notFound", "Not found");
    /// 409 `duplicate`.
    RestDuplicate = Rest, rest Error(409, "duplicate", "Already Exists");
    /// 412 `conditionNotMet`.
    RestConditionNotMet = Rest, rest Error(412, "conditionNotMet", "Precondition check failed.");
    /// 413 `requestTooLarge`.
    RestRequestTooLarge = Rest, rest Error(413, "requestTooLarge", "Request payload size exceeds the limit.");
    /// 501 `notImplemented`.
    RestNotImplemented = Rest, rest Error(501, "notImplemented", "Not implemented.");
    /// insertAll answers 200 and `stopped` for every row; nothing stored.
    InsertAllStopped = InsertAll;
    /// insertAll answers 200 and `backendError` for every row; nothing stored.
    InsertAllBackendError = InsertAll;
}
