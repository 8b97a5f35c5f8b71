//! Exactly once with nothing but Kafka and BigQuery: intents beside the group's offset, streams of type COMMITTED.
//!
//! ```text
//! job of one partition -> writer.rs: window, numbered rows -> intents.rs -> published.rs -> committer (the group's generation fences it)
//!                              append at its offset  <----------- the version is committed
//! new owner: begin.rs: intents -> finalize (ends whoever wrote) -> takeover.rs: row count on a boundary -> goes on there, in a new stream
//! ```
//! **Promise**: an append leaves only after its intent was committed with the present generation, and its rows land at most once:
//! ALREADY_EXISTS counts as success only for an append of ours, at the same place of the same stream, whose answer was lost. What is in
//! doubt is settled by ending the stream and counting its rows; a count that lies on no boundary, or a stream that is gone, is never
//! guessed: the partition holds, or replays and says so, as the user chose.
//!
//! **Invariant**: when an append's intent is committed, every record below its end that is not a row of it or of an earlier append is
//! finished (dead letters durable). So each boundary is a place to go on at.
//!
//! Belongs here: intents, takeovers, the writer of one partition. Does not belong here: rows of at-least-once connectors (`delivery.rs`),
//! which offsets are committed when (`committer.rs`), calls to BigQuery (`bigquery/`).

mod begin;
mod begin_shard;
mod intents;
mod mend;
mod published;
mod stream;
mod takeover;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
mod tests;
mod window;
pub mod writer;

use std::sync::Arc;

use crate::bigquery::WriteStreams;
use crate::config::{Guarantee, OnLostStream};
use crate::telemetry::exact::ExactMetrics;

pub use published::{CommitBell, Published};

/// What all partitions of a connector share here.
pub struct ExactParts {
    /// What the connector promises. At least once takes over what an exactly-once time has left, and no more.
    pub guarantee: Guarantee,
    /// What to do when nobody can know what landed.
    pub on_lost: OnLostStream,
    /// Creates, fills and ends streams.
    pub streams: Arc<dyn WriteStreams>,
    /// Has intents committed at once.
    pub bell: Arc<CommitBell>,
    /// For Prometheus.
    pub metrics: Arc<ExactMetrics>,
}

impl ExactParts {
    /// Whether rows go to streams of their own.
    pub fn is_exact(&self) -> bool {
        self.guarantee == Guarantee::ExactlyOnce
    }
}

/// What a partition's stream tells its shard.
#[derive(Debug)]
pub enum StreamNews {
    /// The takeover is done: the partition goes on here (`None`: at the committed offset).
    Begins {
        /// Where.
        start: Option<i64>,
    },
    /// It cannot go on now, and why; it goes on by itself.
    Waits {
        /// The cause of the hold.
        cause: crate::flow::HoldCause,
        /// What is wrong and what to do.
        message: String,
    },
    /// What it waited for has come.
    GoesOn,
    /// Nobody can know what landed: the partition holds until the user chooses.
    Lost {
        /// What is not known, why, and what to do.
        message: String,
    },
}
