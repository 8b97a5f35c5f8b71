//! Workers that were asked for together join together: where a rebalance stops all, or moves nearly all, one stop takes the place of many.
//!
//! A fleet that says who waits ([`Snapshot::waiting_workers`](super::Snapshot)) follows [`Decision::hold_joins_ms`](super::Decision). When to let those join who
//! have started is weighed like a number of workers: each moment of the next minute is run as a queue, with the stop that it costs, with as many as will have started
//! by then, and with those who come later.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::assignment::Worst;
use super::grow::Growth;
use super::queue::{Course, Phase};
use super::round::Round;
use super::startup::{started, starts_within};

/// The moments that are weighed, seconds from now.
const OPENINGS_S: [f64; 11] = [0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0, 40.0, 50.0, 60.0];
/// How long after one opening the next comes: for those who start later. The last is as good as never.
pub(super) const NEXT_S: [f64; 3] = [20.0, 40.0, 120.0];
/// Nobody is waited for beyond this, seconds.
const ALL_S: f64 = 130.0;
/// Nobody who has started waits for longer, milliseconds: by then 88 % of those that were asked for are there.
const WAIT_MOST_MS: i64 = 60_000;
/// Part of a worker from which on it is counted as one more.
const COUNTED: f64 = 0.7;
/// A price below which nothing is late to speak of, in seconds of lag times seconds.
const CALM: f64 = 0.5;

/// The worst workers of fleets of each size, found once.
#[derive(Default)]
pub(super) struct Fleets(RefCell<BTreeMap<u32, Worst>>);

impl Round<'_> {
    /// How long those who have started wait for others before they join, milliseconds from now, when so many workers are wanted.
    pub(super) fn hold_joins_ms(&self, wanted: u32) -> u64 {
        let missing = wanted.saturating_sub(self.ready);
        if !self.waits_to_join || missing == 0 {
            return 0;
        }
        // Others may never come.
        if self.memory.fleet.waiting_since_ms.is_some_and(|at| self.snapshot.now_ms - at >= WAIT_MOST_MS) {
            return 0;
        }
        let prices = self.opening_prices(&self.growth(), wanted, 0.0, &Fleets::default());
        let least = prices.iter().map(|(_, price)| *price).fold(f64::INFINITY, f64::min);
        let all_there = missing.saturating_sub(self.overdue) <= self.waiting();
        let best = if least <= CALM && self.eager && !all_there {
            // Nothing becomes late: the fewest stops.
            prices.iter().rev().find(|(_, price)| *price <= CALM)
        } else {
            prices.iter().find(|(_, price)| *price <= (least * self.tuning.open_soon).max(CALM))
        };
        best.map_or(0, |(opening_s, _)| (opening_s * 1000.0) as u64)
    }

    fn waiting(&self) -> u32 {
        self.snapshot.waiting_workers.unwrap_or(0)
    }

    /// What each opening costs with n workers: lag beyond what is allowed, over time.
    pub(super) fn opening_prices(&self, growth: &Growth, n: u32, tail_s: f64, fleets: &Fleets) -> Vec<(f64, f64)> {
        let target_s = self.snapshot.limits.freshness_target_ms as f64 / 1000.0;
        let allowed_s = target_s * if self.eager { self.stopping().price } else { self.tuning.moving_price };
        let price = |opening_s: f64| {
            let each = NEXT_S.iter().map(|next_s| self.opened(growth, n, (opening_s, *next_s), fleets).beyond_s(allowed_s, tail_s));
            each.fold(f64::INFINITY, f64::min)
        };
        OPENINGS_S.iter().map(|opening_s| (*opening_s, price(*opening_s))).collect()
    }

    /// The fleet of now until those who wait join after `opening_s`, and again after `next_s` each, until n are there.
    pub(super) fn opened(&self, growth: &Growth, n: u32, (opening_s, next_s): (f64, f64), fleets: &Fleets) -> Course {
        let trust = self.tuning.target - if self.eager { self.stopping().reserve } else { 0.0 };
        let phase = |from_s, n| {
            let worst = fleets.0.borrow_mut().entry(n).or_insert_with(|| self.at(&growth.models, n)).clone();
            Phase { from_s, worst, trust, pause_s: self.pause_s() }
        };
        let mut phases = vec![growth.now.clone()];
        let (mut joined, mut at_s) = (self.ready, opening_s);
        while joined < n {
            let there = if at_s < ALL_S { self.started_by(at_s, n) } else { n };
            if there > joined {
                phases.push(phase(at_s, there));
                joined = there;
            }
            at_s += next_s;
        }
        growth.queue.run(&growth.loads, &phases)
    }

    /// How many of n are expected to have started so many seconds from now.
    fn started_by(&self, in_s: f64, n: u32) -> u32 {
        let now = self.snapshot.now_ms;
        let ages = self.memory.fleet.missing_since_ms.values().map(|since| (now - since) as f64 / 1000.0);
        let (sum, count) = ages.fold((0.0, 0.0), |(sum, count), age| (sum + starts_within(age, in_s), count + 1.0));
        let waiting = self.waiting().min(self.missing);
        let coming = f64::from(self.missing - waiting) * sum / f64::max(count, 1.0);
        let new = f64::from(n.saturating_sub(self.snapshot.replicas)) * started(in_s);
        let there = f64::from(self.ready + waiting) + coming + new;
        ((there + 1.0 - COUNTED).floor() as u32).min(n)
    }
}
