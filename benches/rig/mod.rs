//! What the benchmarks of the whole worker stand on: a real broker, a sink in a process of its own, and what a process costs.
//!
//! Belongs here: starting, loading, watching. Does not belong here: what is claimed (`worker/`, `memory/`, `soak/`).

// Each benchmark uses its own part of this.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "benchmarks")]

pub mod dead_letters;
pub mod fleet;
pub mod kafka;
#[path = "../../tests/live/harness/kafka_node.rs"]
pub mod kafka_node;
pub mod load;
pub mod process;
pub mod sink;
pub mod sink_rows;
pub mod sink_tables;
