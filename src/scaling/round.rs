//! One round of deciding: what each group stands for, whether to grow, how far to shrink.

use super::assignment::{GroupModel, Worst, placed, worst};
use super::decision::{Action, ConnectorNeed, CostPerHour, Decision};
use super::forecast::{ahead, peak};
use super::limits::{Hold, hold, note_futile};
use super::memory::Memory;
use super::observe::{GroupView, View};
use super::reason;
use super::snapshot::Snapshot;
use super::tuning::Tuning;

/// A partition whose load alone is beyond this share of a worker is hot: no number of workers helps it.
pub(super) const HOT: f64 = 0.97;
/// What a hot partition leaves to the others on its worker: it is late anyway, they need not be.
const BESIDE_HOT: f64 = 0.5;

/// A group's part in this round.
pub(super) struct Standing {
    pub hold: Option<Hold>,
    /// Worker-seconds of a record; a bound from above when `proven_only`.
    pub cost_s: Option<f64>,
    pub proven_only: bool,
    /// Workers' worth of load, now and expected; without backlog.
    pub load: f64,
    pub expected: f64,
    pub hot: Option<String>,
    /// The least workers that would do for it alone.
    pub need: Option<u32>,
    /// Its latest lag in seconds, as far as it is known, and whether all of it is.
    pub lag_s: Option<f64>,
    pub lag_known: bool,
}

pub(super) struct Round<'a> {
    pub snapshot: &'a Snapshot,
    pub view: &'a View,
    pub memory: &'a mut Memory,
    pub tuning: &'a Tuning,
    pub ready: u32,
    pub missing: u32,
    pub absent: bool,
    pub speeds: Vec<f64>,
    pub groups: Vec<Standing>,
}

/// What is asked about the future.
#[derive(Clone, Copy)]
struct Question {
    expected: bool,
    backlog: bool,
}

impl<'a> Round<'a> {
    pub(super) fn new(snapshot: &'a Snapshot, view: &'a View, memory: &'a mut Memory, tuning: &'a Tuning, ready: u32) -> Self {
        let missing = snapshot.replicas.saturating_sub(ready);
        let absent = memory
            .fleet
            .missing_since_ms
            .is_some_and(|since| missing > 0 && snapshot.now_ms - since > snapshot.limits.startup_deadline_ms() as i64);
        let speeds = view
            .workers
            .iter()
            .map(|w| memory.workers.get(&w.id).filter(|m| m.observations >= 8 && m.speed < 0.8).map_or(1.0, |m| m.speed))
            .collect();
        let mut round = Self { snapshot, view, memory, tuning, ready, missing, absent, speeds, groups: Vec::new() };
        for g in 0..view.groups.len() {
            let standing = round.stand(g);
            round.groups.push(standing);
        }
        for g in 0..view.groups.len() {
            let need = round.need_alone(g);
            round.groups[g].need = need;
            if let (Some(need), None, Some(memory)) = (need, &round.groups[g].hold, round.memory.groups.get_mut(&view.groups[g].name)) {
                memory.last_need = Some(need);
            }
        }
        round
    }

    fn stand(&mut self, g: usize) -> Standing {
        let (group, now) = (&self.view.groups[g], self.snapshot.now_ms);
        note_futile(self.snapshot, self.view, g, self.ready, self.memory);
        let hold = hold(self.snapshot, self.view, g, self.ready, self.memory);
        let fallback = self.memory.groups.values().filter_map(|m| m.cost_s).reduce(f64::max);
        let Some(memory) = self.memory.groups.get(&group.name) else {
            return Standing {
                hold,
                cost_s: None,
                proven_only: true,
                load: 0.0,
                expected: 0.0,
                hot: None,
                need: None,
                lag_s: None,
                lag_known: false,
            };
        };
        let proven = (memory.proven_per_s > 0.0).then(|| 1.0 / memory.proven_per_s);
        let cost_s = memory.cost_s.or(proven).or(fallback);
        let rate = group.total.unwrap_or_else(|| group.rates.iter().sum());
        let expected = ahead(&memory.fine, peak(&memory.history, now, 600.0), self.tuning.ahead_s).max(rate);
        let cost = cost_s.unwrap_or(0.0);
        let sum: f64 = group.rates.iter().sum();
        let hot = (0..group.rates.len())
            .filter(|p| memory.cost_s.is_some() && sum > 0.0 && group.rates[*p] * cost >= HOT)
            .max_by(|a, b| group.rates[*a].total_cmp(&group.rates[*b]))
            .map(|p| group.labels[p].clone());
        Standing {
            hold,
            cost_s,
            proven_only: memory.cost_s.is_none(),
            load: rate * cost,
            expected: expected * cost,
            hot,
            need: None,
            lag_s: group.known_lag_s(),
            lag_known: group.worst_lag_s().is_some(),
        }
    }

