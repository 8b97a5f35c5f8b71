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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::ScalingConfig;
    use crate::fleet::Identity;
    use crate::flow::ManualClock;
    use crate::scaling::{Snapshot, decide};

    /// A memory of one look, as JSON of the state topic.
    fn left(now_ms: i64) -> Vec<u8> {
        let snapshot = format!(
            r#"{{"now_ms":{now_ms},"window_ms":15000,"replicas":1,"groups":[{{"connector":"c","partitions":[
            {{"topic":"t","partition":0,"end_offset":5,"committed_offset":5,"produced_records_per_s":1.0,"lag_ms":0}}]}}],
            "limits":{{"min":1,"max":3,"freshness_target_ms":30000,"recovery_target_ms":300000}}}}"#
        );
        let snapshot: Snapshot = serde_json::from_str(&snapshot).unwrap();
        let mut memory = Memory::default();
        decide(&snapshot, &mut memory);
        let left = left_for_next(&memory, 4, now_ms).unwrap();
        assert_eq!(left.memory["groups"]["c"]["partitions"], serde_json::json!({}), "offsets are not handed on");
        serde_json::to_vec(&left).unwrap()
    }

    fn view(clock: &Arc<ManualClock>) -> FleetView {
        FleetView::new(Identity { name: "w".to_owned(), ordinal: None }, &ScalingConfig::default(), clock.clone())
    }

    #[test]
    fn time_goes_on_where_the_last_leader_was_whatever_its_clock_said() {
        // The last leader's clock was an hour ahead of this one's.
        let clock = Arc::new(ManualClock::at(1_000_000_000));
        let view = view(&clock);
        view.hear_state(b"leader/memory", Some(&left(4_600_000)), false);
        clock.advance(Duration::from_secs(7));
        let (memory, timeline) = Timeline::continued(&view, &*clock);
        assert_ne!(memory, Memory::default());
        assert_eq!(timeline.now_ms(&*clock), 4_607_000);
        clock.set_wall_us(5);
        clock.advance(Duration::from_secs(1));
        assert_eq!(timeline.now_ms(&*clock), 4_608_000, "a clock that is set does not move it");
    }

    #[test]
    fn an_old_or_strange_memory_is_left_alone() {
        let clock = Arc::new(ManualClock::at(10_000_000_000_000));
        let fresh = |view: &FleetView| {
            let (memory, timeline) = Timeline::continued(view, &*clock);
            memory == Memory::default() && timeline.now_ms(&*clock) == 10_000_000_000
        };
        assert!(fresh(&view(&clock)), "nothing was left");
        let old = view(&clock);
        old.hear_state(b"leader/memory", Some(&left(4_600_000)), true);
        assert!(fresh(&old));
        let strange = view(&clock);
        strange.hear_state(b"leader/memory", Some(br#"{"v":9,"term":1,"now_ms":9999999999,"memory":{"groups":7}}"#), true);
        assert!(fresh(&strange));
    }
}
