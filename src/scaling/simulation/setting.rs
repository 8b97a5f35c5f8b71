//! What a simulated fleet is like.

use super::super::snapshot::{Assignor, Limits, RebalanceProtocol};

/// A fleet and how it is watched.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// Start-up delays and noise follow from it.
    pub seed: u64,
    /// What one worker can do, records/s.
    pub capacity: f64,
    /// Each worker's capacity is off by this share for good, and by as much again from moment to moment.
    pub noise: f64,
    /// Who gives partitions to members.
    pub assignor: Assignor,
    /// What a rebalance stops: 3 s for what moves (cooperative), 8 s for all (eager).
    pub protocol: RebalanceProtocol,
    /// Seconds between decisions.
    pub interval_s: usize,
    /// Rates are means over this many seconds.
    pub window_s: usize,
    /// Limits of every snapshot.
    pub limits: Limits,
    /// Workers at the start, ready.
    pub workers: u32,
    /// What the snapshots leave out.
    pub hidden: Hidden,
}

/// What the snapshots leave out: unknown to the policy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hidden {
    /// `busy_fraction` and `sink_wait_fraction`.
    pub busy: bool,
    /// `ready_workers`.
    pub ready: bool,
    /// `waiting_workers`: the fleet's workers do not wait for each other.
    pub waiting: bool,
    /// `lag_ms`.
    pub lag: bool,
    /// `produced_records_per_s` and `produced_bytes_per_s`.
    pub produced: bool,
    /// `consumed_records_per_s`.
    pub consumed: bool,
    /// `end_offset` and `committed_offset`.
    pub offsets: bool,
}

impl Setting {
    /// Seconds that a rebalance stops what it stops.
    pub fn pause_s(&self) -> usize {
        match self.protocol {
            RebalanceProtocol::Cooperative => 3,
            RebalanceProtocol::Eager => 8,
        }
    }
}