    /// What a group's partitions ask of their workers.
    fn model(&self, g: usize, question: Question) -> GroupModel {
        let (group, standing) = (&self.view.groups[g], &self.groups[g]);
        let sum: f64 = group.rates.iter().sum();
        let cost = standing.cost_s.unwrap_or(0.0);
        let level = if question.expected && !standing.proven_only { standing.expected } else { standing.load };
        let target_s = self.snapshot.limits.freshness_target_ms as f64 / 1000.0;
        let recovery_s = self.snapshot.limits.recovery_target_ms as f64 / 1000.0;
        let late = standing.lag_s.is_some_and(|lag| lag > 0.6 * target_s);
        let drain_s = (recovery_s * if late { self.tuning.drain_late } else { self.tuning.drain }).max(20.0);
        let count = group.rates.len().max(1) as f64;
        let demand = (0..group.rates.len())
            .map(|p| {
                let share = if sum > 0.0 { group.rates[p] / sum } else { 1.0 / count };
                let load = level * share;
                let waits = group.backlog[p].unwrap_or(0.0) * cost;
                let allowed = standing.load * share * self.tuning.lag_allowed * target_s;
                let drain = if question.backlog && standing.hold.is_none() && !standing.proven_only {
                    (waits - allowed).max(0.0) / drain_s
                } else {
                    0.0
                };
                if group.rates[p] * cost >= HOT && !standing.proven_only {
                    BESIDE_HOT
                } else {
                    (load + drain).min(self.tuning.target.max(load))
                }
            })
            .collect();
        GroupModel { assignor: group.assignor, topics: group.topics.clone(), demand, owners: group.owners.clone() }
    }

    fn models(&self, question: Question) -> Vec<GroupModel> {
        (0..self.groups.len()).map(|g| self.model(g, question)).collect()
    }

    /// The worst worker of n; of as many as there are now, by what they own.
    fn at(&self, models: &[GroupModel], n: u32) -> Worst {
        if n == self.snapshot.replicas
            && n as usize == self.view.workers.len()
            && let Some(now) = placed(models, n as usize, &self.speeds)
        {
            return now;
        }
        worst(models, n as usize, &self.speeds)
    }

    /// The least n from `from` to `to` whose worst worker carries no more than `limit`.
    fn least(&self, models: &[GroupModel], from: u32, to: u32, limit: f64) -> Option<u32> {
        let total: f64 = models.iter().flat_map(|m| &m.demand).sum();
        let mut n = from.max((total / limit).ceil() as u32).max(1);
        while n <= to {
            if self.at(models, n).demand <= limit {
                return Some(n);
            }
            n += 1 + n / 32;
        }
        None
    }

    /// The number with the least demand on the worst worker; of equals the smallest.
    fn best(&self, models: &[GroupModel], from: u32, to: u32) -> u32 {
        let mut found = (f64::INFINITY, from);
        let mut n = from.max(1);
        while n <= to {
            let demand = self.at(models, n).demand;
            if demand < found.0 - 0.02 {
                found = (demand, n);
            }
            n += 1 + n / 32;
        }
        found.1
    }

    fn need_alone(&self, g: usize) -> Option<u32> {
        let standing = &self.groups[g];
        if standing.hold.is_some() || standing.proven_only {
            return None;
        }
        let model = [self.model(g, Question { expected: true, backlog: true })];
        let count = model[0].demand.len() as u32;
        let total: f64 = model[0].demand.iter().sum();
        let mut n = ((total / self.tuning.target).ceil() as u32).max(1);
        while n < count && worst(&model, n as usize, &[]).demand > self.tuning.target {
            n += 1 + n / 32;
        }
        Some(n.min(count.max(1)))
    }

