//! Freshness of a batch: how old its records are when they are durable, without a histogram call per record.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Records of one batch whose timestamps lie within this of each other are counted together.
const GRAIN_MS: i64 = 8;
/// The most groups a batch keeps; beyond it the last group takes the rest (a backfill with random timestamps).
const GROUPS_MAX: usize = 512;

/// The Kafka timestamps of a batch, grouped.
#[derive(Debug, Default)]
pub struct Timestamps {
    groups: Vec<(i64, u32)>,
}

impl Timestamps {
    /// Adds a record's timestamp, milliseconds since the epoch.
    #[inline]
    pub fn add(&mut self, timestamp_ms: i64) {
        let full = self.groups.len() >= GROUPS_MAX;
        match self.groups.last_mut() {
            Some((group_ms, count)) if full || (timestamp_ms - *group_ms).abs() < GRAIN_MS => *count += 1,
            _ => self.groups.push((timestamp_ms, 1)),
        }
    }

    /// For each group: its records' age at `now_ms` in milliseconds (never negative: clocks differ), and how many they are.
    pub fn ages_ms(&self, now_ms: i64) -> impl Iterator<Item = (u64, u32)> + '_ {
        self.groups.iter().map(move |(group_ms, count)| (u64::try_from(now_ms - group_ms).unwrap_or(0), *count))
    }
}

/// Buckets of the running histogram: powers of 1.25 from 1 ms, so that a quantile is off by 12 % at most.
const BUCKETS: usize = 100;

/// A histogram of ages for `/status`: the quantiles since the worker started, halved now and then so that old times fade.
#[derive(Debug)]
pub struct FreshnessHistogram {
    buckets: Vec<AtomicU64>,
    total: AtomicU64,
}

impl Default for FreshnessHistogram {
    fn default() -> Self {
        Self { buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(), total: AtomicU64::new(0) }
    }
}

impl FreshnessHistogram {
    /// Adds `count` records of one age.
    pub fn add(&self, age_ms: u64, count: u32) {
        if let Some(bucket) = self.buckets.get(bucket_of(age_ms)) {
            bucket.fetch_add(u64::from(count), Relaxed);
            self.total.fetch_add(u64::from(count), Relaxed);
        }
    }

    /// Halves all counts: called every few seconds, so that a quantile speaks of the last half minute or so.
    pub fn fade(&self) {
        let mut total = 0;
        for bucket in &self.buckets {
            let half = bucket.load(Relaxed) / 2;
            bucket.store(half, Relaxed);
            total += half;
        }
        self.total.store(total, Relaxed);
    }

    /// The age in milliseconds below which the share `q` of the records lies; `None` without records.
    pub fn quantile_ms(&self, q: f64) -> Option<u64> {
        let total: u64 = self.buckets.iter().map(|b| b.load(Relaxed)).sum();
        if total == 0 {
            return None;
        }
        let wanted = (total as f64 * q).ceil() as u64;
        let mut seen = 0;
        for (index, bucket) in self.buckets.iter().enumerate() {
            seen += bucket.load(Relaxed);
            if seen >= wanted {
                return Some(1.25f64.powi(i32::try_from(index).unwrap_or(i32::MAX)) as u64);
            }
        }
        None
    }
}

fn bucket_of(age_ms: u64) -> usize {
    if age_ms <= 1 {
        return 0;
    }
    let index = (age_ms as f64).ln() / 1.25f64.ln();
    (index.ceil() as usize).min(BUCKETS - 1)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn ages_are_grouped_but_none_is_lost() {
        let mut times = Timestamps::default();
        for n in 0..10_000i64 {
            times.add(1_000_000 + n);
        }
        let total: u32 = times.ages_ms(1_010_000).map(|(_, count)| count).sum();
        assert_eq!(total, 10_000);
        assert!(times.groups.len() <= GROUPS_MAX);
    }

    #[test]
    fn quantiles_are_near() {
        let histogram = FreshnessHistogram::default();
        for age in 1..=1000 {
            histogram.add(age, 1);
        }
        let p50 = histogram.quantile_ms(0.5).unwrap();
        let p99 = histogram.quantile_ms(0.99).unwrap();
        assert!((440..=640).contains(&p50), "{p50}");
        assert!((870..=1250).contains(&p99), "{p99}");
    }
}
