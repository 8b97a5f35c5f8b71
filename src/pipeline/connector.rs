//! One connector in one worker: its consumer, shards, writers, committer; started, asked, stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::bigquery::{Appender, TableSpec, Tables};
use crate::config::{ConnectorConfig, FleetConfig};
use crate::decode::DecodeOptions;
use crate::flow::{BudgetKind, Clock, HoldCause, Lease, SystemClock};
use crate::kafka::{GroupControl, GroupSettings, start_group};
use crate::schema::SchemaSource;
use crate::telemetry::metrics::ConnectorMetrics;

use super::committer::{Committer, CommitterParts};
use super::dead_letters::DeadLetters;
use super::events::{ShardEvent, ShardHandle};
use super::fence::Fence;
use super::freshness::FreshnessHistogram;
use super::lag::{self, LagParts};
use super::listener::Rebalances;
use super::plans::PlanMaker;
use super::progress::Ownership;
use super::route::TableRoutes;
use super::shard::{Shard, ShardParts};
use super::shard_thread;
use super::stall::StallWatch;
use super::status::{ConnectorState, ConnectorStatus, FreshnessStatus, HoldStatus, PartitionStatus, TableStatus};
use super::worker::WorkerShared;
use super::writers::{WriterParts, Writers};

/// A partition that waits for a plan for longer than this is shown as holding.
const PLAN_PENDING_MAX_MS: i64 = 3_000;

/// What a connector is made of.
pub struct ConnectorParts {
    /// Its file.
    pub config: Arc<ConnectorConfig>,
    /// `millrace.toml`.
    pub fleet: Arc<FleetConfig>,
    /// Where its schemas come from; none for JSON.
    pub schemas: Option<Arc<dyn SchemaSource>>,
    /// Tables over REST.
    pub tables: Arc<dyn Tables>,
    /// Rows over the Storage Write API.
    pub appender: Arc<dyn Appender>,
    /// What it shares with the worker's other connectors.
    pub worker: Arc<WorkerShared>,
    /// Memory that its consumer's queues may take.
    pub prefetch_bytes: u64,
}

/// Why a connector does not start or stop as it should.
#[derive(Debug, thiserror::Error)]
pub enum ConnectorError {
    /// Its file asks for something impossible.
    #[error("connector `{connector}`: {message}")]
    Config {
        /// Which connector.
        connector: String,
        /// What and where.
        message: String,
    },
    /// Kafka refused to start or to stop it.
    #[error("connector `{connector}`: {message}")]
    Kafka {
        /// Which connector.
        connector: String,
        /// librdkafka's words.
        message: String,
    },
    /// The system gave no thread.
    #[error("connector `{connector}`: no thread: {source}")]
    Thread {
        /// Which connector.
        connector: String,
        /// The system's words.
        source: std::io::Error,
    },
}

/// A running connector.
pub struct Connector {
    name: String,
    started_ms: i64,
    control: Arc<dyn GroupControl>,
    shards: Vec<(ShardHandle, JoinHandle<()>)>,
    committer: Committer,
    lag_task: tokio::task::JoinHandle<()>,
    ownership: Arc<Ownership>,
    writers: Arc<Writers>,
    dead_letters: Arc<DeadLetters>,
    freshness: Arc<FreshnessHistogram>,
    stall: Arc<StallWatch>,
    metrics: Arc<ConnectorMetrics>,
    last_error: Arc<Mutex<Option<(String, bool)>>>,
    joined: Arc<AtomicBool>,
    runtime: tokio::runtime::Handle,
    _prefetch: Lease,
}

