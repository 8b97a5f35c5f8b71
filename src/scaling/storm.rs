//! What it costs to grow where every rebalance stops all: pods that were asked for together come one after another, and each stops the whole group anew.

use super::assignment::Worst;
use super::queue::Phase;
use super::startup::{FIRST_S, SLOW_S, USUAL, USUAL_S};

/// What an eager rebalance stops everything for, seconds.
pub(super) const STOP_S: f64 = 8.0;
/// The time in which most of several workers have come, each with its rebalance, seconds.
pub(super) const MOST_S: f64 = 58.0;
/// The share of a stretch that is stopped when so many arrivals are spread over it: stops overlap.
fn stopped(arrivals: f64, over_s: f64) -> f64 {
    1.0 - (1.0 - STOP_S / over_s).powf(arrivals)
}

/// The fleet of `now` until `more` workers come, their storm, its stragglers, and then the whole with `grown` as its worst worker.
pub(super) fn phases(now: &Phase, grown: Worst, more: u32, trust: f64) -> [Phase; 4] {
    let more = f64::from(more);
    let usual = 1.0 - stopped(more * USUAL, USUAL_S + STOP_S);
    let slow = 1.0 - stopped(more * (1.0 - USUAL), SLOW_S + STOP_S);
    [
        now.clone(),
        Phase { from_s: FIRST_S, worst: now.worst.clone(), trust: usual, pause_s: 0.0 },
        Phase { from_s: MOST_S, worst: grown.clone(), trust: trust * slow, pause_s: 0.0 },
        Phase { from_s: FIRST_S + USUAL_S + SLOW_S + STOP_S, worst: grown, trust, pause_s: 0.0 },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stops_overlap_and_never_exceed_the_time() {
        assert!((stopped(1.0, 48.0) * 48.0 - STOP_S).abs() < 1e-9);
        let ten = stopped(10.0, 48.0);
        assert!(ten > 0.8 && ten < 10.0 * STOP_S / 48.0, "{ten}");
        assert!(stopped(1000.0, 48.0) <= 1.0);
    }

    #[test]
    fn more_arrivals_stop_the_group_for_longer() {
        let worst = Worst { demand: 0.5, shares: vec![0.5], speed: 1.0 };
        let now = Phase { from_s: 0.0, worst: worst.clone(), trust: 1.0, pause_s: 0.0 };
        let [_, few, ..] = phases(&now, worst.clone(), 2, 0.9);
        let [_, many, _, settled] = phases(&now, worst, 12, 0.9);
        assert!(few.trust > many.trust && many.trust > 0.0);
        assert!((settled.trust - 0.9).abs() < 1e-9);
    }
}
