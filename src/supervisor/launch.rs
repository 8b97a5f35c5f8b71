//! Connectors are started: all at the beginning, single ones when their files come or change.

use std::sync::Arc;
use std::time::Instant;

use super::slots::{Slot, Turn};
use super::sources::SchemaSources;
use super::worker::Worker;
use super::{desired, joining};
use crate::bigquery::BigQuery;
use crate::config::{ConnectorConfig, FleetConfig};
use crate::fleet::DesiredState;
use crate::http::WorkerState;
use crate::pipeline::{Connector, ConnectorParts, ConnectorState, ConnectorWorld, WorkerShared};

/// The share of the memory budget that librdkafka may fetch ahead: a quarter. It is refilled within milliseconds; open buffers and bytes
/// in flight, which last as long as BigQuery takes, need the rest.
const PREFETCH_SHARE: u64 = 4;
/// A connector that comes later finds that share given away, and those who have it keep it (changing it would restart them). It takes what is
/// free, or else this part of the whole share beyond it: the budget counts it, so rows get less until the worker begins anew.
const LATECOMER_PARTS: u64 = 8;

/// What every start of a connector needs.
pub(super) struct Launcher {
    worker: Arc<Worker>,
    pub(super) fleet: Arc<FleetConfig>,
    bigquery: BigQuery,
    sources: SchemaSources,
    /// What the connectors share.
    pub(super) shared: Arc<WorkerShared>,
}

impl Launcher {
    /// For this worker. Must be called inside the runtime that connectors are to use.
    pub(super) fn new(worker: Arc<Worker>, fleet: Arc<FleetConfig>, bigquery: BigQuery, sources: SchemaSources) -> Self {
        let runtime = tokio::runtime::Handle::current();
        let shared = WorkerShared::new(worker.budget.clone(), runtime, fleet.bigquery.text_literals);
        let shared = Arc::new(shared.limited_to(fleet.worker.max_records_per_s, Instant::now()));
        Self { worker, fleet, bigquery, sources, shared }
    }

    /// Starts every slot of the worker at the same time, when it is known what the fleet wishes of them; then the worker is running. Starts none when
    /// the worker drains by then. Those that wait to join together with other workers start later, beside everything else.
    pub(super) async fn start_all(self: &Arc<Self>) {
        desired::until_known(&self.worker).await;
        if self.worker.draining.is_cancelled() {
            return;
        }
        let starts = self.worker.slots().into_iter().map(|slot| async {
            let turn = slot.turn().await;
            match joining::begin(&self.worker, &self.fleet, &slot, &turn) {
                Some(waiting) => drop(self.worker.changes.spawn(waiting.then_start(self.worker.clone(), self.clone()))),
                None => self.start(slot, &turn).await,
            }
        });
        futures::future::join_all(starts).await;
        let mut state = self.worker.state.lock();
        if *state == WorkerState::Starting {
            *state = WorkerState::Running;
        }
    }

    /// Starts what the slot's file says, on a thread that may block: Kafka is asked for partitions. What goes wrong is the slot's state. A connector
    /// that the fleet wishes to be stopped is not started, one that it wishes to be paused begins so.
    pub(super) async fn start(&self, slot: Arc<Slot>, _turn: &Turn) {
        let wish = slot.wished(|| self.worker.wish(&slot.name));
        if let Some(wish) = wish {
            slot.follows(wish);
            if wish.state == DesiredState::Stopped {
                slot.end(ConnectorState::Stopped, self.worker.now_ms(), Some(desired::stopped_words(&slot.name)));
                return;
            }
        }
        let config = slot.config.lock().clone();
        let world = ConnectorWorld {
            schemas: self.sources.of(&config),
            config,
            fleet: self.fleet.clone(),
            tables: self.bigquery.tables(),
            appender: self.bigquery.appender(),
            streams: self.bigquery.streams(),
            worker: self.shared.clone(),
        };
        let paused = wish.is_some_and(|wish| wish.state == DesiredState::Paused);
        let parts = ConnectorParts { world, prefetch_bytes: slot.prefetch_bytes, paused };
        let started = {
            let slot = slot.clone();
            tokio::task::spawn_blocking(move || Connector::start(parts).map(|connector| slot.run(connector))).await
        };
        let message = match started {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(error) => format!("its start panicked: {}", crate::telemetry::panics::join_words(error)),
        };
        tracing::error!(connector = slot.name, error = message, "connector failed to start");
        slot.end(ConnectorState::Failed, self.worker.now_ms(), Some(message));
    }

    /// A slot for a connector whose file came later.
    pub(super) fn slot(&self, config: ConnectorConfig) -> Slot {
        let held: Vec<u64> = self.worker.slots().iter().map(|slot| slot.prefetch_bytes).collect();
        let prefetch_bytes = latecomer_bytes(self.worker.budget.limit_bytes() / PREFETCH_SHARE, &held);
        Slot::new(Arc::new(config), prefetch_bytes, self.worker.now_ms())
    }
}

/// What each of `count` connectors may fetch ahead that start together, in bytes.
pub(super) fn prefetch_bytes(budget_bytes: u64, count: usize) -> u64 {
    budget_bytes / PREFETCH_SHARE / count.max(1) as u64
}

/// What a connector may fetch ahead that comes when others hold `held` bytes of `share`.
fn latecomer_bytes(share: u64, held: &[u64]) -> u64 {
    let count = held.len() as u64 + 1;
    let free = share.saturating_sub(held.iter().sum());
    free.clamp(share / count.max(LATECOMER_PARTS), share / count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latecomer_takes_what_is_free_and_little_of_what_is_not() {
        const MIB: u64 = 1 << 20;
        assert_eq!(prefetch_bytes(512 * MIB, 4), 32 * MIB);
        assert_eq!(latecomer_bytes(128 * MIB, &[]), 128 * MIB);
        // All is given away: an eighth beyond it.
        assert_eq!(latecomer_bytes(128 * MIB, &[128 * MIB]), 16 * MIB);
        // One of four left, and one comes.
        assert_eq!(latecomer_bytes(128 * MIB, &[32 * MIB; 3]), 32 * MIB);
        // Ten more after one: at most twice the share in all, which is half of the budget.
        let mut held = vec![128 * MIB];
        for _ in 0..10 {
            held.push(latecomer_bytes(128 * MIB, &held));
        }
        assert!(held.iter().sum::<u64>() <= 2 * 128 * MIB + 32 * MIB, "{held:?}");
    }
}
