//! Growing: at once, and at once as far as the next minutes need.

use super::assignment::GroupModel;
use super::limits::Hold;
use super::queue::{Phase, Queue};
use super::round::Round;

/// What an eager rebalance stops everything for, seconds.
const EAGER_S: f64 = 8.0;
/// How much of a load counts whose cost is only known not to exceed a bound.
const BOUND_COUNTED: f64 = 0.6;
/// The time in which most of several workers have come, each with an eager rebalance, seconds.
const STORM_S: f64 = 55.0;

impl Round<'_> {
    /// The number to grow to, if the fleet as it is will not do.
    pub(super) fn grow(&self, ceiling: u32) -> Option<u32> {
        let replicas = self.snapshot.replicas;
        let able = self.groups.iter().any(|g| g.hold.as_ref().is_none_or(Hold::may_grow) && !g.proven_only);
        if !able || replicas >= ceiling {
            return None;
        }
        let (tuning, limits) = (self.tuning, self.snapshot.limits);
        let target_s = limits.freshness_target_ms as f64 / 1000.0;
        let models = self.models();
        let mut loads = self.loads(&models);
        // What is only bounded from above would ask for workers that nobody needs.
        for (load, _) in loads.iter_mut().zip(&self.groups).filter(|(_, g)| g.proven_only) {
            load.iter_mut().for_each(|l| *l *= BOUND_COUNTED);
        }
        let ready = self.ready.clamp(1, replicas.max(1));
        let present = self.at(&models, ready);
        // Where every arrival stops all, asking for more because of what the arrivals themselves left waiting would never end.
        let waits = if self.eager() && self.missing > 0 { 0.0 } else { self.waits(&present, &models) };
        let queue = Queue { waits };
        let late = self.groups.iter().filter(|g| g.hold.is_none()).filter_map(|g| g.lag_s).any(|lag| lag > 0.6 * target_s);
        let drain_s = limits.recovery_target_ms as f64 / 1000.0 * if late { tuning.drain_late } else { tuning.drain };
        let end_s = tuning.startup_s + drain_s.max(20.0) + if self.eager() { STORM_S - tuning.startup_s } else { 0.0 };
        // Those that are on their way are expected halfway through a start-up.
        let coming_s = if self.missing > 0 { tuning.startup_s * 0.6 } else { 0.0 };
        let now = Phase { from_s: 0.0, worst: present, trust: 1.0, pause_s: 0.0 };
        let stay = |trust: f64| {
            let full = Phase {
                from_s: coming_s,
                worst: self.at(&models, replicas),
                trust,
                pause_s: if self.missing > 0 { self.pause_s() } else { 0.0 },
            };
            if self.missing > 0 { vec![now.clone(), full] } else { vec![full] }
        };
        let eager = self.eager();
        let course = queue.run(&loads, &stay(tuning.trust - if eager { tuning.eager_reserve } else { 0.0 }));
        // What comes later than a start-up and a little can be answered later.
        let enough = if self.missing > 0 {
            course.at_s(end_s)
        } else {
            course.risk_s(tuning.startup_s, tuning.startup_s + tuning.look_s * if eager { 2.0 } else { 1.0 })
        };
        if enough <= tuning.lag_trigger * target_s * if eager { 0.6 } else { 1.0 } {
            return None;
        }
        let n = self.enough(&models, &loads, &queue, &now, end_s, ceiling)?;
        let more = f64::from(n - replicas);
        Some((n + (more * tuning.spare).floor() as u32).min(ceiling))
    }

    /// Whether a rebalance stops all.
    pub(super) fn eager(&self) -> bool {
        self.view.groups.iter().any(|g| g.eager)
    }

    /// Seconds that a rebalance stops what it stops.
    pub(super) fn pause_s(&self) -> f64 {
        if self.eager() { EAGER_S } else { 3.0 }
    }

    /// The least number whose lag comes down in time; where none does, the least that comes near the best.
    fn enough(&self, models: &[GroupModel], loads: &[Vec<f64>], queue: &Queue, now: &Phase, end_s: f64, ceiling: u32) -> Option<u32> {
        let (tuning, replicas) = (self.tuning, self.snapshot.replicas);
        let target_s = self.snapshot.limits.freshness_target_ms as f64 / 1000.0;
        let eager = self.eager();
        let lag_of = |n: u32| {
            let worst = self.at(models, n);
            let course = if eager {
                // Every worker that comes stops all.
                let stops = (f64::from(n.saturating_sub(self.ready)) * EAGER_S / (STORM_S - 10.0)).min(0.8);
                let storm = Phase { from_s: 10.0, worst: now.worst.clone(), trust: 1.0 - stops, pause_s: 0.0 };
                let grown = Phase { from_s: STORM_S, worst, trust: tuning.target - 0.5 * tuning.eager_reserve, pause_s: 0.0 };
                queue.run(loads, &[now.clone(), storm, grown])
            } else {
                let grown = Phase { from_s: tuning.startup_s, worst, trust: tuning.target, pause_s: self.pause_s() };
                queue.run(loads, &[now.clone(), grown])
            };
            (course.at_s(end_s), course.risk_s(end_s, f64::INFINITY))
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
}
