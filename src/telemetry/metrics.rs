//! Handles for those who count. A handle is made once and formats no label afterwards.
//!
//! A [`Counter`] or [`Histogram`] is one atomic operation. A [`Gauge`] costs a lookup and is for once-a-second ticks, never for records.

use std::time::Duration;

use metrics::{Counter, Histogram, Key, Label, Level, Metadata};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_util::MetricKindMask;

use super::catalog::{self as names, Kind, METRICS};
use super::outcomes;

/// How long a gauge that nobody sets is still shown: a partition that went away takes its lag with it.
pub const GAUGE_IDLE: Duration = Duration::from_secs(60);

pub(super) static METADATA: Metadata<'static> = Metadata::new("millrace", Level::INFO, Some("millrace"));

/// Installs the recorder of this process and describes every metric of the [catalog](super::catalog).
///
/// # Errors
/// When a recorder is installed already.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let handle = builder()?.install_recorder()?;
    describe_all();
    Gauge::new(names::BUILD_INFO, vec![Label::new("version", env!("CARGO_PKG_VERSION"))]).set(1.0);
    outcomes::begin();
    Ok(handle)
}

pub(super) fn builder() -> Result<PrometheusBuilder, BuildError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full(names::FRESHNESS.to_owned()), names::FRESHNESS_BUCKETS)?
        .set_buckets_for_metric(Matcher::Full(names::TABLE_APPEND_LATENCY.to_owned()), names::APPEND_LATENCY_BUCKETS)
        .map(|b| b.idle_timeout(MetricKindMask::GAUGE, Some(GAUGE_IDLE)))
}

fn describe_all() {
    metrics::with_recorder(|recorder| describe_on(recorder));
}

/// Tells a recorder what each metric of the catalog is.
pub(super) fn describe_on(recorder: &dyn metrics::Recorder) {
    for metric in METRICS {
        let (name, unit, help) = (metrics::KeyName::from(metric.name), Some(metric.unit), metrics::SharedString::from(metric.help));
        match metric.kind {
            Kind::Counter => recorder.describe_counter(name, unit, help),
            Kind::Gauge => recorder.describe_gauge(name, unit, help),
            Kind::Histogram => recorder.describe_histogram(name, unit, help),
        }
    }
}

pub(super) fn counter(name: &'static str, labels: Vec<Label>) -> Counter {
    let key = Key::from_parts(name, labels);
    metrics::with_recorder(|recorder| recorder.register_counter(&key, &METADATA))
}

fn histogram(name: &'static str, labels: Vec<Label>) -> Histogram {
    let key = Key::from_parts(name, labels);
    metrics::with_recorder(|recorder| recorder.register_histogram(&key, &METADATA))
}

/// A gauge that vanishes when it is not set for [`GAUGE_IDLE`], and comes back when it is set again: set it at every tick.
///
/// (A plain `metrics::Gauge` writes into nothing once the exporter has dropped its series.)
#[derive(Debug, Clone)]
pub struct Gauge {
    key: Key,
}

impl Gauge {
    pub(super) fn new(name: &'static str, labels: Vec<Label>) -> Self {
        Self { key: Key::from_parts(name, labels) }
    }

    /// Sets the value.
    pub fn set(&self, value: f64) {
        metrics::with_recorder(|recorder| recorder.register_gauge(&self.key, &METADATA)).set(value);
    }
}

