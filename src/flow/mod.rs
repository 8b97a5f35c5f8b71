//! Budget, backoff, pace, clock, causes of a hold: pure.
//!
//! Belongs here: how much may be in memory, how long to wait before the next try, what time it is.
//! Does not belong here: who waits for what.

mod backoff;
mod budget;
mod clock;
mod hold;
mod pace;

pub use backoff::Backoff;
pub use budget::{Budget, BudgetKind, Lease, ProcessMemory};
pub use clock::{Clock, ManualClock, SystemClock};
pub use hold::HoldCause;
pub use pace::Pace;
