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
        let trouble = Arc::new(Trouble::default());
        let spec = table_spec(&config);
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
        let plans =
            PlanMaker { schemas: world.schemas.clone(), tables: world.tables.clone(), spec: spec.clone(), options, tasks: tasks.clone() };
        let writers = Writers::new(WriterParts {
            connector: name,
            appender: world.appender.clone(),
            tables: world.tables.clone(),
            spec,
            fence: Arc::new(Fence::new(tasks.clone())),
            dead_letters,
            tasks,
            freshness: Arc::default(),
            metrics,
            exact: exact_parts(&world),
            trouble,
        });
        Ok(Self::of(world, plans, writers))
    }

    fn of(world: ConnectorWorld, plans: PlanMaker, writers: Writers) -> Self {
        let shared = writers.shared();
        let (dead_letters, trouble, metrics) = (shared.dead_letters.clone(), shared.trouble.clone(), shared.metrics.clone());
        let (fence, freshness) = (shared.fence.clone(), shared.freshness.clone());
        let ownership = Arc::new(Ownership::default());
        let routes = Arc::new(TableRoutes::new(&world.config.table, &world.fleet.bigquery.project));
        let pause = Arc::new(Pause::default());
        let shards: Vec<_> = (0..world.fleet.worker.shards.max(1))
            .map(|_| ShardHandle::new())
            .map(|(handle, events)| (handle.pausing_with(pause.clone()), events))
            .collect();
        let listener = Arc::new(Rebalances {
            connector: world.config.name.clone(),
            shards: shards.iter().map(|(handle, _)| handle.clone()).collect(),
            ownership: ownership.clone(),
            revoke_deadline: world.fleet.worker.revoke_deadline.get(),
            metrics: metrics.clone(),
            routes: routes.clone(),
            worker: world.worker.clone(),
            revoked: Mutex::default(),
            exactly_once: writers.exact().is_exact(),
            trouble: trouble.clone(),
            tasks: world.worker.tasks.clone(),
        });
        Self {
            listener,
            ownership,
            bad_records: dead_letters.start(),
            dead_letters,
            freshness,
            metrics,
            trouble,
            pause,
            world,
            fence,
            routes,
            plans: Arc::new(plans),
            writers: Arc::new(writers),
            shards,
        }
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

/// What a connector's file wants of its tables.
fn table_spec(config: &ConnectorConfig) -> TableSpec {
    let table = &config.table;
    TableSpec { create: table.create, partition: table.partition.clone(), cluster: table.cluster.clone(), evolve: table.evolve }
}

fn exact_parts(world: &ConnectorWorld) -> Arc<ExactParts> {
    let delivery = &world.config.delivery;
    Arc::new(ExactParts {
        guarantee: delivery.guarantee,
        on_lost: delivery.on_lost_stream,
        streams: world.streams.clone(),
        bell: Arc::default(),
        metrics: Arc::new(ExactMetrics::new(&world.config.name)),
    })
}
