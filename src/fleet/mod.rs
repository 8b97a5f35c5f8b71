//! What is known of the whole fleet: every worker's reports and the leader's decisions, carried by two Kafka topics, and the view that is put together from them.
//!
//! ```text
//! every worker: reporter.rs -> report topic (an hour)      -> exchange.rs -> view.rs -> GET /fleet, `millrace status`, the leader
//! the leader:   measure.rs  -> report topic                ->
//!               state.rs    -> state topic (compacted)     ->
//!               joins.rs    -> state topic -> every worker that has started and is no member yet
//! people:       order.rs    -> state topic -> told.rs     -> every worker follows what connectors are wished to do
//! ```
//! Nobody needs an address of anybody, and any worker answers for all. What one worker says of itself is believed; its clock is not: whether
//! a worker is stale is measured by the arrival of its reports here.
//!
//! What does not belong here: asking the broker what only the leader asks (`leader`), and what follows from the numbers (`scaling`).

mod desired;
mod exchange;
mod identity;
mod joins;
mod known;
mod measure;
mod order;
mod rates;
mod replayed;
mod report;
mod reporter;
mod state;
mod state_topic;
mod status;
mod told;
mod view;
mod wishes;

pub use desired::{DesiredConnector, DesiredState, RestartNote, Verb};
pub use exchange::Exchange;
pub use identity::Identity;
pub use joins::{JOIN_WAIT_MAX, JoinHold, JoinReason, Joiner, Verdict};
pub use measure::{ConnectorMeasure, Decided, FleetMeasure, PartitionMeasure};
pub use order::{Order, Overtaken};
pub use replayed::{Replayed, letter_hash, replayed_key};
pub use report::{ConnectorReport, MemoryReport, Note, PartitionReport, VERSION, WorkerReport};
pub use reporter::{Reporter, WorkerLook};
pub use state::{JOINS, LeaderMemory, PublishedDecision, StateNote, connector_key, decision_key, restart_key};
pub use state_topic::StateTopic;
pub use status::{ConnectorSeen, FleetStatus, LeaderSeen, WorkerPresence, WorkerSeen};
pub use view::{FleetView, Hearing, LiveWorker};
pub use wishes::Wishes;
