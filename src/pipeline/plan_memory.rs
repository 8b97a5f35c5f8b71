//! The memory of plans: counted, and dropped when they take more than their share and no record uses them.
//!
//! A topic's schemas grow by one with every deployment of its producers, and whoever reads from the beginning meets them all. What is
//! dropped is made again when a record needs it. Plans in use stay, however much they take: rows keep a share beside them
//! ([`crate::flow::Budget`]), so that records go on, in small appends; and it is said which setting is too low.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::flow::BudgetKind;

use super::plans::ReadyPlan;
use super::shard::Shard;

/// Between two looks at plans that take more than their share.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// No record used a plan for so long: it is idle. Made again it costs a look at the table, and perhaps at the registry.
const IDLE_AFTER: Duration = Duration::from_secs(30);
/// Between two lines in the log.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// When a shard looked at its plans last, and last said that they take too much.
pub struct PlanLooks {
    looked_at: Instant,
    said_at: Option<Instant>,
}

impl PlanLooks {
    /// Never yet.
    pub fn new(now: Instant) -> Self {
        Self { looked_at: now, said_at: None }
    }
}

impl Shard {
    /// Counts what plans take.
    pub(super) fn account_plans(&mut self) {
        let mut counted = HashSet::new();
        let plans = self.tables.iter().map(|table| table.plans.size_bytes(&mut counted)).sum();
        self.plans_lease.resize(plans);
    }

    /// Drops idle plans, those first that were idle for longest, while the worker's plans take more than their share.
    pub(super) fn drop_idle_plans(&mut self, now: Instant) {
        if self.budget().plans_excess_bytes() == 0 || now.duration_since(self.plan_looks.looked_at) < LOOK_EVERY {
            return;
        }
        self.plan_looks.looked_at = now;
        // Partitions that write to streams of their own share their plans: one is idle when none of them uses it.
        let mut uses: Vec<(Instant, usize, &Arc<ReadyPlan>)> = Vec::new();
        let mut places: HashMap<*const ReadyPlan, usize> = HashMap::new();
        for (plan, used_at) in self.tables.iter().flat_map(|table| table.plans.uses()) {
            let place = *places.entry(Arc::as_ptr(plan)).or_insert(uses.len());
            match uses.get_mut(place) {
                Some(known) => known.0 = used_at.max(known.0),
                None => uses.push((used_at, place, plan)),
            }
        }
        uses.retain(|(used_at, ..)| now.duration_since(*used_at) >= IDLE_AFTER);
        uses.sort_unstable_by_key(|(used_at, place, _)| (*used_at, *place));
        let (mut excess, mut dropped) = (self.budget().plans_excess_bytes(), HashSet::new());
        for (_, _, plan) in uses {
            if excess == 0 {
                break;
            }
            excess = excess.saturating_sub(plan.plan.size_bytes() as u64);
            dropped.insert(Arc::as_ptr(plan));
        }
        for table in &mut self.tables {
            table.plans.drop_plans(&dropped, now);
        }
        self.account_plans();
        if self.budget().plans_excess_bytes() > 0 {
            self.say_plans_are_large(now);
        }
    }

    fn say_plans_are_large(&mut self, now: Instant) {
        if self.plan_looks.said_at.is_some_and(|said_at| now.duration_since(said_at) < SAY_EVERY) {
            return;
        }
        self.plan_looks.said_at = Some(now);
        let (plans_bytes, limit_bytes) = (self.budget().used_by(BudgetKind::Plans), self.budget().limit_bytes());
        tracing::warn!(
            connector = self.parts.config.name,
            plans_bytes,
            limit_bytes,
            "the compiled plans of schemas in use take more than a quarter of `memory` in [worker]: rows keep a quarter, and appends are small; raise it"
        );
    }
}
