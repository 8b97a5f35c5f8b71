//! Why a partition does not move.

/// Why a partition holds: nothing is buffered for it, it is rewound on release, and retried at most every 30 s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HoldCause {
    /// The plan of a schema that was not seen before is being made. Short.
    PlanPending,
    /// The registry or the schema folder does not answer, or answers rubbish.
    SchemaSourceUnavailable,
    /// A header names a schema file that is not there (yet).
    SchemaFileMissing,
    /// The table does not exist and `create = false`, or its dataset does not exist.
    TableMissing,
    /// BigQuery refuses: permission, billing.
    PermissionDenied,
    /// The credentials are refused.
    Unauthenticated,
    /// A column of the table has a type or mode that the schema does not fit.
    TypeConflict,
    /// The schema has columns that the table lacks, and `evolve` does not allow to add them.
    EvolutionForbidden,
    /// The table was deleted and made again: rows sent now may be swallowed.
    TableRecreated,
    /// The table's encryption key cannot be used.
    EncryptionKey,
    /// BigQuery's REST API does not answer.
    TableServiceUnavailable,
    /// BigQuery refuses for a reason that millrace does not know.
    UnknownError,
    /// The dead-letter topic does not take records.
    DeadLetterTopic,
    /// A bad record, and `bad_records = "stop"`.
    BadRecord,
    /// More than `max_dead_share` of the records became dead letters.
    DeadShare,
    /// Records were deleted by retention before they were read, and `on_lost_range = "hold"`.
    LostRange,
    /// Exactly once: what the partition's former owner appended is being found out. Short.
    TakingOver,
    /// Exactly once: nobody can know what a former owner appended, and `on_lost_stream = "hold"`.
    StreamLost,
    /// Exactly once: the brokers take less metadata beside an offset than announced appends need.
    OffsetMetadata,
}

impl HoldCause {
    /// Every cause.
    pub const ALL: [Self; 19] = [
        Self::PlanPending,
        Self::SchemaSourceUnavailable,
        Self::SchemaFileMissing,
        Self::TableMissing,
        Self::PermissionDenied,
        Self::Unauthenticated,
        Self::TypeConflict,
        Self::EvolutionForbidden,
        Self::TableRecreated,
        Self::EncryptionKey,
        Self::TableServiceUnavailable,
        Self::UnknownError,
        Self::DeadLetterTopic,
        Self::BadRecord,
        Self::DeadShare,
        Self::LostRange,
        Self::TakingOver,
        Self::StreamLost,
        Self::OffsetMetadata,
    ];

    /// The name in metrics, status and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PlanPending => "plan_pending",
            Self::SchemaSourceUnavailable => "schema_source_unavailable",
            Self::SchemaFileMissing => "schema_file_missing",
            Self::TableMissing => "table_missing",
            Self::PermissionDenied => "permission_denied",
            Self::Unauthenticated => "unauthenticated",
            Self::TypeConflict => "type_conflict",
            Self::EvolutionForbidden => "evolution_forbidden",
            Self::TableRecreated => "table_recreated",
            Self::EncryptionKey => "encryption_key",
            Self::TableServiceUnavailable => "table_service_unavailable",
            Self::UnknownError => "unknown_error",
            Self::DeadLetterTopic => "dead_letter_topic",
            Self::BadRecord => "bad_record",
            Self::DeadShare => "dead_share",
            Self::LostRange => "lost_range",
            Self::TakingOver => "taking_over",
            Self::StreamLost => "stream_lost",
            Self::OffsetMetadata => "offset_metadata",
        }
    }
}
