//! What recurs: the period of a load, found in its history, and what it says about the next minutes.

use std::collections::VecDeque;

use super::memory::Sample;

/// The grid on which periods are sought, seconds.
pub(super) const GRID_S: f64 = 10.0;
/// The longest history looked at, in grid steps: one hour and a half.
const REACH: usize = 540;
/// Squared difference between one period and the one before, as a share of what two unrelated stretches would differ by.
const ALIKE: f64 = 0.16;
/// Shorter periods are smoothed out by the lag that is allowed.
const SHORTEST: usize = 6;

/// The load on the grid, newest last; gaps are filled with what held before them.
pub(super) fn grid(history: &VecDeque<Sample>, now_ms: i64) -> Vec<f64> {
    let Some(first) = history.front() else { return Vec::new() };
    let begin_ms = (first.at_ms - (first.for_s * 1000.0) as i64).max(now_ms - (REACH as f64 * GRID_S * 1000.0) as i64);
    let steps = ((now_ms - begin_ms) as f64 / 1000.0 / GRID_S) as usize;
    let mut out = Vec::with_capacity(steps);
    let mut at = 0;
    for step in 0..steps {
        let middle_ms = now_ms - ((steps - step) as f64 * GRID_S * 1000.0 - GRID_S * 500.0) as i64;
        while at + 1 < history.len() && history[at].at_ms < middle_ms {
            at += 1;
        }
        out.push(history[at].rate);
    }
    out
}

/// The period in grid steps, when the last one was like the one before: the first deep minimum of the difference function after it was high once (as YIN finds a
/// pitch: a slow drift alone is no period).
pub(super) fn period(load: &[f64]) -> Option<usize> {
    let n = load.len();
    let mut parted = false;
    let mut best: Option<(usize, f64)> = None;
    for k in SHORTEST..=n / 2 {
        let over = k.max(24).min(n - k);
        let recent = &load[n - over..];
        let mean = recent.iter().sum::<f64>() / over as f64;
        let spread: f64 = recent.iter().map(|y| (y - mean).powi(2)).sum();
        if spread < over as f64 * (0.1 * mean).powi(2) || spread <= 0.0 {
            continue;
        }
        let apart: f64 = (n - over..n).map(|i| (load[i] - load[i - k]).powi(2)).sum::<f64>() / (2.0 * spread);
        if apart > 0.5 {
            parted = true;
        }
        match best {
            _ if !parted => {}
            Some((_, least)) if apart < least => best = Some((k, apart)),
            // Past the first deep minimum: multiples of the period say nothing new.
            Some(_) if apart > 0.4 => break,
            Some(_) => {}
            None if apart < ALIKE => best = Some((k, apart)),
            None => {}
        }
    }
    best.map(|(k, _)| k)
}

/// The load `ahead_s` from now by what was one period ago.
pub(super) fn recurring(load: &[f64], period: usize, ahead_s: f64) -> f64 {
    let n = load.len();
    let back = ((ahead_s / GRID_S) as usize) % period;
    n.checked_sub(period).and_then(|start| load.get(start + back)).copied().unwrap_or(0.0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_saw_has_its_period_and_a_ramp_has_none() {
        let saw: Vec<f64> = (0..100).map(|i| 1.0 + f64::from(i % 12)).collect();
        assert_eq!(period(&saw), Some(12));
        let ramp: Vec<f64> = (0..200).map(|i| 100.0 + f64::from(i)).collect();
        assert_eq!(period(&ramp), None);
        let flat: Vec<f64> = (0..200).map(|i| 100.0 + f64::from(i * 7919 % 13) * 0.3).collect();
        assert_eq!(period(&flat), None);
    }

    #[test]
    fn bursts_come_again() {
        let bursts: Vec<f64> = (0..230).map(|i| if i % 100 < 20 { 50.0 } else { 1.0 }).collect();
        assert_eq!(period(&bursts), Some(100));
        assert!((recurring(&bursts, 100, 700.0) - 50.0).abs() < 1e-9);
        assert!((recurring(&bursts, 100, 100.0) - 1.0).abs() < 1e-9);
    }
}
