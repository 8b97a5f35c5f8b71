//! Lag: how much a partition has that is not durable yet, in records, bytes and seconds.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use futures::FutureExt;

use crate::record::TopicPartition;
use crate::scaling::EndHistory;
use crate::telemetry::metrics::{ConnectorMetrics, PartitionMetrics};
use crate::telemetry::standing::StandingGauges;

use super::clients::ConnectorClients;
use super::freshness::FreshnessHistogram;
use super::pause::Pause;
use super::progress::{Ownership, PartitionProgress};
use super::stall::{LastMove, StallWatch};
use super::trouble::Trouble;

/// How often the brokers are asked.
const EVERY: Duration = Duration::from_secs(3);
/// How long they may take.
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);
/// What [`PartitionProgress::lag_records`] holds while the brokers do not say.
const UNKNOWN_LAG: i64 = -1;

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
    /// What of it does not move.
    pub standing: StandingGauges,
    /// Told when nothing moves.
    pub stall: Arc<StallWatch>,
    /// Told whether the brokers answer.
    pub trouble: Arc<Trouble>,
    /// While it is on, records wait because they are meant to.
    pub pause: Arc<Pause>,
    /// Faded now and then.
    pub freshness: Arc<FreshnessHistogram>,
    /// What time it is.
    pub clock: Arc<dyn crate::flow::Clock>,
}

type Histories = HashMap<TopicPartition, (EndHistory, PartitionMetrics, Option<LastMove>)>;

/// Asks for end offsets every few seconds and sets the gauges, until it is aborted. Nothing of it is needed for delivery: a panic is said, and
/// it goes on.
pub async fn run(parts: LagParts) {
    let _shown = Shown(&parts);
    let mut histories = Histories::new();
    let mut faded = Instant::now();
    loop {
        // At once when the group complains: whether the brokers answer is what people want to know then.
        let _early = tokio::time::timeout(EVERY, parts.trouble.wait_suspicion()).await;
        if faded.elapsed() > Duration::from_secs(15) {
            parts.freshness.fade();
            faded = Instant::now();
        }
        if AssertUnwindSafe(look(&parts, &mut histories)).catch_unwind().await.is_err() {
            tracing::error!(connector = parts.connector, "looking at lag panicked, please report it; lag is looked at again");
            histories.clear();
        }
        // Not more often than this, however much the group complains.
        tokio::time::sleep(EVERY / 6).await;
    }
}

/// A connector that ended holds, rests and stalls no more: its gauges say so at once, not when nobody has set them for a minute.
struct Shown<'a>(&'a LagParts);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        self.0.metrics.assigned_partitions.set(0.0);
        self.0.metrics.brokers_unreachable.set(0.0);
        show_holds(&self.0.metrics, &[]);
        self.0.standing.paused(0, 0);
        self.0.standing.stalled(None);
    }
}

/// One look at what is owned.
async fn look(parts: &LagParts, histories: &mut Histories) {
    let owned = parts.ownership.snapshot();
    parts.metrics.assigned_partitions.set(owned.len() as f64);
    show_holds(&parts.metrics, &owned);
    let held = owned.iter().filter(|progress| progress.hold().is_some()).count();
    parts.standing.paused(owned.iter().filter(|progress| progress.resting_since_ms().is_some()).count(), held);
    let names: Vec<TopicPartition> = owned.iter().map(|progress| progress.partition.clone()).collect();
    histories.retain(|partition, _| names.contains(partition));
    let asked_ms = parts.clock.now_wall_us() / 1000;
    let clients = parts.clients.clone();
    let asked = tokio::task::spawn_blocking(move || match names.as_slice() {
        // Nothing is owned: whether the brokers answer is worth knowing all the same.
        [] => clients.lag()?.partitions(QUERY_TIMEOUT).map(|_| Vec::new()),
        names => clients.lag()?.query(names, QUERY_TIMEOUT),
    });
    let offsets = match asked.await {
        Ok(Ok(offsets)) => offsets,
        Ok(Err(error)) => return unanswered(parts, histories, &owned, asked_ms, &error.to_string()),
        Err(error) => {
            tracing::error!(connector = parts.connector, error = crate::telemetry::panics::join_words(error), "the lag query panicked");
            return;
        }
    };
    let now_ms = parts.clock.now_wall_us() / 1000;
    parts.metrics.brokers_unreachable.set(0.0);
    if let Some(since_ms) = parts.trouble.answered() {
        tracing::info!(connector = parts.connector, away_ms = now_ms - since_ms, "the brokers answer again");
    }
    let mut stalled_since: Option<i64> = None;
    for known in offsets {
        let Some(progress) = owned.iter().find(|progress| progress.partition == known.partition) else { continue };
        let Some(end) = known.end else {
            progress.lag_records.store(UNKNOWN_LAG, Relaxed);
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
        if parts.pause.is_on() {
            *last_move = None;
        }
        let since = LastMove::look(last_move, progress, lag, now_ms);
        stalled_since = stalled_since.into_iter().chain(since).min();
        metrics.lag_records.set(lag as f64);
        metrics.lag_bytes.set(lag as f64 * mean_bytes);
        metrics.lag_seconds.set(history.behind(now_ms, position).map_or(0, |behind| behind.ms) as f64 / 1000.0);
    }
    parts.standing.stalled(stalled_since.map(|since_ms| now_ms - since_ms));
    if parts.stall.set(stalled_since) {
        tracing::warn!(
            connector = parts.connector,
            "stalled: records wait, and none was finished for 30 s; see the tables' last errors in /status"
        );
    }
}

/// Nobody knows what waits: not lagging, not stalled, but unreachable.
fn unanswered(parts: &LagParts, histories: &mut Histories, owned: &[Arc<PartitionProgress>], asked_ms: i64, error: &str) {
    // Whoever reads that they do not answer reads no lag beside it.
    for progress in owned {
        progress.lag_records.store(UNKNOWN_LAG, Relaxed);
    }
    parts.metrics.brokers_unreachable.set(1.0);
    parts.stall.set(None);
    parts.standing.stalled(None);
    if parts.trouble.unanswered(asked_ms, error.to_owned()) {
        tracing::error!(connector = parts.connector, error, "the brokers do not answer: lag is not known");
    }
    for (_, _, last_move) in histories.values_mut() {
        // Time without answers is no time without progress.
        *last_move = None;
    }
}

fn show_holds(metrics: &ConnectorMetrics, owned: &[Arc<PartitionProgress>]) {
    let mut causes: HashMap<&'static str, u32> = HashMap::new();
    for hold in owned.iter().filter_map(|progress| progress.hold()) {
        *causes.entry(hold.cause.as_str()).or_default() += 1;
    }
    for cause in crate::flow::HoldCause::ALL {
        let count = causes.get(cause.as_str()).copied().unwrap_or(0);
        metrics.held_partitions(cause.as_str()).set(f64::from(count));
    }
}
