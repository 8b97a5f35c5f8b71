//! millrace moves Kafka records into BigQuery: decoded in batches, durable, then committed.
//!
//! # The map
//! Dependencies point down this list, never up (`tests/house` checks it):
//!
//! | room | what is in it |
//! |---|---|
//! | `main.rs` | arguments, exit codes |
//! | [`cli`] | a file per command; the only user of [`embedded`] |
//! | [`supervisor`] | a worker's life: start, watch, reload, drain, stop |
//! | [`http`] | health, metrics, status: traits in, a router out |
//! | [`leader`] | who decides (Lease, lock file), the monitor's loop, replicas (scale subresource, file) |
//! | [`fleet`] | workers' reports and the leader's decisions through Kafka, the view of the whole fleet |
//! | [`pipeline`] | a connector at work: shards, ledger, commits, dead letters, holds |
//! | [`kafka`] | consumer, partition queues, rebalances, producer, lag queries |
//! | [`bigquery`] | tables (get, create, evolve), append streams, error class to action |
//! | [`schema`] | schema sources: registry, folder named by a header |
//! | [`decode`] | bytes to row: a compiled plan per schema |
//! | [`table`] | columns, field numbers, descriptors: pure |
//! | [`scaling`] | how many workers: forecast, assignor model, decision, simulation: pure |
//! | [`flow`] | budget, backoff, clock: pure |
//! | [`watchdog`] | every loop reports its turns; a thread of its own ends the process when one stands still |
//! | [`config`], [`telemetry`], [`record`] | files and their errors; logs and metrics; what Kafka delivers |
//! | [`datagen`] | stock updates with a journal: for the demo and for tests |
//! | [`embedded`] | broker, registry and BigQuery for the demo and tests: external crates only, an independent judge |
//!
//! # Invariants
//! 1. No commit exceeds the ledger's head: every record below it is durable in BigQuery, durable in the dead-letter
//!    topic, or dropped by a rule that the user wrote ([`pipeline`]).
//! 2. What was appended since the last commit may come again after a crash; what is sent again after a lost answer is
//!    counted in `possible_duplicate_rows_total` ([`bigquery`], [`pipeline`]). With `guarantee = "exactly-once"` none comes twice
//!    (`pipeline/exact`): an append is announced beside the group's offset before it leaves, and whoever takes the partition over ends the
//!    stream and counts its rows.
//! 3. A bad record costs itself only ([`decode`], [`pipeline`]).
//! 4. Memory has a limit that the user set; every kind of it is counted ([`flow`]).
//! 5. Taking records from Kafka never blocks on the sink; the poll thread never blocks on a shard for longer than the revoke
//!    deadline ([`kafka`], [`pipeline`]).
//! 6. Secrets are never shown ([`config`]).
//! 7. Nothing hangs silently: a loop that makes no turn for 30 s ends the process, with a message that names the loop and where it stands
//!    ([`watchdog`]); what waits for a good reason says so ([`pipeline`]).

pub mod bigquery;
pub mod cli;
pub mod config;
pub mod datagen;
pub mod decode;
pub mod embedded;
pub mod fleet;
pub mod flow;
pub mod http;
pub mod kafka;
pub mod leader;
pub mod pipeline;
pub mod record;
pub mod scaling;
pub mod schema;
pub mod supervisor;
pub mod table;
pub mod telemetry;
pub mod watchdog;
