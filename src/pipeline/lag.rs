//! Lag: how much a partition has that is not durable yet, in records, bytes and seconds.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::record::TopicPartition;
use crate::telemetry::metrics::{ConnectorMetrics, PartitionMetrics};

use super::clients::ConnectorClients;
use super::freshness::FreshnessHistogram;
use super::progress::Ownership;
use super::stall::{LastMove, StallWatch};

/// How often the brokers are asked.
const EVERY: Duration = Duration::from_secs(3);
/// How long they may take.
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);
/// End offsets that are remembered: ten minutes' worth.
const SAMPLES_MAX: usize = 200;

/// The end offsets of a partition over time: record timestamps lie for backfills and mirrored topics, so lag in seconds is read off this, by
/// interpolation (kafka-lag-exporter's method).
#[derive(Debug, Default)]
pub struct EndHistory {
    samples: VecDeque<(i64, i64)>,
}

impl EndHistory {
    /// The end offset at a moment (milliseconds).
    pub fn add(&mut self, now_ms: i64, end: i64) {
        if self.samples.back().is_some_and(|(_, last)| *last > end) {
            // The topic was truncated or made again.
            self.samples.clear();
        }
        if self.samples.len() >= SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back((now_ms, end));
    }

    /// How long ago `offset` was the end, in milliseconds: the age of the oldest record that is not durable. A lower bound where the offset is
    /// older than what is remembered.
    pub fn lag_ms(&self, now_ms: i64, offset: i64) -> Option<i64> {
        let (_, newest) = self.samples.back()?;
        if offset >= *newest {
            return Some(0);
        }
        let mut before: Option<(i64, i64)> = None;
        for &(at_ms, end) in &self.samples {
            if end > offset {
                let Some((from_ms, from_end)) = before else { return Some(now_ms - at_ms) };
                let share = (offset - from_end) as f64 / (end - from_end).max(1) as f64;
                return Some(now_ms - (from_ms + ((at_ms - from_ms) as f64 * share) as i64));
            }
            before = Some((at_ms, end));
        }
        Some(0)
    }
}

/// What the lag task needs.
pub struct LagParts {
    /// The connector's name.
    pub connector: String,
    /// What is owned, with heads.
    pub ownership: Arc<Ownership>,
    /// Asks the brokers.
    pub clients: Arc<ConnectorClients>,
    /// What the connector counts.
    pub metrics: Arc<ConnectorMetrics>,
    /// Told when nothing moves.
    pub stall: Arc<StallWatch>,
    /// Faded now and then.
    pub freshness: Arc<FreshnessHistogram>,
    /// What time it is.
    pub clock: Arc<dyn crate::flow::Clock>,
}

/// Asks for end offsets every few seconds and sets the gauges, until it is aborted. Nothing of it is needed for delivery.
pub async fn run(parts: LagParts) {
    let mut histories: HashMap<TopicPartition, (EndHistory, PartitionMetrics, Option<LastMove>)> = HashMap::new();
    let mut faded = Instant::now();
    loop {
        tokio::time::sleep(EVERY).await;
        if faded.elapsed() > Duration::from_secs(15) {
            parts.freshness.fade();
            faded = Instant::now();
        }
        let owned = parts.ownership.snapshot();
        parts.metrics.assigned_partitions.set(owned.len() as f64);
        show_holds(&parts.metrics, &owned);
        let names: Vec<TopicPartition> = owned.iter().map(|progress| progress.partition.clone()).collect();
        histories.retain(|partition, _| names.contains(partition));
        if names.is_empty() {
            // Whoever has the partitions now says how they do.
            parts.stall.set(None);
            parts.metrics.stalled.set(0.0);
            continue;
        }
        let clients = parts.clients.clone();
        let asked = tokio::task::spawn_blocking(move || clients.lag()?.query(&names, QUERY_TIMEOUT)).await;
        let offsets = match asked {
            Ok(Ok(offsets)) => offsets,
            Ok(Err(error)) => {
                tracing::debug!(connector = parts.connector, %error, "end offsets are not known this time");
                continue;
            }
            Err(error) => {
                tracing::error!(connector = parts.connector, %error, "the lag query panicked");
                continue;
            }
        };
        let now_ms = parts.clock.now_wall_us() / 1000;
        let mut stalled_since: Option<i64> = None;
        for known in offsets {
            let (Some(end), Some(progress)) = (known.end, owned.iter().find(|progress| progress.partition == known.partition)) else {
                continue;
            };
            let low = known.low.unwrap_or(0);
            let position = progress.head().unwrap_or(low).max(low);
            let (history, metrics, last_move) = histories.entry(known.partition.clone()).or_insert_with(|| {
                (EndHistory::default(), PartitionMetrics::new(&parts.connector, &known.partition.topic, known.partition.partition), None)
            });
            history.add(now_ms, end);
            let lag = (end - position).max(0);
            progress.lag_records.store(lag, Relaxed);
            let records = progress.records.load(Relaxed).max(1);
            let mean_bytes = progress.bytes.load(Relaxed) as f64 / records as f64;
            let since = LastMove::look(last_move, progress, lag, now_ms);
            stalled_since = stalled_since.into_iter().chain(since).min();
            metrics.lag_records.set(lag as f64);
            metrics.lag_bytes.set(lag as f64 * mean_bytes);
            metrics.lag_seconds.set(history.lag_ms(now_ms, position).unwrap_or(0) as f64 / 1000.0);
        }
        parts.metrics.stalled.set(if stalled_since.is_some() { 1.0 } else { 0.0 });
        if parts.stall.set(stalled_since) {
            tracing::warn!(
                connector = parts.connector,
                "stalled: records wait, and none was finished for 30 s; see the tables' last errors in /status"
            );
        }
    }
}

fn show_holds(metrics: &ConnectorMetrics, owned: &[Arc<super::progress::PartitionProgress>]) {
    let mut causes: HashMap<&'static str, u32> = HashMap::new();
    for hold in owned.iter().filter_map(|progress| progress.hold()) {
        *causes.entry(hold.cause.as_str()).or_default() += 1;
    }
    for cause in crate::flow::HoldCause::ALL {
        let count = causes.get(cause.as_str()).copied().unwrap_or(0);
        metrics.held_partitions(cause.as_str()).set(f64::from(count));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_interpolated() {
        let mut history = EndHistory::default();
        history.add(0, 100);
        history.add(10_000, 200);
        history.add(20_000, 300);
        assert_eq!(history.lag_ms(20_000, 300), Some(0));
        assert_eq!(history.lag_ms(20_000, 250), Some(5_000));
        assert_eq!(history.lag_ms(20_000, 150), Some(15_000));
        assert_eq!(history.lag_ms(25_000, 50), Some(25_000), "at least as old as what is remembered");
        history.add(30_000, 10);
        assert_eq!(history.lag_ms(30_000, 5), Some(0), "a topic made again starts a new history");
    }
}
