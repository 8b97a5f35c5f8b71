//! Health, metrics, status, and what a worker can be told, over HTTP: traits in, a router out.
//!
//! With `[worker] api_token`, `/status`, `/fleet` and every writing verb need the token. The page itself holds nothing; health and metrics
//! stay open, for neither the kubelet nor Prometheus has the token, and they carry names and counts only. Without the setting nothing can
//! be written.
//!
//! Belongs here: paths, codes, the page. Does not belong here: what a worker's state is (`supervisor/`, `pipeline/`).

mod control;
mod page;
mod router;
mod serve;
mod token;
mod view;

pub use control::{Control, Refusal};
pub use router::router;
pub use serve::{ListenError, Server, bind};
pub use token::ApiToken;
pub use view::{ConfigurationStatus, FileMistake, MemoryStatus, Readiness, Status, WorkerState, WorkerStatus};
