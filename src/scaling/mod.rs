//! How many workers: pure arithmetic on a snapshot of the fleet.
//!
//! Here belong the snapshot's and the decision's shapes, the forecast of load, the model of Kafka's assignors, the decision itself, and the simulation that
//! judges it. What does not belong here: a clock, I/O, a thread; who may decide and how a fleet is resized is `leader`'s, what is measured is `fleet`'s.

mod assignment;
mod capacity;
mod decide;
mod decision;
mod end_history;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod fleet_tests;
mod forecast;
mod gather;
mod grow;
mod limits;
mod memory;
mod numbers;
mod observe;
mod queue;
mod reason;
mod regret;
mod round;
mod season;
mod shrink;
pub mod simulation;
mod snapshot;
mod standstill;
mod startup;
mod storm;
mod surge;
mod tuning;

pub use decide::{at_least, decide, decide_with};
pub use decision::{Action, ConnectorNeed, CostPerHour, Decision};
pub use end_history::{Behind, EndHistory};
pub use memory::Memory;
pub use snapshot::{
    Assignor, ConnectorGroup, GroupState, Limits, Owned, PartitionLoad, RebalanceProtocol, Snapshot, WorkerGroup, WorkerLoad,
};
pub use tuning::Tuning;
