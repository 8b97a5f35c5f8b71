//! One round of deciding: what each group stands for, whether to grow, how far to shrink.

use super::assignment::{GroupModel, Worst, placed, worst};
use super::decision::{Action, ConnectorNeed, CostPerHour, Decision};
use super::forecast::{Outlook, Patience, STEPS, outlook};
use super::limits::{Hold, hold, note_futile};
use super::memory::Memory;
use super::observe::{GroupView, View};
use super::reason;
use super::snapshot::{Assignor, Snapshot};
use super::tuning::{Stopping, Tuning};

/// A partition whose load alone is beyond this share of a worker is hot: no number of workers helps it.
const HOT: f64 = 0.95;
/// From here on a partition is hopeless: others may share its worker, it is late anyway, they need not be.
const HOPELESS: f64 = 1.25;
/// What a hot partition leaves to the others on its worker of all that is counted on.
const LEFT_BY_HOT: f64 = 0.01;
/// What a hopeless one is counted with.
const COUNTED_HOPELESS: f64 = 0.65;

/// A group's part in this round.
pub(super) struct Standing {
    pub hold: Option<Hold>,
    /// Worker-seconds of a record; a bound from above when `proven_only`.
    pub cost_s: Option<f64>,
    pub proven_only: bool,
    /// Workers' worth of load, now and expected; without backlog.
    pub load: f64,
    pub expected: f64,
    pub outlook: Outlook,
    /// The partitions that alone exceed a worker.
    pub hot: Vec<usize>,
    /// The least workers that would do for it alone.
    pub need: Option<u32>,
    /// Its latest lag in seconds, as far as it is known, and whether all of it is.
    pub lag_s: Option<f64>,
    pub lag_known: bool,
    /// How fast that lag grew of late, seconds each second.
    pub lag_slope: Option<f64>,
}

impl Standing {
    /// It does not run: it neither asks for workers nor keeps them.
    pub(super) fn counts_for_nothing(&self) -> bool {
        self.hold.as_ref().is_some_and(Hold::counts_for_nothing)
    }
}

pub(super) struct Round<'a> {
    pub snapshot: &'a Snapshot,
    pub view: &'a View,
    pub memory: &'a mut Memory,
    pub tuning: &'a Tuning,
    pub ready: u32,
    pub missing: u32,
    /// Those of the missing that are past the start-up deadline: they count as absent.
    pub overdue: u32,
    pub speeds: Vec<f64>,
    /// A group's rebalance stops all of it.
    pub eager: bool,
    /// The fleet's workers wait for each other where joins are dear.
    pub waits_to_join: bool,
    pub groups: Vec<Standing>,
}

impl<'a> Round<'a> {
    pub(super) fn new(snapshot: &'a Snapshot, view: &'a View, memory: &'a mut Memory, tuning: &'a Tuning, ready: u32) -> Self {
        let missing = snapshot.replicas.saturating_sub(ready);
        // Who waits to join has started.
        let to_start = missing.saturating_sub(snapshot.waiting_workers.unwrap_or(0));
        let overdue = memory.fleet.overdue(snapshot.now_ms, snapshot.limits.startup_deadline_ms()).min(to_start);
        let speeds = view
            .workers
            .iter()
            .map(|w| memory.workers.get(&w.id).filter(|m| m.observations >= 8 && m.speed < 0.8).map_or(1.0, |m| m.speed))
            .collect();
        let eager = view.groups.iter().any(|g| g.eager);
        let waits_to_join = snapshot.waiting_workers.is_some() && (eager || view.groups.iter().any(|g| g.assignor == Assignor::Range));
        let mut round = Self { snapshot, view, memory, tuning, ready, missing, overdue, speeds, eager, waits_to_join, groups: Vec::new() };
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

    /// The constants for groups whose rebalance stops all, in this fleet.
    pub(super) fn stopping(&self) -> &'a Stopping {
        if self.waits_to_join { &self.tuning.together } else { &self.tuning.apart }
    }

