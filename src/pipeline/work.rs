//! How a shard's thread spends its time: at work, waiting for the sink, or idle. Two clock readings a turn, nothing a record.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde::Serialize;

/// Counts the times of one shard's thread since it started.
#[derive(Debug, Default)]
pub struct WorkTimes {
    busy_us: AtomicU64,
    sink_wait_us: AtomicU64,
}

impl WorkTimes {
    /// A turn of takes, decoding, holds and closed batches took this long (wall time: a thread that wanted to run and got no CPU was busy
    /// too).
    pub fn worked(&self, time: Duration) {
        self.busy_us.fetch_add(micros(time), Relaxed);
    }

    /// The thread slept this long because BigQuery (or the dead-letter topic) had not finished what it was given: memory, a table's share
    /// of it, the writer's queue or the table itself took no more.
    pub fn waited_for_sink(&self, time: Duration) {
        self.sink_wait_us.fetch_add(micros(time), Relaxed);
    }

    /// Both sums so far.
    pub fn so_far(&self) -> ShardWork {
        ShardWork { busy_us: self.busy_us.load(Relaxed), sink_wait_us: self.sink_wait_us.load(Relaxed) }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// What a shard's thread did since it started, in microseconds; the rest of the time nothing was there to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct ShardWork {
    /// At work.
    pub busy_us: u64,
    /// Asleep because the sink took no more, with records at hand.
    pub sink_wait_us: u64,
}