impl Connector {
    /// Starts it: joins its group and takes records as partitions come.
    ///
    /// # Errors
    /// A mistake in its file that shows only now, a property that librdkafka refuses, no thread. Brokers that are away are no error: the
    /// connector waits for them.
    pub fn start(parts: ConnectorParts) -> Result<Self, ConnectorError> {
        let config = parts.config.clone();
        let name = config.name.clone();
        let kafka_error = |error: &dyn std::fmt::Display| ConnectorError::Kafka { connector: name.clone(), message: error.to_string() };
        let thread_error = |source| ConnectorError::Thread { connector: name.clone(), source };

        let options = DecodeOptions::new(&config, parts.fleet.bigquery.text_literals)
            .map_err(|message| ConnectorError::Config { connector: name.clone(), message })?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let metrics = Arc::new(ConnectorMetrics::new(&name));
        let runtime = parts.worker.runtime.clone();
        let settings = GroupSettings::of(&parts.fleet, &config, parts.prefetch_bytes);
        let clients = parts.worker.clients.of(&settings);
        let fence = Arc::new(Fence::new());
        let freshness = Arc::new(FreshnessHistogram::default());
        let ownership = Arc::new(Ownership::default());
        let last_error = Arc::new(Mutex::new(None));
        let joined = Arc::new(AtomicBool::new(false));
        let spec = TableSpec {
            create: config.table.create,
            partition: config.table.partition.clone(),
            cluster: config.table.cluster.clone(),
            evolve: config.table.evolve,
        };
        let dead_letters = Arc::new(DeadLetters {
            connector: name.clone(),
            policy: config.errors.bad_records,
            topic: config.dead_letter_topic(),
            truncate_oversized: config.errors.truncate_oversized,
            letters: clients.clone(),
            rereader: clients.clone(),
            metrics: metrics.clone(),
            clock: clock.clone(),
            counts: Default::default(),
        });
        let bad_records = dead_letters.start(&runtime);
        let plans = Arc::new(PlanMaker {
            schemas: parts.schemas.clone(),
            tables: parts.tables.clone(),
            spec: spec.clone(),
            options,
            runtime: runtime.clone(),
        });
        let writers = Arc::new(Writers::new(WriterParts {
            connector: name.clone(),
            appender: parts.appender.clone(),
            tables: parts.tables.clone(),
            spec,
            fence: fence.clone(),
            dead_letters: dead_letters.clone(),
            clock: clock.clone(),
            freshness: freshness.clone(),
            metrics: metrics.clone(),
            runtime: runtime.clone(),
        }));

        let count = parts.fleet.worker.shards.max(1);
        let (handles, receivers): (Vec<_>, Vec<_>) = (0..count).map(|_| ShardHandle::new()).unzip();
        let prefetch = parts.worker.budget.lease(BudgetKind::Prefetch, parts.prefetch_bytes);
        let routes = Arc::new(TableRoutes::new(&config.table, &parts.fleet.bigquery.project));
        let listener = Arc::new(Rebalances {
            connector: name.clone(),
            shards: handles.clone(),
            ownership: ownership.clone(),
            revoke_deadline: parts.fleet.worker.revoke_deadline.get(),
            metrics: metrics.clone(),
            routes: routes.clone(),
            worker: parts.worker.clone(),
            revoked: Mutex::default(),
            last_error: last_error.clone(),
            joined: joined.clone(),
        });
        let control = start_group(settings, listener).map_err(|error| kafka_error(&error))?;
        fence.set_session_timeout(control.session_timeout());
        let mut shards = Vec::new();
        for (index, (handle, receiver)) in handles.into_iter().zip(receivers).enumerate() {
            let shard = Shard::new(ShardParts {
                config: config.clone(),
                handle: handle.clone(),
                worker: parts.worker.clone(),
                control: control.clone(),
                routes: routes.clone(),
                writers: writers.clone(),
                plans: plans.clone(),
                dead_letters: bad_records.clone(),
                counts: dead_letters.counts.clone(),
                fence: fence.clone(),
                metrics: metrics.clone(),
                clock: clock.clone(),
            });
            let thread = shard_thread::start(&format!("shard-{index}-{name}"), shard, receiver).map_err(thread_error)?;
            shards.push((handle, thread));
        }
        let committer = Committer::start(CommitterParts {
            connector: name.clone(),
            control: control.clone(),
            ownership: ownership.clone(),
            fence,
            metrics: metrics.clone(),
            interval: parts.fleet.worker.commit_interval.get(),
        })
        .map_err(thread_error)?;
        let stall = Arc::new(StallWatch::default());
        let lag_task = runtime.spawn(lag::run(LagParts {
            connector: name.clone(),
            ownership: ownership.clone(),
            clients,
            metrics: metrics.clone(),
            freshness: freshness.clone(),
            stall: stall.clone(),
            clock: clock.clone(),
        }));
        tracing::info!(connector = name, group = config.group_id(), "connector started");
        Ok(Self {
            started_ms: clock.now_wall_us() / 1000,
            name,
            control,
            shards,
            committer,
            lag_task,
            ownership,
            writers,
            dead_letters,
            freshness,
            stall,
            metrics,
            last_error,
            joined,
            runtime,
            _prefetch: prefetch,
        })
    }

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
                hold: progress.hold().map(|hold| HoldStatus { cause: hold.cause.as_str(), message: hold.message, since_ms: hold.since_ms }),
            })
            .collect();
        let failed = self.shards.iter().any(|(_, thread)| thread.is_finished());
        let group_error = self.last_error.lock().clone();
        // A hold for a plan lasts milliseconds as a rule and is no news.
        let news = |hold: &&HoldStatus| hold.cause != HoldCause::PlanPending.as_str() || now_ms - hold.since_ms > PLAN_PENDING_MAX_MS;
        let holding = partitions.iter().filter_map(|partition| partition.hold.as_ref()).find(news);
        let (state, message) = if failed {
            (ConnectorState::Failed, Some("a shard's thread ended; see the log, restart the worker".to_owned()))
        } else if let Some((message, true)) = group_error {
            (ConnectorState::Failed, Some(message))
        } else if let Some(hold) = holding {
            (ConnectorState::Holding, Some(hold.message.clone()))
        } else if self.stall.since_ms().is_some() {
            let last = self.writers.tables().iter().find_map(|table| table.last_error());
            let why = last.map(|error| format!("; the last answer of BigQuery: {error}")).unwrap_or_default();
            (ConnectorState::Stalled, Some(format!("records wait, and none was finished for over 30 s{why}")))
        } else if owned.is_empty() && !self.joined.load(Relaxed) {
            (ConnectorState::Starting, group_error.map(|(message, _)| message))
        } else {
            (ConnectorState::Running, None)
        };
        let since_ms = partitions
            .iter()
            .filter_map(|partition| partition.hold.as_ref().map(|hold| hold.since_ms))
            .chain(self.stall.since_ms())
            .min()
            .unwrap_or(self.started_ms);
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

    /// Drains and leaves the group: appends in flight are awaited until the revoke deadline, heads are committed, and the group is left at once.
    ///
    /// # Errors
    /// When the consumer does not close in time; what was not committed comes again.
    pub async fn stop(self, deadline: Duration) -> Result<(), ConnectorError> {
        let name = self.name.clone();
        self.lag_task.abort();
        let began = Instant::now();
        let stopped = self.runtime.clone().spawn_blocking(move || {
            let closed = self.control.close(deadline);
            self.committer.stop();
            for (handle, thread) in self.shards {
                handle.blocking_send(ShardEvent::Stop);
                if thread.join().is_err() {
                    tracing::error!(connector = self.name, "a shard's thread panicked");
                }
            }
            closed
        });
        match stopped.await {
            Ok(Ok(())) => {
                tracing::info!(connector = name, took_ms = began.elapsed().as_millis(), "connector stopped");
                Ok(())
            }
            Ok(Err(error)) => Err(ConnectorError::Kafka { connector: name, message: error.to_string() }),
            Err(error) => Err(ConnectorError::Kafka { connector: name, message: format!("stopping panicked: {error}") }),
        }
    }
}