    /// The most workers that make sense: no more than partitions of running connectors.
    fn ceiling(&self) -> u32 {
        let partitions: usize = self.view.groups.iter().map(|g| g.rates.len()).sum();
        let max = self.snapshot.limits.max.max(self.snapshot.limits.min);
        if partitions == 0 { max } else { max.min(partitions as u32).max(self.snapshot.limits.min) }
    }

    pub(super) fn decide(mut self) -> Decision {
        let limits = self.snapshot.limits;
        let replicas = self.snapshot.replicas;
        let ceiling = self.ceiling();
        let (wanted, reason) = if replicas < limits.min {
            (limits.min, format!("up from {replicas} to {}: the least that is allowed", limits.min))
        } else if replicas > ceiling {
            (ceiling, reason::over_ceiling(&self, ceiling))
        } else {
            self.weigh(ceiling)
        };
        self.answer(wanted, reason)
    }

    fn weigh(&mut self, ceiling: u32) -> (u32, String) {
        let replicas = self.snapshot.replicas;
        if self.groups.iter().all(|g| g.hold.as_ref().is_some_and(Hold::blind)) {
            return (replicas, reason::all_hold(self));
        }
        if self.absent && self.missing > 0 {
            return match self.shrink() {
                Ok(n) => (n, reason::down(self, n)),
                Err(why) => (replicas, reason::absent(self, &why)),
            };
        }
        if let Some(n) = self.grow(ceiling) {
            return (n, reason::up(self, n));
        }
        match self.shrink() {
            Ok(n) => (n, reason::down(self, n)),
            Err(why) => (replicas, reason::stays(self, &why)),
        }
    }

    fn grow(&self, ceiling: u32) -> Option<u32> {
        let replicas = self.snapshot.replicas;
        let models = self.models(Question { expected: true, backlog: true });
        let able: bool = self.groups.iter().any(|g| g.hold.as_ref().is_none_or(Hold::may_grow) && !g.proven_only);
        if !able || replicas >= ceiling {
            return None;
        }
        let now = self.at(&models, replicas).demand;
        let trigger = if self.missing > 0 { self.tuning.trigger_starting } else { self.tuning.trigger };
        if now <= trigger {
            return None;
        }
        let target = self.tuning.target;
        let n = match self.least(&models, replicas + 1, ceiling, target) {
            Some(n) => n,
            None => {
                let n = self.best(&models, replicas, ceiling);
                if self.at(&models, n).demand > now * 0.93 { return None } else { n }
            }
        };
        let more = f64::from(n - replicas);
        Some((n + (more * self.tuning.spare).floor() as u32).min(ceiling))
    }

    /// The number to shrink to, or why not.
    fn shrink(&self) -> Result<u32, String> {
        let (replicas, now, limits) = (self.snapshot.replicas, self.snapshot.now_ms, self.snapshot.limits);
        let fleet = &self.memory.fleet;
        if replicas <= limits.min {
            return Err(String::new());
        }
        if self.missing > 0 && !self.absent {
            return Err(format!("{} of {replicas} workers are still starting", self.missing));
        }
        let mut floor = limits.min;
        for (g, standing) in self.groups.iter().enumerate() {
            let group = &self.view.groups[g];
            if group.rates.is_empty() {
                continue;
            }
            if standing.hold.is_some() {
                floor = floor.max(self.memory.groups.get(&group.name).and_then(|m| m.last_need).unwrap_or(replicas));
            } else if !standing.lag_known {
                return Err(format!("the lag of {} is unknown", group.name));
            }
        }
        let target_s = limits.freshness_target_ms as f64 / 1000.0;
        if let Some((g, lag)) = (0..self.groups.len())
            .filter_map(|g| self.groups[g].lag_s.map(|l| (g, l)))
            .find(|(g, l)| self.groups[*g].hold.is_none() && *l > 0.35 * target_s)
        {
            return Err(format!("{} is {lag:.0} s behind", self.view.groups[g].name));
        }
        let often = fleet.resizes.len() as f64 / self.tuning.resizes_per_hour;
        let slower = if often <= 1.0 { 1.0 } else { (often * often).min(4.0) };
        if fleet.since_change_s(now) < self.tuning.rest_s {
            return Err("the last change is too fresh".to_owned());
        }
        let hold_s = self.tuning.hold_s * slower;
        // What was not watched for as long as that is not known.
        let watched = self
            .memory
            .groups
            .values()
            .map(|m| m.history.front().map_or(0.0, |s| (now - s.at_ms) as f64 / 1000.0))
            .fold(f64::INFINITY, f64::min);
        if watched < (hold_s * 0.5).min(120.0) {
            return Err("not watched for long enough to shrink".to_owned());
        }
        let models = self.models(Question { expected: true, backlog: true });
        let proven_only = self.groups.iter().any(|g| g.proven_only && g.load > 0.0);
        // While a worker's capacity is unknown, a step is small: nobody has carried more than what was seen yet.
        let (from, limit) =
            if proven_only { (replicas.saturating_sub((replicas / 6).max(1)).max(floor), 1.25) } else { (floor, self.tuning.target_down) };
        let mut n = from.max(1);
        while n < replicas {
            if self.at(&models, n).demand <= limit && self.replay(&models, n, hold_s, limit) <= self.tuning.replay_lag * target_s {
                break;
            }
            n += 1;
        }
        if n >= replicas {
            return Err(if floor >= replicas { "a connector's need is unknown".to_owned() } else { String::new() });
        }
        let step = f64::from(replicas - n);
        if step < self.tuning.least_step * f64::from(replicas) { Err(String::new()) } else { Ok(n) }
    }

