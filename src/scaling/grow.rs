//! Growing: at once, and at once as far as the next minutes need.

use super::assignment::{GroupModel, Worst, likely};
use super::gather::{Fleets, NEXT_S};
use super::limits::Hold;
use super::observe::GroupView;
use super::queue::{Course, Phase, Queue};
use super::round::{Round, Standing};
use super::storm;

/// How much of a load counts whose cost is only known not to exceed a bound.
const BOUND_COUNTED: f64 = 0.6;
/// How much less of a worker is counted on, where every rebalance stops all, while it is asked whether the fleet as it is will do.
const EAGER_LESS: f64 = 0.05;

/// More workers are worth it when what they leave is at most this share of what there would be without them.
const WORTH: f64 = 0.9;
/// While workers are on their way the fleet grows by this part of itself at least, where every arrival stops all.
const STEP_WHILE_COMING: u32 = 12;
/// What a worker is left of what it had when it is relieved.
const RELIEF: f64 = 0.9;
/// A fleet that was resized less than this ago has not shown yet what it does, seconds.
const STUCK_AFTER_S: f64 = 45.0;
/// What a relief did not help is left alone for so long.
const RELIEF_AGAIN_MS: i64 = 600_000;
/// How far the long run goes beyond the forecast, seconds.
const DRAIN_TAIL_S: f64 = 600.0;

/// What a larger fleet is measured by.
pub(super) struct Growth {
    pub models: Vec<GroupModel>,
    pub loads: Vec<Vec<f64>>,
    pub queue: Queue,
    /// The fleet as it is until more workers come.
    pub now: Phase,
    /// When the lag is to be down again, seconds from now.
    end_s: f64,
}

/// Why the fleet does not grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stays {
    /// It will do as it is, or nothing is known that asks for more.
    Enough,
    /// No more are allowed, or there are no more partitions.
    Most,
    /// More would not take anything from the worker that is worst off.
    Useless,
}

