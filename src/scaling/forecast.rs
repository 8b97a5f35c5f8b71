//! Where a load goes: the trend of the last seconds, the peaks of the last minutes, what recurs.

use std::collections::VecDeque;

use super::memory::{GroupMemory, Sample};
use super::season;
use super::surge::Recent;

/// A forecast's steps, seconds, and how many.
pub(super) const STEP_S: f64 = 5.0;
pub(super) const STEPS: usize = 44;

/// A change within the trend's reach counts when it exceeds this share of the load, and the noise.
const TREND_FLOOR: f64 = 0.06;
/// And this many standard deviations of the noise.
const BEYOND_NOISE: f64 = 4.0;
/// How far back trends are looked for, seconds, and for how many times as long one is extended.
const REACHES_S: [f64; 3] = [12.0, 25.0, 60.0];
const EXTENDED: f64 = 2.5;
/// A trend may multiply the load by this much at most: nothing grows for ever.
const TREND_LIMIT: f64 = 2.5;
/// The past in which peaks are remembered, seconds.
const PEAKS_S: f64 = 900.0;
/// A load that is this many times what it was at the look before is a burst: it is expected to go as far as the last one did.
const BURST: f64 = 2.0;
/// And it stands this many standard deviations of the noise above it.
const BURST_BEYOND_NOISE: f64 = 8.0;
/// What came in the last seconds is a surge from so many times the look's mean on.
const SURGE: f64 = 1.25;
/// How far a look may stand above its minute by noise alone, in standard deviations.
const BY_NOISE: f64 = 2.0;
const LEVEL_MS: i64 = 60_000;
/// How often a period is sought, milliseconds.
const SEEK_MS: i64 = 30_000;

/// A group's load in the next minutes, records/s, by steps of [`STEP_S`].
#[derive(Debug, Clone)]
pub(super) struct Outlook {
    pub path: Vec<f64>,
    /// Seconds after which the load recurs, when it does.
    pub period_s: Option<f64>,
    /// The standard deviation of its noise from look to look in the last quarter of an hour, as a share of the load.
    pub noise: f64,
}

impl Outlook {
    pub(super) fn peak(&self) -> f64 {
        self.path.iter().copied().fold(0.0, f64::max)
    }
}

/// Which trends count.
#[derive(Debug, Clone, Copy)]
pub(super) enum Patience {
    /// Every one that stands out of the noise.
    None,
    /// One of less than a minute only when it changes the load by this share: where a resize is dear, most of them are over before it has paid.
    ShortOnlyFrom(f64),
}

impl Patience {
    fn floor(self, reach_s: f64) -> f64 {
        match self {
            Self::ShortOnlyFrom(share) if reach_s < REACHES_S[2] => share.max(TREND_FLOOR),
            _ => TREND_FLOOR,
        }
    }
}

