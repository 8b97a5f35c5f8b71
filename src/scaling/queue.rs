//! The worst worker as a queue: what waits for it while the load takes its course and the fleet changes.

use super::assignment::Worst;
use super::forecast::STEP_S;

/// What the worst worker gets and what waits for it, in worker-seconds.
#[derive(Debug, Clone)]
pub(super) struct Queue {
    /// What waits in all that the fleet could take, as if it were spread like the load.
    pub waits: f64,
}

/// The course of lag beyond the last step is extended by what it did in so many.
const SLOPE_STEPS: usize = 6;

/// The course of lag that a fleet would have, seconds, by steps of [`STEP_S`].
#[derive(Debug, Clone)]
pub(super) struct Course {
    pub lag_s: Vec<f64>,
}

/// A fleet from a moment on.
#[derive(Debug, Clone)]
pub(super) struct Phase {
    /// From this second on.
    pub from_s: f64,
    pub worst: Worst,
    /// How much of a worker's capacity is counted on.
    pub trust: f64,
    /// How long nothing is taken at the beginning: a rebalance.
    pub pause_s: f64,
}

impl Queue {
    /// Runs through the phases. `loads[g][i]` is group g's load in workers at step i.
    pub(super) fn run(&self, loads: &[Vec<f64>], phases: &[Phase]) -> Course {
        let steps = loads.iter().map(Vec::len).min().unwrap_or(0);
        // Kept as a total: a worker's part of it changes with the number of workers.
        let mut total_waits = self.waits;
        let mut lag_s = Vec::with_capacity(steps);
        let mut smoothed: Option<f64> = None;
        for i in 0..steps {
            let t = i as f64 * STEP_S;
            let Some(phase) = phases.iter().rev().find(|p| t >= p.from_s).or(phases.first()) else { break };
            let whole: f64 = loads.iter().map(|l| l[i]).sum();
            let mine: f64 = loads.iter().zip(&phase.worst.shares).map(|(l, share)| l[i] * share).sum();
            let share =
                if whole > 1e-9 { mine / whole } else { phase.worst.shares.iter().sum::<f64>() / phase.worst.shares.len().max(1) as f64 };
            let paused = (phase.pause_s - (t - phase.from_s)).clamp(0.0, STEP_S);
            let takes = phase.worst.speed * phase.trust * (STEP_S - paused);
            let mut waits = total_waits * share + mine * STEP_S - takes;
            waits = waits.max(0.0);
            total_waits = if share > 1e-9 { waits / share } else { 0.0 };
            // Lag is how long it took what waits to come: by the load of the last half minute.
            let recent = smoothed.map_or(whole, |old| old + (whole - old) * 0.25);
            smoothed = Some(recent);
            lag_s.push(total_waits / recent.max(0.02));
        }
        Course { lag_s }
    }
}

impl Course {
    /// The largest lag from one second to another, unless it only falls from there: then what it falls to.
    pub(super) fn risk_s(&self, from_s: f64, to_s: f64) -> f64 {
        let from = ((from_s / STEP_S) as usize).min(self.lag_s.len().saturating_sub(1));
        let to = ((to_s / STEP_S).min(1e6) as usize + 1).clamp(from, self.lag_s.len());
        let rest = &self.lag_s[from..to];
        let falls = rest.windows(2).all(|w| w[1] <= w[0] + 0.3);
        if falls { rest.last().copied().unwrap_or(0.0) } else { rest.iter().copied().fold(0.0, f64::max) }
    }

    /// How much lag lies beyond a bound and for how long: its integral, in seconds times seconds. After the last step it goes on for
    /// `tail_s` as it did in the last of them.
    pub(super) fn beyond_s(&self, bound_s: f64, tail_s: f64) -> f64 {
        let within: f64 = self.lag_s.iter().map(|lag| (lag - bound_s).max(0.0) * STEP_S).sum();
        let Some(before) = self.lag_s.len().checked_sub(1 + SLOPE_STEPS).map(|i| self.lag_s[i]) else { return within };
        let last = self.lag_s.last().copied().unwrap_or(0.0);
        let slope = (last - before) / SLOPE_STEPS as f64;
        let later = (1..=(tail_s / STEP_S) as usize).map(|i| (last + slope * i as f64 - bound_s).max(0.0) * STEP_S);
        within + later.sum::<f64>()
    }

    /// The lag at a second.
    pub(super) fn at_s(&self, second: f64) -> f64 {
        self.lag_s.get((second / STEP_S) as usize).or(self.lag_s.last()).copied().unwrap_or(0.0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    fn phase(share: f64, from_s: f64) -> Phase {
        Phase { from_s, worst: Worst { demand: 0.0, shares: vec![share], speed: 1.0 }, trust: 1.0, pause_s: 0.0 }
    }

    #[test]
    fn half_as_much_again_as_a_worker_can_do_costs_a_third_of_the_time() {
        // 1.5 workers' load on one worker: of 60 s of records it takes 40 s' worth, 20 s wait.
        let course = Queue { waits: 0.0 }.run(&[vec![1.5; 12]], &[phase(1.0, 0.0)]);
        assert!((course.at_s(55.0) - 20.0).abs() < 0.5, "{course:?}");
        // With three from 30 s on what waited is gone soon.
        let course = Queue { waits: 0.0 }.run(&[vec![1.5; 24]], &[phase(1.0, 0.0), phase(1.0 / 3.0, 30.0)]);
        assert!(course.at_s(25.0) > 8.0 && course.at_s(60.0) < 0.1, "{course:?}");
    }

    #[test]
    fn what_a_lag_costs_does_not_end_with_the_forecast() {
        let grows = Course { lag_s: (0..12).map(f64::from).collect() };
        assert!((grows.beyond_s(10.0, 0.0) - 5.0).abs() < 1e-9, "one step, one second beyond");
        // Two more steps at 12 and 13 s.
        assert!((grows.beyond_s(10.0, 10.0) - 30.0).abs() < 1e-9, "{}", grows.beyond_s(10.0, 10.0));
        let falls = Course { lag_s: (0..12).rev().map(f64::from).collect() };
        assert!((falls.beyond_s(2.0, 600.0) - falls.beyond_s(2.0, 0.0)).abs() < 1e-9, "it is over");
    }

    #[test]
    fn a_lag_that_only_falls_is_judged_by_its_end() {
        let falls = Course { lag_s: vec![20.0, 15.0, 9.0, 4.0] };
        assert!((falls.risk_s(0.0, f64::INFINITY) - 4.0).abs() < 1e-9);
        let rises = Course { lag_s: vec![4.0, 12.0, 9.0, 4.0] };
        assert!((rises.risk_s(0.0, f64::INFINITY) - 12.0).abs() < 1e-9);
        assert!((rises.risk_s(10.0, 15.0) - 4.0).abs() < 1e-9);
    }
}
