//! The decision: the least number of workers with which no record is expected to be late; up at once, down only as far as the last minutes allow.

use super::capacity::learn;
use super::decision::{Action, Decision};
use super::memory::Memory;
use super::observe::{View, observe};
use super::round::Round;
use super::snapshot::{Snapshot, WorkerLoad};
use super::tuning::Tuning;

/// How many workers the fleet is to have, by this snapshot and what `memory` kept of those before it. Pure: the only time is `snapshot.now_ms`. A snapshot that is not
/// newer than the last one changes nothing.
pub fn decide(snapshot: &Snapshot, memory: &mut Memory) -> Decision {
    decide_with(snapshot, memory, &Tuning::default())
}

/// The same with other constants: for the simulation that chose them.
pub fn decide_with(snapshot: &Snapshot, memory: &mut Memory, tuning: &Tuning) -> Decision {
    if !memory.is_newer(snapshot.now_ms) {
        return within_limits(snapshot, "holds", "the snapshot is not newer than the last one");
    }
    if let Some(last) = memory.last_ms {
        memory.fleet.asked_after(snapshot.now_ms - last);
    }
    if snapshot.groups.is_none() {
        // What is missing is unknown: nothing is learnt, forgotten or decided.
        memory.last_ms = Some(snapshot.now_ms);
        return within_limits(snapshot, "stays", "nothing is known of any connector");
    }
    let view = observe(snapshot, memory);
    learn(snapshot, &view, memory);
    let ready = snapshot.ready_workers.unwrap_or_else(|| at_work(&view));
    let member = |w: &&WorkerLoad| w.ready != Some(false);
    let members = snapshot.workers.iter().filter(member).filter_map(|w| w.ordinal).collect();
    memory.fleet.note(snapshot.now_ms, snapshot.replicas, ready, &members);
    memory.fleet.note_waiting(snapshot.now_ms, snapshot.waiting_workers.unwrap_or(0));
    Round::new(snapshot, &view, memory, tuning, ready).decide()
}

/// Workers that are members as far as their partitions tell: one that owns nothing while there are enough partitions has not come yet.
fn at_work(view: &View) -> u32 {
    let listed = view.workers.len();
    let mut owns = vec![false; listed];
    view.groups.iter().flat_map(|g| &g.owners).flatten().for_each(|owner| owns[*owner] = true);
    let owners = owns.iter().filter(|o| **o).count();
    let enough = view.groups.iter().any(|g| g.rates.len() >= listed);
    (if owners > 0 && enough { owners } else { listed }) as u32
}

/// The least that is allowed, where fewer are asked for: that needs no look at the load.
pub fn at_least(replicas: u32, min: u32) -> Option<Decision> {
    let reason = || format!("up from {replicas} to {min}: the least that is allowed");
    (replicas < min).then(|| Decision { action: Action::Up, ..undecided(min, reason()) })
}

/// The number as it is but for what is allowed, which needs no look at the load.
fn within_limits(snapshot: &Snapshot, word: &str, why: &str) -> Decision {
    let (replicas, limits) = (snapshot.replicas, snapshot.limits);
    let most = limits.max.max(limits.min).max(1);
    if replicas > most {
        return Decision { action: Action::Down, ..undecided(most, format!("down from {replicas} to {most}: the most that is allowed")) };
    }
    let stays = || undecided(replicas, format!("{word} at {replicas}: {why}"));
    at_least(replicas, limits.min.max(1)).unwrap_or_else(stays)
}

fn undecided(replicas: u32, reason: String) -> Decision {
    let (connectors, action) = (Vec::new(), Action::Hold);
    Decision { replicas, reason, action, connectors, missing_workers: 0, absent: false, hold_joins_ms: 0, cost_per_hour: None }
}
