//! A connector without its threads: everything that it is made of, put together in one place, for its threads and for the simulation alike.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::bigquery::{Appender, TableSpec, Tables, WriteStreams};
use crate::config::{ConnectorConfig, FleetConfig};
use crate::decode::DecodeOptions;
use crate::kafka::GroupControl;
use crate::schema::SchemaSource;
use crate::telemetry::exact::ExactMetrics;
use crate::telemetry::metrics::ConnectorMetrics;

use super::committer::CommitterParts;
use super::connector::ConnectorError;
use super::dead_letters::{BadRecord, DeadLetters, LetterBox, Rereader};
use super::events::{ShardEvent, ShardHandle};
use super::exact::ExactParts;
use super::fence::Fence;
use super::freshness::FreshnessHistogram;
use super::listener::Rebalances;
use super::pause::Pause;
use super::plans::PlanMaker;
use super::progress::Ownership;
use super::route::TableRoutes;
use super::shard::{Shard, ShardParts};
use super::shard_thread::ShardLoop;
use super::trouble::Trouble;
use super::worker::WorkerShared;
use super::writers::{WriterParts, Writers};

/// A connector's files, and the world around it.
pub struct ConnectorWorld {
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
    /// Streams of their own, for exactly once.
    pub streams: Arc<dyn WriteStreams>,
    /// What it shares with the worker's other connectors; its time and tasks.
    pub worker: Arc<WorkerShared>,
}

/// What a connector is put together from.
pub struct AssemblyParts {
    /// Its files, and the world around it.
    pub world: ConnectorWorld,
    /// The dead-letter topic.
    pub letters: Arc<dyn LetterBox>,
    /// Reads rejected rows' records again.
    pub rereader: Arc<dyn Rereader>,
}

/// A connector that has not joined its group yet. Its tasks run already, and have nothing to do.
pub struct Assembly {
    /// Hears of rebalances.
    pub listener: Arc<Rebalances>,
    pub(super) ownership: Arc<Ownership>,
    pub(super) writers: Arc<Writers>,
    pub(super) dead_letters: Arc<DeadLetters>,
    pub(super) freshness: Arc<FreshnessHistogram>,
    pub(super) metrics: Arc<ConnectorMetrics>,
    pub(super) trouble: Arc<Trouble>,
    pub(super) pause: Arc<Pause>,
    world: ConnectorWorld,
    fence: Arc<Fence>,
    routes: Arc<TableRoutes>,
    plans: Arc<PlanMaker>,
    bad_records: mpsc::Sender<BadRecord>,
    shards: Vec<(ShardHandle, mpsc::Receiver<ShardEvent>)>,
}

impl Assembly {
    /// Puts it together.
    ///
    /// # Errors
    /// A mistake in its file that shows only now.
    pub fn new(parts: AssemblyParts) -> Result<Self, ConnectorError> {
        let AssemblyParts { world, letters, rereader } = parts;
        let (config, tasks) = (world.config.clone(), world.worker.tasks.clone());
        let name = config.name.clone();
        let options = DecodeOptions::new(&config, world.fleet.bigquery.text_literals)
            .map_err(|message| ConnectorError::Config { connector: name.clone(), message })?;
        let metrics = Arc::new(ConnectorMetrics::new(&name));
        let fence = Arc::new(Fence::new(tasks.clone()));
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
            letters,
            rereader,
            metrics: metrics.clone(),
            tasks: tasks.clone(),
            counts: Default::default(),
            trouble: trouble.clone(),
            rejects: super::rejected::places(),
        });
        let bad_records = dead_letters.start();
        let plans = Arc::new(PlanMaker {
            schemas: world.schemas.clone(),
            tables: world.tables.clone(),
            spec: spec.clone(),
            options,
            tasks: tasks.clone(),
        });
        let exact = Arc::new(ExactParts {
            guarantee: config.delivery.guarantee,
            on_lost: config.delivery.on_lost_stream,
            streams: world.streams.clone(),
            bell: Arc::default(),
            metrics: Arc::new(ExactMetrics::new(&name)),
        });
        let writers = Arc::new(Writers::new(WriterParts {
            connector: name.clone(),
            appender: world.appender.clone(),
            tables: world.tables.clone(),
            spec,
            fence: fence.clone(),
            dead_letters: dead_letters.clone(),
            tasks: tasks.clone(),
            freshness: freshness.clone(),
            metrics: metrics.clone(),
            exact: exact.clone(),
            trouble: trouble.clone(),
        }));
        let pause = Arc::new(Pause::default());
        let shards: Vec<_> = (0..world.fleet.worker.shards.max(1))
            .map(|_| ShardHandle::new())
            .map(|(handle, events)| (handle.pausing_with(pause.clone()), events))
            .collect();
        let routes = Arc::new(TableRoutes::new(&config.table, &world.fleet.bigquery.project));
        let listener = Arc::new(Rebalances {
            connector: name,
            shards: shards.iter().map(|(handle, _)| handle.clone()).collect(),
            ownership: ownership.clone(),
            revoke_deadline: world.fleet.worker.revoke_deadline.get(),
            metrics: metrics.clone(),
            routes: routes.clone(),
            worker: world.worker.clone(),
            revoked: Mutex::default(),
            exactly_once: exact.is_exact(),
            trouble: trouble.clone(),
            tasks,
        });
        Ok(Self {
            listener,
            ownership,
            writers,
            dead_letters,
            freshness,
            metrics,
            trouble,
            pause,
            world,
            fence,
            routes,
            plans,
            bad_records,
            shards,
        })
    }

    /// Its shards and its committer, now that it is a member of its group. Shards are made once: further calls give none.
    pub fn join(&mut self, control: &Arc<dyn GroupControl>) -> (Vec<ShardLoop>, CommitterParts) {
        self.fence.set_session_timeout(control.session_timeout());
        let shards = std::mem::take(&mut self.shards).into_iter().map(|(handle, events)| {
            let shard = Shard::new(ShardParts {
                config: self.world.config.clone(),
                handle,
                worker: self.world.worker.clone(),
                control: control.clone(),
                routes: self.routes.clone(),
                writers: self.writers.clone(),
                plans: self.plans.clone(),
                bad_records: self.bad_records.clone(),
                dead_letters: self.dead_letters.clone(),
                fence: self.fence.clone(),
                trouble: self.trouble.clone(),
                metrics: self.metrics.clone(),
                tasks: self.world.worker.tasks.clone(),
            });
            ShardLoop::new(shard, events)
        });
        let committer = CommitterParts {
            connector: self.world.config.name.clone(),
            control: control.clone(),
            ownership: self.ownership.clone(),
            fence: self.fence.clone(),
            trouble: self.trouble.clone(),
            metrics: self.metrics.clone(),
            tasks: self.world.worker.tasks.clone(),
            interval: self.world.fleet.worker.commit_interval.get(),
            bell: self.writers.exact().bell.clone(),
            tries: AtomicU32::new(0),
        };
        (shards.collect(), committer)
    }

    /// Why the connector ended, if it failed.
    pub fn failure(&self) -> Option<String> {
        self.trouble.failure()
    }
}
