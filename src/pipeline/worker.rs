//! What all connectors of a worker share: the memory budget, and one entry for each table.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use parking_lot::Mutex;

use crate::decode::SchemaKey;
use crate::flow::{Budget, Pace, Tasks, TokioTasks};
use crate::table::{Column, LayoutHistory, TableName};
use crate::telemetry::metrics::TableMetrics;

use super::clients::ClusterClients;

/// Shared by all connectors of a worker.
pub struct WorkerShared {
    /// The memory that records and rows may take.
    pub budget: Arc<Budget>,
    /// Where async work runs.
    pub tasks: Arc<dyn Tasks>,
    /// Kafka clients beside the consumers.
    pub clients: Arc<ClusterClients>,
    /// `[worker] max_records_per_s`, where it is set.
    pub pace: Option<Pace>,
    text_literals: bool,
    tables: Mutex<HashMap<TableName, Arc<TableEntry>>>,
}

impl WorkerShared {
    /// An empty worker on tokio. `text_literals`: see [`crate::config::BigQueryConfig`].
    pub fn new(budget: Arc<Budget>, runtime: tokio::runtime::Handle, text_literals: bool) -> Self {
        Self::with_tasks(budget, Arc::new(TokioTasks::new(runtime)), text_literals)
    }

    /// An empty worker whose time and tasks are these.
    pub fn with_tasks(budget: Arc<Budget>, tasks: Arc<dyn Tasks>, text_literals: bool) -> Self {
        Self { budget, tasks, clients: Arc::new(ClusterClients::default()), pace: None, text_literals, tables: Mutex::new(HashMap::new()) }
    }

    /// With a limit of records a second over all connectors, from `now` on.
    #[must_use]
    pub fn limited_to(mut self, records_per_s: Option<u64>, now: Instant) -> Self {
        self.pace = records_per_s.map(|limit| Pace::new(limit, now));
        self
    }

    /// The entry of a table; connectors that write to the same table share it, and with it the field numbers.
    pub fn table(&self, name: &TableName) -> Arc<TableEntry> {
        let mut tables = self.tables.lock();
        tables.entry(name.clone()).or_insert_with(|| Arc::new(TableEntry::new(name.clone(), self.text_literals))).clone()
    }
}

/// A table as this worker knows it.
pub struct TableEntry {
    /// Its name.
    pub name: Arc<TableName>,
    /// Field numbers and layouts.
    pub layouts: Mutex<LayoutHistory>,
    /// Bytes of rows that were closed into batches and are not acknowledged yet.
    pub unacked_bytes: AtomicI64,
    /// Rises when plans made before are no longer right (the table was made again with other types).
    pub generation: AtomicU64,
    /// Rows acknowledged.
    pub rows_durable: AtomicU64,
    /// Bytes of rows acknowledged.
    pub bytes_durable: AtomicU64,
    /// Its metrics.
    pub metrics: TableMetrics,
    last_error: Mutex<Option<String>>,
    wanted: Mutex<BTreeMap<SchemaKey, Vec<Column>>>,
}

impl TableEntry {
    fn new(name: TableName, text_literals: bool) -> Self {
        Self {
            metrics: TableMetrics::new(&name.to_string()),
            name: Arc::new(name),
            layouts: Mutex::new(LayoutHistory::with_text_literals(text_literals)),
            unacked_bytes: AtomicI64::new(0),
            generation: AtomicU64::new(0),
            rows_durable: AtomicU64::new(0),
            bytes_durable: AtomicU64::new(0),
            last_error: Mutex::new(None),
            wanted: Mutex::new(BTreeMap::new()),
        }
    }

    /// Whether this table has its fair share of the memory in flight: a queue may grow to what is free (Choudhury and Hahne, "Dynamic queue
    /// length thresholds for shared-memory packet switches", 1998, with alpha = 1), so that a stalled table leaves room for the others.
    pub fn is_over_share(&self, budget: &Budget) -> bool {
        let unacked = u64::try_from(self.unacked_bytes.load(Relaxed)).unwrap_or(0);
        unacked > budget.limit_bytes().saturating_sub(budget.used())
    }

    /// Remembers which columns a schema wants, for an evolution that an append asks for.
    pub fn want(&self, key: &SchemaKey, columns: &[Column]) {
        let mut wanted = self.wanted.lock();
        // Schemas are few; a stream of made-up ids has no columns and never comes here.
        wanted.insert(key.clone(), columns.to_vec());
    }

    /// The columns that each schema seen so far wants.
    pub fn wanted(&self) -> Vec<(SchemaKey, Vec<Column>)> {
        self.wanted.lock().iter().map(|(key, columns)| (key.clone(), columns.clone())).collect()
    }

    /// Forgets what a schema wants: the table is another one, which it does not fit.
    pub fn withdraw(&self, key: &SchemaKey) {
        self.wanted.lock().remove(key);
    }

    /// Notes what went wrong last; `None` when an append was acknowledged since.
    pub fn set_last_error(&self, message: Option<String>) {
        *self.last_error.lock() = message;
    }

    /// What went wrong last, if anything did.
    pub fn last_error(&self) -> Option<String> {
        self.last_error.lock().clone()
    }
}
