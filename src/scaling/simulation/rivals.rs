//! The scalers of others, by their published formulas.

use std::collections::VecDeque;

use super::super::snapshot::Snapshot;

/// KEDA's Kafka scaler feeding a HorizontalPodAutoscaler: lag over a threshold, 10 % tolerance, doubling or four more each 15 s, down to the largest wish of the last
/// 300 s. Sources: keda's kafka_scaler (`lagThreshold`), Kubernetes' HPA algorithm with its default behaviour.
#[derive(Debug, Clone)]
pub struct Keda {
    threshold: f64,
    wishes: VecDeque<(i64, u32)>,
    next_ms: i64,
}

impl Keda {
    /// With a threshold in records of lag for each worker.
    pub fn new(threshold: f64) -> Self {
        Self { threshold, wishes: VecDeque::new(), next_ms: i64::MIN }
    }

    /// The number of workers to ask for.
    pub fn decide(&mut self, snapshot: &Snapshot) -> u32 {
        let now = snapshot.replicas;
        if snapshot.now_ms < self.next_ms {
            return now;
        }
        self.next_ms = snapshot.now_ms + 15_000;
        let partitions = snapshot.groups.iter().flatten().map(|g| g.partitions.len()).sum::<usize>() as f64;
        let lag: i64 =
            snapshot.groups.iter().flatten().flat_map(|g| &g.partitions).filter_map(|p| Some(p.end_offset? - p.committed_offset?)).sum();
        let lag = (lag as f64).min(partitions * self.threshold);
        let ratio = lag / (self.threshold * f64::from(now));
        let wish = if (1.0 - ratio).abs() > 0.1 { (lag / self.threshold).ceil() as u32 } else { now };
        let wish = wish.clamp(snapshot.limits.min, snapshot.limits.max).min((now * 2).max(now + 4));
        self.wishes.push_back((snapshot.now_ms, wish));
        while self.wishes.front().is_some_and(|(at, _)| snapshot.now_ms - at > 300_000) {
            self.wishes.pop_front();
        }
        if wish >= now { wish } else { self.wishes.iter().map(|(_, n)| *n).max().unwrap_or(wish).min(now) }
    }
}

/// The rule of Flink's Kubernetes operator: target capacity over true processing rate, acting outside its band, catch-up within 30 minutes, down after an hour.
#[derive(Debug, Clone, Default)]
pub struct Flink {
    below_since_ms: Option<i64>,
    changed_ms: Option<i64>,
}

impl Flink {
    const CATCH_UP_S: f64 = 1800.0;
    const RESTART_S: f64 = 300.0;

    /// The number of workers to ask for.
    pub fn decide(&mut self, snapshot: &Snapshot) -> u32 {
        let now = snapshot.replicas;
        // Stabilisation: metrics of a minute after each change are thrown away.
        if self.changed_ms.is_some_and(|at| snapshot.now_ms - at < 60_000) {
            return now;
        }
        let partitions: Vec<_> = snapshot.groups.iter().flatten().flat_map(|g| &g.partitions).collect();
        let rate: f64 = partitions.iter().filter_map(|p| p.produced_records_per_s).sum();
        let lag: f64 = partitions.iter().filter_map(|p| Some((p.end_offset? - p.committed_offset?) as f64)).sum();
        let (consumed, busy) = snapshot.workers.iter().fold((0.0, 0.0), |(c, b), w| {
            (c + w.groups.iter().filter_map(|g| g.consumed_records_per_s).sum::<f64>(), b + w.busy_fraction.unwrap_or(0.0))
        });
        if busy <= 0.0 || consumed <= 0.0 {
            return now;
        }
        let one = consumed / busy;
        let wanted = |u: f64, restart: bool| {
            rate / u + lag / Self::CATCH_UP_S + if restart { rate * Self::RESTART_S / Self::CATCH_UP_S } else { 0.0 }
        };
        let able = one * f64::from(now);
        let wish = (wanted(0.7, true) / one).ceil().max(1.0) as u32;
        let wish = wish.clamp(snapshot.limits.min, snapshot.limits.max).min(partitions.len() as u32);
        let chosen = if able < wanted(1.0, false) {
            self.below_since_ms = None;
            wish.max(now)
        } else if able > wanted(0.4, true) {
            let since = *self.below_since_ms.get_or_insert(snapshot.now_ms);
            if snapshot.now_ms - since >= 3_600_000 { wish.min(now) } else { now }
        } else {
            self.below_since_ms = None;
            now
        };
        if chosen != now {
            self.changed_ms = Some(snapshot.now_ms);
            self.below_since_ms = None;
        }
        chosen
    }
}
