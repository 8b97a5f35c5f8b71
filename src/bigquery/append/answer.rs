//! What an answer, or the end of a connection, says of an append.

use googleapis_tonic_google_cloud_bigquery_storage_v1::google::cloud::bigquery::storage::v1 as storage;
use storage::AppendRowsResponse;
use storage::append_rows_response::Response as Answer;

use crate::bigquery::classify::Refusal;
use crate::bigquery::{AppendFailure, ErrorClass, RowError};

/// How an append ended.
pub(super) type Outcome = Result<(), AppendFailure>;

/// The append's gate was closed when it was to leave: nothing of it was sent.
pub(super) fn withheld() -> AppendFailure {
    let message = "not sent: this process stood still for longer than its session, or the rows' partition went".to_owned();
    AppendFailure { class: ErrorClass::Withheld, message, row_errors: Vec::new(), maybe_durable: false }
}

/// Failures that are about one append and its table, not about the connection.
pub(super) fn concerns_one_append(class: ErrorClass) -> bool {
    match class {
        ErrorClass::TableNotFound
        | ErrorClass::TableRecreated
        | ErrorClass::StreamNotFound
        | ErrorClass::StreamFinalized
        | ErrorClass::StreamAlreadyCommitted
        | ErrorClass::InvalidStreamType
        | ErrorClass::InvalidStreamState
        | ErrorClass::SchemaMismatchExtraFields
        | ErrorClass::SchemaIncompatible
        | ErrorClass::OffsetAlreadyExists
        | ErrorClass::OffsetOutOfRange
        | ErrorClass::KmsServiceError
        | ErrorClass::KmsPermissionDenied
        | ErrorClass::RowErrors
        | ErrorClass::RowErrorsUnnamed
        | ErrorClass::RequestTooLarge
        | ErrorClass::InvalidArgument
        | ErrorClass::PermissionDenied
        | ErrorClass::FailedPrecondition => true,
        ErrorClass::Transient
        | ErrorClass::Throughput
        | ErrorClass::ConnectionQuota
        | ErrorClass::ResourceExhausted
        | ErrorClass::Unauthenticated
        | ErrorClass::AnswerTimeout
        | ErrorClass::Withheld
        | ErrorClass::Unknown => false,
    }
}

/// Failures that a connection opened later may not have: it learns the table anew.
pub(super) fn needs_fresh_connection(class: ErrorClass) -> bool {
    matches!(
        class,
        ErrorClass::SchemaMismatchExtraFields
            | ErrorClass::SchemaIncompatible
            | ErrorClass::TableNotFound
            | ErrorClass::TableRecreated
            | ErrorClass::StreamNotFound
            | ErrorClass::PermissionDenied
    )
}

/// What a response says of the append that it answers.
pub(super) fn outcome_of(response: AppendRowsResponse) -> Outcome {
    let row_errors: Vec<RowError> = response
        .row_errors
        .into_iter()
        .filter_map(|error| Some(RowError { index: u32::try_from(error.index).ok()?, message: error.message }))
        .collect();
    let refused = |class, message| Err(AppendFailure { class, message, row_errors: Vec::new(), maybe_durable: false });
    match response.response {
        Some(Answer::AppendResult(_)) if row_errors.is_empty() => Ok(()),
        Some(Answer::Error(status)) => {
            let refusal = Refusal::from_parts(status.code, status.message, &status.details);
            if row_errors.is_empty() {
                return refused(refusal.class(), refusal.describe());
            }
            Err(AppendFailure { class: ErrorClass::RowErrors, message: refusal.describe(), row_errors, maybe_durable: false })
        }
        _ if !row_errors.is_empty() => {
            let message = "rows were refused".to_owned();
            Err(AppendFailure { class: ErrorClass::RowErrors, message, row_errors, maybe_durable: false })
        }
        _ => Err(AppendFailure {
            class: ErrorClass::Unknown,
            message: "BigQuery's answer holds neither a result nor an error".to_owned(),
            row_errors,
            maybe_durable: true,
        }),
    }
}
