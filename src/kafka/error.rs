//! Why a Kafka client could not be made or a question was not answered; librdkafka's error codes sorted into what to do.

use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode;

use super::seam::GroupError;

/// Why a Kafka client could not be made, or a question was not answered. Never carries a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KafkaError {
    /// A property cannot be used: unknown to librdkafka, of a wrong value, or one that millrace sets itself.
    #[error("{origin} \"{property}\": {message}")]
    Property {
        /// The table it stands in, such as `[kafka]`, or `[kafka] of connector stock`.
        origin: String,
        /// Its name.
        property: String,
        /// What is wrong, in librdkafka's words where it refused.
        message: String,
    },
    /// librdkafka refused the properties together.
    #[error("no Kafka client with these properties: {0}")]
    Client(String),
    /// No answer in time.
    #[error("{what}: no answer within {}", humantime::format_duration(*.within))]
    TimedOut {
        /// What was asked.
        what: String,
        /// How long was waited.
        within: Duration,
    },
    /// Kafka refused what was asked.
    #[error("{what}: {message}")]
    Refused {
        /// What was asked.
        what: String,
        /// In librdkafka's words.
        message: String,
    },
    /// A thread could not be started, or the worker is stopping.
    #[error("{0}")]
    Stopped(String),
}

impl KafkaError {
    /// librdkafka's answer to a question.
    pub(crate) fn from_rdkafka(what: impl Into<String>, error: &rdkafka::error::KafkaError, within: Duration) -> Self {
        let what = what.into();
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::OperationTimedOut | RDKafkaErrorCode::RequestTimedOut) => Self::TimedOut { what, within },
            _ => Self::Refused { what, message: error.to_string() },
        }
    }
}

/// Sorts an error of a group call (commit, fetch of committed offsets) into what the committer does next.
///
/// `ILLEGAL_GENERATION`, `REBALANCE_IN_PROGRESS` and `STALE_MEMBER_EPOCH` pass with the next generation; an unknown or fenced member
/// has to drop what it holds; a time-out leaves the outcome unknown.
pub(crate) fn group_error(code: RDKafkaErrorCode, detail: &str) -> GroupError {
    use RDKafkaErrorCode as Code;
    let text = if detail.is_empty() { code.to_string() } else { format!("{code}: {detail}") };
    match code {
        Code::RebalanceInProgress
        | Code::IllegalGeneration
        | Code::StaleMemberEpoch
        | Code::CoordinatorLoadInProgress
        | Code::CoordinatorNotAvailable
        | Code::NotCoordinator
        | Code::WaitingForCoordinator => GroupError::Rebalancing(text),
        Code::UnknownMemberId
        | Code::FencedInstanceId
        | Code::FencedMemberEpoch
        | Code::AssignmentLost
        | Code::Fenced
        | Code::PollExceeded => GroupError::Fenced(text),
        Code::OperationTimedOut | Code::RequestTimedOut | Code::BrokerTransportFailure | Code::AllBrokersDown | Code::NetworkException => {
            GroupError::TimedOut(text)
        }
        Code::OffsetMetadataTooLarge => GroupError::MetadataTooLarge(text),
        _ => GroupError::Other(text),
    }
}
