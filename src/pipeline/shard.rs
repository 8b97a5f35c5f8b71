//! One shard: its partitions, its tables, and the taking of records. Owned by one thread; no locks, no channel per record.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::config::ConnectorConfig;
use crate::decode::Framing;
use crate::flow::{Budget, BudgetKind, DeadShare, HoldCause, Lease, Tasks};
use crate::kafka::{Epoch, GroupControl, NextOffset};
use crate::record::TopicPartition;
use crate::table::TableName;
use crate::telemetry::metrics::{ConnectorMetrics, PartitionMetrics};

use super::dead_letters::{BadRecord, DeadLetters};
use super::events::ShardHandle;
use super::fence::Fence;
use super::late_letters::LettersUnderWay;
use super::partition::{Hold, Partition, Wait};
use super::plan_memory::PlanLooks;
use super::plans::PlanMaker;
use super::rest::RestTurns;
use super::route::TableRoutes;
use super::shard_table::ShardTable;
use super::trouble::Trouble;
use super::whereabouts::ShardPlace;
use super::worker::WorkerShared;
use super::writer::WriterHandle;
use super::writers::Writers;

/// What a shard is made of.
pub struct ShardParts {
    /// The connector's file.
    pub config: Arc<ConnectorConfig>,
    /// The way back to this shard, for jobs and plans.
    pub handle: ShardHandle,
    /// The worker's budget and tables.
    pub worker: Arc<WorkerShared>,
    /// The consumer.
    pub control: Arc<dyn GroupControl>,
    /// Topics to tables.
    pub routes: Arc<TableRoutes>,
    /// Tables' writers.
    pub writers: Arc<Writers>,
    /// Makes plans.
    pub plans: Arc<PlanMaker>,
    /// Takes bad records.
    pub bad_records: mpsc::Sender<BadRecord>,
    /// Counts them, and says why letters are late.
    pub dead_letters: Arc<DeadLetters>,
    /// Raised after a pause.
    pub fence: Arc<Fence>,
    /// Told what ends the connector.
    pub trouble: Arc<Trouble>,
    /// What the connector counts.
    pub metrics: Arc<ConnectorMetrics>,
    /// What time it is, and where questions are asked.
    pub tasks: Arc<dyn Tasks>,
}

/// A revocation that waits for appends in flight.
pub(super) struct Draining {
    pub slots: Vec<(usize, Epoch)>,
    pub deadline: Instant,
    pub reply: SyncSender<Vec<NextOffset>>,
}

/// The shard. Its methods are in `take.rs` (records in), `turn.rs` (events, holds, batches out).
pub struct Shard {
    pub(super) parts: ShardParts,
    pub(super) framing: Framing,
    pub(super) slots: Vec<Partition>,
    pub(super) slot_of: HashMap<TopicPartition, usize>,
    pub(super) tables: Vec<ShardTable>,
    table_of: HashMap<TableName, usize>,
    pub(super) draining: Vec<Draining>,
    /// Bad records that the dead-letter queue had no room for; nothing is taken from their partitions while there are any.
    pub(super) bad_backlog: Vec<BadRecord>,
    pub(super) first_slot: usize,
    /// Whether the last turn left records alone because of the sink.
    pub(super) waits_for_sink: bool,
    pub(super) rest_turns: RestTurns,
    /// Where its thread stands.
    pub(super) place: Arc<ShardPlace>,
    /// `[errors] max_dead_share`.
    pub(super) dead_share: DeadShare,
    /// Why the last dead record died.
    pub(super) last_death: Option<String>,
    open_lease: Lease,
    pub(super) plans_lease: Lease,
    pub(super) plan_looks: PlanLooks,
}

impl Shard {
    /// A shard without partitions.
    pub fn new(parts: ShardParts) -> Self {
        let budget = &parts.worker.budget;
        let dead_share = DeadShare::new(parts.config.errors.max_dead_share, parts.tasks.random());
        Self {
            framing: Framing::of(&parts.config.value),
            open_lease: budget.lease(BudgetKind::OpenBuffers, 0),
            plans_lease: budget.lease(BudgetKind::Plans, 0),
            rest_turns: RestTurns::new(parts.tasks.now()),
            plan_looks: PlanLooks::new(parts.tasks.now()),
            place: Arc::new(ShardPlace::new(&parts.config.name)),
            dead_share,
            last_death: None,
            parts,
            slots: Vec::new(),
            slot_of: HashMap::new(),
            tables: Vec::new(),
            table_of: HashMap::new(),
            draining: Vec::new(),
            bad_backlog: Vec::new(),
            first_slot: 0,
            waits_for_sink: false,
        }
    }

    pub(super) fn budget(&self) -> &Arc<Budget> {
        &self.parts.worker.budget
    }

    pub(super) fn now_ms(&self) -> i64 {
        self.parts.tasks.now_wall_us() / 1000
    }

    /// How long a row may wait for others.
    pub(super) fn linger(&self) -> Duration {
        self.parts.config.delivery.linger.get()
    }