/// What one connector counts.
pub struct ConnectorMetrics {
    connector: Label,
    /// [`names::FRESHNESS`], in seconds: once a span or append, not once a record.
    pub freshness: Histogram,
    /// [`names::ASSIGNED_PARTITIONS`].
    pub assigned_partitions: Gauge,
    /// [`names::REBALANCES`] of kind `assigned`.
    pub rebalances_assigned: Counter,
    /// [`names::REBALANCES`] of kind `revoked`.
    pub rebalances_revoked: Counter,
    /// [`names::REBALANCES`] of kind `lost`.
    pub rebalances_lost: Counter,
    /// [`names::COMMITS`].
    pub commits: Counter,
    /// [`names::COMMIT_FAILURES`].
    pub commit_failures: Counter,
    /// [`names::TOMBSTONES`].
    pub tombstones: Counter,
    /// [`names::LOST_RANGES`].
    pub lost_ranges: Counter,
    /// [`names::LOST_RECORDS`].
    pub lost_records: Counter,
    /// [`names::SELF_FENCES`].
    pub self_fences: Counter,
    /// [`names::CONSUMER_ERRORS`].
    pub consumer_errors: Counter,
    /// [`names::CONNECTOR_RUNNING`]: 1 or 0.
    pub running: Gauge,
    /// [`names::BROKERS_UNREACHABLE`]: 1 or 0.
    pub brokers_unreachable: Gauge,
}

impl ConnectorMetrics {
    /// The handles of this connector.
    pub fn new(connector: &str) -> Self {
        let connector = Label::new("connector", connector.to_owned());
        let plain = || vec![connector.clone()];
        let rebalances = |kind: &'static str| counter(names::REBALANCES, vec![connector.clone(), Label::new("kind", kind)]);
        Self {
            freshness: histogram(names::FRESHNESS, plain()),
            assigned_partitions: Gauge::new(names::ASSIGNED_PARTITIONS, plain()),
            rebalances_assigned: rebalances("assigned"),
            rebalances_revoked: rebalances("revoked"),
            rebalances_lost: rebalances("lost"),
            commits: counter(names::COMMITS, plain()),
            commit_failures: counter(names::COMMIT_FAILURES, plain()),
            tombstones: counter(names::TOMBSTONES, plain()),
            lost_ranges: counter(names::LOST_RANGES, plain()),
            lost_records: counter(names::LOST_RECORDS, plain()),
            self_fences: counter(names::SELF_FENCES, plain()),
            consumer_errors: counter(names::CONSUMER_ERRORS, plain()),
            running: Gauge::new(names::CONNECTOR_RUNNING, plain()),
            brokers_unreachable: Gauge::new(names::BROKERS_UNREACHABLE, plain()),
            connector,
        }
    }

    fn by_cause(&self, cause: &'static str) -> Vec<Label> {
        vec![self.connector.clone(), Label::new("cause", cause)]
    }

    /// [`names::DEAD_LETTERS`] of this error class. The handle is worth keeping by those who count many.
    pub fn dead_letters(&self, class: &'static str) -> Counter {
        counter(names::DEAD_LETTERS, self.by_cause(class))
    }

    /// [`names::SKIPPED_RECORDS`] of this error class. The handle is worth keeping by those who count many.
    pub fn skipped(&self, class: &'static str) -> Counter {
        counter(names::SKIPPED_RECORDS, self.by_cause(class))
    }

    /// One more partition began to hold: [`names::HOLDS`].
    pub fn hold_began(&self, cause: &'static str) {
        counter(names::HOLDS, self.by_cause(cause)).increment(1);
    }

    /// [`names::HELD_PARTITIONS`] of this cause. Set it at every tick while it is not 0, and once to 0.
    pub fn held_partitions(&self, cause: &'static str) -> Gauge {
        Gauge::new(names::HELD_PARTITIONS, self.by_cause(cause))
    }
}

/// What one assigned partition counts. Dropped with the assignment: its lag is 0 at once and its gauges vanish after [`GAUGE_IDLE`]
/// (the counters stay, as Prometheus wants it).
pub struct PartitionMetrics {
    /// [`names::PARTITION_RECORDS_CONSUMED`].
    pub records_consumed: Counter,
    /// [`names::PARTITION_BYTES_CONSUMED`].
    pub bytes_consumed: Counter,
    /// [`names::PARTITION_LAG_RECORDS`].
    pub lag_records: Gauge,
    /// [`names::PARTITION_LAG_BYTES`].
    pub lag_bytes: Gauge,
    /// [`names::PARTITION_LAG_SECONDS`].
    pub lag_seconds: Gauge,
}

