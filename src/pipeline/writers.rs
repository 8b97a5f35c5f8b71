//! The writers of one connector: one for each of its tables, started when first needed.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::bigquery::{Appender, TableSpec, Tables};
use crate::flow::Tasks;
use crate::table::TableName;
use crate::telemetry::metrics::ConnectorMetrics;

use super::dead_letters::DeadLetters;
use super::delivery::DeliveryContext;
use super::exact::ExactParts;
use super::fence::Fence;
use super::freshness::FreshnessHistogram;
use super::health::TableHealth;
use super::trouble::Trouble;
use super::worker::TableEntry;
use super::writer::{self, WriterHandle};

/// What every writer of a connector needs.
pub struct WriterParts {
    /// The connector's name.
    pub connector: String,
    /// Sends rows.
    pub appender: Arc<dyn Appender>,
    /// Evolves tables.
    pub tables: Arc<dyn Tables>,
    /// What the connector wants of its tables.
    pub spec: TableSpec,
    /// Nothing is sent while it is up.
    pub fence: Arc<Fence>,
    /// Takes rejected rows.
    pub dead_letters: Arc<DeadLetters>,
    /// Where async work runs.
    pub tasks: Arc<dyn Tasks>,
    /// For `/status`.
    pub freshness: Arc<FreshnessHistogram>,
    /// For Prometheus.
    pub metrics: Arc<ConnectorMetrics>,
    /// Streams, for exactly once.
    pub exact: Arc<ExactParts>,
    /// Told when a writer ends by a panic.
    pub trouble: Arc<Trouble>,
}

/// One table's writer as the connector keeps it.
struct Kept {
    context: Arc<DeliveryContext>,
    entry: Arc<TableEntry>,
    handle: WriterHandle,
    health: Arc<TableHealth>,
}

/// The writers of one connector.
pub struct Writers {
    shared: Arc<WriterParts>,
    kept: Mutex<HashMap<TableName, Kept>>,
}

impl Writers {
    /// No writers yet.
    pub fn new(parts: WriterParts) -> Self {
        Self { shared: Arc::new(parts), kept: Mutex::new(HashMap::new()) }
    }

    /// The writer of a table, and the table's health.
    pub fn of(&self, entry: &Arc<TableEntry>) -> (WriterHandle, Arc<TableHealth>) {
        self.kept(entry, |kept| (kept.handle.clone(), kept.health.clone()))
    }

    /// What deliveries to a table share. Its writer looks after the table, whoever sends its rows.
    pub fn context_of(&self, entry: &Arc<TableEntry>) -> Arc<DeliveryContext> {
        self.kept(entry, |kept| kept.context.clone())
    }

    fn kept<R>(&self, entry: &Arc<TableEntry>, look: impl FnOnce(&Kept) -> R) -> R {
        let mut kept = self.kept.lock();
        let seed = kept.len() as u64;
        look(kept.entry((*entry.name).clone()).or_insert_with(|| {
            let health = Arc::new(TableHealth::new(seed));
            let context = Arc::new(DeliveryContext { shared: self.shared.clone(), health: health.clone() });
            Kept { entry: entry.clone(), handle: writer::start(context.clone(), entry.clone()), context, health }
        }))
    }

    /// What all writers of the connector share.
    pub fn shared(&self) -> &WriterParts {
        &self.shared
    }

    /// What the streams of the connector's partitions share.
    pub fn exact(&self) -> &Arc<ExactParts> {
        &self.shared.exact
    }

    /// The tables so far, in order of their names.
    pub fn tables(&self) -> Vec<Arc<TableEntry>> {
        let mut tables: Vec<_> = self.kept.lock().values().map(|kept| kept.entry.clone()).collect();
        tables.sort_by(|a, b| a.name.cmp(&b.name));
        tables
    }
}
