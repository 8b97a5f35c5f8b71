//! What one worker can do, learnt while it works: by its busy fraction, or by what it consumed while records waited.

use super::memory::Memory;
use super::observe::{GroupView, View};
use super::snapshot::Snapshot;

/// Below it a busy fraction is mostly overhead and says little about the cost of a record.
const BUSY_ENOUGH: f64 = 0.12;
/// Below it a busy fraction says nothing at all.
const HARDLY_BUSY: f64 = 0.004;
/// How much of a rough cost is taken from one look.
const ROUGH_STEP: f64 = 0.1;
/// Records of a group whose workers say nothing wait for them, not for the next commit, from this share of the freshness target on.
const SURELY_WAITING: f64 = 0.35;
/// From here on the sink, not the worker, sets the pace.
pub(super) const SINK_WAIT: f64 = 0.25;
/// A worker that is busy for less than this share of what its records should cost says that they cost less.
const CONTRADICTED: f64 = 0.5;
/// How far a cost is taken towards a bound that it exceeds.
const BOUND_STEP: f64 = 0.5;
/// A worker that always had this much of its own consumption waiting, in seconds, was saturated.
const ALWAYS_WAITING_S: f64 = 4.0;
/// A busy fraction below it contradicts saturation: something else holds the worker up.
pub(super) const NOT_BUSY: f64 = 0.7;

/// What one worker showed in the window.
struct Shown {
    place: usize,
    busy: f64,
    /// It was no busier than that: its records cost at most as much.
    at_most: bool,
    consumed: Vec<f64>,
}

/// Updates the cost of a record for each group and the speed of each worker.
pub(super) fn learn(snapshot: &Snapshot, view: &View, memory: &mut Memory) {
    let now = snapshot.now_ms;
    let mut shown = Vec::new();
    for (place, worker) in view.workers.iter().enumerate() {
        let Some(consumed) = worker.consumed.iter().copied().collect::<Option<Vec<f64>>>() else { continue };
        let sum: f64 = consumed.iter().sum();
        if sum <= 0.0 || worker.sink_wait.is_some_and(|w| w >= SINK_WAIT) {
            continue;
        }
        let unchanged = memory.workers.get(&worker.id).is_some_and(|w| now - w.owned_since_ms > snapshot.window_ms as i64);
        let settled = unchanged && view.groups.iter().all(|g| g.settled);
        let waited_ms = waited(view, memory, &worker.id, place, sum, now);
        let saturated = settled && waited_ms > 0 && worker.busy.is_none_or(|b| b >= NOT_BUSY);
        let mut consumed = consumed;
        let saturated = saturated
            && match worker.committed.iter().copied().collect::<Option<Vec<f64>>>() {
                // Between two looks at which records waited it did all it can; the window may begin before they waited.
                Some(committed) if waited_ms >= 4_500 && waited_ms < snapshot.window_ms as i64 => {
                    consumed = committed;
                    true
                }
                _ => waited_ms >= snapshot.window_ms as i64,
            };
        // More than it was thought to be able to: that much it can.
        let known: f64 =
            view.groups.iter().zip(&consumed).map(|(g, c)| memory.groups.get(&g.name).and_then(|m| m.cost_s).unwrap_or(0.0) * c).sum();
        let more = settled && worker.busy.is_none() && known > 1.0;
        let busy = if saturated || more { Some(1.0) } else { worker.busy.filter(|b| *b >= BUSY_ENOUGH) };
        if let Some(busy) = busy {
            shown.push(Shown { place, busy, at_most: false, consumed });
        } else if settled {
            prove(view, memory, place, &consumed);
            if let Some(busy) = worker.busy.filter(|b| *b >= HARDLY_BUSY) {
                let known = view.groups.iter().zip(&consumed).filter(|(_, c)| **c > 0.0).map(|(g, _)| g.name.as_str());
                rough(memory, known, busy / sum);
            }
            if worker.busy.is_some() {
                shown.push(Shown { place, busy: BUSY_ENOUGH, at_most: true, consumed });
            }
        }
    }
    if view.workers.is_empty() {
        by_commits(snapshot, view, memory);
    }
    costs(view, memory, &shown);
    speeds(view, memory, &shown);
}

/// A first idea of what a record of these groups costs, in worker-seconds.
fn rough<'a>(memory: &mut Memory, groups: impl Iterator<Item = &'a str>, cost_s: f64) {
    for group in groups {
        if let Some(known) = memory.groups.get_mut(group) {
            known.rough_cost_s = Some(known.rough_cost_s.map_or(cost_s, |old| old + (cost_s - old) * ROUGH_STEP));
        }
    }
}

/// Without a word from any worker: what is committed while records wait longer and longer is all that they can do.
fn by_commits(snapshot: &Snapshot, view: &View, memory: &mut Memory) {
    let workers = f64::from(snapshot.ready_workers.unwrap_or(snapshot.replicas).max(1));
    let target_s = snapshot.limits.freshness_target_ms as f64 / 1000.0;
    let Some(consumed) = view.groups.iter().map(|g| g.consumed).sum::<Option<f64>>().filter(|sum| *sum > 0.0) else { return };
    let short = |g: &&GroupView| {
        let waits = g.known_lag_s().is_some_and(|lag| lag > SURELY_WAITING * target_s);
        waits && g.settled && g.consumed.zip(g.total).is_some_and(|(consumed, produced)| consumed < produced)
    };
    rough(memory, view.groups.iter().filter(short).map(|g| g.name.as_str()), workers / consumed);
}

