//! Health, metrics and status over HTTP: traits in, a router out.
//!
//! Belongs here: paths, codes, the page. Does not belong here: what a worker's state is (`supervisor/`, `pipeline/`).

mod page;
mod router;
mod serve;
mod view;

pub use router::router;
pub use serve::{ListenError, Server, bind};
pub use view::{ConfigurationStatus, FileMistake, MemoryStatus, Readiness, Status, WorkerState, WorkerStatus};
