//! What a leader takes over from the one before it, and leaves for the next: what the policy learnt, and the time that it counts in.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::fleet::FleetView;
use crate::flow::Clock;
use crate::scaling::Memory;

/// A memory that is older says nothing about today's load.
const OLD_AFTER_MS: i64 = 1_800_000;
/// How far ahead of this machine's clock the last leader's may have been.
const CLOCKS_APART_MS: i64 = 60_000;
/// What went on when a memory of this age was written may have ended and begun again since: a rebalance counts from the first look that
/// finds it.
const UNDER_WAY_MS: i64 = 10_000;
/// The steps of a connector's load that a memory holds, and how long each is.
const HISTORY_STEPS: usize = 900;
const HISTORY_STEP_S: usize = 10;
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
        let age_ms = match age {
            Some(age) => i64::try_from(age.as_millis()).unwrap_or(i64::MAX),
            // Where it lay in the topic before this worker came, nobody here saw how old it is: then both clocks must do, within bounds.
            None => wall_ms.saturating_sub(left.at_ms.unwrap_or(left.now_ms)),
        };
        if age_ms < -CLOCKS_APART_MS {
            tracing::info!(ahead_ms = -age_ms, "the last leader's memory is of a time to come: clocks are apart, and this one learns anew");
            return (Memory::default(), fresh);
        }
        if age_ms > OLD_AFTER_MS {
            return (Memory::default(), fresh);
        }
        let mut memory = left.memory.clone();
        if age_ms > UNDER_WAY_MS {
            each_group(&mut memory, |group| _ = group.remove("rebalancing_since_ms"));
        }
        match serde_json::from_value(memory) {
            // A time that does not move on would be no news to the policy.
            Ok(memory) => (memory, Self { begin_ms: left.now_ms.saturating_add(age_ms.max(1)), began_at: clock.now_monotonic() }),
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

/// What the next leader is to know.
pub(super) struct Left {
    /// As JSON; `None` when not even what is known of the workers and connectors themselves fits.
    pub memory: Option<Value>,
    /// Its size.
    pub bytes: usize,
    /// What had to be left out, in words.
    pub forgotten: Option<String>,
}

/// Makes a memory fit into a record. Offsets of single partitions are always left out: they are learnt again within seconds. Then loads of
/// long ago, then all loads: without them the next leader does not know what recurs, and watches for some minutes before it lets workers
/// go.
pub(super) fn left_for_next(memory: &Memory) -> Left {
    let Ok(mut value) = serde_json::to_value(memory) else {
        return Left { memory: None, bytes: 0, forgotten: Some("everything: it cannot be written as JSON".to_owned()) };
    };
    each_group(&mut value, |group| _ = group.insert("partitions".to_owned(), Value::Object(Map::new())));
    let mut forgotten = None;
    for kept in [HISTORY_STEPS / 2, HISTORY_STEPS / 4, HISTORY_STEPS / 10, HISTORY_STEPS / 40, 0] {
        let bytes = value.to_string().len();
        if bytes <= BYTES_MAX {
            return Left { memory: Some(value), bytes, forgotten };
        }
        each_group(&mut value, |group| {
            for (name, kept) in [("fine", 0), ("history", kept)] {
                if let Some(loads) = group.get_mut(name).and_then(Value::as_array_mut) {
                    loads.drain(..loads.len().saturating_sub(kept));
                }
            }
        });
        let minutes = kept * HISTORY_STEP_S / 60;
        forgotten = Some(if kept > 0 { format!("loads of more than {minutes} min ago") } else { "all loads".to_owned() });
    }
    let bytes = value.to_string().len();
    if bytes <= BYTES_MAX {
        Left { memory: Some(value), bytes, forgotten }
    } else {
        Left { memory: None, bytes: 0, forgotten: Some("everything".to_owned()) }
    }
}

fn each_group(memory: &mut Value, mut change: impl FnMut(&mut Map<String, Value>)) {
    let groups = memory.get_mut("groups").and_then(Value::as_object_mut);
    groups.into_iter().flat_map(|groups| groups.values_mut()).filter_map(Value::as_object_mut).for_each(&mut change);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::ScalingConfig;
    use crate::fleet::{Identity, LeaderMemory, VERSION};
    use crate::flow::ManualClock;
    use crate::scaling::{Snapshot, decide};

    /// A memory of one look, as JSON of the state topic.
    fn left(now_ms: i64, at_ms: i64) -> Vec<u8> {
        let snapshot = format!(
            r#"{{"now_ms":{now_ms},"window_ms":15000,"replicas":1,"groups":[{{"connector":"c","partitions":[
            {{"topic":"t","partition":0,"end_offset":5,"committed_offset":5,"produced_records_per_s":1.0,"lag_ms":0}}]}}],
            "limits":{{"min":1,"max":3,"freshness_target_ms":30000,"recovery_target_ms":300000}}}}"#
        );
        let snapshot: Snapshot = serde_json::from_str(&snapshot).unwrap();
        let mut memory = Memory::default();
        decide(&snapshot, &mut memory);
        let left = left_for_next(&memory);
        assert!(left.forgotten.is_none());
        let memory = left.memory.unwrap();
        assert_eq!(memory["groups"]["c"]["partitions"], serde_json::json!({}), "offsets are not handed on");
        let note = LeaderMemory { v: VERSION, fleet: String::new(), term: 4, now_ms, at_ms: Some(at_ms), memory };
        serde_json::to_vec(&note).unwrap()
    }

    fn view(clock: &Arc<ManualClock>) -> FleetView {
        FleetView::new(Identity { name: "w".to_owned(), ordinal: None }, &ScalingConfig::default(), clock.clone())
    }

    #[test]
    fn time_goes_on_where_the_last_leader_was_whatever_its_clock_said() {
        // The last leader's clock was an hour ahead of this one's.
        let clock = Arc::new(ManualClock::at(1_000_000_000));
        let view = view(&clock);
        view.hear_state(b"leader/memory", Some(&left(4_600_000, 4_600_000)), false);
        clock.advance(Duration::from_secs(7));
        let (memory, timeline) = Timeline::continued(&view, &*clock);
        assert_ne!(memory, Memory::default());
        assert_eq!(timeline.now_ms(&*clock), 4_607_000);
        clock.set_wall_us(5);
        clock.advance(Duration::from_secs(1));
        assert_eq!(timeline.now_ms(&*clock), 4_608_000, "a clock that is set does not move it");
    }

    #[test]
    fn a_rebalance_is_the_one_that_was_seen_only_in_a_fresh_memory() {
        let since = |age_s: u64| {
            let clock = Arc::new(ManualClock::at(1_000_000_000));
            let view = view(&clock);
            let mut left: Value = serde_json::from_slice(&left(4_600_000, 4_600_000)).unwrap();
            left["memory"]["groups"]["c"]["rebalancing_since_ms"] = 4_590_000.into();
            view.hear_state(b"leader/memory", Some(left.to_string().as_bytes()), false);
            clock.advance(Duration::from_secs(age_s));
            let (memory, _) = Timeline::continued(&view, &*clock);
            let group = serde_json::to_value(memory).unwrap()["groups"]["c"].clone();
            assert!(group["fine"].is_array(), "the rest stays: {group}");
            group["rebalancing_since_ms"].as_i64()
        };
        assert_eq!((since(10), since(11)), (Some(4_590_000), None));
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
        old.hear_state(b"leader/memory", Some(&left(4_600_000, 4_600_000)), true);
        assert!(fresh(&old));
        let strange = view(&clock);
        strange.hear_state(b"leader/memory", Some(br#"{"v":1,"term":1,"now_ms":9999999999,"memory":{"groups":7}}"#), true);
        assert!(fresh(&strange));
    }

    #[test]
    fn one_that_lay_there_is_trusted_as_far_as_both_clocks_agree() {
        let clock = Arc::new(ManualClock::at(10_000_000_000));
        // Its time of snapshots is hours ahead by now, as the clock of a leader long ago was; that is no matter.
        let known = |at_ms: i64| {
            let view = view(&clock);
            view.hear_state(b"leader/memory", Some(&left(30_000_000, at_ms)), true);
            let (memory, timeline) = Timeline::continued(&view, &*clock);
            (memory != Memory::default()).then(|| timeline.now_ms(&*clock))
        };
        assert_eq!(known(9_400_000), Some(30_600_000), "ten minutes old");
        assert_eq!(known(10_030_000), Some(30_000_001), "clocks half a minute apart");
        assert_eq!(known(10_061_000), None, "of a time to come: it may be of any age");
        assert_eq!(known(8_000_000), None, "too old");
    }

    #[test]
    fn a_memory_that_is_too_large_loses_what_is_oldest_and_says_so() {
        let of = |groups: usize, steps: usize| {
            let load = |i: usize| serde_json::json!({ "at_ms": 1_700_000_000_000_i64 + i as i64, "for_s": 10.0, "rate": 12345.678901234 });
            let mut value = serde_json::to_value(Memory::default()).unwrap();
            let whole: Value = serde_json::from_slice::<LeaderMemory>(&left(1, 1)).unwrap().memory["groups"]["c"].clone();
            for g in 0..groups {
                let mut group = whole.clone();
                group["history"] = (0..steps).map(load).collect();
                value["groups"][format!("connector-{g}")] = group;
            }
            left_for_next(&serde_json::from_value(value).unwrap())
        };
        let small = of(10, 900);
        assert!(small.forgotten.is_none() && small.bytes > 400_000, "{}", small.bytes);
        let large = of(40, 900);
        assert_eq!(large.forgotten.as_deref(), Some("loads of more than 37 min ago"));
        assert_eq!(large.memory.as_ref().unwrap()["groups"]["connector-3"]["history"].as_array().unwrap().len(), 225);
        assert!(large.bytes <= BYTES_MAX && serde_json::from_value::<Memory>(large.memory.unwrap()).is_ok());
        let huge = of(5_000, 10);
        assert_eq!((huge.memory, huge.forgotten.as_deref()), (None, Some("everything")));
    }
}
