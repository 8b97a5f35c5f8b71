//! Percentiles of times: a histogram whose buckets are at most 6 % wide.

/// Linear steps within each power of two.
const STEPS: usize = 16;
const BUCKETS: usize = 44 * STEPS;

/// Counts times in milliseconds.
pub(super) struct Freshness {
    counts: Vec<u64>,
    total: u64,
}

impl Default for Freshness {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0 }
    }
}

impl Freshness {
    /// Counts one. A negative time (clocks differ by milliseconds) counts as 0.
    pub(super) fn add(&mut self, ms: i64) {
        let bucket = bucket_of(u64::try_from(ms).unwrap_or(0));
        self.counts[bucket.min(BUCKETS - 1)] += 1;
        self.total += 1;
    }

    /// Adds another's counts.
    pub(super) fn merge(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(mine, theirs)| *mine += theirs);
        self.total += other.total;
    }

    /// The time that this share of all (0 to 1) does not exceed, in milliseconds, at most 6 % too high; `None` without any.
    pub(super) fn percentile(&self, share: f64) -> Option<u64> {
        let rank = ((self.total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        self.counts.iter().enumerate().find_map(|(bucket, count)| {
            seen += count;
            (seen >= rank && self.total > 0).then(|| upper_bound_of(bucket))
        })
    }
}

fn bucket_of(ms: u64) -> usize {
    if ms < STEPS as u64 {
        return ms as usize;
    }
    let power = ms.ilog2() as usize;
    let step = (ms >> (power - 4)) as usize & (STEPS - 1);
    (power - 3) * STEPS + step
}

fn upper_bound_of(bucket: usize) -> u64 {
    if bucket < STEPS {
        return bucket as u64;
    }
    let (power, step) = (bucket / STEPS + 3, (bucket % STEPS) as u64);
    ((STEPS as u64 + step + 1) << (power - 4)) - 1
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_at_most_six_percent_high() {
        let mut f = Freshness::default();
        assert_eq!(f.percentile(0.5), None);
        (1..=10_000).for_each(|ms| f.add(ms));
        for (share, exact) in [(0.5, 5_000u64), (0.99, 9_900), (0.001, 10)] {
            let got = f.percentile(share).unwrap();
            assert!(got >= exact && got <= exact + exact / 16 + 1, "{share}: {got}");
        }
        f.add(-3);
        assert_eq!(f.percentile(0.0), Some(0));
        f.add(i64::MAX);
        assert!(f.percentile(1.0).is_some());
    }

    #[test]
    fn buckets_follow_each_other_without_gap() {
        for ms in 0..100_000u64 {
            let bucket = bucket_of(ms);
            assert!(upper_bound_of(bucket) >= ms && (bucket == 0 || upper_bound_of(bucket - 1) < ms), "{ms}");
        }
    }
}
