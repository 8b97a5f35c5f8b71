//! Traces: how many records are produced each second, and what goes wrong meanwhile.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A made trace's shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shape {
    /// Two to four times the load at once, later back.
    Step,
    /// A straight rise over a quarter to a half of the time, and down again.
    Ramp,
    /// A day: low at night, two peaks, compressed into the trace's length.
    Day,
    /// Ten times the load within 30 s, for some minutes.
    Flash,
    /// A saw-tooth of two minutes.
    Saw,
    /// Nearly nothing, then a burst, several times.
    Burst,
    /// One partition takes a large part of all records.
    Hot,
    /// One worker is half as fast as the others.
    Slow,
    /// The sink takes nothing for some minutes.
    Outage,
    /// The sink takes less than is produced for some minutes.
    Quota,
}

impl Shape {
    /// All of them.
    pub const ALL: [Self; 10] =
        [Self::Step, Self::Ramp, Self::Day, Self::Flash, Self::Saw, Self::Burst, Self::Hot, Self::Slow, Self::Outage, Self::Quota];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Step => "step",
            Self::Ramp => "ramp",
            Self::Day => "day",
            Self::Flash => "flash",
            Self::Saw => "saw",
            Self::Burst => "burst",
            Self::Hot => "hot",
            Self::Slow => "slow",
            Self::Outage => "outage",
            Self::Quota => "quota",
        }
    }

    /// Whether something besides the load makes records late: such traces have a goal of their own.
    pub fn faulty(self) -> bool {
        matches!(self, Self::Hot | Self::Slow | Self::Outage | Self::Quota)
    }
}

/// Records produced each second.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// What it is called in tables.
    pub name: String,
    /// The load that one worker can carry, by the second; all partitions. In workers, so that a trace fits any capacity.
    pub load: Vec<f64>,
    /// The share of each partition; their sum is 1.
    pub shares: Vec<f64>,
    /// From second to second the sink takes at most this many workers' worth of records.
    pub sink: Vec<(usize, usize, f64)>,
    /// How fast a worker is by its ordinal; 1 unless named.
    pub slow: Option<(u32, f64)>,
    /// Records each second and partition where they do not follow `shares` (a trace from a file), in workers.
    pub exact: Option<Vec<Vec<f64>>>,
}

/// The size of a made trace.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Size {
    /// Seconds.
    pub seconds: usize,
    /// Partitions of the topic.
    pub partitions: usize,
    /// The largest load, in workers.
    pub peak: f64,
}

