//! Cases: a trace and a fleet for a shape and a seed, in many sizes.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::snapshot::{Assignor, Limits, RebalanceProtocol};
use super::setting::{Hidden, Setting};
use super::trace::{Shape, Size, Trace};

/// What a user fixed; the rest is drawn by the seed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fixed {
    /// Seconds of a made trace; 7200 unless named.
    pub seconds: Option<usize>,
    /// Partitions; else 4 to 200.
    pub partitions: Option<usize>,
    /// The largest load in workers; else 0.8 to 30, and below six tenths of the partitions.
    pub peak: Option<f64>,
    /// Records/s of one worker; else 100 to 100,000.
    pub capacity: Option<f64>,
    /// Seconds between decisions; else 2 to 30.
    pub interval_s: Option<usize>,
    /// Seconds that rates are means over; else 10 to 60.
    pub window_s: Option<usize>,
    /// Who gives partitions to members; else any.
    pub assignor: Option<Assignor>,
    /// What a rebalance stops; else mostly only what moves, and all in a quarter of the cases.
    pub protocol: Option<RebalanceProtocol>,
    /// Never fewer workers; 1 unless named.
    pub min: Option<u32>,
    /// Never more workers; as many as partitions unless named.
    pub max: Option<u32>,
    /// 30 s unless named.
    pub freshness_target_ms: Option<u64>,
    /// 300 s unless named.
    pub recovery_target_ms: Option<u64>,
    /// What the snapshots leave out.
    pub hidden: Hidden,
}

/// A trace and the fleet that meets it.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// What seed it was made by.
    pub seed: u64,
    /// The shape's name, or the file's.
    pub class: String,
    /// Whether more than the load makes records late.
    pub faulty: bool,
    /// The fleet.
    pub setting: Setting,
    /// The load.
    pub trace: Trace,
}

fn chosen<T: Copy>(rng: &mut ChaCha8Rng, of: &[T]) -> T {
    of[rng.random_range(0..of.len())]
}

/// The fleet of a seed for so many partitions.
fn setting(rng: &mut ChaCha8Rng, seed: u64, partitions: usize, fixed: &Fixed) -> Setting {
    let interval_s = chosen(rng, &[2, 5, 5, 10, 10, 15, 30]);
    let window_s = chosen(rng, &[10, 15, 30, 30, 60]);
    let capacity = 10_f64.powf(rng.random_range(2.0..5.0));
    let assignor = chosen(rng, &[Assignor::CooperativeSticky, Assignor::Range, Assignor::Uniform]);
    let protocol = if rng.random_bool(0.25) { RebalanceProtocol::Eager } else { RebalanceProtocol::Cooperative };
    let min = fixed.min.unwrap_or(1);
    let limits = Limits {
        min,
        max: fixed.max.unwrap_or(partitions as u32).max(min),
        freshness_target_ms: fixed.freshness_target_ms.unwrap_or(30_000),
        recovery_target_ms: fixed.recovery_target_ms.unwrap_or(300_000),
        startup_deadline_ms: None,
        worker_cost_per_hour: None,
    };
    Setting {
        seed,
        capacity: fixed.capacity.unwrap_or(capacity),
        noise: 0.1,
        assignor: fixed.assignor.unwrap_or(assignor),
        protocol: fixed.protocol.unwrap_or(protocol),
        interval_s: fixed.interval_s.unwrap_or(interval_s).max(1),
        window_s: fixed.window_s.unwrap_or(window_s).clamp(1, 60),
        limits,
        workers: 1,
        hidden: fixed.hidden,
    }
}

/// As many workers at the start as the first half minute needs at 85 % load.
fn workers_at_start(setting: &mut Setting, trace: &Trace) {
    let over = trace.load.len().clamp(1, 30);
    let first = trace.load.iter().take(over).sum::<f64>() / over as f64;
    let count = trace.shares.len();
    let enough = (1..=count).find(|n| count.div_ceil(*n) as f64 / count as f64 * first <= 0.85).unwrap_or(count);
    setting.workers = (enough as u32).clamp(setting.limits.min.max(1), setting.limits.max.max(1));
}

impl Case {
    /// A made case. Equal arguments, equal cases.
    pub fn made(shape: Shape, seed: u64, fixed: &Fixed) -> Self {
        let mixed = seed.wrapping_mul(1000).wrapping_add(Shape::ALL.iter().position(|s| *s == shape).unwrap_or(0) as u64);
        let mut rng = ChaCha8Rng::seed_from_u64(mixed);
        let partitions = chosen(&mut rng, &[4_usize, 6, 8, 12, 16, 24, 32, 48, 64, 100, 200]);
        let partitions = fixed.partitions.unwrap_or(partitions).max(1);
        let most = (partitions as f64 * 0.6).min(30.0);
        let least = most.min(0.8);
        let peak = least * (rng.random_range(0.0_f64..1.0) * (most / least).ln()).exp();
        let mut setting = setting(&mut rng, mixed, partitions, fixed);
        let size = Size { seconds: fixed.seconds.unwrap_or(7200).max(60), partitions, peak: fixed.peak.unwrap_or(peak) };
        let trace = Trace::made(shape, size, mixed);
        workers_at_start(&mut setting, &trace);
        Self { seed, class: shape.name().to_owned(), faulty: shape.faulty(), setting, trace }
    }

    /// A trace from elsewhere.
    pub fn given(trace: Trace, seed: u64, fixed: &Fixed) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut setting = setting(&mut rng, seed, trace.shares.len(), fixed);
        workers_at_start(&mut setting, &trace);
        Self { seed, class: trace.name.clone(), faulty: false, setting, trace }
    }
}
