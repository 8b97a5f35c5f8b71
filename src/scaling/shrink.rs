//! Shrinking: late, rarely, and only to what the last minutes and the next ones need.

use super::assignment::GroupModel;
use super::forecast::STEP_S;
use super::observe::GroupView;
use super::queue::{Phase, Queue};
use super::round::{Round, Standing};
use super::standstill::NOBODY_MS;

/// How full the worst worker may have been in the mean, as a share of what is counted on.
const MEAN: f64 = 1.04;
/// The same over a stretch of an even load that is longer than what is looked back upon.
const EVEN_MEAN: f64 = 1.0;
/// A load is even while the means of its minutes differ by no more than this share from the mean of those after them, or by chance.
const EVEN: f64 = 0.08;
/// Three standard deviations of the difference of two such means, in those of the noise from look to look.
const BY_CHANCE: f64 = 1.7;
/// The longest such stretch that is looked at, and the shortest that says more than the last minutes, seconds.
const EVEN_MOST_S: f64 = 900.0;
const EVEN_LEAST_S: f64 = 240.0;
/// A fleet that is further behind does not shrink, as a share of the freshness target.
const LAG_TO_SHRINK: f64 = 0.35;
/// A load that has risen in each of so many minutes, and by this much in all, goes on rising.
const DRIFT_MINUTES: usize = 3;
const DRIFT: f64 = 1.03;
/// Workers that are less busy leave nothing waiting.
const CALM_BUSY: f64 = 0.6;
/// They take what comes: so much of it in one window, by chance.
const KEEPS_UP: f64 = 0.95;
/// And what is not committed is no older than this share of the freshness target.
const CALM_LAG: f64 = 0.5;

