//! `src/kafka` against librdkafka's own mock brokers: groups, holds, restarts, wake-ups, the end; producer and re-reader.
//!
//! The mock's limits (a classic OffsetCommit during a join is refused; topics are made when asked for) stand where they matter.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod group;
mod hold;
#[allow(dead_code, reason = "each folder uses its part of it")]
#[path = "../machine/mod.rs"]
mod machine;
mod records;
mod rig;
