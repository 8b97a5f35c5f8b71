//! What a decision remembers of the snapshots before it. It can be written down and read again: a new leader may go on where the old one stopped.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::regret::Regret;

/// Longer pauses between decisions are no cadence.
const EVERY_S_MAX: f64 = 90.0;
/// So many snapshots that are older than the last one, but in order, are no mistake: the clock was set back.
const OLDER_IN_A_ROW: u32 = 3;
/// By more than this: two machines' clocks may differ by less, and what one leader learnt is the next one's.
const SET_BACK_MS: i64 = 60_000;
/// Below it nothing is behind any more, seconds.
const LAG_GONE_S: f64 = 3.0;
/// The slope of a lag is taken over at least this long.
const SLOPE_OVER_MS: i64 = 20_000;
/// Partitions that are gone for this long are gone.
const FEWER_FOR_MS: i64 = 60_000;

/// What [`decide`](super::decide) keeps between snapshots: offsets of the last minute and a half, loads of the last hours, what a worker can do, past resizes.
/// Bounded: nothing in it grows with time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    pub(super) last_ms: Option<i64>,
    /// The newest of the snapshots that came since and are older, and how many they were, each newer than the one before.
    #[serde(default)]
    pub(super) older: Option<(i64, u32)>,
    pub(super) groups: BTreeMap<String, GroupMemory>,
    pub(super) workers: BTreeMap<String, WorkerMemory>,
    pub(super) fleet: FleetMemory,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct GroupMemory {
    /// By topic, then partition.
    pub partitions: BTreeMap<String, BTreeMap<i32, PartitionMemory>>,
    /// The group's load at each snapshot of the last minutes: for the trend.
    pub fine: VecDeque<Sample>,
    /// The group's load over hours in coarser steps: for the peaks of the last minutes, and for what recurs.
    pub history: VecDeque<Sample>,
    /// Worker-seconds that a record costs; its inverse is what one worker can consume each second.
    pub cost_s: Option<f64>,
    /// The same by workers that were nearly idle, for as long as nothing better is known.
    #[serde(default)]
    pub rough_cost_s: Option<f64>,
    /// How many observations the cost rests on.
    pub observations: u32,
    /// The most that one worker consumed without falling behind, in records/s: a bound while the cost is unknown.
    pub proven_per_s: f64,
    /// (when, seconds): the lag that the next slope is taken from.
    #[serde(default)]
    pub lag_mark: Option<(i64, f64)>,
    /// How fast the lag of its latest partition grew of late, seconds each second.
    #[serde(default)]
    pub lag_slope: Option<f64>,
    /// When the fleet grew for a lag that did not come nearer.
    #[serde(default)]
    pub relieved_ms: Option<i64>,
    /// When the group was last not settled: rebalancing, or seen for the first time.
    pub unsettled_ms: Option<i64>,
    /// When it began to rebalance, while it does.
    pub rebalancing_since_ms: Option<i64>,
    /// What it needed when that was last known.
    pub last_need: Option<u32>,
    /// What it consumed in all when workers were last found saturated, with how many workers: tells whether more workers helped.
    pub saturated: Option<Saturated>,
    /// Until then more workers are known not to help.
    pub futile_until_ms: Option<i64>,
    /// When its workers were last found waiting for the sink.
    pub sink_limited_ms: Option<i64>,
    /// Since when nothing of it has been consumed although something waits, or nothing is known of it.
    #[serde(default)]
    pub still_since_ms: Option<i64>,
    /// Since when its partitions cannot be asked for, or not all.
    #[serde(default)]
    pub unknown_since_ms: Option<i64>,
    /// After how many steps its load recurs, and when that was last sought.
    pub period: Option<usize>,
    pub period_sought_ms: Option<i64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Saturated {
    pub workers: u32,
    pub consumed_per_s: f64,
    pub since_ms: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct PartitionMemory {
    /// (when, end offset), oldest first.
    pub ends: VecDeque<(i64, i64)>,
    /// (when, committed offset), oldest first.
    pub commits: VecDeque<(i64, i64)>,
    /// Records/s, smoothed over half a minute.
    pub rate: Option<f64>,
    /// When an open transaction was first seen that it still has.
    pub open_since_ms: Option<i64>,
}

/// A load that held for a while.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Sample {
    /// When it ended.
    pub at_ms: i64,
    /// How long it held, seconds.
    pub for_s: f64,
    /// Records/s.
    pub rate: f64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct WorkerMemory {
    /// 1 is as fast as the others.
    pub speed: f64,
    pub observations: u32,
    /// How many partitions it owned and since when: rates measured over a change say nothing.
    pub owned: usize,
    pub owned_since_ms: i64,
    /// Since when records waited for it at every look.
    pub waiting_since_ms: Option<i64>,
    pub seen_ms: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct FleetMemory {
    /// What was asked for at the last snapshot.
    pub replicas: Option<u32>,
    /// When the number was last changed, by whomever.
    pub changed_ms: Option<i64>,
    pub raised_ms: Option<i64>,
    pub lowered_ms: Option<i64>,
    /// Since when each worker is missing that is, by its ordinal (by any number where ordinals are not known).
    #[serde(default)]
    pub missing_since_ms: BTreeMap<u32, i64>,
    /// Since when no connector has run.
    #[serde(default)]
    pub idle_since_ms: Option<i64>,
    /// When the number changed within the last hour, oldest first.
    pub resizes: VecDeque<i64>,
    /// The partitions that there are work for; fewer count only once they have been seen for a while.
    #[serde(default)]
    pub partitions: Option<u32>,
    /// Since when there are fewer.
    #[serde(default)]
    pub fewer_since_ms: Option<i64>,
    /// Since when somebody waits to join, at every look.
    #[serde(default)]
    pub waiting_since_ms: Option<i64>,
    /// Shrinks that were undone.
    #[serde(default)]
    pub regret: Regret,
    /// Seconds between decisions: the longest of late, forgotten slowly. Whoever asks seldom must be answered further ahead.
    #[serde(default)]
    pub every_s: f64,
}

impl GroupMemory {
    /// Notes how far the group is behind: the slope of its lag is taken over [`SLOPE_OVER_MS`].
    pub(super) fn note_lag(&mut self, now_ms: i64, lag_s: Option<f64>) {
        let Some(lag) = lag_s else {
            (self.lag_mark, self.lag_slope) = (None, None);
            return;
        };
        if lag <= LAG_GONE_S {
            self.relieved_ms = None;
        }
        match self.lag_mark {
            None => self.lag_mark = Some((now_ms, lag)),
            Some((at, before)) if now_ms - at >= SLOPE_OVER_MS => {
                self.lag_slope = Some((lag - before) * 1000.0 / (now_ms - at) as f64);
                self.lag_mark = Some((now_ms, lag));
            }
            Some(_) => {}
        }
    }
}

impl Memory {
    /// Workers that were asked for at the last snapshot.
    pub fn replicas(&self) -> Option<u32> {
        self.fleet.replicas
    }

    /// Whether a snapshot of this time is newer than those before it. One that is late is not; when several in a row are older and each is newer than the
    /// one before, the clock was set back, and all that was known is forgotten.
    pub(super) fn is_newer(&mut self, now_ms: i64) -> bool {
        if self.last_ms.is_none_or(|last| now_ms > last) {
            self.older = None;
            return true;
        }
        self.older = match self.older {
            Some((before, count)) if now_ms > before => Some((now_ms, count + 1)),
            Some(older) if now_ms == older.0 => Some(older),
            _ => Some((now_ms, 1)),
        };
        // A leader whose clock is a little behind its predecessor's only waits until it has passed.
        let far = self.last_ms.is_some_and(|last| last.saturating_sub(now_ms) > SET_BACK_MS);
        let set_back = far && self.older.is_some_and(|(_, count)| count >= OLDER_IN_A_ROW);
        if set_back {
            *self = Self::default();
        }
        set_back
    }
}

impl FleetMemory {
    /// Notes that a decision is asked for so long after the last one.
    pub(super) fn asked_after(&mut self, ms: i64) {
        self.every_s = (ms as f64 / 1000.0).clamp(0.0, EVERY_S_MAX).max(self.every_s * 0.8);
    }

    /// Notes how many were asked for and how many are there; `members` are the ordinals of these, as far as they are known.
    pub(super) fn note(&mut self, now_ms: i64, replicas: u32, ready: u32, members: &BTreeSet<u32>) {
        match self.replicas {
            Some(before) if before != replicas => {
                self.changed_ms = Some(now_ms);
                *(if replicas > before { &mut self.raised_ms } else { &mut self.lowered_ms }) = Some(now_ms);
                self.resizes.push_back(now_ms);
            }
            _ => {}
        }
        self.replicas = Some(replicas);
        while self.resizes.front().is_some_and(|at| now_ms - at > 3_600_000) {
            self.resizes.pop_front();
        }
        self.note_missing(now_ms, replicas, ready, members);
    }

    /// Notes whether somebody waits to join.
    pub(super) fn note_waiting(&mut self, now_ms: i64, waiting: u32) {
        self.waiting_since_ms = (waiting > 0).then(|| self.waiting_since_ms.unwrap_or(now_ms));
    }

    /// Every worker that is missing has a clock of its own: one that never comes must not hide behind those that were asked for later.
    fn note_missing(&mut self, now_ms: i64, replicas: u32, ready: u32, members: &BTreeSet<u32>) {
        if members.len() == ready as usize {
            let missing = |ordinal: &u32| *ordinal < replicas && !members.contains(ordinal);
            self.missing_since_ms.retain(|ordinal, _| missing(ordinal));
            for ordinal in (0..replicas).filter(missing) {
                self.missing_since_ms.entry(ordinal).or_insert(now_ms);
            }
            return;
        }
        // Who came is not known: those that were asked for last are taken to come last.
        let missing = replicas.saturating_sub(ready) as usize;
        while self.missing_since_ms.len() > missing {
            let first = self.missing_since_ms.iter().min_by_key(|(_, since)| **since).map(|(ordinal, _)| *ordinal);
            first.and_then(|ordinal| self.missing_since_ms.remove(&ordinal));
        }
        let free = (0..replicas).filter(|ordinal| !self.missing_since_ms.contains_key(ordinal));
        for ordinal in free.take(missing - self.missing_since_ms.len()).collect::<Vec<_>>() {
            self.missing_since_ms.insert(ordinal, now_ms);
        }
    }

    /// How many have been missing for longer than this.
    pub(super) fn overdue(&self, now_ms: i64, deadline_ms: u64) -> u32 {
        let late = |since: &&i64| u64::try_from(now_ms - **since).is_ok_and(|for_ms| for_ms > deadline_ms);
        self.missing_since_ms.values().filter(late).count() as u32
    }

    /// Notes how many partitions running connectors have (`None`: not of all known), and says beyond how many workers there are too many. One
    /// look with a short list must not take workers away.
    pub(super) fn note_partitions(&mut self, now_ms: i64, partitions: Option<u32>) -> Option<u32> {
        match (partitions, self.partitions) {
            (Some(now), Some(before)) if now < before => {
                let since = *self.fewer_since_ms.get_or_insert(now_ms);
                if now_ms - since >= FEWER_FOR_MS {
                    (self.partitions, self.fewer_since_ms) = (partitions, None);
                }
            }
            (Some(_), _) => (self.partitions, self.fewer_since_ms) = (partitions, None),
            (None, _) => self.fewer_since_ms = None,
        }
        self.partitions
    }

    /// Seconds since the number was last changed.
    pub(super) fn since_change_s(&self, now_ms: i64) -> f64 {
        self.changed_ms.map_or(f64::INFINITY, |at| (now_ms - at) as f64 / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_partitions_count_once_they_have_stayed_fewer() {
        let mut fleet = FleetMemory::default();
        assert_eq!(fleet.note_partitions(0, None), None);
        assert_eq!(fleet.note_partitions(5_000, Some(12)), Some(12));
        assert_eq!(fleet.note_partitions(10_000, Some(4)), Some(12));
        assert_eq!(fleet.note_partitions(60_000, None), Some(12), "unknown: the minute begins anew");
        assert_eq!(fleet.note_partitions(70_000, Some(4)), Some(12));
        assert_eq!(fleet.note_partitions(129_000, Some(4)), Some(12));
        assert_eq!(fleet.note_partitions(130_000, Some(4)), Some(4));
        assert_eq!(fleet.note_partitions(135_000, Some(20)), Some(20), "more count at once");
    }

    #[test]
    fn a_late_snapshot_is_left_out_and_a_clock_that_was_set_back_begins_anew() {
        let mut memory = Memory { last_ms: Some(1_000_000), ..Memory::default() };
        let told = [900_000, 990_000, 990_000, 1_005_000].map(|now_ms| memory.is_newer(now_ms));
        assert_eq!(told, [false, false, false, true]);
        assert_eq!([960_000, 965_000, 970_000, 975_000].map(|now_ms| memory.is_newer(now_ms)), [false; 4], "another clock");
        assert_eq!([10, 5_000, 10_000].map(|now_ms| memory.is_newer(now_ms)), [false, false, true]);
        assert_eq!(memory, Memory::default());
    }

    #[test]
    fn each_missing_worker_has_a_clock_of_its_own() {
        let mut fleet = FleetMemory::default();
        let members = |ordinals: &[u32]| ordinals.iter().copied().collect::<BTreeSet<u32>>();
        fleet.note(0, 3, 2, &members(&[0, 2]));
        assert_eq!((fleet.overdue(180_000, 180_000), fleet.overdue(180_001, 180_000)), (0, 1));
        // Two more are asked for a minute later: number 1 is no younger for it.
        fleet.note(60_000, 5, 2, &members(&[0, 2]));
        assert_eq!((fleet.overdue(181_000, 180_000), fleet.overdue(241_000, 180_000)), (1, 3));
        fleet.note(70_000, 5, 4, &members(&[0, 2, 3, 4]));
        assert_eq!(fleet.overdue(300_000, 180_000), 1);
        // Number 4 crashes, number 1 comes: only the new one is missing, since now.
        fleet.note(200_000, 5, 4, &members(&[0, 1, 2, 3]));
        assert_eq!((fleet.overdue(300_000, 180_000), fleet.overdue(381_000, 180_000)), (0, 1));
    }

    #[test]
    fn without_ordinals_those_asked_for_first_come_first() {
        let mut fleet = FleetMemory::default();
        fleet.note(0, 4, 2, &BTreeSet::new());
        fleet.note(100_000, 6, 2, &BTreeSet::new());
        assert_eq!((fleet.overdue(181_000, 180_000), fleet.overdue(281_000, 180_000)), (2, 4));
        fleet.note(110_000, 6, 4, &BTreeSet::new());
        assert_eq!((fleet.overdue(181_000, 180_000), fleet.overdue(281_000, 180_000)), (0, 2));
        fleet.note(120_000, 6, 6, &BTreeSet::new());
        assert_eq!(fleet.overdue(900_000, 180_000), 0);
    }
}
