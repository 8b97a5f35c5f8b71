//! What nobody avoids who learns of a rise only when it has begun: pods take their time.
//!
//! Definition: of the rises in a trace (the load goes beyond what a fleet does that suited the minute before) the largest counts; of several nearly as large, as
//! in bursts that recur, the first. Before it the fleet holds what a policy may that pays [`PRICE`] times what is needed. At the first decision after the load left
//! what it was, it asks for the number with which the fewest records become late, whatever that costs: found with hindsight, by running each number with
//! start-ups of its own draws; where workers wait for each other also the best of some waits. It holds it, and nothing that comes later than
//! [`HORIZON_S`] counts. So it errs towards too few late records. It is no bound
//! for who holds more before the rise (a burst that was expected, money saved elsewhere), or who lets a slow pod go and asks for it again.

use super::super::snapshot::{Assignor, RebalanceProtocol};
use super::clairvoyant::worst_share;
use super::setting::Setting;
use super::trace::Trace;
use super::world::World;

/// How many times the workers that the load needs are held before the rise: the price that the goal allows.
const PRICE: f64 = 1.3;
/// How full a worker may be before the rise, as at the start of every case.
const FULL: f64 = 0.85;
/// The load before: its mean over so many seconds.
const BEFORE_S: usize = 60;
/// A rise has begun when the load is this many times what it was: less is noise to whoever does not know the future.
const NOTICED: f64 = 1.2;
/// A rise is weighed by what exceeds the fleet before it within this time, and seconds beyond the fleet that lie closer belong to one rise.
const RISE_S: usize = 120;
/// The first rise that weighs this share of the largest counts.
const AS_LARGE: f64 = 0.8;
/// Seconds from the decision on in which late records count.
const HORIZON_S: usize = 300;
/// The longest wait for others that is tried, and between two of them, seconds.
const HOLD_S: usize = 50;
const HOLD_STEP_S: usize = 10;
/// A fleet whose fullest worker carries this little of the peak is large enough: more are not tried.
const PLENTY: f64 = 0.25;

/// The fleet that asks at once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prompt {
    /// The second at which it decides.
    pub at_s: usize,
    /// Workers until then.
    pub held: u32,
    /// Workers that it asks for.
    pub asked: u32,
    /// Records that become late all the same.
    pub late_records: f64,
}

/// Runs it through the rise; none where the load never rises beyond a fleet, and where something else than the load makes records late.
pub fn prompt(setting: &Setting, trace: &Trace) -> Option<Prompt> {
    if !trace.sink.is_empty() || trace.slow.is_some() {
        return None;
    }
    let fleets = Fleets::of(setting, trace);
    let (onset, before) = onset(trace, &fleets)?;
    let held = fleets.held(before);
    let at_s = (onset + 2).next_multiple_of(setting.interval_s);
    let start = Setting { workers: held, ..setting.clone() };
    let mut world = World::new(&start, trace);
    world.now = at_s.saturating_sub(BEFORE_S);
    while world.now < at_s.min(trace.load.len()) {
        world.second();
    }
    let end = (at_s + HORIZON_S).min(trace.load.len());
    let peak = trace.load[onset..end].iter().copied().fold(0.0, f64::max);
    let mut best = Prompt { at_s, held, asked: held, late_records: f64::INFINITY };
    let mut n = held;
    while n <= fleets.most() {
        for hold_s in holds(setting) {
            let mut tried = world.clone();
            tried.resize(n);
            tried.joins_held_until = at_s + hold_s;
            while tried.now < end && tried.late < best.late_records {
                tried.second();
            }
            tried.close();
            if tried.late < best.late_records {
                best = Prompt { asked: n, late_records: tried.late, ..best };
            }
        }
        if best.late_records <= 0.0 || fleets.fullest(n) * peak < PLENTY {
            break;
        }
        n += 1 + n / 24;
    }
    Some(best)
}

/// How long those who have started wait for others, where that makes a difference: once, the best for all.
fn holds(setting: &Setting) -> Vec<usize> {
    let dear = setting.protocol == RebalanceProtocol::Eager || setting.assignor == Assignor::Range;
    let most = if dear && !setting.hidden.waiting { HOLD_S } else { 0 };
    (0..=most).step_by(HOLD_STEP_S).collect()
}

/// What fleets of each size do, by the assignor's balance.
struct Fleets {
    least: u32,
    /// The share of the load on the fullest of n workers, from one worker on.
    fullest: Vec<f64>,
}

