//! A connector between joining its group and running: if a later step of the start fails, what has begun is ended again.

use std::sync::Arc;
use std::thread::JoinHandle;

use crate::kafka::GroupControl;

use super::connector::LEAVE_TIMEOUT;
use super::events::{ShardEvent, ShardHandle};

/// A member of a group, and the shards that take its records so far. Dropped before [`HalfStarted::complete`] it leaves the group and ends
/// the shards: they would append for ever, and nobody would commit. Dropping blocks until then.
pub struct HalfStarted {
    control: Option<Arc<dyn GroupControl>>,
    /// The shards that run, with their threads.
    pub shards: Vec<(ShardHandle, JoinHandle<()>)>,
}

impl HalfStarted {
    /// A member without shards.
    pub fn new(control: Arc<dyn GroupControl>) -> Self {
        Self { control: Some(control), shards: Vec::new() }
    }

    /// Everything runs: gives the shards to whoever will stop them.
    pub fn complete(mut self) -> Vec<(ShardHandle, JoinHandle<()>)> {
        self.control = None;
        std::mem::take(&mut self.shards)
    }
}

impl Drop for HalfStarted {
    fn drop(&mut self) {
        let Some(control) = self.control.take() else { return };
        // Shards that run answer its last revocation; those that never started have dropped their receivers.
        if let Err(error) = control.close(LEAVE_TIMEOUT) {
            tracing::warn!(%error, "a connector that could not be started has not left its group yet");
        }
        end_shards(std::mem::take(&mut self.shards));
    }
}

/// Ends the threads of shards and waits for them.
pub fn end_shards(shards: Vec<(ShardHandle, JoinHandle<()>)>) {
    for (handle, thread) in shards {
        handle.blocking_send(ShardEvent::Stop);
        let name = thread.thread().name().unwrap_or_default().to_owned();
        if thread.join().is_err() {
            tracing::error!(thread = name, "a shard's thread panicked");
        }
    }
}