impl PartitionMetrics {
    /// The handles of this partition of this connector's topic.
    pub fn new(connector: &str, topic: &str, partition: i32) -> Self {
        let labels = || {
            vec![
                Label::new("connector", connector.to_owned()),
                Label::new("topic", topic.to_owned()),
                Label::new("partition", partition.to_string()),
            ]
        };
        Self {
            records_consumed: counter(names::PARTITION_RECORDS_CONSUMED, labels()),
            bytes_consumed: counter(names::PARTITION_BYTES_CONSUMED, labels()),
            lag_records: Gauge::new(names::PARTITION_LAG_RECORDS, labels()),
            lag_bytes: Gauge::new(names::PARTITION_LAG_BYTES, labels()),
            lag_seconds: Gauge::new(names::PARTITION_LAG_SECONDS, labels()),
        }
    }
}

impl Drop for PartitionMetrics {
    fn drop(&mut self) {
        for gauge in [&self.lag_records, &self.lag_bytes, &self.lag_seconds] {
            gauge.set(0.0);
        }
    }
}

/// What one table counts, whoever writes to it.
pub struct TableMetrics {
    table: Label,
    /// [`names::TABLE_ROWS_DURABLE`].
    pub rows_durable: Counter,
    /// [`names::TABLE_BYTES_DURABLE`].
    pub bytes_durable: Counter,
    /// [`names::TABLE_APPENDS`].
    pub appends: Counter,
    /// [`names::TABLE_APPEND_RETRIES`].
    pub append_retries: Counter,
    /// [`names::TABLE_APPEND_LATENCY`], in seconds.
    pub append_latency: Histogram,
    /// [`names::TABLE_SCHEMA_CHANGES`].
    pub schema_changes: Counter,
    /// [`names::POSSIBLE_DUPLICATE_ROWS`].
    pub possible_duplicate_rows: Counter,
}

impl TableMetrics {
    /// The handles of this table, named `project.dataset.table`.
    pub fn new(table: &str) -> Self {
        let table = Label::new("table", table.to_owned());
        let plain = || vec![table.clone()];
        Self {
            rows_durable: counter(names::TABLE_ROWS_DURABLE, plain()),
            bytes_durable: counter(names::TABLE_BYTES_DURABLE, plain()),
            appends: counter(names::TABLE_APPENDS, plain()),
            append_retries: counter(names::TABLE_APPEND_RETRIES, plain()),
            append_latency: histogram(names::TABLE_APPEND_LATENCY, plain()),
            schema_changes: counter(names::TABLE_SCHEMA_CHANGES, plain()),
            possible_duplicate_rows: counter(names::POSSIBLE_DUPLICATE_ROWS, plain()),
            table,
        }
    }

    /// An append was not acknowledged: [`names::TABLE_APPEND_ERRORS`] of this class.
    pub fn error(&self, class: &'static str) {
        counter(names::TABLE_APPEND_ERRORS, vec![self.table.clone(), Label::new("class", class)]).increment(1);
    }
}

/// [`names::LEADER`]: set it at every tick.
pub fn leading(leads: bool) {
    Gauge::new(names::LEADER, Vec::new()).set(if leads { 1.0 } else { 0.0 });
}

/// The memory that records and rows take in this process, by kind, against the budget.
pub struct MemoryMetrics {
    /// [`names::MEMORY_BUDGET`].
    pub budget: Gauge,
    /// What librdkafka fetched ahead.
    pub prefetch: Gauge,
    /// Rows in buffers that are not sent yet.
    pub open_buffers: Gauge,
    /// Rows sent and not yet acknowledged.
    pub in_flight: Gauge,
    /// Dead letters on their way to their topic.
    pub dead_letters: Gauge,
    /// Compiled plans and cached schemas.
    pub plans: Gauge,
    /// Resident memory that no other kind explains.
    pub unaccounted: Gauge,
    resident: Gauge,
    start_time: Gauge,
    build_info: Gauge,
    started_s: f64,
}