/// The outlook: what recurs where something does, else the trend for `ahead_s` and flat from there.
pub(super) fn outlook(memory: &mut GroupMemory, now_ms: i64, recent: Option<Recent>, ahead_s: f64, patience: Patience) -> Outlook {
    let Some(last) = memory.fine.back().copied() else { return Outlook { path: vec![0.0; STEPS], period_s: None, noise: 0.0 } };
    let usual = usual_noise(&memory.history, now_ms);
    let grid = season::grid(&memory.history, now_ms);
    if memory.period_sought_ms.is_none_or(|at| now_ms - at >= SEEK_MS) {
        memory.period_sought_ms = Some(now_ms);
        memory.period = season::period(&grid);
    }
    if let Some(period) = memory.period.filter(|p| *p * 2 <= grid.len()) {
        // Now must be like one period ago, a little earlier or later allowed for.
        let high = grid.iter().rev().take(period).copied().fold(0.0, f64::max);
        let like = [-1_i64, 0, 1].iter().any(|shift| {
            let at = grid.len() as i64 - 1 - period as i64 + shift;
            usize::try_from(at).ok().and_then(|at| grid.get(at)).is_some_and(|then| (last.rate - then).abs() <= 0.25 * high)
        });
        let low = grid.iter().rev().skip(period.saturating_sub(2)).take(5).copied().fold(0.0, f64::max);
        // A burst that comes before its time is none that waits for it.
        let early = bursts(&memory.fine) && last.rate >= BURST * low;
        if like && !early {
            let near = |i: usize| {
                // One step earlier and later too: periods are not kept to the second.
                let s = i as f64 * STEP_S;
                let around = [s - season::GRID_S, s, s + season::GRID_S];
                around.iter().map(|s| season::recurring(&grid, period, s.max(0.0))).fold(0.0, f64::max)
            };
            let path = (0..STEPS).map(|i| if i < 3 { last.rate.max(near(i)) } else { near(i) }).collect();
            return Outlook { path, period_s: Some(period as f64 * season::GRID_S), noise: usual };
        }
    }
    let (peak, turns) = peaks(&memory.history, now_ms);
    let noise = noise(&memory.fine).max(usual * last.rate);
    let rises = rises(&memory.fine, noise, ahead_s, patience);
    let limit = if turns >= 2 {
        (peak * 1.05).max(last.rate)
    } else if last.rate < 0.8 * peak {
        peak.max(last.rate)
    } else {
        last.rate * TREND_LIMIT
    };
    let risen = |t: f64| rises.iter().map(|(slope, for_s)| slope * t.min(*for_s)).fold(0.0, f64::max);
    let before = if bursts(&memory.fine) { memory.history.iter().map(|s| s.rate).fold(0.0, f64::max) } else { 0.0 };
    let level = level(&memory.fine, noise);
    // A look is the mean of the time since the one before it: half of that old.
    let trend = |i: usize| (last.rate + risen(i as f64 * STEP_S + last.for_s / 2.0)).min(limit).max(last.rate);
    let later = |i: usize| if rises.is_empty() { level } else { trend(i) };
    let surge = recent.filter(|r| r.rate > last.rate * SURGE + BEYOND_NOISE * noise && r.over_s < last.for_s);
    let surged = |i: usize| {
        let Some(Recent { rate, over_s }) = surge else { return 0.0 };
        // From the middle of the whole look to the middle of its last seconds.
        let slope = (rate - last.rate) / ((last.for_s - over_s) / 2.0);
        let most = if turns >= 2 { (peak * 1.05).max(rate) } else { rate * TREND_LIMIT };
        (rate + slope * (i as f64 * STEP_S + over_s / 2.0).min(ahead_s.min(last.for_s))).min(most)
    };
    let path = (0..STEPS).map(|i| if i > 0 { later(i).max(before).max(surged(i)) } else { last.rate }).collect();
    Outlook { path, period_s: None, noise: usual }
}

/// Where a load stands that does not rise: the last look, of which as much as may be noise counts as in the mean of the last minute.
fn level(fine: &VecDeque<Sample>, noise: f64) -> f64 {
    let Some(last) = fine.back() else { return 0.0 };
    let minute = fine.iter().rev().take_while(|s| last.at_ms - s.at_ms < LEVEL_MS);
    let (sum, count) = minute.fold((0.0, 0.0), |(sum, count), s| (sum + s.rate, count + 1.0));
    (sum / count).max(last.rate - BY_NOISE * noise).min(last.rate)
}

/// The significant rises of the last seconds: records/s each second, and for how many seconds each may go on. A short one is not extended far.
fn rises(fine: &VecDeque<Sample>, noise: f64, ahead_s: f64, patience: Patience) -> Vec<(f64, f64)> {
    let rise = |reach_s: &f64| {
        Some((
            line(fine, *reach_s, noise, patience.floor(*reach_s))?,
            ahead_s.min(reach_s * EXTENDED) + fine.back().map_or(0.0, |s| s.for_s / 2.0),
        ))
    };
    REACHES_S.iter().filter_map(rise).collect()
}