/// Whether records of this worker waited all the time.
fn always_waiting(view: &View, place: usize, consumed: f64) -> bool {
    let mut waiting = 0.0;
    for group in &view.groups {
        for p in (0..group.owners.len()).filter(|p| group.owners[*p] == Some(place)) {
            match group.backlog[p] {
                Some(b) => waiting += b,
                None => return false,
            }
        }
    }
    waiting >= consumed * ALWAYS_WAITING_S
}

/// For how long records of this worker have been seen waiting.
fn waited(view: &View, memory: &mut Memory, id: &str, place: usize, consumed: f64, now: i64) -> i64 {
    let waiting = always_waiting(view, place, consumed);
    let Some(known) = memory.workers.get_mut(id) else { return 0 };
    known.waiting_since_ms = waiting.then(|| known.waiting_since_ms.unwrap_or(now));
    known.waiting_since_ms.map_or(0, |at| now - at)
}

/// What a worker consumed without being known to be busy is a bound from below. One that is known to be nearly idle could do more: its records cost
/// no more than all the little that it worked.
fn prove(view: &View, memory: &mut Memory, place: usize, consumed: &[f64]) {
    let share = view.workers[place].busy.map_or(1.0, |busy| busy.max(BUSY_ENOUGH));
    for (g, group) in view.groups.iter().enumerate() {
        let late = (0..group.owners.len()).any(|p| group.owners[p] == Some(place) && group.lag_s[p].is_none_or(|lag| lag > 10.0));
        if let Some(known) = memory.groups.get_mut(&group.name)
            && !late
        {
            known.proven_per_s = known.proven_per_s.max(consumed[g] / share);
        }
    }
}

/// Kaczmarz steps: each worker's busy fraction is the sum over its groups of records/s times the cost of a record. Steps are small and clipped, so that noise of a
/// tenth averages out and one slow worker does not speak for all.
fn costs(view: &View, memory: &mut Memory, shown: &[Shown]) {
    let mut cost: Vec<Option<f64>> = view.groups.iter().map(|g| memory.groups.get(&g.name).and_then(|m| m.cost_s)).collect();
    let mut seen = vec![0_u32; cost.len()];
    // Those that have no cost yet begin with the median of what the workers that have them show.
    if cost.iter().any(Option::is_none) {
        for g in 0..cost.len() {
            if cost[g].is_none() {
                let mut first: Vec<f64> = shown
                    .iter()
                    .filter(|s| s.consumed[g] > 0.0 && !s.at_most)
                    .map(|s| {
                        let known: f64 = (0..s.consumed.len()).filter_map(|o| cost[o].map(|c| c * s.consumed[o])).sum();
                        let new: f64 = (0..s.consumed.len()).filter(|o| cost[*o].is_none()).map(|o| s.consumed[o]).sum();
                        ((s.busy - known).max(s.busy * 0.1)) / new
                    })
                    .collect();
                first.sort_by(f64::total_cmp);
                if let Some(median) = first.get(first.len() / 2) {
                    cost[g] = Some(*median);
                    seen[g] += 1;
                }
            }
        }
    }
    for s in shown {
        let norm: f64 = s.consumed.iter().map(|c| c * c).sum();
        let expected: f64 = (0..cost.len()).map(|g| cost[g].unwrap_or(0.0) * s.consumed[g]).sum();
        if norm <= 0.0 || expected <= 0.0 || (s.at_most && expected <= s.busy) {
            continue;
        }
        let observations = view.groups.iter().filter_map(|g| memory.groups.get(&g.name)).map(|m| m.observations).max().unwrap_or(0);
        // A bound is certain, and so is what is off by far; else a busy fraction is one of many noisy ones.
        let contradicted = s.busy < CONTRADICTED * expected;
        let step = if s.at_most || contradicted { BOUND_STEP } else { (1.0 / (1.0 + f64::from(observations))).max(0.04) * s.busy.min(1.0) };
        let error = (s.busy - expected).clamp(-0.3 * expected, 0.3 * expected);
        for g in 0..cost.len() {
            if let Some(c) = cost[g].as_mut()
                && s.consumed[g] > 0.0
            {
                *c = (*c + step * error * s.consumed[g] / norm).max(*c * 0.7);
                seen[g] += 1;
            }
        }
    }
    for (g, group) in view.groups.iter().enumerate() {
        if let Some(known) = memory.groups.get_mut(&group.name) {
            known.cost_s = cost[g];
            known.observations = (known.observations + seen[g]).min(10_000);
        }
    }
}

/// A worker that is busier than its records explain, again and again, is slow.
fn speeds(view: &View, memory: &mut Memory, shown: &[Shown]) {
    let cost: Vec<f64> = view.groups.iter().map(|g| memory.groups.get(&g.name).and_then(|m| m.cost_s).unwrap_or(0.0)).collect();
    for s in shown.iter().filter(|s| s.busy > 0.25 && !s.at_most) {
        let expected: f64 = (0..cost.len()).map(|g| cost[g] * s.consumed[g]).sum();
        if let Some(worker) = memory.workers.get_mut(&view.workers[s.place].id) {
            let speed = (expected / s.busy).clamp(0.1, 2.0);
            let step = (1.0 / (1.0 + f64::from(worker.observations))).max(0.1);
            worker.speed += (speed - worker.speed) * step;
            worker.observations = (worker.observations + 1).min(10_000);
        }
    }
}