impl Fleets {
    fn of(setting: &Setting, trace: &Trace) -> Self {
        let most = (setting.limits.max as usize).min(trace.shares.len()).max(1);
        Self { least: setting.limits.min.max(1), fullest: (1..=most).map(|n| worst_share(&trace.shares, n, None)).collect() }
    }

    fn most(&self) -> u32 {
        self.fullest.len() as u32
    }

    fn fullest(&self, n: u32) -> f64 {
        self.fullest[(n.clamp(1, self.most()) - 1) as usize]
    }

    /// The least workers of which none carries more than `full`.
    fn needed(&self, load: f64, full: f64) -> u32 {
        self.fullest.iter().position(|share| share * load <= full).map_or(self.most(), |i| i as u32 + 1)
    }

    fn held(&self, load: f64) -> u32 {
        let paid = (f64::from(self.needed(load, 1.0)) * PRICE) as u32;
        paid.max(self.needed(load, FULL)).clamp(self.least.min(self.most()), self.most())
    }
}

/// The last second before the rise that counts, and the load before it.
fn onset(trace: &Trace, fleets: &Fleets) -> Option<(usize, f64)> {
    let load = &trace.load;
    let mean = |from: usize, to: usize| load[from..to].iter().sum::<f64>() / (to - from).max(1) as f64;
    // Of each: its last second beyond the fleet, the second from which on most is, and how much.
    let mut rises: Vec<(usize, usize, f64)> = Vec::new();
    for s in BEFORE_S..load.len() {
        let able = 1.0 / fleets.fullest(fleets.held(mean(s - BEFORE_S, s)));
        if load[s] <= able {
            continue;
        }
        let weight = load[s..(s + RISE_S).min(load.len())].iter().map(|l| (l - able).max(0.0)).sum();
        match rises.last_mut() {
            Some((last, at, most)) if s - *last <= RISE_S => {
                *last = s;
                if weight > *most {
                    (*at, *most) = (s, weight);
                }
            }
            _ => rises.push((s, s, weight)),
        }
    }
    let largest = rises.iter().map(|r| r.2).reduce(f64::max)?;
    let (_, at, _) = rises.into_iter().find(|r| r.2 >= largest * AS_LARGE)?;
    // A slow rise began before it was beyond the fleet.
    let early = at.saturating_sub(BEFORE_S);
    let before = mean(early.saturating_sub(BEFORE_S), early.max(1));
    let onset = (0..at).rev().find(|s| load[*s] <= before * NOTICED).unwrap_or(0);
    Some((onset, before))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::super::super::snapshot::RebalanceProtocol;
    use super::super::{Case, Fixed, Policy, Shape, run};
    use super::*;

    fn case(shape: Shape, seed: u64) -> Case {
        let protocol = Some(RebalanceProtocol::Cooperative);
        Case::made(
            shape,
            seed,
            &Fixed { seconds: Some(1800), interval_s: Some(5), partitions: Some(24), peak: Some(10.0), protocol, ..Fixed::default() },
        )
    }

    #[test]
    fn a_burst_from_nothing_is_late_whoever_decides_and_a_slow_rise_is_not() {
        let Case { setting, mut trace, .. } = case(Shape::Burst, 1);
        // All that 24 workers can do: whoever asks for them after it came has not made up for it soon.
        trace.load.iter_mut().enumerate().for_each(|(t, load)| *load = if t < 600 { 0.3 } else { 22.0 });
        let late = prompt(&setting, &trace).unwrap();
        assert!(late.held == 1 && late.asked > 10 && late.late_records > 0.0, "{late:?}");
        assert_eq!(late.at_s, 605, "the first decision that can have seen it: {late:?}");
        trace.load.iter_mut().enumerate().for_each(|(t, load)| *load = 1.0 + t as f64 / 400.0);
        assert!(prompt(&setting, &trace).is_none_or(|p| p.late_records == 0.0));
        trace.load.iter_mut().for_each(|load| *load = 3.0);
        assert_eq!(prompt(&setting, &trace), None, "nothing rises");
    }

    #[test]
    fn whoever_holds_no_more_before_has_no_fewer_late() {
        for seed in 0..4 {
            let case = case(Shape::Burst, seed);
            let bound = prompt(&case.setting, &case.trace).unwrap();
            let ours = run(&case.setting, &case.trace, &Policy::Ours(Box::default()));
            let before = ours.course.iter().filter(|c| c.0 < bound.at_s).map(|c| c.2).max().unwrap();
            assert!(
                before > bound.held || ours.late_records >= bound.late_records * 0.9,
                "seed {seed}: {} of {bound:?}",
                ours.late_records
            );
        }
    }
}
