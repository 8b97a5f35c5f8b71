//! What a connector says about itself: its state, the reason, its partitions and tables.

use std::sync::atomic::Ordering::Relaxed;

use crate::flow::{Clock, HoldCause, SystemClock};

use super::connector::Connector;
use super::status::{ConnectorState, ConnectorStatus, FreshnessStatus, HoldStatus, PartitionStatus, TableStatus};

/// A partition that waits for a plan for longer than this is shown as holding.
const PLAN_PENDING_MAX_MS: i64 = 3_000;

impl Connector {
    /// What it says about itself now.
    pub fn status(&self) -> ConnectorStatus {
        let owned = self.ownership.snapshot();
        let now_ms = SystemClock::new().now_wall_us() / 1000;
        let partitions: Vec<PartitionStatus> = owned
            .iter()
            .map(|progress| PartitionStatus {
                topic: progress.partition.topic.to_string(),
                partition: progress.partition.partition,
                position: progress.next().unwrap_or(0),
                records: progress.records.load(Relaxed),
                bytes: progress.bytes.load(Relaxed),
                committed: progress.committed(),
                lag_records: Some(progress.lag_records.load(Relaxed)).filter(|lag| *lag >= 0),
                resting_since_ms: progress.resting_since_ms(),
                hold: progress.hold().map(|hold| HoldStatus { cause: hold.cause.as_str(), message: hold.message, since_ms: hold.since_ms }),
                stream: progress.published.status(),
            })
            .collect();
        let (state, since_ms, message) = self.state(&partitions, now_ms);
        self.metrics.running.set(if matches!(state, ConnectorState::Failed) { 0.0 } else { 1.0 });
        ConnectorStatus {
            name: self.name.clone(),
            state,
            since_ms,
            message,
            partitions,
            tables: self
                .writers
                .tables()
                .iter()
                .map(|table| TableStatus {
                    name: table.name.to_string(),
                    rows_durable: table.rows_durable.load(Relaxed),
                    bytes_durable: table.bytes_durable.load(Relaxed),
                    last_error: table.last_error(),
                })
                .collect(),
            freshness: self
                .freshness
                .quantile_ms(0.5)
                .zip(self.freshness.quantile_ms(0.99))
                .map(|(p50_ms, p99_ms)| FreshnessStatus { p50_ms, p99_ms }),
            shards: self.shards.iter().map(|(handle, _)| handle.work().so_far()).collect(),
            dead_letters: self.dead_letters.counts.dead_letters.load(Relaxed),
            skipped: self.dead_letters.counts.skipped.load(Relaxed),
        }
    }

    /// State, since when, why. What says more about the whole goes first.
    fn state(&self, partitions: &[PartitionStatus], now_ms: i64) -> (ConnectorState, i64, Option<String>) {
        if let Some(message) = self.failure() {
            return (ConnectorState::Failed, self.started_ms, Some(message));
        }
        if let Some(unreachable) = self.trouble.unreachable() {
            let since = super::letter::rfc3339(unreachable.since_ms * 1000);
            let message = format!(
                "brokers unreachable since {since}: {}; whether records wait is not known; check [kafka] bootstrap.servers, the network and \
                 the brokers",
                unreachable.error
            );
            return (ConnectorState::Unreachable, unreachable.since_ms, Some(message));
        }
        if let Some(since_ms) = self.pause.since_ms() {
            let name = &self.name;
            let message = format!("told to pause: it keeps its partitions and takes nothing; `millrace connectors resume {name}`");
            return (ConnectorState::Paused, since_ms, Some(message));
        }
        // A hold for a plan or a takeover lasts milliseconds as a rule and is no news.
        let short = [HoldCause::PlanPending.as_str(), HoldCause::TakingOver.as_str()];
        let news = |hold: &&HoldStatus| !short.contains(&hold.cause) || now_ms - hold.since_ms > PLAN_PENDING_MAX_MS;
        let holds = || partitions.iter().filter_map(|partition| partition.hold.as_ref()).filter(news);
        if let Some(first) = holds().next() {
            let since_ms = holds().map(|hold| hold.since_ms).min().unwrap_or(first.since_ms);
            return (ConnectorState::Holding, since_ms, Some(first.message.clone()));
        }
        if let Some(since_ms) = self.stall.since_ms() {
            let since = super::letter::rfc3339(since_ms * 1000);
            let message = format!("records wait, and none was finished since {since}: {}", self.why_stalled());
            return (ConnectorState::Stalled, since_ms, Some(message));
        }
        match (partitions.is_empty(), self.trouble.has_joined()) {
            (false, _) => (ConnectorState::Running, self.started_ms, None),
            (true, true) => (ConnectorState::Idle, self.started_ms, None),
            (true, false) => (ConnectorState::Starting, self.started_ms, self.trouble.group()),
        }
    }

    /// Why records wait although nothing holds, as far as that is known.
    fn why_stalled(&self) -> String {
        let tables = self.writers.tables();
        if let Some(error) = tables.iter().find_map(|table| table.last_error()) {
            return format!("the last answer of BigQuery: {error}");
        }
        let unanswered = |table: &std::sync::Arc<super::worker::TableEntry>| {
            let bytes = table.unacked_bytes.load(Relaxed);
            (bytes > 0).then(|| format!("{bytes} bytes of rows for {}", table.name))
        };
        let waiting: Vec<String> = tables.iter().filter_map(unanswered).collect();
        if waiting.is_empty() {
            return "BigQuery owes no answer; see the log, and report it".to_owned();
        }
        format!("BigQuery has not answered {}; [bigquery] append_timeout ends the wait", waiting.join(", "))
    }

    /// What ended the connector, a thread that ended without a message included.
    fn failure(&self) -> Option<String> {
        self.trouble.failure().or_else(|| {
            let ended = if self.shards.iter().any(|(_, thread)| thread.is_finished()) {
                "a shard's thread"
            } else if self.committer.is_finished() {
                "the committer's thread"
            } else {
                return None;
            };
            Some(format!("{ended} has ended; see the log, restart the worker"))
        })
    }
}
