//! Lag: how much a partition has that is not durable yet, in records, bytes and seconds.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::record::TopicPartition;
use crate::scaling::EndHistory;
use crate::telemetry::metrics::{ConnectorMetrics, PartitionMetrics};

use super::clients::ConnectorClients;
use super::freshness::FreshnessHistogram;
use super::progress::Ownership;
use super::stall::{LastMove, StallWatch};

/// How often the brokers are asked.
const EVERY: Duration = Duration::from_secs(3);
/// How long they may take.
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);

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
            metrics.lag_seconds.set(history.behind(now_ms, position).map_or(0, |behind| behind.ms) as f64 / 1000.0);
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
