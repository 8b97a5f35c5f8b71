//! A policy drives a simulated fleet through a trace.

use super::super::memory::Memory;
use super::super::tuning::Tuning;
use super::super::{Decision, decide_with};
use super::look::look;
use super::rivals::{Flink, Keda};
use super::setting::Setting;
use super::trace::Trace;
use super::world::World;

/// Who decides.
#[derive(Debug, Clone)]
pub enum Policy {
    /// `decide`, with its constants.
    Ours(Box<Tuning>),
    /// KEDA and HPA with a threshold in seconds of one worker's capacity.
    Keda(f64),
    /// Flink's rule.
    Flink,
    /// One worker for each partition, as far as the limit allows.
    OnePerPartition,
}

impl Policy {
    /// The name in tables.
    pub fn name(&self) -> String {
        match self {
            Self::Ours(_) => "millrace".to_owned(),
            Self::Keda(s) => format!("KEDA+HPA ({s} s)"),
            Self::Flink => "Flink's rule".to_owned(),
            Self::OnePerPartition => "one per partition".to_owned(),
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Paid worker-seconds: from asking until leaving.
    pub worker_s: f64,
    /// Records later than the freshness target.
    pub late_records: f64,
    /// All records.
    pub records: f64,
    /// Changes of the number.
    pub resizes: u32,
    /// Seconds of the trace.
    pub seconds: usize,
    /// The largest lag, seconds.
    pub worst_lag_s: usize,
    /// (second, load in workers, workers asked for, workers at work, lag in seconds), every few seconds.
    pub course: Vec<(usize, f64, u32, u32, usize)>,
    /// (second, from, to, reason) of our resizes.
    pub reasons: Vec<(usize, u32, u32, String)>,
}

impl Outcome {
    /// Late records as a share of all.
    pub fn late_share(&self) -> f64 {
        self.late_records / self.records.max(1.0)
    }

    /// Changes in an hour.
    pub fn resizes_per_hour(&self) -> f64 {
        f64::from(self.resizes) * 3600.0 / self.seconds.max(1) as f64
    }
}

/// Runs a trace. Equal arguments, equal outcomes.
pub fn run(setting: &Setting, trace: &Trace, policy: &Policy) -> Outcome {
    let mut setting = setting.clone();
    let ceiling = (trace.shares.len() as u32).min(setting.limits.max);
    if matches!(policy, Policy::OnePerPartition) {
        setting.workers = ceiling;
    }
    let mut world = World::new(&setting, trace);
    let (mut memory, mut flink) = (Memory::default(), Flink::default());
    let mut keda = match policy {
        Policy::Keda(seconds) => Some(Keda::new(seconds * setting.capacity)),
        _ => None,
    };
    let (mut course, mut reasons, mut worst_lag_s) = (Vec::new(), Vec::new(), 0);
    for second in 0..trace.load.len() {
        world.second();
        if second % 5 == 0 {
            let lag = world.lag_s();
            worst_lag_s = worst_lag_s.max(lag);
            let at_work = world.workers.iter().filter(|w| w.member).count() as u32;
            course.push((second, trace.load[second], world.workers.len() as u32, at_work, lag));
        }
        if (second + 1) % setting.interval_s != 0 {
            continue;
        }
        let before = world.workers.len() as u32;
        let wanted = match policy {
            Policy::OnePerPartition => ceiling,
            Policy::Ours(tuning) => {
                let Decision { replicas, reason, hold_joins_ms, .. } = decide_with(&look(&world), &mut memory, tuning);
                if !setting.hidden.waiting {
                    world.joins_held_until = world.now + hold_joins_ms.div_ceil(1000) as usize;
                }
                if replicas != before {
                    reasons.push((second, before, replicas, reason));
                }
                replicas
            }
            Policy::Keda(_) => keda.as_mut().map_or(before, |keda| keda.decide(&look(&world))),
            Policy::Flink => flink.decide(&look(&world)),
        };
        world.resize(wanted.min(ceiling));
    }
    world.close();
    Outcome {
        worker_s: world.worker_s,
        late_records: world.late,
        records: world.queues.iter().map(|q| q.produced).sum(),
        resizes: world.resizes,
        seconds: trace.load.len(),
        worst_lag_s,
        course,
        reasons,
    }
}