impl Round<'_> {
    /// The number to shrink to, or why not; an empty reason when there is nothing to gain.
    pub(super) fn shrink(&self) -> Result<u32, String> {
        let (replicas, now, limits) = (self.snapshot.replicas, self.snapshot.now_ms, self.snapshot.limits);
        if replicas <= limits.min {
            return Err(String::new());
        }
        // A worker that leaves makes every group rebalance; one that never settles must not hold the others up for ever.
        let moving = |name: &String| self.memory.groups.get(name).and_then(|m| m.rebalancing_since_ms).is_some_and(|at| now - at < 60_000);
        if let Some(group) = self.view.groups.iter().find(|g| moving(&g.name)) {
            return Err(format!("{} is rebalancing", group.name));
        }
        let starting = self.missing - self.overdue;
        if starting > 0 {
            return Err(format!("{starting} of {replicas} workers are still starting"));
        }
        let target_s = limits.freshness_target_ms as f64 / 1000.0;
        let floor = self.floor(target_s)?;
        let fleet = &self.memory.fleet;
        let tuning = self.tuning;
        let (eager, least_step, rest_s) = if self.eager {
            let stopping = self.stopping();
            (stopping.hold, stopping.step, stopping.rest_s)
        } else {
            (1.0, tuning.least_step, tuning.rest_s)
        };
        if fleet.since_change_s(now) < rest_s {
            return Err("the last change is too fresh".to_owned());
        }
        let resizes = fleet.resizes.len() as f64;
        let least_step = match resizes {
            r if r >= tuning.most_resizes => tuning.largest_step,
            r if r >= tuning.many_resizes => least_step.max(tuning.large_step),
            _ => least_step,
        };
        let often = resizes / tuning.resizes_per_hour;
        let slower = if often <= 1.0 { 1.0 } else { (often * often).min(4.0) };
        // What recurs needs no waiting: the outlook says when it comes back.
        let known = !self.groups.is_empty() && self.groups.iter().all(|g| g.outlook.period_s.is_some() || g.load < 1e-6);
        let hold_s = if known { 45.0 } else { self.tuning.hold_s * slower * eager };
        let runs = self.view.groups.iter().zip(&self.groups).filter(|(_, standing)| !standing.counts_for_nothing());
        let watched = runs.filter_map(|(group, _)| self.memory.groups.get(&group.name));
        let watched = watched.map(|m| m.history.front().map_or(0.0, |s| (now - s.at_ms) as f64 / 1000.0 + s.for_s));
        if watched.fold(f64::INFINITY, f64::min) < (hold_s * 0.9).min(120.0) {
            return Err("not watched for long enough to shrink".to_owned());
        }
        let models = self.models();
        let proven_only = self.groups.iter().any(|g| g.proven_only && g.load > 0.0);
        // While a worker's capacity is unknown, a step is small: nobody has carried more than what was seen yet.
        let (from, trust) = if proven_only {
            (replicas.saturating_sub((replicas / 6).max(1)).max(floor), 1.25)
        } else {
            (floor, self.tuning.target_down - if self.eager { self.stopping().reserve } else { 0.0 })
        };
        let regretted = self.regretted().unwrap_or(0);
        if regretted >= replicas {
            return Err("fewer were not enough for this load a while ago".to_owned());
        }
        let n = (from.max(regretted).max(1)..replicas).find(|n| self.would_do(&models, *n, hold_s, trust, target_s));
        let Some(n) = n else {
            return Err(if floor >= replicas { "a connector's need is unknown".to_owned() } else { String::new() });
        };
        let step = f64::from(replicas - n);
        if step < least_step * f64::from(replicas) { Err(String::new()) } else { Ok(n) }
    }

    /// The least number that connectors which hold allow: what they needed when that was known.
    fn floor(&self, target_s: f64) -> Result<u32, String> {
        let mut floor = self.snapshot.limits.min;
        // A stop adds to the lag that there is.
        let allowed_s = target_s * if self.eager { self.stopping().lag } else { LAG_TO_SHRINK };
        for (group, standing) in self.view.groups.iter().zip(&self.groups) {
            if standing.counts_for_nothing() {
                continue;
            }
            let known = self.memory.groups.get(&group.name);
            // At first nobody leaves for it; one that somebody consumes without being measured then keeps what it needed.
            let lasts = known.and_then(|m| m.unknown_since_ms).is_some_and(|at| self.snapshot.now_ms - at >= NOBODY_MS);
            if let Some(why) = group.unknown.as_ref().filter(|_| !lasts) {
                return Err(format!("{}: {why}", group.name));
            }
            let calm = standing.hold.is_none() && self.calm(group, standing, target_s);
            if standing.hold.is_some() {
                let last = known.and_then(|m| m.last_need);
                floor = floor.max(last.unwrap_or(self.snapshot.replicas));
            } else if !standing.lag_known {
                return Err(format!("the lag of {} is unknown", group.name));
            } else if let Some(lag) = standing.lag_s.filter(|lag| *lag > allowed_s && !calm) {
                return Err(format!("{} is {lag:.0} s behind", group.name));
            }
        }
        Ok(floor)
    }

    /// Whether a group's workers are far from busy and take what comes: then what is not committed does not wait for them, but for the next commit.
    fn calm(&self, group: &GroupView, standing: &Standing, target_s: f64) -> bool {
        let owns = |place: &usize| group.owners.contains(&Some(*place));
        let idle = |place: usize| self.view.workers[place].busy.is_some_and(|busy| busy < CALM_BUSY);
        let keeps_up = group.consumed.zip(group.total).is_some_and(|(consumed, produced)| consumed >= KEEPS_UP * produced);
        let mut owners = (0..self.view.workers.len()).filter(owns).peekable();
        owners.peek().is_some()
            && owners.all(idle)
            && keeps_up
            && group.settled
            && standing.lag_s.is_none_or(|lag| lag <= CALM_LAG * target_s)
    }

    /// Whether n workers would have done in the last `hold_s` seconds and will do in the next minutes.
    fn would_do(&self, models: &[GroupModel], n: u32, hold_s: f64, trust: f64, target_s: f64) -> bool {
        let worst = self.at(models, n);
        let allowed_s = self.tuning.replay_lag * target_s;
        let queue = Queue { waits: self.waits(&worst, models) };
        let phase = |pause_s| [Phase { from_s: 0.0, worst: worst.clone(), trust, pause_s }];
        let ahead = queue.run(&self.loads(models), &phase(self.pause_s()));
        // The rebalance of the step itself is not held against it, what it leaves must be gone soon.
        if ahead.risk_s(20.0, f64::INFINITY) > allowed_s {
            return false;
        }
        let past = self.past(models, hold_s);
        let steps = past.first().map_or(0, Vec::len);
        if steps == 0 {
            return true;
        }
        // A fleet that is a little too small falls behind slowly: it must have kept up in the mean, too.
        let carried: f64 = past.iter().zip(&worst.shares).map(|(loads, share)| loads.iter().sum::<f64>() * share).sum();
        let able = worst.speed * trust;
        carried / steps as f64 <= able * MEAN
            && self.drift(models, &worst.shares).is_none_or(|later| later <= able * EVEN_MEAN)
            && self.even_mean(models, &worst.shares).is_none_or(|mean| mean <= able * EVEN_MEAN)
            && Queue { waits: 0.0 }.run(&past, &phase(0.0)).risk_s(0.0, f64::INFINITY) <= allowed_s
    }

    /// What a worker with these shares will carry a few minutes from now when the load has risen minute by minute and goes on; none when it has not.
    fn drift(&self, models: &[GroupModel], shares: &[f64]) -> Option<f64> {
        let minutes = self.minutes(models, shares, (DRIFT_MINUTES + 1) as f64 * 60.0);
        let (first, last) = (*minutes.last()?, *minutes.first()?);
        let rises = minutes.len() > DRIFT_MINUTES && minutes.windows(2).all(|w| w[0] > w[1]) && last > first * DRIFT;
        rises.then_some(last * 2.0 - first)
    }

    /// What a worker with these shares would have carried in each of the last minutes, the newest first.
    fn minutes(&self, models: &[GroupModel], shares: &[f64], over_s: f64) -> Vec<f64> {
        let past = self.past(models, over_s);
        let steps = past.first().map_or(0, Vec::len);
        let carried: Vec<f64> = (0..steps).map(|i| past.iter().zip(shares).map(|(loads, share)| loads[i] * share).sum()).collect();
        carried.rchunks_exact((60.0 / STEP_S) as usize).map(|minute| minute.iter().sum::<f64>() / minute.len() as f64).collect()
    }

    /// What a worker with these shares would have carried in the mean since the load became as it is; none when that is not long ago.
    ///
    /// The last minutes alone say too little where a load is noisy: by chance they are often low, and the fleet would shrink to what it grew from.
    fn even_mean(&self, models: &[GroupModel], shares: &[f64]) -> Option<f64> {
        let (whole, noise) = self.groups.iter().fold((0.0, 0.0), |(whole, noise), g| (whole + g.load, noise + g.load * g.outlook.noise));
        let even = EVEN.max(BY_CHANCE * noise / f64::max(whole, 1e-9));
        let (mut sum, mut count) = (0.0, 0.0);
        for mean in self.minutes(models, shares, EVEN_MOST_S) {
            if count > 0.0 && (mean - sum / count).abs() > even * sum / count {
                break;
            }
            (sum, count) = (sum + mean, count + 1.0);
        }
        (count * 60.0 >= EVEN_LEAST_S).then(|| sum / count)
    }

    /// The loads of the last `over_s` seconds, in workers, by group and step; what hot partitions get beyond their part is left out, as of those to come.
    pub(super) fn past(&self, models: &[GroupModel], over_s: f64) -> Vec<Vec<f64>> {
        let steps = (over_s / STEP_S) as i64;
        let at = |history: &std::collections::VecDeque<super::memory::Sample>, ms: i64| {
            history.iter().rev().take_while(|s| s.at_ms >= ms).last().or(history.back()).map_or(0.0, |s| s.rate)
        };
        let group = |(g, view): (usize, &super::observe::GroupView)| {
            let cost = self.groups[g].cost_s.unwrap_or(0.0) * self.kept(models, g);
            let history = self.memory.groups.get(&view.name).map(|m| &m.history);
            let load = |i: i64| history.map_or(0.0, |h| at(h, self.snapshot.now_ms - i * 5000)) * cost;
            (0..steps).rev().map(load).collect()
        };
        self.view.groups.iter().enumerate().map(group).collect()
    }
}