/// Whether the load has just multiplied. A burst that lasts from one look to the next has no slope yet that stands out of its errors.
fn bursts(fine: &VecDeque<Sample>) -> bool {
    let Some(last) = fine.back() else { return false };
    let Some(then) = fine.iter().rev().find(|s| last.at_ms - s.at_ms >= 4_000) else { return false };
    last.rate >= BURST * then.rate && last.rate - then.rate > BURST_BEYOND_NOISE * noise(fine)
}

/// How much the load jumps from look to look besides its course: the median of second differences, which a straight rise has none of.
fn noise(fine: &VecDeque<Sample>) -> f64 {
    let rates: Vec<f64> = fine.iter().map(|s| s.rate).collect();
    deviation(rates.windows(3).map(|w| (w[0] - 2.0 * w[1] + w[2]).abs()).collect())
}

/// The same over the last quarter of an hour, as a share of the load: few looks may happen to be quiet ones.
fn usual_noise(history: &VecDeque<Sample>, now_ms: i64) -> f64 {
    let rates: Vec<f64> = history.iter().rev().take_while(|s| (now_ms - s.at_ms) as f64 <= PEAKS_S * 1000.0).map(|s| s.rate).collect();
    let bend = |w: &[f64]| (w[0] - 2.0 * w[1] + w[2]).abs() / ((w[0] + w[1] + w[2]) / 3.0).max(1e-9);
    deviation(rates.windows(3).map(bend).collect())
}

/// The standard deviation of what has these second differences.
fn deviation(mut bends: Vec<f64>) -> f64 {
    bends.sort_by(f64::total_cmp);
    // A normal variable's standard deviation is 1.48 times the median of its size; a second difference has six times its variance.
    if bends.len() < 4 { 0.0 } else { bends[bends.len() / 2] * 1.48 / 6.0_f64.sqrt() }
}

