//! Growing: at once, and at once as far as the next minutes need.

use super::assignment::GroupModel;
use super::limits::Hold;
use super::queue::{Course, Phase, Queue};
use super::round::Round;
use super::storm;

/// How much of a load counts whose cost is only known not to exceed a bound.
const BOUND_COUNTED: f64 = 0.6;
/// How much less of a worker is counted on, where every rebalance stops all, while it is asked whether the fleet as it is will do.
const EAGER_LESS: f64 = 0.05;

/// What a larger fleet is measured by.
struct Growth<'a> {
    models: &'a [GroupModel],
    loads: Vec<Vec<f64>>,
    queue: Queue,
    /// The fleet as it is until more workers come.
    now: Phase,
    /// When the lag is to be down again, seconds from now.
    end_s: f64,
}

impl Round<'_> {
    /// The number to grow to, if the fleet as it is will not do.
    pub(super) fn grow(&self, ceiling: u32) -> Option<u32> {
        let replicas = self.snapshot.replicas;
        let able = self.groups.iter().any(|g| g.hold.as_ref().is_none_or(Hold::may_grow) && !g.proven_only);
        if !able || replicas >= ceiling {
            return None;
        }
        let (tuning, limits, eager) = (self.tuning, self.snapshot.limits, self.eager());
        let target_s = limits.freshness_target_ms as f64 / 1000.0;
        let models = self.models();
        let mut loads = self.loads(&models);
        // What is only bounded from above would ask for workers that nobody needs.
        for (load, _) in loads.iter_mut().zip(&self.groups).filter(|(_, g)| g.proven_only) {
            load.iter_mut().for_each(|l| *l *= BOUND_COUNTED);
        }
        let present = self.at(&models, self.ready.clamp(1, replicas.max(1)));
        // Where every arrival stops all, asking for more because of what the arrivals themselves left waiting would never end.
        let waits = if eager && self.missing > 0 { 0.0 } else { self.waits(&present, &models) };
        let late = self.groups.iter().filter(|g| g.hold.is_none()).filter_map(|g| g.lag_s).any(|lag| lag > 0.6 * target_s);
        let drain_s = limits.recovery_target_ms as f64 / 1000.0 * if late { tuning.drain_late } else { tuning.drain };
        let begin_s = if eager { storm::MOST_S } else { tuning.startup_s };
        let now = Phase { from_s: 0.0, worst: present, trust: 1.0, pause_s: 0.0 };
        let growth = Growth { models: &models, loads, queue: Queue { waits }, now, end_s: begin_s + drain_s.max(20.0) };
        let stays = self.stays(&growth);
        // What comes later than a start-up and the next decision can be answered later.
        let soon = if self.missing > 0 {
            stays.at_s(growth.end_s)
        } else {
            stays.risk_s(
                tuning.startup_s,
                tuning.startup_s + tuning.look_s.max(self.memory.fleet.every_s + 5.0) * if eager { tuning.eager_look } else { 1.0 },
            )
        };
        let share = match (eager, self.missing > 0) {
            (false, _) => tuning.lag_trigger,
            (true, false) => tuning.eager_trigger,
            // Those that are on their way will stop all again and again: more are asked for only when they will not do by far.
            (true, true) => tuning.eager_again,
        };
        if soon <= share * target_s {
            return None;
        }
        let n = if eager { self.least_stopped(&growth, &stays, ceiling) } else { self.enough(&growth, ceiling) }?;
        let more = f64::from(n - replicas);
        Some((n + if eager { 0 } else { (more * tuning.spare).floor() as u32 }).min(ceiling))
    }

    /// The course of lag with what was asked for already. Those that are on their way are expected halfway through a start-up.
    fn stays(&self, growth: &Growth<'_>) -> Course {
        let trust = self.tuning.trust - if self.eager() { EAGER_LESS } else { 0.0 };
        let worst = self.at(growth.models, self.snapshot.replicas);
        if self.missing == 0 {
            return growth.queue.run(&growth.loads, &[Phase { from_s: 0.0, worst, trust, pause_s: 0.0 }]);
        }
        let full = Phase { from_s: self.tuning.startup_s * 0.6, worst, trust, pause_s: self.pause_s() };
        growth.queue.run(&growth.loads, &[growth.now.clone(), full])
    }

    /// Whether a rebalance stops all.
    pub(super) fn eager(&self) -> bool {
        self.view.groups.iter().any(|g| g.eager)
    }

    /// Seconds that a rebalance stops what it stops.
    pub(super) fn pause_s(&self) -> f64 {
        if self.eager() { storm::STOP_S } else { 3.0 }
    }

    /// The least number whose lag comes down in time; where none does, the least that comes near the best.
    fn enough(&self, growth: &Growth<'_>, ceiling: u32) -> Option<u32> {
        let (tuning, replicas) = (self.tuning, self.snapshot.replicas);
        let target_s = self.snapshot.limits.freshness_target_ms as f64 / 1000.0;
        let lag_of = |n: u32| {
            let worst = self.at(growth.models, n);
            let grown = Phase { from_s: tuning.startup_s, worst, trust: tuning.target, pause_s: self.pause_s() };
            let course = growth.queue.run(&growth.loads, &[growth.now.clone(), grown]);
            (course.at_s(growth.end_s), course.risk_s(growth.end_s, f64::INFINITY))
        };
        let mut best = (f64::INFINITY, replicas);
        let mut n = replicas + 1;
        while n <= ceiling {
            let (end, after) = lag_of(n);
            if end <= tuning.lag_allowed * target_s && after <= tuning.lag_trigger * target_s {
                return Some(n);
            }
            if end.max(after) < best.0 * 0.97 {
                best = (end.max(after), n);
            }
            n += 1 + n / 32;
        }
        // Nothing is enough. More workers are asked for only when they bring something.
        let (end, after) = lag_of(replicas);
        (best.1 > replicas && best.0 < end.max(after) * 0.9).then_some(best.1)
    }

    /// Where every arrival stops all: the least number with which fewest records become late, its arrivals included; none where staying costs no more.
    fn least_stopped(&self, growth: &Growth<'_>, stays: &Course, ceiling: u32) -> Option<u32> {
        let (tuning, replicas) = (self.tuning, self.snapshot.replicas);
        let target_s = self.snapshot.limits.freshness_target_ms as f64 / 1000.0;
        let price = |course: &Course| course.beyond_s(tuning.eager_price * target_s, tuning.eager_tail_s);
        let prices: Vec<(u32, f64)> = candidates(replicas + 1, ceiling)
            .map(|n| {
                let worst = self.at(growth.models, n);
                let phases = storm::phases(&growth.now, worst, n.saturating_sub(self.ready), tuning.target - tuning.eager_reserve);
                (n, price(&growth.queue.run(&growth.loads, &phases)))
            })
            .collect();
        let least = prices.iter().map(|(_, price)| *price).fold(f64::INFINITY, f64::min);
        let (n, of_n) = prices.into_iter().find(|(_, price)| *price <= least * tuning.eager_near + 5.0)?;
        (of_n < price(stays)).then_some(n)
    }
}

/// Numbers to try: each, and from 32 on fewer.
fn candidates(from: u32, to: u32) -> impl Iterator<Item = u32> {
    std::iter::successors(Some(from), |n| Some(n + 1 + n / 32)).take_while(move |n| *n <= to)
}
