//! After a panic while a record was decoded: the record is taken again, and becomes a dead letter undecoded.

use std::time::Instant;

use crate::flow::HoldCause;
use crate::record::{RecordError, RecordErrorClass, Stage};

use super::partition::{Hold, Wait};
use super::shard::Shard;

/// What the dead letter of such a record says.
pub(super) fn panicked() -> RecordError {
    RecordError::new(
        Stage::Decode,
        RecordErrorClass::Bug,
        "decoding this record panicked: millrace is wrong; please report it with the record's schema and what the worker's error output says",
    )
}

impl Shard {
    /// The take panicked with the record of this offset in hand (`None`: with none). The callback is over and the record's bytes with it,
    /// so the partition goes back to it; next time it is not decoded. Where that is not possible (it was entered already, or it panics
    /// again) the connector fails, and says where.
    pub(super) fn after_panic(&mut self, slot: usize, offset: Option<i64>, words: &str, now: Instant) {
        let connector = self.parts.config.name.clone();
        let Some(partition) = self.slots.get_mut(slot) else { return };
        let at = partition.progress.partition.clone();
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("a shard's thread");
        let record = offset.map_or_else(|| " before its first record".to_owned(), |offset| format!(" offset {offset}"));
        let entered = offset.is_none_or(|offset| partition.ledger.next().is_some_and(|next| next > offset));
        let message = format!("thread {thread} panicked at {at}{record} ({words}): millrace is wrong, please report it");
        if entered || partition.suspect == offset {
            tracing::error!(connector, partition = %at, offset, "{message}; it cannot go on past this record");
            self.parts.trouble.fail(format!("{message}; the record could not be put aside either"));
            self.hold(slot, Hold { cause: HoldCause::UnknownError, wait: Wait::User, met_offset: offset }, message);
            return;
        }
        tracing::error!(connector, partition = %at, offset, "{message}; the record is taken again and put aside");
        partition.suspect = offset;
        self.hold(slot, Hold { cause: HoldCause::UnknownError, wait: Wait::Until(now), met_offset: offset }, message);
    }
}
