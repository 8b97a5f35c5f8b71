//! What the simulation breaks on purpose, to show that it would see it: at the seams, so that the product has no such switches.

/// One way to be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// Nothing is broken.
    None,
    /// What was taken is committed, not what is finished.
    CommitTaken,
    /// A revocation commits what was taken, drained or not.
    RevokeWithoutDrain,
    /// All assignments have the same epoch: answers of a former one count.
    SameEpoch,
    /// An append counts as acknowledged as soon as it left.
    AckBeforeDurable,
    /// A lost answer counts as success.
    LostAnswerIsSuccess,
    /// A lost answer counts as a refusal: the rows that it doubles are not counted.
    LostAnswerIsRefusal,
    /// A dead letter that the topic refused counts as delivered.
    ForgetLetter,
    /// Records of rejected rows that cannot be read now count as gone from Kafka: their letters hold something else.
    UnreadIsGone,
    /// A process that stood still goes on as if nothing were.
    NoFence,
    /// The last look at the fence, right before the bytes leave, is left out.
    NoGate,
    /// Partitions that were lost go on being committed.
    DeafToLoss,
    /// Commits that were refused at a revocation are not heard of.
    DeafToRefusal,
    /// A hold ends without going back.
    ResumeWithoutSeek,
    /// A table is patched whatever its version is.
    PatchAnyVersion,
    /// Some rows of an append are rejected, and all of it is taken for rejected.
    RejectsWhole,
    /// Some rows of an append are rejected, and the others are taken for durable.
    RestIsDurable,
    /// Exactly once: intents are not committed with the offset.
    SkipIntents,
    /// Exactly once: a takeover counts the rows of the former owner's stream, but does not end it.
    NoFinalize,
    /// Exactly once: rows are appended wherever the stream ends, whatever place they were numbered for.
    NumbersIgnored,
    /// Exactly once: ALREADY_EXISTS counts as success for whatever was sent.
    ExistsIsSuccess,
    /// Exactly once: OUT_OF_RANGE counts as success.
    BeyondIsSuccess,
    /// A lost range is passed over without a word: whoever is told that an offset is out of range begins at the first record that is left.
    SilentLoss,
    /// A partition that begins again begins at the first record that is left, wherever it was to begin.
    RestartsAtFirst,
    /// A partition that begins again elsewhere takes that offset for the group's.
    AskedIsCommitted,
    /// A request to begin again counts for whatever assignment the partition has by then.
    RestartsLater,
    /// Bad records are skipped, whatever the user's file says.
    AlwaysSkips,
    /// Lost ranges are passed over, though the user's file says that they hold.
    AlwaysContinues,
    /// Exactly once: rows whose fate nobody knows are sent again, though the user's file says that they hold.
    AlwaysReplays,
}

impl Mutant {
    /// Every one of them.
    pub const ALL: [Self; 28] = [
        Self::CommitTaken,
        Self::RevokeWithoutDrain,
        Self::SameEpoch,
        Self::AckBeforeDurable,
        Self::LostAnswerIsSuccess,
        Self::LostAnswerIsRefusal,
        Self::ForgetLetter,
        Self::UnreadIsGone,
        Self::NoFence,
        Self::NoGate,
        Self::DeafToLoss,
        Self::DeafToRefusal,
        Self::ResumeWithoutSeek,
        Self::PatchAnyVersion,
        Self::RejectsWhole,
        Self::RestIsDurable,
        Self::SkipIntents,
        Self::NoFinalize,
        Self::NumbersIgnored,
        Self::ExistsIsSuccess,
        Self::BeyondIsSuccess,
        Self::SilentLoss,
        Self::RestartsAtFirst,
        Self::AskedIsCommitted,
        Self::RestartsLater,
        Self::AlwaysSkips,
        Self::AlwaysContinues,
        Self::AlwaysReplays,
    ];
}