    fn stand(&mut self, g: usize) -> Standing {
        let (group, now) = (&self.view.groups[g], self.snapshot.now_ms);
        note_futile(self.snapshot, self.view, g, self.ready, self.memory);
        let hold = hold(self.snapshot, self.view, g, self.ready, self.memory);
        let fallback = self.memory.groups.values().filter_map(|m| m.cost_s.or(m.rough_cost_s)).reduce(f64::max);
        let none = Outlook { path: vec![0.0; STEPS], period_s: None, noise: 0.0 };
        let counts = |hold: &Option<Hold>| !hold.as_ref().is_some_and(Hold::counts_for_nothing);
        let stopping = self.stopping();
        let often = self.memory.fleet.resizes.len() as f64 > self.tuning.resizes_per_hour;
        let Some(memory) = self.memory.groups.get_mut(&group.name).filter(|_| counts(&hold)) else {
            return Standing {
                hold,
                cost_s: None,
                proven_only: true,
                load: 0.0,
                expected: 0.0,
                outlook: none,
                hot: Vec::new(),
                need: None,
                lag_s: None,
                lag_known: false,
                lag_slope: None,
            };
        };
        let proven = (memory.proven_per_s > 0.0).then(|| 1.0 / memory.proven_per_s);
        let measured = memory.cost_s.or(memory.rough_cost_s);
        let cost_s = measured.or(proven).or(fallback);
        let proven_only = measured.is_none();
        let rate = group.total.unwrap_or_else(|| group.rates.iter().sum());
        let (ahead_s, patience) = match group.eager {
            true => (self.tuning.ahead_s * stopping.ahead, Patience::ShortOnlyFrom(stopping.floor)),
            false if often => (self.tuning.ahead_s, Patience::ShortOnlyFrom(self.tuning.often_floor)),
            false => (self.tuning.ahead_s, Patience::None),
        };
        let mut outlook = outlook(memory, now, group.recent, ahead_s, patience);
        if proven_only || group.total.is_none() {
            outlook.path.iter_mut().for_each(|r| *r = rate);
        }
        let cost = cost_s.unwrap_or(0.0);
        let hot: Vec<usize> = (0..group.rates.len()).filter(|p| !proven_only && group.rates[*p] * cost >= HOT).collect();
        let cool = |p: &usize| !hot.contains(p);
        let lag_s = (0..group.rates.len()).filter(cool).filter_map(|p| group.lag_s[p]).reduce(f64::max);
        // A fleet that is still growing or moving has not shown yet what it does.
        memory.note_lag(now, lag_s.filter(|_| self.missing == 0 && group.settled));
        let lag_slope = memory.lag_slope;
        let lag_known = group.lag_s.iter().all(Option::is_some);
        Standing {
            hold,
            cost_s,
            proven_only,
            load: rate * cost,
            expected: outlook.peak() * cost,
            outlook,
            hot,
            need: None,
            lag_s,
            lag_known,
            lag_slope,
        }
    }

    /// What a group's partitions ask of their workers when its load is `level` (in workers). A hot one asks for no more than what others leave.
    fn model(&self, g: usize, level: f64) -> GroupModel {
        let (group, standing) = (&self.view.groups[g], &self.groups[g]);
        let sum: f64 = group.rates.iter().sum();
        let count = group.rates.len().max(1) as f64;
        let counted_hot = self.tuning.target_down - LEFT_BY_HOT - if self.eager { self.stopping().reserve } else { 0.0 };
        let demand = (0..group.rates.len())
            .map(|p| {
                let load = level * if sum > 0.0 { group.rates[p] / sum } else { 1.0 / count };
                let cost = standing.cost_s.unwrap_or(0.0);
                match group.rates[p] * cost {
                    alone if standing.hot.contains(&p) && alone >= HOPELESS => load.min(COUNTED_HOPELESS),
                    _ if standing.hot.contains(&p) => load.min(counted_hot),
                    _ => load,
                }
            })
            .collect();
        GroupModel { assignor: group.assignor, topics: group.topics.clone(), demand, owners: group.owners.clone() }
    }

    /// All groups at the peaks of their outlooks, and at least at what they get now.
    pub(super) fn models(&self) -> Vec<GroupModel> {
        (0..self.groups.len()).map(|g| self.model(g, self.groups[g].expected.max(self.groups[g].load).max(1e-6))).collect()
    }

    /// All groups as they are now.
    pub(super) fn present_models(&self) -> Vec<GroupModel> {
        (0..self.groups.len()).map(|g| self.model(g, self.groups[g].load.max(1e-6))).collect()
    }

    /// The share of a group's load that is left when hot partitions are counted with their part.
    pub(super) fn kept(&self, models: &[GroupModel], g: usize) -> f64 {
        let level = self.groups[g].expected.max(self.groups[g].load).max(1e-6);
        models[g].demand.iter().sum::<f64>() / level
    }

    /// The loads to come, in workers, by group and step; what hot partitions get beyond their part is left out.
    pub(super) fn loads(&self, models: &[GroupModel]) -> Vec<Vec<f64>> {
        let path = |(g, standing): (usize, &Standing)| {
            let kept = self.kept(models, g);
            standing.outlook.path.iter().map(|r| r * standing.cost_s.unwrap_or(0.0) * kept).collect()
        };
        self.groups.iter().enumerate().map(path).collect()
    }

    /// What waits, in worker-seconds, as if it were spread like the load: the worst worker's counts.
    pub(super) fn waits(&self, now: &Worst, models: &[GroupModel]) -> f64 {
        // Who waits to join must be told when to, also while partitions move.
        let (mut total, mut by_worker) = (0.0, vec![0.0; self.view.workers.len()]);
        for (g, standing) in self.groups.iter().enumerate() {
            if standing.hold.as_ref().is_some_and(|h| !(self.waits_to_join && h.may_grow())) || standing.proven_only {
                continue;
            }
            let (group, cost) = (&self.view.groups[g], standing.cost_s.unwrap_or(0.0));
            for p in (0..group.rates.len()).filter(|p| !standing.hot.contains(p)) {
                let waits = group.backlog[p].unwrap_or(0.0) * cost;
                total += waits;
                if let Some(sum) = group.owners[p].and_then(|o| by_worker.get_mut(o)) {
                    *sum += waits;
                }
            }
        }
        let whole: f64 = models.iter().flat_map(|m| &m.demand).sum();
        let mine: f64 = models.iter().zip(&now.shares).map(|(m, share)| m.demand.iter().sum::<f64>() * share).sum();
        let share = if whole > 1e-9 { mine / whole } else { 1.0 };
        let worst = by_worker.iter().copied().fold(0.0, f64::max);
        total.max(if share > 1e-6 { worst / share } else { 0.0 })
    }

