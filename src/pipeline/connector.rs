//! One connector in one worker: its consumer, shards, writers, committer; started, asked, stopped.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::bigquery::{Appender, TableSpec, Tables};
use crate::config::{ConnectorConfig, FleetConfig};
use crate::decode::DecodeOptions;
use crate::flow::{BudgetKind, Clock, Lease, SystemClock};
use crate::kafka::{GroupControl, GroupSettings, start_group};
use crate::schema::SchemaSource;
use crate::telemetry::metrics::ConnectorMetrics;

use super::committer::{Committer, CommitterParts};
use super::dead_letters::DeadLetters;
use super::events::ShardHandle;
use super::fence::Fence;
use super::freshness::FreshnessHistogram;
use super::half_started::{HalfStarted, end_shards};
use super::lag::{self, LagParts};
use super::listener::Rebalances;
use super::plans::PlanMaker;
use super::progress::Ownership;
use super::route::TableRoutes;
use super::shard::{Shard, ShardParts};
use super::shard_thread;
use super::stall::StallWatch;
use super::trouble::Trouble;
use super::worker::WorkerShared;
use super::writers::{WriterParts, Writers};

/// How long a connector that fails may take to leave its group, so that other workers get its partitions.
pub(super) const LEAVE_TIMEOUT: Duration = Duration::from_secs(10);

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
    pub(super) name: String,
    pub(super) started_ms: i64,
    control: Arc<dyn GroupControl>,
    pub(super) shards: Vec<(ShardHandle, JoinHandle<()>)>,
    pub(super) committer: Committer,
    tasks: [tokio::task::JoinHandle<()>; 2],
    pub(super) ownership: Arc<Ownership>,
    pub(super) writers: Arc<Writers>,
    pub(super) dead_letters: Arc<DeadLetters>,
    pub(super) freshness: Arc<FreshnessHistogram>,
    pub(super) stall: Arc<StallWatch>,
    pub(super) metrics: Arc<ConnectorMetrics>,
    pub(super) trouble: Arc<Trouble>,
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
        let trouble = Arc::new(Trouble::default());
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
            trouble: trouble.clone(),
            rejects: super::rejected::places(),
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
            trouble: trouble.clone(),
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
            trouble: trouble.clone(),
        });
        let control = start_group(settings, listener).map_err(|error| kafka_error(&error))?;
        fence.set_session_timeout(control.session_timeout());
        let mut half_started = HalfStarted::new(control.clone());
        for (index, (handle, receiver)) in handles.into_iter().zip(receivers).enumerate() {
            let shard = Shard::new(ShardParts {
                config: config.clone(),
                handle: handle.clone(),
                worker: parts.worker.clone(),
                control: control.clone(),
                routes: routes.clone(),
                writers: writers.clone(),
                plans: plans.clone(),
                bad_records: bad_records.clone(),
                dead_letters: dead_letters.clone(),
                fence: fence.clone(),
                trouble: trouble.clone(),
                metrics: metrics.clone(),
                clock: clock.clone(),
            });
            let thread = shard_thread::start(&format!("shard-{index}-{name}"), shard, receiver).map_err(thread_error)?;
            half_started.shards.push((handle, thread));
        }
        let committer = Committer::start(CommitterParts {
            connector: name.clone(),
            control: control.clone(),
            ownership: ownership.clone(),
            fence,
            trouble: trouble.clone(),
            metrics: metrics.clone(),
            interval: parts.fleet.worker.commit_interval.get(),
        })
        .map_err(thread_error)?;
        let shards = half_started.complete();
        let stall = Arc::new(StallWatch::default());
        let lag_task = runtime.spawn(lag::run(LagParts {
            connector: name.clone(),
            ownership: ownership.clone(),
            clients,
            metrics: metrics.clone(),
            freshness: freshness.clone(),
            stall: stall.clone(),
            trouble: trouble.clone(),
            clock: clock.clone(),
        }));
        let leave_task = runtime.spawn(leave_when_failed(name.clone(), trouble.clone(), control.clone()));
        tracing::info!(connector = name, group = config.group_id(), "connector started");
        Ok(Self {
            started_ms: clock.now_wall_us() / 1000,
            name,
            control,
            shards,
            committer,
            tasks: [lag_task, leave_task],
            ownership,
            writers,
            dead_letters,
            freshness,
            stall,
            metrics,
            trouble,
            runtime,
            _prefetch: prefetch,
        })
    }

    /// Drains and leaves the group: appends in flight are awaited until the revoke deadline, heads are committed, and the group is left at once.
    ///
    /// # Errors
    /// When the consumer does not close in time; what was not committed comes again.
    pub async fn stop(self, deadline: Duration) -> Result<(), ConnectorError> {
        let name = self.name.clone();
        for task in &self.tasks {
            task.abort();
        }
        let began = Instant::now();
        let stopped = self.runtime.clone().spawn_blocking(move || {
            let closed = self.control.close(deadline);
            self.committer.stop();
            end_shards(self.shards);
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

/// A connector that failed leaves its group: a partition that it keeps would stand still, and nobody else could read it.
async fn leave_when_failed(connector: String, trouble: Arc<Trouble>, control: Arc<dyn GroupControl>) {
    trouble.wait_failed().await;
    let message = trouble.failure().unwrap_or_default();
    tracing::error!(connector, message, "the connector failed; it leaves its group");
    let left = tokio::task::spawn_blocking(move || control.close(LEAVE_TIMEOUT)).await;
    match left {
        Ok(Ok(())) => tracing::info!(connector, "the failed connector has left its group"),
        Ok(Err(error)) => tracing::warn!(connector, %error, "the failed connector has not left its group yet"),
        Err(error) => tracing::error!(connector, %error, "leaving the group panicked"),
    }
}
