//! What a leader takes over from the one before it, and leaves for the next: what the policy learnt, and the time that it counts in.

use std::time::Duration;

use crate::fleet::{FleetView, LeaderMemory, VERSION};
use crate::flow::Clock;
use crate::scaling::Memory;

/// A memory that is older says nothing about today's load.
const OLD_AFTER: Duration = Duration::from_secs(1800);
/// A topic takes no larger record by default (1 MiB); compression is not counted on.
const BYTES_MAX: usize = 900 * 1024;

/// The time of snapshots: it goes on where the last leader's ended, whatever the clocks of the two machines say, and never goes back.
pub(super) struct Timeline {
    begin_ms: i64,
    began_at: Duration,
}

impl Timeline {
    /// What the last leader left, if it is of use, and the time that follows it.
    pub fn continued(view: &FleetView, clock: &dyn Clock) -> (Memory, Self) {
        let wall_ms = clock.now_wall_us() / 1000;
        let fresh = Self { begin_ms: wall_ms, began_at: clock.now_monotonic() };
        let Some((left, age)) = view.leader_memory() else { return (Memory::default(), fresh) };
        // Where it lay in the topic before this worker came, nobody here knows how old it is: then the clocks must do.
        let begin_ms = match age {
            Some(age) => left.now_ms.saturating_add(i64::try_from(age.as_millis()).unwrap_or(i64::MAX)),
            None => wall_ms.max(left.now_ms.saturating_add(1)),
        };
        let old = u128::try_from(begin_ms - left.now_ms).unwrap_or(0) > OLD_AFTER.as_millis();
        match serde_json::from_value(left.memory.clone()) {
            Ok(memory) if !old => (memory, Self { begin_ms, began_at: clock.now_monotonic() }),
            Ok(_) => (Memory::default(), fresh),
            Err(error) => {
                tracing::info!(%error, "the last leader's memory is of another version: this one learns anew");
                (Memory::default(), fresh)
            }
        }
    }

    /// Milliseconds.
    pub fn now_ms(&self, clock: &dyn Clock) -> i64 {
        let passed = clock.now_monotonic().saturating_sub(self.began_at);
        self.begin_ms.saturating_add(i64::try_from(passed.as_millis()).unwrap_or(i64::MAX))
    }
}

/// What the next leader is to know. Offsets of single partitions are left out: they are learnt again within seconds and would make it large.
/// `None` when it would not fit into a record all the same.
pub(super) fn left_for_next(memory: &Memory, term: u64, now_ms: i64) -> Option<LeaderMemory> {
    let mut value = serde_json::to_value(memory).ok()?;
    if let Some(groups) = value.get_mut("groups").and_then(serde_json::Value::as_object_mut) {
        for group in groups.values_mut() {
            if let Some(partitions) = group.get_mut("partitions") {
                *partitions = serde_json::json!({});
            }
        }
    }
    let fits = value.to_string().len() <= BYTES_MAX;
    fits.then_some(LeaderMemory { v: VERSION, term, now_ms, memory: value })
}
