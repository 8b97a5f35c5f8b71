//! Leadership and size on one machine: a lock on a file, and a file with the number of workers that whoever started them follows.

mod lock;
mod replicas_file;

pub use lock::{FileLock, LockError};
pub use replicas_file::ReplicasFile;