impl MemoryMetrics {
    /// The handles. One for the process.
    pub fn new() -> Self {
        let used = |kind: &'static str| Gauge::new(names::MEMORY_USED, vec![Label::new("kind", kind)]);
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self {
            budget: Gauge::new(names::MEMORY_BUDGET, Vec::new()),
            prefetch: used("prefetch"),
            open_buffers: used("open_buffers"),
            in_flight: used("in_flight"),
            dead_letters: used("dead_letters"),
            plans: used("plans"),
            unaccounted: used("unaccounted"),
            resident: Gauge::new(names::RESIDENT_MEMORY, Vec::new()),
            start_time: Gauge::new(names::START_TIME, Vec::new()),
            build_info: Gauge::new(names::BUILD_INFO, vec![Label::new("version", env!("CARGO_PKG_VERSION"))]),
            started_s: since_epoch.as_secs_f64(),
        }
    }

    /// Sets what the process itself knows: resident memory, start time, version. At every tick.
    pub fn tick(&self) {
        if let Some(bytes) = resident_bytes() {
            self.resident.set(bytes as f64);
        }
        self.start_time.set(self.started_s);
        self.build_info.set(1.0);
    }
}

impl Default for MemoryMetrics {
    fn default() -> Self {
        Self::new()
    }
}

/// The resident memory of this process in bytes (`/proc/self/status`, VmRSS); `None` where the system has no such file.
pub fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules() {
        let mut seen = std::collections::BTreeSet::new();
        for metric in METRICS {
            assert!(metric.name.starts_with("millrace_"), "{}", metric.name);
            assert!(seen.insert(metric.name), "{} twice", metric.name);
            assert_eq!(metric.kind == Kind::Counter, metric.name.ends_with("_total"), "{}", metric.name);
            if metric.kind != Kind::Counter {
                let unit = match metric.unit {
                    metrics::Unit::Seconds => "_seconds",
                    metrics::Unit::Bytes => "_bytes",
                    _ => "",
                };
                assert!(metric.name.ends_with(unit), "{}", metric.name);
            }
            assert!(metric.help.ends_with('.'), "{}", metric.help);
        }
    }

    #[test]
    fn every_handle_shows_up_under_its_name_and_labels() {
        let recorder = builder().unwrap().build_recorder();
        let page = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            describe_all();
            let connector = ConnectorMetrics::new("stock");
            connector.freshness.record(0.21);
            connector.dead_letters("TooShort").increment(3);
            connector.held_partitions("table_missing").set(2.0);
            connector.hold_began("table_missing");
            let partition = PartitionMetrics::new("stock", "a", 7);
            partition.lag_records.set(12.0);
            let table = TableMetrics::new("p.d.t");
            table.error("Transient");
            table.possible_duplicate_rows.increment(5);
            let text = page.render();
            for line in [
                "millrace_freshness_seconds_bucket{connector=\"stock\",le=\"0.25\"} 1",
                "millrace_freshness_seconds_bucket{connector=\"stock\",le=\"0.2\"} 0",
                "millrace_dead_letters_total{connector=\"stock\",cause=\"TooShort\"} 3",
                "millrace_held_partitions{connector=\"stock\",cause=\"table_missing\"} 2",
                "millrace_holds_total{connector=\"stock\",cause=\"table_missing\"} 1",
                "millrace_partition_lag_records{connector=\"stock\",topic=\"a\",partition=\"7\"} 12",
                "millrace_table_append_errors_total{table=\"p.d.t\",class=\"Transient\"} 1",
                "millrace_possible_duplicate_rows_total{table=\"p.d.t\"} 5",
                "# HELP millrace_partition_lag_records Records not yet consumed",
            ] {
                assert!(text.contains(line), "no `{line}` in\n{text}");
            }
            drop(partition);
            assert!(page.render().contains("millrace_partition_lag_records{connector=\"stock\",topic=\"a\",partition=\"7\"} 0"));
        });
    }

    #[test]
    fn resident_memory_is_read() {
        assert!(resident_bytes().unwrap() > 1024 * 1024);
    }
}
