//! The real program as its user runs it, for tests in folders of their own: worker processes, and the embedded parts that they work on.
//!
//! Taken in by `#[path]`. Belongs here: what is the same for one worker and for a fleet. Does not belong here: what a test does to them.

mod parts;
mod worker;

pub use parts::Parts;
pub use worker::WorkerProcess;
