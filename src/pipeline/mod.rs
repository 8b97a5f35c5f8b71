//! A connector at work: shards, ledger, commits, dead letters, holds.

pub mod status;

pub use status::{ConnectorState, ConnectorStatus, FreshnessStatus, HoldStatus, PartitionStatus, TableStatus};