impl Trace {
    /// Makes a trace. Equal arguments, equal traces.
    pub fn made(shape: Shape, size: Size, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x7ace);
        let Size { seconds, partitions, peak } = size;
        let uneven = rng.random_range(0.0..0.25);
        let mut shares: Vec<f64> = (0..partitions).map(|_| 1.0 + rng.random_range(-uneven..=uneven)).collect();
        let mut load = vec![0.0; seconds];
        let at = |part: f64| (seconds as f64 * part) as usize;
        let (mut sink, mut slow) = (Vec::new(), None);
        match shape {
            Shape::Step => {
                let low = peak / rng.random_range(2.0..4.0);
                let (from, to) = (at(rng.random_range(0.2..0.4)), at(rng.random_range(0.6..0.8)));
                (0..seconds).for_each(|t| load[t] = if (from..to).contains(&t) { peak } else { low });
            }
            Shape::Ramp => {
                let low = peak / rng.random_range(3.0..8.0);
                let (from, top, down, end) = (at(0.15), at(rng.random_range(0.4..0.55)), at(0.65), at(rng.random_range(0.8..0.95)));
                for (t, load) in load.iter_mut().enumerate() {
                    let up = ((t as f64 - from as f64) / (top - from) as f64).clamp(0.0, 1.0);
                    let back = ((t as f64 - down as f64) / (end - down) as f64).clamp(0.0, 1.0);
                    *load = low + (peak - low) * (up - back).max(0.0);
                }
            }
            Shape::Day => {
                let (low, second) = (rng.random_range(0.1..0.25), rng.random_range(0.5..0.9));
                for (t, load) in load.iter_mut().enumerate() {
                    let x = t as f64 / seconds as f64;
                    let bump = |center: f64, wide: f64| (-((x - center) / wide).powi(2)).exp();
                    *load = peak * (low + (1.0 - low) * bump(0.45, 0.14).max(second * bump(0.8, 0.07)));
                }
            }
            Shape::Flash => {
                let low = peak / 10.0;
                let (from, last) = (at(rng.random_range(0.2..0.5)), rng.random_range(240.0..900.0));
                for (t, load) in load.iter_mut().enumerate() {
                    let since = t as f64 - from as f64;
                    let up = (since / 30.0).clamp(0.0, 1.0);
                    let back = ((since - 30.0 - last) / 180.0).clamp(0.0, 1.0);
                    *load = low + (peak - low) * (up - back);
                }
            }
            Shape::Saw => {
                let low = peak * rng.random_range(0.2..0.6);
                let (rises, period) = (rng.random_range(0.3..0.9), 120.0);
                for (t, load) in load.iter_mut().enumerate() {
                    let x = (t as f64 / period).fract();
                    let height = if x < rises { x / rises } else { (1.0 - x) / (1.0 - rises) };
                    *load = low + (peak - low) * height;
                }
            }
            Shape::Burst => {
                let (every, last, low) =
                    (rng.random_range(700.0..1500.0), rng.random_range(180.0..480.0), peak * rng.random_range(0.01..0.05));
                let rises = rng.random_range(10.0..60.0);
                let first = rng.random_range(300.0..600.0);
                for (t, load) in load.iter_mut().enumerate() {
                    let x = if (t as f64) < first { last + rises } else { (t as f64 - first) % every };
                    let height = if x < last { (x / rises).min(1.0) } else { (1.0 - (x - last) / rises).max(0.0) };
                    *load = low + (peak - low) * height;
                }
            }
            Shape::Hot => {
                let x = rng.random_range(0..partitions);
                let (part, wave) = (rng.random_range(0.15..0.5), rng.random_range(0.0..0.3));
                shares[x] = part / (1.0 - part) * (shares.iter().sum::<f64>() - shares[x]);
                (0..seconds).for_each(|t| load[t] = peak * (1.0 - wave + wave * (t as f64 / 900.0).sin()));
            }
            Shape::Slow | Shape::Outage | Shape::Quota => {
                let wave = rng.random_range(0.1..0.3);
                let every = rng.random_range(1200.0..3600.0);
                (0..seconds).for_each(|t| load[t] = peak * (1.0 - wave + wave * (t as f64 / every * std::f64::consts::TAU).sin()));
                let from = at(rng.random_range(0.3..0.5));
                match shape {
                    Shape::Slow => slow = Some((0, rng.random_range(0.45..0.7))),
                    Shape::Outage => sink.push((from, from + rng.random_range(60..240), 0.0)),
                    _ => sink.push((from, from + rng.random_range(200..600), peak * rng.random_range(0.5..0.8))),
                }
            }
        }
        // Producers are not even: noise with a memory of some seconds.
        let (noise, mut drift) = (rng.random_range(0.01..0.06), 0.0_f64);
        for load in &mut load {
            drift = 0.85 * drift + rng.random_range(-1.0..1.0) * noise;
            *load = (*load * (1.0 + drift)).max(0.0);
        }
        let sum: f64 = shares.iter().sum();
        shares.iter_mut().for_each(|s| *s /= sum);
        Self { name: shape.name().to_owned(), load, shares, sink, slow, exact: None }
    }

    /// A trace from rows of (second, partition, records/s): a partition's rate holds until its next row. `capacity` is what one worker can do, in records/s.
    ///
    /// # Errors
    /// No rows, a negative second or rate, more than 10,000 partitions or a million seconds.
    pub fn from_rows(name: &str, rows: &[(f64, u32, f64)], capacity: f64) -> Result<Self, String> {
        let last = rows.iter().map(|r| r.0).fold(f64::NEG_INFINITY, f64::max);
        let partitions = rows.iter().map(|r| r.1 as usize + 1).max().unwrap_or(0);
        if rows.is_empty() || !rows.iter().all(|r| r.0 >= 0.0 && r.2 >= 0.0 && r.2.is_finite()) {
            return Err("the trace has no rows, or a second or a rate below zero".to_owned());
        }
        if partitions > 10_000 || last > 1e6 || partitions as f64 * last > 1e8 {
            return Err(format!("the trace is too large: {partitions} partitions over {last} s"));
        }
        let seconds = last as usize + 1;
        let mut sorted = rows.to_vec();
        sorted.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let (mut rates, mut exact, mut next) = (vec![0.0; partitions], Vec::with_capacity(seconds), 0);
        for second in 0..seconds {
            while next < sorted.len() && sorted[next].0 as usize <= second {
                rates[sorted[next].1 as usize] = sorted[next].2 / capacity;
                next += 1;
            }
            exact.push(rates.clone());
        }
        let load: Vec<f64> = exact.iter().map(|r| r.iter().sum()).collect();
        let whole: f64 = load.iter().sum::<f64>().max(1e-9);
        let shares = (0..partitions).map(|p| exact.iter().map(|r| r[p]).sum::<f64>() / whole).collect();
        Ok(Self { name: name.to_owned(), load, shares, sink: Vec::new(), slow: None, exact: Some(exact) })
    }

    /// What a partition gets in a second, in workers.
    pub fn at(&self, second: usize, partition: usize) -> f64 {
        match &self.exact {
            Some(exact) => exact[second][partition],
            None => self.load[second] * self.shares[partition],
        }
    }

    /// What the sink takes in a second, in workers; none: all.
    pub fn sink_at(&self, second: usize) -> Option<f64> {
        self.sink.iter().find(|(from, to, _)| (*from..*to).contains(&second)).map(|(_, _, limit)| *limit)
    }
}
