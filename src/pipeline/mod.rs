//! A connector at work: shards, ledger, commits, dead letters, holds.
