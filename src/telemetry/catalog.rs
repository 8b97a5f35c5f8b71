//! Every metric that there is: name, kind, unit, help. Nothing else may invent a name.

use metrics::Unit;

/// What a metric is to Prometheus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts observations by size.
    Histogram,
}

/// One metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name, `millrace_` in front, the unit behind; counters end with `_total`.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// What it counts.
    pub unit: Unit,
    /// The labels of its series, in order.
    pub labels: &'static [&'static str],
    /// One line for the person who reads it.
    pub help: &'static str,
}

macro_rules! catalog {
    ($($constant:ident = $kind:ident $unit:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(#[doc = $help] pub const $constant: &str = $name;)*
        /// All metrics, in the order of the documentation.
        pub const METRICS: &[Metric] =
            &[$(Metric { name: $name, kind: Kind::$kind, unit: Unit::$unit, labels: &[$($label),*], help: $help }),*];
    };
}

catalog! {
    PARTITION_RECORDS_CONSUMED = Counter Count "millrace_partition_records_consumed_total" ["connector", "topic", "partition"]
        "Records taken from Kafka.";
    PARTITION_BYTES_CONSUMED = Counter Bytes "millrace_partition_bytes_consumed_total" ["connector", "topic", "partition"]
        "Bytes of keys and values taken from Kafka.";
    PARTITION_LAG_RECORDS = Gauge Count "millrace_partition_lag_records" ["connector", "topic", "partition"]
        "Records not yet consumed: the broker's next offset (the last stable one) less the position.";
    PARTITION_LAG_BYTES = Gauge Bytes "millrace_partition_lag_bytes" ["connector", "topic", "partition"]
        "Bytes not yet consumed, from the lag in records and the mean size of a record.";
    PARTITION_LAG_SECONDS = Gauge Seconds "millrace_partition_lag_seconds" ["connector", "topic", "partition"]
        "How long ago the broker's next offset stood at the position: 0 without lag.";
    FRESHNESS = Histogram Seconds "millrace_freshness_seconds" ["connector"]
        "Time from a record's Kafka timestamp to its row being durable in BigQuery.";
    ASSIGNED_PARTITIONS = Gauge Count "millrace_assigned_partitions" ["connector"]
        "Partitions that this worker owns now.";
    REBALANCES = Counter Count "millrace_rebalances_total" ["connector", "kind"]
        "Rebalances by kind: assigned, revoked, lost.";
    COMMITS = Counter Count "millrace_commits_total" ["connector"]
        "Offset commits that the group's coordinator accepted.";
    COMMIT_FAILURES = Counter Count "millrace_commit_failures_total" ["connector"]
        "Offset commits that failed or were not answered in time; they are tried again.";
    DEAD_LETTERS = Counter Count "millrace_dead_letters_total" ["connector", "cause"]
        "Records durable in the dead-letter topic, by the class of their error.";
    SKIPPED_RECORDS = Counter Count "millrace_skipped_records_total" ["connector", "cause"]
        "Bad records dropped because of bad_records = skip, by the class of their error.";
    TOMBSTONES = Counter Count "millrace_tombstones_total" ["connector"]
        "Records without a value that were skipped.";
    HOLDS = Counter Count "millrace_holds_total" ["connector", "cause"]
        "Times that a partition began to hold, by cause.";
    HELD_PARTITIONS = Gauge Count "millrace_held_partitions" ["connector", "cause"]
        "Partitions that hold now, by cause.";
    RESTING_PARTITIONS = Gauge Count "millrace_resting_partitions" ["connector"]
        "Partitions that are paused for a moment because memory is near its limit: they fetch in turn.";
    PAUSED_PARTITIONS = Gauge Count "millrace_paused_partitions" ["connector"]
        "Partitions that are not fetched now: those that hold, and those at rest.";
    LOST_RANGES = Counter Count "millrace_lost_ranges_total" ["connector"]
        "Ranges of records that retention deleted before they were read.";
    LOST_RECORDS = Counter Count "millrace_lost_records_total" ["connector"]
        "Offsets inside those ranges: an upper bound of the records lost.";
    SELF_FENCES = Counter Count "millrace_self_fences_total" ["connector"]
        "Times that nothing was appended until a commit was accepted, because the poll thread had stood still for a session timeout.";
    CONSUMER_ERRORS = Counter Count "millrace_consumer_errors_total" ["connector"]
        "Errors that librdkafka reported for the whole consumer, such as a broker that is away.";
    CONNECTOR_RUNNING = Gauge Count "millrace_connector_running" ["connector"]
        "1 while the connector runs, 0 when it failed or stopped.";
    CONNECTOR_ASKED_TO_REST = Gauge Count "millrace_connector_asked_to_rest" ["connector"]
        "1 while the fleet was told to pause or stop the connector, else 0.";
    CONNECTOR_STALLED = Gauge Count "millrace_connector_stalled" ["connector"]
        "1 while records wait and none was finished for too long, else 0.";
    CONNECTOR_STALLED_SECONDS = Gauge Seconds "millrace_connector_stalled_seconds" ["connector"]
        "How long records have waited without one being finished, once that is too long; else 0.";
    CONNECTOR_FILE_REFUSED = Gauge Count "millrace_connector_file_refused" ["connector"]
        "1 while the connector's file cannot be taken, because of a mistake in it: what it said before goes on.";
    CONNECTORS_FOLDER_READABLE = Gauge Count "millrace_connectors_folder_readable" []
        "0 while the folder of connector files cannot be read and nothing of it is taken, else 1.";
    CONNECTOR_RELOADS = Counter Count "millrace_connector_reloads_total" ["connector", "outcome"]
        "Changes of connector files while the worker runs, by outcome: started, restarted, stopped, refused.";
    RESTART_NEEDED = Gauge Count "millrace_restart_needed" []
        "1 while millrace.toml is not what the worker began with: it needs a restart, else 0.";
    BROKERS_UNREACHABLE = Gauge Count "millrace_brokers_unreachable" ["connector"]
        "1 while the brokers do not answer this connector, else 0: lag is not known meanwhile.";
    TABLE_ROWS_DURABLE = Counter Count "millrace_table_rows_durable_total" ["table"]
        "Rows that BigQuery acknowledged.";
    TABLE_BYTES_DURABLE = Counter Bytes "millrace_table_bytes_durable_total" ["table"]
        "Encoded bytes of the rows that BigQuery acknowledged.";
    TABLE_APPENDS = Counter Count "millrace_table_appends_total" ["table"]
        "Appends sent, repeated ones included.";
    TABLE_APPEND_RETRIES = Counter Count "millrace_table_append_retries_total" ["table"]
        "Appends sent again.";
    TABLE_APPEND_ERRORS = Counter Count "millrace_table_append_errors_total" ["table", "class"]
        "Appends that were not acknowledged, by the class of the error.";
    TABLE_APPEND_LATENCY = Histogram Seconds "millrace_table_append_latency_seconds" ["table"]
        "Time from sending an append to its acknowledgement.";
    TABLE_SCHEMA_CHANGES = Counter Count "millrace_table_schema_changes_total" ["table"]
        "Tables created and columns added or relaxed by this worker.";
    POSSIBLE_DUPLICATE_ROWS = Counter Count "millrace_possible_duplicate_rows_total" ["table"]
        "Rows sent again although an earlier try may have landed: the upper bound of duplicates besides those after a crash.";
    STREAMS_CREATED = Counter Count "millrace_exact_streams_created_total" ["connector"]
        "Write streams created for exactly-once partitions.";
    STREAM_TAKEOVERS = Counter Count "millrace_exact_takeovers_total" ["connector", "landed"]
        "Partitions taken over from another owner's stream, by how many of the appends that it had announced were found landed: none, some, all.";
    LANDED_APPENDS_FOUND = Counter Count "millrace_exact_landed_appends_found_total" ["connector"]
        "Appends that takeovers found landed although nobody had committed that: at least once would have sent their rows again.";
    STREAMS_ENDED = Counter Count "millrace_exact_streams_ended_total" ["connector"]
        "Streams that their own writer ended to learn what had landed, after answers were lost or another writer was met.";
    STREAMS_LOST = Counter Count "millrace_exact_streams_lost_total" ["connector"]
        "Times that nobody could know what landed: a stream that BigQuery forgot, a row count on no boundary, damaged metadata.";
    REPLAYED_ROWS = Counter Count "millrace_exact_replayed_rows_total" ["connector"]
        "Announced rows sent again after that because of on_lost_stream = at-least-once: possible duplicates.";
    APPEND_CONNECTIONS = Gauge Count "millrace_append_connections" []
        "Open connections of the Storage Write API, shared by tables.";
    APPEND_IN_FLIGHT_BYTES = Gauge Bytes "millrace_append_in_flight_bytes" []
        "Bytes of appends that BigQuery has not answered yet.";
    SCHEMA_FETCHES = Counter Count "millrace_schema_fetches_total" ["outcome"]
        "Schemas asked from the registry or the folder, by outcome: found, unknown, unusable, unavailable.";
    MEMORY_BUDGET = Gauge Bytes "millrace_memory_budget_bytes" []
        "The memory that records and rows may take: [worker] memory.";
    MEMORY_USED = Gauge Bytes "millrace_memory_used_bytes" ["kind"]
        "The memory that records and rows take, by kind: prefetch, open_buffers, in_flight, dead_letters, plans, unaccounted.";
    RESIDENT_MEMORY = Gauge Bytes "millrace_resident_memory_bytes" []
        "The process's resident memory, as the kernel counts it.";
    LEADER = Gauge Count "millrace_leader" []
        "1 while this worker measures and decides for the fleet, else 0; not there without scaling.";
    WORKERS_DESIRED = Gauge Count "millrace_workers_desired" []
        "Workers that the leader wants; shown by the leader alone, as all that follows up to the costs.";
    WORKERS_READY = Gauge Count "millrace_workers_ready" []
        "Workers whose reports come and who are members of their groups.";
    WORKERS_WAITING = Gauge Count "millrace_workers_waiting" []
        "Workers that are there and wait to join their groups together with others.";
    WORKERS_STALE = Gauge Count "millrace_workers_stale" []
        "Workers that missed three reports.";
    FLEET_LAG_RECORDS = Gauge Count "millrace_fleet_partition_lag_records" ["connector", "topic", "partition"]
        "Records not durable yet, owned by a worker or not: the last stable offset less the committed one.";
    FLEET_LAG_BYTES = Gauge Bytes "millrace_fleet_partition_lag_bytes" ["connector", "topic", "partition"]
        "The same in bytes, by the mean size of the last records.";
    FLEET_LAG_SECONDS = Gauge Seconds "millrace_fleet_partition_lag_seconds" ["connector", "topic", "partition"]
        "How long ago the last stable offset stood at the committed one: 0 without lag.";
    FLEET_PRODUCED_RECORDS = Gauge CountPerSecond "millrace_fleet_partition_produced_records_per_second" ["connector", "topic", "partition"]
        "Records produced each second, by differences of end offsets.";
    FLEET_PRODUCED_BYTES = Gauge Count "millrace_fleet_partition_produced_bytes_per_second" ["connector", "topic", "partition"]
        "Bytes produced each second, by the mean size of the last records.";
    FLEET_CONSUMED_RECORDS = Gauge CountPerSecond "millrace_fleet_partition_consumed_records_per_second" ["connector", "topic", "partition"]
        "Records consumed each second, as the partition's worker says, or by differences of commits.";
    FLEET_CONSUMED_BYTES = Gauge Count "millrace_fleet_partition_consumed_bytes_per_second" ["connector", "topic", "partition"]
        "Bytes consumed each second.";
    FLEET_RECORD_BYTES = Gauge Bytes "millrace_fleet_partition_mean_record_bytes" ["connector", "topic", "partition"]
        "Mean bytes of key and value of a record.";
    COST_PER_HOUR = Gauge Count "millrace_cost_per_hour" ["of"]
        "What the fleet costs in an hour by worker_cost_per_hour, of: now, chosen, one_per_partition.";
    LEADER_MEMORY = Gauge Bytes "millrace_leader_memory_bytes" []
        "What the leader leaves in the state topic for the next one, at least once a minute; at most 921,600.";
    LEADER_MEMORY_CUT = Counter Count "millrace_leader_memory_cut_total" []
        "Times that it was too large and loads of long ago, or all of it, were left out: the log says what.";
    DECISIONS = Counter Count "millrace_decisions_total" ["kind"]
        "Decisions of this worker as leader, by kind: up, down, hold, none (nothing may be decided from what is known).";
    RESIZES = Counter Count "millrace_resizes_total" ["outcome"]
        "Resizes that this worker tried as leader, by outcome: done, unchanged, moved, not_leader, failed.";
    BUILD_INFO = Gauge Count "millrace_build_info" ["version"]
        "1 for each worker; the label says what runs.";
    START_TIME = Gauge Seconds "millrace_start_time_seconds" []
        "When the worker started, seconds since the epoch.";
}

/// Upper bounds of [`FRESHNESS`]' buckets in seconds: 10 ms to a day; dense around the default linger of 0.2 s.
pub const FRESHNESS_BUCKETS: &[f64] = &[
    0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0,
    900.0, 3600.0, 14400.0, 86400.0,
];

/// Upper bounds of [`TABLE_APPEND_LATENCY`]'s buckets in seconds: a loopback's millisecond to the default `append_timeout` of 300 s.
pub const APPEND_LATENCY_BUCKETS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];
