//! Budget, backoff, pace, clock, causes of a hold: pure; and the seam for what is not (`tasks.rs`).
//!
//! Belongs here: how much may be in memory, how long to wait before the next try, what time it is.
//! Does not belong here: who waits for what.

mod backoff;
mod budget;
mod clock;
mod dead_share;
mod hold;
mod pace;
mod tasks;

pub use backoff::Backoff;
pub use budget::{Budget, BudgetKind, Lease, ProcessMemory, Waiter};
pub use clock::{Clock, ManualClock, SystemClock};
pub use dead_share::{DeadShare, Lets};
pub use hold::HoldCause;
pub use pace::Pace;
pub use tasks::{Tasks, TokioTasks, even};