    /// The worst worker of n; of as many as there are now, by what they own.
    pub(super) fn at(&self, models: &[GroupModel], n: u32) -> Worst {
        // Only who is at work is looked at as it is: workers that are still coming own nothing yet.
        if n == self.ready
            && n as usize == self.view.workers.len()
            && let Some(now) = placed(models, n as usize, &self.speeds)
        {
            return now;
        }
        worst(models, n as usize, &self.speeds)
    }

    /// The least workers that would do for one group alone, at the peak of its outlook.
    fn need_alone(&self, g: usize) -> Option<u32> {
        let standing = &self.groups[g];
        if standing.hold.is_some() || standing.proven_only {
            return None;
        }
        let model = [self.model(g, standing.expected.max(standing.load))];
        let count = (model[0].demand.len() as u32).max(1);
        let total: f64 = model[0].demand.iter().sum();
        let mut n = ((total / self.tuning.target).ceil() as u32).max(1);
        while n < count && worst(&model, n as usize, &[]).demand > self.tuning.target {
            n += 1 + n / 32;
        }
        Some(n.min(count))
    }

    /// The most workers that make sense: no more than partitions of running connectors. What to grow to at most, and above what to shrink at once.
    fn ceilings(&mut self) -> (u32, u32) {
        let limits = self.snapshot.limits;
        let runs = || self.view.groups.iter().zip(&self.groups).filter(|(_, standing)| !standing.counts_for_nothing()).map(|(g, _)| g);
        let known = runs().all(|g| g.unknown.is_none());
        let partitions: usize = runs().map(|g| g.rates.len()).sum();
        let partitions = (known && partitions > 0).then_some(partitions as u32);
        let stood = self.memory.fleet.note_partitions(self.snapshot.now_ms, partitions);
        let max = limits.max.max(limits.min);
        let bounded = |count: Option<u32>| count.map_or(max, |count| max.min(count).max(limits.min));
        // Where not all are known, what was known before still bounds growing; nobody is taken away for it.
        (bounded(partitions.or(stood)), if known { bounded(partitions.and(stood)) } else { max })
    }

    pub(super) fn decide(mut self) -> Decision {
        let limits = self.snapshot.limits;
        let replicas = self.snapshot.replicas;
        let (ceiling, above) = self.ceilings();
        // Without a worker nothing is learnt: none at all is no fleet.
        let least = limits.min.max(1);
        let (wanted, reason) = if replicas < least {
            (least, format!("up from {replicas} to {least}: the least that is allowed"))
        } else if replicas > above {
            (above, reason::over_ceiling(&self, above))
        } else {
            self.weigh(ceiling)
        };
        self.answer(wanted, reason)
    }

    fn weigh(&mut self, ceiling: u32) -> (u32, String) {
        let replicas = self.snapshot.replicas;
        if self.groups.iter().all(Standing::counts_for_nothing) {
            return self.nothing_runs();
        }
        self.memory.fleet.idle_since_ms = None;
        if self.groups.iter().all(|g| g.hold.as_ref().is_some_and(Hold::blind)) {
            return (replicas, reason::all_hold(self));
        }
        if self.overdue > 0 {
            return match self.shrink() {
                Ok(n) => (n, reason::down(self, n)),
                Err(why) => (replicas, reason::absent(self, &why)),
            };
        }
        let stays = match self.grow(ceiling) {
            Ok(n) => {
                self.note_growth();
                return (n, reason::up(self, n));
            }
            Err(stays) => stays,
        };
        match self.shrink() {
            Ok(n) => {
                self.note_shrink(n);
                (n, reason::down(self, n))
            }
            Err(why) => (replicas, reason::stays(self, &why, stays)),
        }
    }

    /// Nobody needs a worker: after as long as the fleet looks back before it shrinks, the least is enough.
    fn nothing_runs(&mut self) -> (u32, String) {
        let (replicas, now) = (self.snapshot.replicas, self.snapshot.now_ms);
        let for_s = (now - *self.memory.fleet.idle_since_ms.get_or_insert(now)) as f64 / 1000.0;
        let wait_s = (self.tuning.hold_s - for_s).max(0.0);
        let wanted = if wait_s > 0.0 { replicas } else { replicas.min(self.snapshot.limits.min.max(1)) };
        (wanted, reason::nothing_runs(self, wanted, wait_s))
    }

    fn answer(self, wanted: u32, reason: String) -> Decision {
        let hold_joins_ms = self.hold_joins_ms(wanted);
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
        Decision {
            replicas: wanted,
            reason,
            action,
            connectors,
            missing_workers: self.missing,
            absent: self.overdue > 0,
            hold_joins_ms,
            cost_per_hour,
        }
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
