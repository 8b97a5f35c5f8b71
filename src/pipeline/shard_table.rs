//! A table in a shard: plans by schema, the open batch, closed batches that wait for the writer.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use crate::decode::{RowRoom, SchemaKey, SchemaKeyRef};
use crate::record::RecordError;

use super::batch::{AppendJob, OpenBatch};
use super::health::TableHealth;
use super::plans::{PlanAnswer, ReadyPlan};
use super::worker::TableEntry;
use super::writer::WriterHandle;

/// Schemas that a shard remembers for one table. A stream of made-up ids must not grow it without end.
const PLANS_MAX: usize = 2048;
/// How long a schema that is unknown or cannot be mapped stays so before its source is asked again.
const DEAD_FOR: Duration = Duration::from_secs(30);

/// What a shard knows of one schema's plan.
pub enum PlanState {
    /// It can be executed.
    Ready(Arc<ReadyPlan>),
    /// Its records are dead letters, until it is asked for again.
    Dead(RecordError, Instant),
    /// It was asked for.
    Pending,
    /// It cannot be had now; asked for again at this moment.
    Waiting(Instant),
}

struct PlanEntry {
    key: SchemaKey,
    state: PlanState,
    /// When it came, or a record used it last, as far as takes were marked.
    used_at: Instant,
}

/// A table as a shard uses it.
pub struct ShardTable {
    /// The worker's entry.
    pub entry: Arc<TableEntry>,
    /// The way to BigQuery.
    pub writer: WriterHandle,
    /// Whether the table takes rows.
    pub health: Arc<TableHealth>,
    /// Rows that wait for company.
    pub batch: Option<OpenBatch>,
    /// What the last batch came to.
    pub room: RowRoom,
    /// Closed batches that the writer had no room for.
    pub ready: VecDeque<AppendJob>,
    /// Plans by schema.
    pub plans: PlanList,
    generation: u64,
}

impl ShardTable {
    /// A table without plans.
    pub fn new(entry: Arc<TableEntry>, writer: WriterHandle, health: Arc<TableHealth>) -> Self {
        let generation = entry.generation.load(SeqCst);
        Self {
            entry,
            writer,
            health,
            batch: None,
            room: RowRoom::default(),
            ready: VecDeque::new(),
            plans: PlanList { plans: Vec::new() },
            generation,
        }
    }

    /// Takes in an answer. `wait` is the pause before a failed question is asked again.
    pub fn answer(&mut self, key: &SchemaKey, answer: PlanAnswer, wait: Duration, now: Instant) {
        if let PlanAnswer::Ready(plan) = &answer
            && plan.generation > self.generation
        {
            // Rows of former plans must not get into a batch of its layout, which may lack their columns. Their own batch keeps its layout.
            self.generation = plan.generation;
            self.plans.plans.clear();
        }
        let state = match answer {
            PlanAnswer::Ready(plan) if plan.generation < self.generation => {
                // The table changed while the plan was made.
                PlanState::Waiting(now)
            }
            PlanAnswer::Ready(plan) => PlanState::Ready(plan),
            PlanAnswer::Dead(error) => PlanState::Dead(error, now + DEAD_FOR),
            PlanAnswer::Hold { retry_after, .. } => PlanState::Waiting(now + retry_after.unwrap_or(wait)),
        };
        self.plans.set(key, state, now);
    }

    /// Forgets plans that were made for another generation of the table. Returns `true` when it did.
    pub fn follow_generation(&mut self) -> bool {
        let now = self.entry.generation.load(SeqCst);
        if now == self.generation {
            return false;
        }
        self.generation = now;
        self.plans.plans.clear();
        true
    }
}

/// The plans of one table in one shard.
pub struct PlanList {
    plans: Vec<PlanEntry>,
}

