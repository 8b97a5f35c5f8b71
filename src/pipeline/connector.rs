//! One connector in one worker: its consumer, shards, writers, committer; started, asked, stopped.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::flow::{BudgetKind, Clock, Lease};
use crate::kafka::{GroupControl, GroupSettings, start_group};
use crate::telemetry::metrics::ConnectorMetrics;
use crate::telemetry::standing::StandingGauges;

use super::assembly::{Assembly, AssemblyParts, ConnectorWorld};
use super::committer::Committer;
use super::dead_letters::DeadLetters;
use super::events::ShardHandle;
use super::freshness::FreshnessHistogram;
use super::half_started::{HalfStarted, end_shards};
use super::lag::{self, LagParts};
use super::pause::Pause;
use super::progress::Ownership;
use super::shard_thread;
use super::stall::StallWatch;
use super::trouble::Trouble;
use super::writers::Writers;

/// How long a connector that fails may take to leave its group, so that other workers get its partitions.
pub(super) const LEAVE_TIMEOUT: Duration = Duration::from_secs(10);

/// What a connector is made of.
pub struct ConnectorParts {
    /// Its files, and the world around it.
    pub world: ConnectorWorld,
    /// Memory that its consumer's queues may take.
    pub prefetch_bytes: u64,
    /// It begins paused: it joins its group and takes nothing.
    pub paused: bool,
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
    pub(super) pause: Arc<Pause>,
    clock: Arc<dyn Clock>,
    pub(super) metrics: Arc<ConnectorMetrics>,
    pub(super) trouble: Arc<Trouble>,
    runtime: tokio::runtime::Handle,
    _prefetch: Lease,
}

impl Connector {
    /// Starts it: joins its group and takes records as partitions come. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// A mistake in its file that shows only now, a property that librdkafka refuses, no thread. Brokers that are away are no error: the
    /// connector waits for them.
    pub fn start(parts: ConnectorParts) -> Result<Self, ConnectorError> {
        let config = parts.world.config.clone();
        let name = config.name.clone();
        let thread_error = |source| ConnectorError::Thread { connector: name.clone(), source };
        // The lag task and whoever stops it wait for threads, which only tokio has.
        let runtime = tokio::runtime::Handle::current();
        let settings = GroupSettings::of(&parts.world.fleet, &config, parts.prefetch_bytes);
        let clients = parts.world.worker.clients.of(&settings);
        let clock: Arc<dyn Clock> = parts.world.worker.tasks.clone();
        let prefetch = parts.world.worker.budget.lease(BudgetKind::Prefetch, parts.prefetch_bytes);
        let mut assembly = Assembly::new(AssemblyParts { world: parts.world, letters: clients.clone(), rereader: clients.clone() })?;
        assembly.pause.set(parts.paused, clock.now_wall_us() / 1000);
        let control = start_group(settings, assembly.listener.clone())
            .map_err(|error| ConnectorError::Kafka { connector: name.clone(), message: error.to_string() })?;
        let mut half_started = HalfStarted::new(control.clone());
        let (shards, committer) = assembly.join(&control);
        for (index, shard) in shards.into_iter().enumerate() {
            let handle = shard.handle();
            let thread = shard_thread::start(&format!("shard-{index}-{name}"), shard).map_err(thread_error)?;
            half_started.shards.push((handle, thread));
        }
        let committer = Committer::start(committer).map_err(thread_error)?;
        let Assembly { ownership, writers, dead_letters, freshness, metrics, trouble, pause, .. } = assembly;
        let shards = half_started.complete();
        let stall = Arc::new(StallWatch::default());
        let lag_task = runtime.spawn(lag::run(LagParts {
            connector: name.clone(),
            ownership: ownership.clone(),
            clients,
            metrics: metrics.clone(),
            standing: StandingGauges::new(&name),
            freshness: freshness.clone(),
            stall: stall.clone(),
            trouble: trouble.clone(),
            pause: pause.clone(),
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
            pause,
            clock,
            metrics,
            trouble,
            runtime,
            _prefetch: prefetch,
        })
    }

    /// Takes nothing more, or goes on: within a turn of its shards (50 ms). It stays a member of its group, keeps its partitions, and
    /// finishes and commits what it took.
    pub fn pause(&self, paused: bool) {
        if self.pause.set(paused, self.clock.now_wall_us() / 1000) {
            tracing::info!(connector = self.name, paused, "told to pause or to go on");
            self.shards.iter().for_each(|(handle, _)| handle.wake());
        }
    }

    /// Drains and leaves the group: appends in flight are awaited until the revoke deadline, heads are committed, and the group is left at
    /// once.
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
            Err(error) => Err(ConnectorError::Kafka {
                connector: name,
                message: format!("stopping panicked: {}", crate::telemetry::panics::join_words(error)),
            }),
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
        Err(error) => tracing::error!(connector, error = crate::telemetry::panics::join_words(error), "leaving the group panicked"),
    }
}