    /// The largest lag in seconds that the worst of n workers would have had in the last `over_s` seconds.
    fn replay(&self, models: &[GroupModel], n: u32, over_s: f64, limit: f64) -> f64 {
        let shares = self.at(models, n).shares;
        let since = self.snapshot.now_ms - (over_s * 1000.0) as i64;
        let steps = self
            .view
            .groups
            .iter()
            .filter_map(|g| self.memory.groups.get(&g.name))
            .map(|m| m.history.iter().filter(|s| s.at_ms > since).count())
            .max();
        let (mut waits, mut worst_lag) = (0.0_f64, 0.0_f64);
        for back in (0..steps.unwrap_or(0)).rev() {
            let (mut load, mut for_s) = (0.0, 0.0_f64);
            for (g, group) in self.view.groups.iter().enumerate() {
                let sample = self.memory.groups.get(&group.name).and_then(|m| m.history.iter().nth_back(back));
                if let Some(s) = sample {
                    load += s.rate * self.groups[g].cost_s.unwrap_or(0.0) * shares[g];
                    for_s = for_s.max(s.for_s);
                }
            }
            waits = (waits + (load - limit.min(1.0)) * for_s).max(0.0);
            worst_lag = worst_lag.max(waits / load.max(0.05));
        }
        worst_lag
    }

    fn answer(self, wanted: u32, reason: String) -> Decision {
        let replicas = self.snapshot.replicas;
        let action = match wanted.cmp(&replicas) {
            std::cmp::Ordering::Less => Action::Down,
            std::cmp::Ordering::Equal => Action::Hold,
            std::cmp::Ordering::Greater => Action::Up,
        };
        let connectors = self.groups.iter().zip(&self.view.groups).map(|(standing, group)| connector(standing, group)).collect();
        let partitions: usize = self.view.groups.iter().map(|g| g.rates.len()).sum();
        let cost_per_hour = self.snapshot.limits.worker_cost_per_hour.map(|cost| CostPerHour {
            now: cost * f64::from(replicas),
            chosen: cost * f64::from(wanted),
            one_per_partition: cost * partitions as f64,
        });
        Decision { replicas: wanted, reason, action, connectors, missing_workers: self.missing, absent: self.absent, cost_per_hour }
    }
}

fn connector(standing: &Standing, group: &GroupView) -> ConnectorNeed {
    ConnectorNeed {
        connector: group.name.clone(),
        replicas: standing.need,
        holds: standing.hold.as_ref().map(|h| h.words.clone()),
        produced_records_per_s: group.total,
        consumed_records_per_s: group.consumed,
        worker_capacity_records_per_s: standing.cost_s.filter(|c| !standing.proven_only && *c > 0.0).map(|c| 1.0 / c),
        lag_records: group.total_backlog().map(|b| b as i64),
        lag_s: standing.lag_s,
    }
}