impl PlanList {
    /// The index of this schema's plan; `last` is tried first, so that a partition with one schema compares once a record. Another one than
    /// `last` counts as used `now`; `last` itself is marked once a take, see [`PlanList::used`].
    #[inline]
    pub fn find(&mut self, last: usize, key: SchemaKeyRef<'_>, now: Instant) -> Option<usize> {
        match self.plans.get(last) {
            Some(entry) if key == entry.key => Some(last),
            _ => {
                let index = self.plans.iter().position(|entry| key == entry.key)?;
                self.used(index, now);
                Some(index)
            }
        }
    }

    /// Notes that records use this plan.
    pub fn used(&mut self, index: usize, now: Instant) {
        if let Some(entry) = self.plans.get_mut(index) {
            entry.used_at = now;
        }
    }

    /// The plans that can be executed, and when each was used last.
    pub fn uses(&self) -> impl Iterator<Item = (&Arc<ReadyPlan>, Instant)> {
        self.plans.iter().filter_map(|entry| match &entry.state {
            PlanState::Ready(ready) => Some((ready, entry.used_at)),
            PlanState::Dead(..) | PlanState::Pending | PlanState::Waiting(_) => None,
        })
    }

    /// Forgets these plans, and what is to be asked again anyhow.
    pub fn drop_plans(&mut self, dropped: &HashSet<*const ReadyPlan>, now: Instant) {
        self.plans.retain(|entry| match &entry.state {
            PlanState::Ready(ready) => !dropped.contains(&Arc::as_ptr(ready)),
            PlanState::Dead(_, again_at) | PlanState::Waiting(again_at) => now < *again_at,
            PlanState::Pending => true,
        });
    }

    /// What is known of the plan at this index.
    #[inline]
    pub fn state(&self, index: usize) -> Option<&PlanState> {
        self.plans.get(index).map(|entry| &entry.state)
    }

    /// What is known of this schema's plan.
    pub fn state_of(&self, key: &SchemaKey) -> Option<&PlanState> {
        self.plans.iter().find(|entry| entry.key == *key).map(|entry| &entry.state)
    }

    /// Whether this schema's plan is to be asked for now; if so, it counts as asked for.
    pub fn ask(&mut self, key: &SchemaKey, now: Instant) -> bool {
        match self.plans.iter_mut().find(|entry| entry.key == *key) {
            Some(entry) => {
                let due = match &entry.state {
                    PlanState::Dead(_, again_at) | PlanState::Waiting(again_at) => now >= *again_at,
                    PlanState::Ready(_) | PlanState::Pending => false,
                };
                if due {
                    entry.state = PlanState::Pending;
                }
                due
            }
            None => {
                if self.plans.len() >= PLANS_MAX {
                    self.plans.retain(|entry| matches!(entry.state, PlanState::Ready(_) | PlanState::Pending));
                    self.plans.truncate(PLANS_MAX / 2);
                }
                self.plans.push(PlanEntry { key: key.clone(), state: PlanState::Pending, used_at: now });
                true
            }
        }
    }

    /// Forgets a plan, so that it is asked for again.
    pub fn forget(&mut self, key: &SchemaKey) {
        self.plans.retain(|entry| entry.key != *key);
    }

    fn set(&mut self, key: &SchemaKey, state: PlanState, now: Instant) {
        match self.plans.iter_mut().find(|entry| entry.key == *key) {
            Some(entry) => (entry.state, entry.used_at) = (state, now),
            None => self.plans.push(PlanEntry { key: key.clone(), state, used_at: now }),
        }
    }

    /// Bytes that the plans take, but for those that are `counted` already: partitions that write to streams of their own share theirs.
    pub fn size_bytes(&self, counted: &mut HashSet<*const ReadyPlan>) -> u64 {
        let plan = |entry: &PlanEntry| match &entry.state {
            PlanState::Ready(ready) if counted.insert(Arc::as_ptr(ready)) => ready.plan.size_bytes() as u64 + 256,
            _ => 256,
        };
        self.plans.iter().map(plan).sum()
    }
}
