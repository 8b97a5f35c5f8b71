//! A connector at work: shards, ledger, commits, dead letters, holds.
//!
//! ```text
//! partition queue -> shard thread (take.rs, take_record.rs): decode into the table's row buffer -> AppendJob -> writer of the table (delivery.rs) -> BigQuery
//!            Kafka <- committer.rs <- ledger's head <- spans counted down (turn.rs) <- outcome
//! ```
//! Belongs here: which record becomes part of which append, when it is finished, what may be committed, what holds and why.
//! Does not belong here: calls of librdkafka (`kafka/`), what an error of BigQuery means (`bigquery/`), bytes to row (`decode/`).
//!
//! **Promise**: no commit exceeds the ledger's head at the moment it is sent; every record below the head is durable in BigQuery, durable
//! in the dead-letter topic, or dropped by a rule that the user wrote.

mod assembly;
mod batch;
mod clients;
mod committer;
mod connector;
mod connector_status;
mod dead_letters;
mod dead_share;
mod delivery;
mod events;
mod exact;
mod fence;
mod freshness;
mod half_started;
mod health;
mod lag;
mod late_letters;
mod ledger;
mod letter;
mod listener;
mod lost_range;
mod part;
mod partition;
mod pause;
mod plan_memory;
mod plans;
mod progress;
mod rejected;
mod release;
mod remedy;
mod replay;
mod replay_shelf;
mod rest;
mod route;
mod shard;
mod shard_table;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
mod shard_tests;
mod shard_thread;
mod stall;
pub mod status;
mod suspect;
mod take;
mod take_record;
mod trouble;
mod turn;
mod whereabouts;
mod wishes;
mod work;
mod worker;
mod writer;
mod writers;

pub use assembly::{Assembly, AssemblyParts, ConnectorWorld};
pub use committer::CommitterParts;
pub use connector::{Connector, ConnectorError, ConnectorParts};
pub use dead_letters::{LetterBox, LetterError, Rereader};
pub use letter::{Letter, ReadLetter};
pub use listener::{Asked, Rebalances};
pub use replay::Replay;
pub use route::TableRoutes;
pub use shard_thread::{AfterTurn, ShardLoop};
pub use status::{ConnectorState, ConnectorStatus, FreshnessStatus, HoldStatus, PartitionStatus, StreamStatus, TableStatus};
pub use work::ShardWork;
pub use worker::WorkerShared;
