//! The fleet of somebody who knows the trace.
//!
//! Definition: the cheapest plan that changes its number of workers at most every [`STEP_S`] seconds, in the fluid model: the worst worker carries its share of
//! the load under the assignor's balance by count (a slow worker among them, where the trace has one), no noise, each change stops that worker for the rebalance, each
//! new worker is paid from 37 s (the mean start-up) before it works, and no record waits longer than the freshness target. It knows the trace, not how long each pod
//! takes to start: where every arrival stops all, it pays for the arrivals of those that it asks for together. Where that is impossible, it does what makes
//! the least records late. Found by dynamic programming over (workers, lag in levels), with the exact backlog kept for the cheapest way into each state: a plan that
//! can be had, not only a bound.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::super::snapshot::RebalanceProtocol;
use super::setting::Setting;
use super::trace::Trace;

/// Seconds between changes.
pub const STEP_S: usize = 15;
/// Lag levels of the search.
const LEVELS: usize = 16;
/// Mean start-up: 0.88 of 10 to 50 s and 0.12 of 50 to 120 s.
const STARTUP_S: f64 = 0.88 * 30.0 + 0.12 * 85.0;
/// What a worker-second of late records costs in the search: more than any number of workers saves.
const LATE: f64 = 1e4;

/// A plan: workers for each step, and what it costs.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Workers at work in each step of [`STEP_S`] seconds.
    pub workers: Vec<u32>,
    /// Worker-seconds, start-ups included.
    pub worker_s: f64,
    /// How often the number changes.
    pub resizes: u32,
}

/// The share of the load that the worst of n workers carries when counts are balanced: the mean of some deals, since nobody chooses the assignment.
///
/// One that is slow counts as if it carried as much more: the assignor gives it as much as the others, whoever decides.
pub(super) fn worst_share(shares: &[f64], n: usize, slow: Option<(u32, f64)>) -> f64 {
    const DEALS: usize = 6;
    let mut rng = ChaCha8Rng::seed_from_u64(n as u64);
    let mut sum = 0.0;
    for _ in 0..DEALS {
        let mut line: Vec<usize> = (0..shares.len()).collect();
        line.shuffle(&mut rng);
        let mut loads = vec![0.0; n];
        line.iter().enumerate().for_each(|(i, p)| loads[i % n] += shares[*p]);
        if let Some((ordinal, speed)) = slow
            && let Some(load) = loads.get_mut(ordinal as usize)
        {
            *load /= speed.max(0.05);
        }
        sum += loads.iter().copied().fold(0.0, f64::max);
    }
    sum / DEALS as f64
}

/// Seconds for which a change stops the worst worker. Where every arrival stops all, pods that come within the usual 40 s stop it one after another; stops overlap.
fn stopped_s(setting: &Setting, before: u32, n: u32) -> f64 {
    let pause_s = setting.pause_s() as f64;
    if setting.protocol == RebalanceProtocol::Cooperative || n < before {
        return pause_s;
    }
    let over_s = 40.0 + pause_s;
    over_s * (1.0 - (1.0 - pause_s / over_s).powf(f64::from(n - before)))
}

#[derive(Clone, Copy)]
struct Label {
    cost: f64,
    waits: f64,
    from: (usize, usize),
}

/// Finds the plan.
pub fn plan(setting: &Setting, trace: &Trace) -> Plan {
    let count = trace.shares.len();
    let most = (setting.limits.max as usize).min(count).max(1);
    let mut sizes: Vec<(u32, f64)> = Vec::new();
    for n in (setting.limits.min.max(1) as usize)..=most {
        let share = worst_share(&trace.shares, n, trace.slow);
        if sizes.last().is_none_or(|(_, s)| share < s - 1e-9) {
            sizes.push((n as u32, share));
        }
    }
    let peak = trace.load.iter().copied().fold(0.0, f64::max);
    let enough = sizes.iter().position(|(_, s)| s * peak < 0.4).map_or(sizes.len(), |i| i + 1);
    sizes.truncate(enough);
    let steps = trace.load.len().div_ceil(STEP_S);
    let target_s = setting.limits.freshness_target_ms as f64 / 1000.0;
    let empty = Label { cost: f64::INFINITY, waits: 0.0, from: (0, 0) };
    let mut table: Vec<Vec<[Label; LEVELS]>> = Vec::with_capacity(steps + 1);
    let mut first = vec![[empty; LEVELS]; sizes.len()];
    first.iter_mut().for_each(|row| row[0].cost = 0.0);
    table.push(first);
    for step in 0..steps {
        let range = step * STEP_S..((step + 1) * STEP_S).min(trace.load.len());
        let came: f64 = trace.load[range.clone()].iter().sum();
        let seconds = range.len() as f64;
        let recent: f64 = trace.load[range.end.saturating_sub(target_s as usize)..range.end].iter().sum();
        let sink = trace.sink_at(range.start).map(|limit| limit * seconds);
        let mut next = vec![[empty; LEVELS]; sizes.len()];
        for (i, (before, _)) in sizes.iter().enumerate() {
            for (level, label) in table[step][i].iter().enumerate().filter(|(_, l)| l.cost.is_finite()) {
                for (j, (n, share)) in sizes.iter().enumerate() {
                    let changed = i != j && step > 0;
                    // Below zero: the stop reaches into the next steps and is paid for at once.
                    let takes = ((seconds - if changed { stopped_s(setting, *before, *n) } else { 0.0 }) / share)
                        .min(sink.unwrap_or(f64::INFINITY));
                    let waits = (label.waits + came - takes).max(0.0);
                    let over = (waits - recent).max(0.0);
                    let mut cost = label.cost + f64::from(*n) * seconds + over * LATE;
                    if changed && n > before {
                        cost += f64::from(n - before) * STARTUP_S;
                    }
                    let to = ((waits / recent.max(1e-6)) * (LEVELS - 1) as f64).min((LEVELS - 1) as f64) as usize;
                    if cost < next[j][to].cost {
                        next[j][to] = Label { cost, waits, from: (i, level) };
                    }
                }
            }
        }
        table.push(next);
    }
    let last = &table[steps];
    let (mut i, mut level) = (0, 0);
    for (a, row) in last.iter().enumerate() {
        for (b, label) in row.iter().enumerate() {
            if label.cost < last[i][level].cost {
                (i, level) = (a, b);
            }
        }
    }
    let mut workers = Vec::with_capacity(steps);
    for step in (1..=steps).rev() {
        workers.push(sizes[i].0);
        (i, level) = table[step][i][level].from;
    }
    workers.reverse();
    let mut worker_s = 0.0;
    let mut resizes = 0;
    for (step, n) in workers.iter().enumerate() {
        worker_s += f64::from(*n) * ((trace.load.len() - step * STEP_S).min(STEP_S)) as f64;
        if step > 0 && *n != workers[step - 1] {
            resizes += 1;
            worker_s += f64::from(n.saturating_sub(workers[step - 1])) * STARTUP_S;
        }
    }
    Plan { workers, worker_s, resizes }
}