/// The least-squares slope over the last `reach_s` seconds (two samples at least); none when its rise may be noise.
fn line(fine: &VecDeque<Sample>, reach_s: f64, noise: f64, floor: f64) -> Option<f64> {
    let last = fine.back()?;
    let mut points: Vec<(f64, f64)> = Vec::new();
    for s in fine.iter().rev() {
        let t = (s.at_ms - last.at_ms) as f64 / 1000.0;
        if t < -reach_s && (points.len() >= 2 || t < -90.0) {
            break;
        }
        points.push((t, s.rate));
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
    let significant =
        rise > (floor * mr).max(BEYOND_NOISE * noise).max(1e-9) && slope > 3.0 * error && (points.len() > 2 || rise > 0.25 * mr);
    significant.then_some(slope)
}

/// The largest load of the last quarter of an hour, and how often the load came near it and left again.
fn peaks(history: &VecDeque<Sample>, now_ms: i64) -> (f64, u32) {
    let recent = || history.iter().filter(|s| (now_ms - s.at_ms) as f64 <= PEAKS_S * 1000.0);
    let peak = recent().map(|s| s.rate).fold(0.0, f64::max);
    let (mut turns, mut near) = (0, false);
    for s in recent() {
        if s.rate > 0.9 * peak {
            near = true;
        } else if s.rate < 0.75 * peak && near {
            near = false;
            turns += 1;
        }
    }
    (peak, turns)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    fn watched(rates: impl Iterator<Item = f64>) -> (GroupMemory, i64) {
        let mut memory = GroupMemory::default();
        let mut now = 0;
        for rate in rates {
            now += 10_000;
            let sample = Sample { at_ms: now, for_s: 10.0, rate };
            memory.fine.push_back(sample);
            memory.history.push_back(sample);
        }
        (memory, now)
    }

    #[test]
    fn a_rise_goes_on_and_noise_does_not() {
        let (mut rises, now) = watched([100.0, 100.0, 100.0, 150.0, 200.0, 250.0].into_iter());
        let path = outlook(&mut rises, now, None, 40.0, Patience::None).path;
        assert!((440.0..=480.0).contains(&path[8]), "5 more each second for 40 s: {path:?}");
        assert!((path[STEPS - 1] - path[8]).abs() < 1e-9, "flat from there");
        let (mut noise, now) = watched((0..30).map(|i| 100.0 + f64::from(i * 7919 % 11) * 0.8));
        let outlook = outlook(&mut noise, now, None, 40.0, Patience::None);
        assert!(outlook.peak() < 112.0, "{outlook:?}");
    }

    #[test]
    fn one_look_above_a_noisy_load_is_no_higher_load() {
        // Up to 30 % up and down, and then 30 % up.
        let noisy = (0..60).map(|i| 70.0 + f64::from(i * i * 7919 % 61));
        let (mut memory, now) = watched(noisy.chain([130.0]));
        let path = outlook(&mut memory, now, None, 40.0, Patience::None).path;
        assert!(path[0] > 129.0 && path[1..].iter().all(|r| *r < 112.0), "{path:?}");
        let (mut memory, now) = watched((0..60).map(|_| 100.0).chain([140.0]));
        assert!(outlook(&mut memory, now, None, 40.0, Patience::None).path[STEPS - 1] >= 140.0, "without noise it is");
    }

    #[test]
    fn a_surge_within_a_long_look_is_seen() {
        let (mut memory, now) = watched((0..30).map(|_| 100.0).chain([180.0]));
        let mut with = |recent| outlook(&mut memory, now, recent, 40.0, Patience::None).peak();
        let surge = with(Some(Recent { rate: 400.0, over_s: 3.0 }));
        assert!((999.0..=1001.0).contains(&surge), "as far as a trend goes: {surge}");
        assert!((with(Some(Recent { rate: 190.0, over_s: 3.0 })) - with(None)).abs() < 1e-9);
    }

    #[test]
    fn where_a_resize_is_dear_a_short_rise_must_be_large() {
        let after = |last: [f64; 2], patience| {
            let (mut memory, now) = watched((0..12).map(|_| 100.0).chain(last));
            outlook(&mut memory, now, None, 40.0, patience).peak()
        };
        let patience = Patience::ShortOnlyFrom(0.5);
        assert!(after([110.0, 120.0], Patience::None) > 140.0);
        assert!(after([110.0, 120.0], patience) < 140.0, "a rise of a fifth over 20 s may be over soon");
        assert!(after([180.0, 260.0], patience) > 400.0, "one that more than doubles the load is none to wait for");
    }

    #[test]
    fn a_load_that_multiplies_at_once_goes_as_far_as_it_did_before() {
        let quiet = || (0..12).map(|i| 10.0 + f64::from(i % 3) * 0.2);
        let once = quiet().chain([300.0, 310.0, 305.0, 300.0]).chain(quiet());
        let (mut again, now) = watched(once.clone().chain([40.0]));
        assert!((outlook(&mut again, now, None, 40.0, Patience::None).peak() - 310.0).abs() < 1e-9);
        let (mut first, now) = watched(quiet().chain([40.0]));
        assert!(outlook(&mut first, now, None, 40.0, Patience::None).peak() <= 100.0, "nobody knows how far the first one goes");
        let (mut wobbles, now) = watched(once.chain([13.0]));
        assert!(outlook(&mut wobbles, now, None, 40.0, Patience::None).peak() < 50.0, "a little more is no burst");
    }

    #[test]
    fn after_two_teeth_of_a_saw_the_third_is_expected() {
        // 12 steps of 10 s: rises from 20 to 240.
        let (mut saw, now) = watched((0..40).map(|i| 20.0 * f64::from(i % 12 + 1)));
        let outlook = outlook(&mut saw, now, None, 40.0, Patience::None);
        assert_eq!(outlook.period_s, Some(120.0));
        assert!((outlook.peak() - 240.0).abs() < 1e-9, "not beyond the peak that it had: {outlook:?}");
    }
}
