//! The one worker that decides: its election, its loop of measuring and deciding, and the resizing of the fleet.
//!
//! What does not belong here: the decision itself, which is arithmetic (`scaling`), and what workers tell each other (`fleet`).
//!
//! | file | what it says |
//! |---|---|
//! | `election` | what `[scaling] mode` asks for: start, stop |
//! | `term` | whether this worker leads, and until when: the fence |
//! | `elector`, `lease` | election by a lease, client-go's rules; the seam to where the lease stands |
//! | `replicas`, `resize` | the seam to the number of workers; the one way to change it |
//! | `store` | what can go wrong at both seams |
//! | `kubernetes`, `local` | both seams on Kubernetes (Lease, scale), and on one machine (lock, file) |
//! | `monitor`, `turn` | the loop; one turn of it: measure, decide, say so, resize |
//! | `sizing`, `announce` | what becomes of a decision: done or only said; what is published of it |
//! | `joins` | what is said to workers that have started and wait to join together |
//! | `measure`, `tracks` | one look at the brokers; what it means for each partition |
//! | `assemble`, `assignment`, `memory` | reports and measures to a snapshot; how partitions are given away; what one leader leaves for the next |
//! | `timer` | time that passes, for the simulation's sake |

mod announce;
mod assemble;
mod assignment;
mod election;
mod elector;
mod joins;
pub mod kubernetes;
mod lease;
pub mod local;
mod measure;
mod memory;
mod monitor;
mod replicas;
mod resize;
mod sizing;
mod store;
mod term;
mod timer;
mod tracks;
mod turn;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod wedges;

pub use assignment::each_arrival_stops_all;
pub use election::{Election, ElectionError};
pub use elector::{Candidate, Elector, holder_name};
pub use lease::{LeaseRecord, LeaseStore, Timing};
pub use monitor::{Ended, Monitor};
pub use replicas::{Replicas, Scale};
pub use resize::{Resized, resize};
pub use sizing::Sizing;
pub use store::StoreError;
pub use term::{Leadership, Term};
pub use timer::{SystemTimer, Timer, within};
