//! Budget, backoff, clock, causes of a hold: pure.
//!
//! Belongs here: how much may be in memory, how long to wait before the next try, what time it is.
//! Does not belong here: who waits for what.

mod hold;

pub use hold::HoldCause;