impl Round<'_> {
    /// The number to grow to, or why not.
    pub(super) fn grow(&mut self, ceiling: u32) -> Result<u32, Stays> {
        let replicas = self.snapshot.replicas;
        let able = self.groups.iter().any(|g| g.hold.as_ref().is_none_or(Hold::may_grow) && !g.proven_only);
        if !able {
            return Err(Stays::Enough);
        }
        if replicas >= ceiling {
            return Err(Stays::Most);
        }
        let (tuning, stopping) = (self.tuning, self.stopping());
        let target_s = self.snapshot.limits.freshness_target_ms as f64 / 1000.0;
        let growth = self.growth();
        let stays = self.stays(&growth);
        let look_s = tuning.look_s.max(self.memory.fleet.every_s + 5.0) * if self.eager { stopping.look } else { 1.0 };
        // What comes later than a start-up and the next decision can be answered later.
        let soon = match self.missing {
            0 => stays.risk_s(tuning.startup_s, tuning.startup_s + look_s),
            _ => stays.at_s(growth.end_s),
        };
        let share = match (self.eager, self.missing) {
            (false, _) => tuning.lag_trigger,
            (true, 0) => stopping.trigger,
            // Those that are on their way will stop all, again and again if they come one by one: more are asked for only when they will not do by far.
            (true, _) => stopping.again,
        };
        if soon <= share * target_s {
            if !self.stuck(target_s) {
                return Err(Stays::Enough);
            }
            let (relieved, now) = (self.relieved(&growth, ceiling), self.snapshot.now_ms);
            self.memory.groups.values_mut().filter(|m| m.lag_slope.is_some()).for_each(|m| m.relieved_ms = Some(now));
            return relieved.ok_or(Stays::Useless);
        }
        let n = if self.eager { self.least_stopped(&growth, &stays, ceiling) } else { self.enough(&growth, ceiling) };
        let n = n.ok_or(Stays::Useless)?;
        let more = f64::from(n - replicas);
        Ok((n + if self.eager { 0 } else { (more * tuning.spare).floor() as u32 }).min(ceiling))
    }

    /// Whether a group is behind and does not come nearer in time, though by its load it should: what waits may lie in few partitions, behind others that take
    /// their worker's time.
    fn stuck(&self, target_s: f64) -> bool {
        let fleet = &self.memory.fleet;
        if self.missing > 0 || fleet.since_change_s(self.snapshot.now_ms) < STUCK_AFTER_S {
            return false;
        }
        let (now, allowed_s) = (self.snapshot.now_ms, self.tuning.lag_trigger * target_s);
        let in_time_s = (self.snapshot.limits.recovery_target_ms as f64 / 1000.0).max(1.0);
        let slow =
            |g: &Standing| g.lag_s.zip(g.lag_slope).is_some_and(|(lag, slope)| lag > allowed_s && slope > -(lag - allowed_s) / in_time_s);
        // Without records that could be read nobody can be helped.
        let readable = |view: &GroupView| view.open_transaction.is_none() && view.total_backlog().is_none_or(|records| records > 0.0);
        let tried = |name: &str| self.memory.groups.get(name).and_then(|m| m.relieved_ms).is_some_and(|at| now - at < RELIEF_AGAIN_MS);
        let stuck =
            |(view, g): (&GroupView, &Standing)| g.hold.is_none() && !g.proven_only && slow(g) && readable(view) && !tried(&view.name);
        self.view.groups.iter().zip(&self.groups).any(stuck)
    }

    /// The least number that takes something from the worst worker.
    fn relieved(&self, growth: &Growth, ceiling: u32) -> Option<u32> {
        let enough = growth.now.worst.demand * RELIEF;
        candidates(self.snapshot.replicas + 1, ceiling).find(|n| likely(&growth.models, *n as usize, &self.speeds).demand <= enough)
    }

    /// What a larger fleet is measured by.
    pub(super) fn growth(&self) -> Growth {
        let (tuning, limits) = (self.tuning, self.snapshot.limits);
        let target_s = limits.freshness_target_ms as f64 / 1000.0;
        let models = self.models();
        let mut loads = self.loads(&models);
        // What is only bounded from above would ask for workers that nobody needs.
        for (load, _) in loads.iter_mut().zip(&self.groups).filter(|(_, g)| g.proven_only) {
            load.iter_mut().for_each(|l| *l *= BOUND_COUNTED);
        }
        let present = self.at(&models, self.ready.clamp(1, self.snapshot.replicas.max(1)));
        // Where every arrival stops all, asking for more because of what the arrivals themselves left waiting would never end.
        let waits = if self.eager && !self.waits_to_join && self.missing > 0 { 0.0 } else { self.waits(&present, &models) };
        let late = self.groups.iter().filter(|g| g.hold.is_none()).filter_map(|g| g.lag_s).any(|lag| lag > 0.6 * target_s);
        let drain_s = limits.recovery_target_ms as f64 / 1000.0 * if late { tuning.drain_late } else { tuning.drain };
        let begin_s = if self.eager { storm::MOST_S } else { tuning.startup_s };
        let now = Phase { from_s: 0.0, worst: present, trust: 1.0, pause_s: 0.0 };
        Growth { models, loads, queue: Queue { waits }, now, end_s: begin_s + drain_s.max(20.0) }
    }

    /// The course of lag with what was asked for already. Those that are on their way are expected halfway through a start-up.
    fn stays(&self, growth: &Growth) -> Course {
        let trust = self.tuning.trust - if self.eager { EAGER_LESS } else { 0.0 };
        let worst = self.at(&growth.models, self.snapshot.replicas);
        if self.missing > 0 && self.waits_to_join && self.eager {
            let fleets = Fleets::default();
            let prices = self.opening_prices(growth, self.snapshot.replicas, 0.0, &fleets);
            let best_s = prices.into_iter().min_by(|a, b| a.1.total_cmp(&b.1)).map_or(0.0, |(opening_s, _)| opening_s);
            return self.opened(growth, self.snapshot.replicas, (best_s, NEXT_S[0]), &fleets);
        }
        if self.missing == 0 {
            return growth.queue.run(&growth.loads, &[Phase { from_s: 0.0, worst, trust, pause_s: 0.0 }]);
        }
        let full = Phase { from_s: self.tuning.startup_s * 0.6, worst, trust, pause_s: self.pause_s() };
        growth.queue.run(&growth.loads, &[growth.now.clone(), full])
    }

    /// Seconds that a rebalance stops what it stops.
    pub(super) fn pause_s(&self) -> f64 {
        if self.eager { storm::STOP_S } else { 3.0 }
    }

    /// The least number whose lag comes down in time; where none does, the least that comes near the best.
    fn enough(&self, growth: &Growth, ceiling: u32) -> Option<u32> {
        let (tuning, replicas) = (self.tuning, self.snapshot.replicas);
        let target_s = self.snapshot.limits.freshness_target_ms as f64 / 1000.0;
        let course_of = |worst: Worst| {
            let grown = Phase { from_s: tuning.startup_s, worst, trust: tuning.target, pause_s: self.pause_s() };
            growth.queue.run(&growth.loads, &[growth.now.clone(), grown])
        };
        let lag_of = |n: u32| {
            let course = course_of(self.at(&growth.models, n));
            (course.at_s(growth.end_s), course.risk_s(growth.end_s, f64::INFINITY))
        };
        let mut best = (f64::INFINITY, replicas);
        for n in candidates(replicas + 1, ceiling) {
            let (end, after) = lag_of(n);
            if end <= tuning.lag_allowed * target_s && after <= tuning.lag_trigger * target_s {
                return Some(n);
            }
            if end.max(after) < best.0 * 0.97 {
                best = (end.max(after), n);
            }
        }
        // Nothing is enough. More workers are asked for only when they bring something, soon or in the long run: where much waits for one partition it is the
        // latter, for it does not share its worker any more.
        let (end, after) = lag_of(replicas);
        if best.1 > replicas && best.0 < end.max(after) * WORTH {
            return Some(best.1);
        }
        let drains = |worst: Worst| course_of(worst).beyond_s(tuning.lag_allowed * target_s, DRAIN_TAIL_S);
        // No fleet is done sooner than the partition that takes longest on a worker of its own.
        let alone = self.alone(growth, |course| course.beyond_s(tuning.lag_allowed * target_s, DRAIN_TAIL_S));
        let found = candidates(replicas + 1, ceiling)
            .map(|n| (n, drains(likely(&growth.models, n as usize, &self.speeds)).max(alone)))
            .reduce(|best, next| if next.1 < best.1 * 0.97 { next } else { best });
        found.filter(|(_, price)| *price < drains(self.at(&growth.models, replicas)) * WORTH).map(|(n, _)| n)
    }

    /// The price of the partition that costs most, each on a worker of its own after a start-up.
    fn alone(&self, growth: &Growth, price: impl Fn(&Course) -> f64) -> f64 {
        let whole: f64 = growth.models.iter().flat_map(|m| &m.demand).sum();
        let mut most = 0.0_f64;
        for (g, model) in growth.models.iter().enumerate().filter(|(g, _)| self.groups[*g].hold.is_none()) {
            let (sum, cost) = (model.demand.iter().sum::<f64>(), self.groups[g].cost_s.unwrap_or(0.0));
            for (p, demand) in model.demand.iter().enumerate() {
                let waits = self.view.groups[g].backlog[p].unwrap_or(0.0) * cost;
                if waits < 1.0 || *demand < 1e-6 || self.groups[g].hot.contains(&p) {
                    continue;
                }
                let mut shares = vec![0.0; growth.models.len()];
                shares[g] = demand / sum;
                let worst = Worst { demand: *demand, shares, speed: 1.0 };
                let grown = Phase { from_s: self.tuning.startup_s, worst, trust: self.tuning.target, pause_s: self.pause_s() };
                let queue = Queue { waits: waits * whole / demand };
                most = most.max(price(&queue.run(&growth.loads, &[growth.now.clone(), grown])));
            }
        }
        most
    }

    /// Where every arrival stops all: the least number with which fewest records become late, its arrivals included; none where staying costs no more.
    fn least_stopped(&self, growth: &Growth, stays: &Course, ceiling: u32) -> Option<u32> {
        let (stopping, replicas) = (self.stopping(), self.snapshot.replicas);
        let target_s = self.snapshot.limits.freshness_target_ms as f64 / 1000.0;
        let price = |course: &Course| course.beyond_s(stopping.price * target_s, stopping.tail_s);
        let fleets = Fleets::default();
        let priced = |n: u32| {
            if self.waits_to_join {
                let prices = self.opening_prices(growth, n, stopping.tail_s, &fleets);
                return prices.into_iter().map(|(_, price)| price).fold(f64::INFINITY, f64::min);
            }
            let worst = self.at(&growth.models, n);
            let phases = storm::phases(&growth.now, worst, n.saturating_sub(self.ready), self.tuning.target - stopping.reserve);
            price(&growth.queue.run(&growth.loads, &phases))
        };
        // While others are on their way one or two more are not worth a stop of their own.
        let least_step = if self.missing > 0 { (replicas / STEP_WHILE_COMING).max(1) } else { 1 };
        let prices: Vec<(u32, f64)> = candidates(replicas + least_step, ceiling).map(|n| (n, priced(n))).collect();
        let least = prices.iter().map(|(_, price)| *price).fold(f64::INFINITY, f64::min);
        let (n, of_n) = prices.into_iter().find(|(_, price)| *price <= least * stopping.near + 5.0)?;
        (of_n < price(stays)).then_some(n)
    }
}

/// Numbers to try: each, from 32 on fewer, and the last.
fn candidates(from: u32, to: u32) -> impl Iterator<Item = u32> {
    let next = move |n: &u32| (*n < to).then(|| (n + 1 + n / 32).min(to));
    std::iter::successors((from <= to).then_some(from), next)
}

#[cfg(test)]
mod tests {
    use super::candidates;

    #[test]
    fn the_most_that_are_allowed_are_tried_too() {
        assert_eq!(candidates(3, 6).collect::<Vec<_>>(), [3, 4, 5, 6]);
        for to in 33..400 {
            assert_eq!(candidates(30, to).last(), Some(to));
        }
        assert_eq!(candidates(7, 6).count(), 0);
    }
}