    /// Takes partitions in.
    pub(super) fn assign(&mut self, assigned: Vec<(crate::kafka::Assigned, Arc<super::progress::PartitionProgress>)>) {
        let now = self.parts.tasks.now();
        for (mut assigned, progress) in assigned {
            let partition = progress.partition.clone();
            let slot = match self.slot_of.get(&partition) {
                Some(slot) => *slot,
                None => {
                    let name = &self.parts.config.name;
                    let metrics = PartitionMetrics::new(name, &partition.topic, partition.partition);
                    self.slots.push(Partition::new(progress.clone(), metrics, now));
                    self.slot_of.insert(partition.clone(), self.slots.len() - 1);
                    self.slots.len() - 1
                }
            };
            self.place.assigned(slot, &progress);
            let table = if self.is_exact() { self.own_table(slot, &partition.topic) } else { self.table_index(&partition.topic) };
            assigned.queue.wake_on_data(std::thread::current());
            let Some(state) = self.slots.get_mut(slot) else { continue };
            state.ledger = super::ledger::Ledger::new(progress.head());
            if !Arc::ptr_eq(&state.progress, &progress) {
                // In case the shard did not hear of its end in time: rows of the former assignment are no longer sent.
                state.progress.set_gone();
            }
            state.progress = progress;
            state.owned = true;
            state.draining = false;
            state.hold = None;
            state.letters = LettersUnderWay::default();
            state.suspect = None;
            state.resting_since = None;
            state.fetching_since = now;
            state.queue = Some(assigned.queue);
            state.landed_below = 0;
            state.stream_waits = None;
            match table {
                Ok(index) => {
                    state.table = Some(index);
                    self.begin_stream(slot, assigned.metadata.as_deref());
                }
                Err(message) => {
                    state.table = None;
                    self.hold(slot, Hold { cause: HoldCause::TableMissing, wait: Wait::User, met_offset: None }, message);
                }
            }
        }
    }

    fn table_index(&mut self, topic: &str) -> Result<usize, String> {
        let name = self.parts.routes.table_of(topic)?;
        if let Some(index) = self.table_of.get(&name) {
            return Ok(*index);
        }
        let entry = self.parts.worker.table(&name);
        let (writer, health) = self.parts.writers.of(&entry);
        self.tables.push(ShardTable::new(entry, writer, health));
        self.table_of.insert(name, self.tables.len() - 1);
        Ok(self.tables.len() - 1)
    }

    /// The table of a partition that writes to a stream of its own: batches, and the way to its writer, are not shared with others.
    fn own_table(&mut self, slot: usize, topic: &str) -> Result<usize, String> {
        let name = self.parts.routes.table_of(topic)?;
        let known = self.slots.get(slot).and_then(|partition| partition.table);
        let entry = self.parts.worker.table(&name);
        let index = known.filter(|index| self.tables.get(*index).is_some_and(|table| Arc::ptr_eq(&table.entry, &entry)));
        let index = index.unwrap_or(self.tables.len());
        if index == self.tables.len() {
            let (_, health) = self.parts.writers.of(&entry);
            self.tables.push(ShardTable::new(entry, WriterHandle::closed(), health));
        }
        if let Some(table) = self.tables.get_mut(index) {
            // What a former assignment left.
            (table.batch, table.writer) = (None, WriterHandle::closed());
            table.ready.clear();
        }
        Ok(index)
    }

    /// The tables of this name: one, or one for each partition that writes to a stream of its own.
    pub(super) fn tables_of(&self, name: &TableName) -> Vec<usize> {
        (0..self.tables.len()).filter(|index| self.tables.get(*index).is_some_and(|table| *table.entry.name == *name)).collect()
    }

    /// Stops fetching a partition until what it waits for is there.
    pub(super) fn hold(&mut self, slot: usize, hold: Hold, message: String) {
        let now_ms = self.now_ms();
        let Some(partition) = self.slots.get_mut(slot) else { return };
        if !partition.owned || partition.hold.is_some() {
            return;
        }
        if let Err(error) = self.parts.control.pause(&partition.progress.partition) {
            // Held all the same: nothing is taken, and the queue's limit stops the fetcher.
            tracing::warn!(connector = self.parts.config.name, partition = %partition.progress.partition, %error, "pause failed");
        }
        // The end of the hold resumes the partition, so it no longer rests.
        partition.resting_since = None;
        let cause = hold.cause;
        self.parts.metrics.hold_began(cause.as_str());
        if partition.begin_hold(hold, message.clone(), now_ms) {
            tracing::warn!(
                connector = self.parts.config.name,
                partition = %partition.progress.partition,
                cause = cause.as_str(),
                offset = partition.resume_offset(),
                message,
                "partition holds"
            );
        }
    }

    /// Counts what open batches take.
    pub(super) fn account(&mut self) {
        let open: usize = self.tables.iter().filter_map(|table| table.batch.as_ref()).map(|batch| batch.rows.memory_bytes()).sum();
        self.open_lease.resize(open as u64);
    }
}
