//! Where a load goes: the trend of the last seconds, and the peaks of the last minutes.

use std::collections::VecDeque;

use super::memory::Sample;

/// A change within the trend's reach counts when it exceeds this share of the load, and the noise.
const TREND_FLOOR: f64 = 0.06;
/// A trend may multiply the load by this much at most: nothing grows for ever.
const TREND_LIMIT: f64 = 2.5;

/// The load to expect `ahead_s` seconds from now, never below the present one: the steepest significant line through the last samples, within limits. Where the load
/// was higher within the last minutes, the trend does not go beyond that peak: what comes back comes back to where it was.
pub(super) fn ahead(fine: &VecDeque<Sample>, peak: f64, ahead_s: f64) -> f64 {
    let Some(last) = fine.back() else { return 0.0 };
    let mut best = last.rate;
    for reach_s in [12.0, 25.0, 60.0] {
        if let Some(rate) = line(fine, reach_s, ahead_s) {
            best = best.max(rate);
        }
    }
    best = best.min(last.rate * TREND_LIMIT + 1e-9);
    if last.rate < 0.85 * peak { best.min(peak.max(last.rate)) } else { best }
}

/// The least-squares line over the last `reach_s` seconds (two samples at least), extended; none when its rise may be noise.
fn line(fine: &VecDeque<Sample>, reach_s: f64, ahead_s: f64) -> Option<f64> {
    let last = fine.back()?;
    let mut points: Vec<(f64, f64)> = Vec::new();
    for s in fine.iter().rev() {
        // A sample is the mean over its time: it stands in the middle.
        let t = (s.at_ms - last.at_ms) as f64 / 1000.0;
        if t < -reach_s && points.len() >= 2 {
            break;
        }
        points.push((t - s.for_s / 2.0, s.rate));
        if t < -2.0 * reach_s - 30.0 {
            break;
        }
    }
    if points.len() < 2 {
        return None;
    }
    let n = points.len() as f64;
    let (mt, mr) = points.iter().fold((0.0, 0.0), |(a, b), (t, r)| (a + t / n, b + r / n));
    let tt: f64 = points.iter().map(|(t, _)| (t - mt).powi(2)).sum();
    if tt <= 0.0 {
        return None;
    }
    let slope = points.iter().map(|(t, r)| (t - mt) * (r - mr)).sum::<f64>() / tt;
    let rest: f64 = points.iter().map(|(t, r)| (r - mr - slope * (t - mt)).powi(2)).sum();
    let error = if points.len() > 2 { (rest / (n - 2.0) / tt).sqrt() } else { 0.0 };
    let rise = slope * (points.first()?.0 - points.last()?.0);
    let significant = rise > TREND_FLOOR * mr.max(1e-9) && slope > 3.0 * error && (points.len() > 2 || rise > 0.25 * mr);
    significant.then(|| mr + slope * (ahead_s - mt))
}

/// The largest load of the last `over_s` seconds.
pub(super) fn peak(history: &VecDeque<Sample>, now_ms: i64, over_s: f64) -> f64 {
    history.iter().rev().take_while(|s| (now_ms - s.at_ms) as f64 <= over_s * 1000.0).map(|s| s.rate).fold(0.0, f64::max)
}
