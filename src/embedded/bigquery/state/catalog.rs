//! Datasets and tables by name, with what is left of deleted ones, and the rate of metadata updates.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::Table;
use super::table::Version;
use crate::embedded::bigquery::error::{ApiError, ApiResult};
use crate::embedded::bigquery::settings::AfterDelete;
use crate::embedded::bigquery::visibility::Observer;

/// A table's name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TableKey {
    pub project: String,
    pub dataset: String,
    pub table: String,
}

impl TableKey {
    pub(crate) fn new(project: &str, dataset: &str, table: &str) -> Self {
        Self { project: project.to_owned(), dataset: dataset.to_owned(), table: table.to_owned() }
    }

    /// `tableReference`.
    pub(crate) fn reference(&self) -> Value {
        json!({"projectId": self.project, "datasetId": self.dataset, "tableId": self.table})
    }

    /// `project.dataset.table`.
    pub(crate) fn dotted(&self) -> String {
        format!("{}.{}.{}", self.project, self.dataset, self.table)
    }
}

impl fmt::Display for TableKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}.{}", self.project, self.dataset, self.table)
    }
}

#[derive(Debug, Default)]
struct Slot {
    current: Option<Arc<Table>>,
    /// The one before, and when it was deleted.
    gone: Option<(Instant, Arc<Table>)>,
    updates: VecDeque<Instant>,
    counts: MetadataUpdates,
}

/// What became of the attempts to change a table's metadata (tables.insert, patch, update), counted by the table's name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct MetadataUpdates {
    /// Made; the table's creation is one.
    pub accepted: u64,
    /// Refused for what they say or for their If-Match; they use up the rate all the same.
    pub refused: u64,
    /// Refused because the rate was used up.
    pub rate_limited: u64,
}

/// Where a writer's rows go.
#[derive(Debug)]
pub(crate) enum Destination {
    Table(Arc<Table>, Version),
    /// No such table, as far as this connection knows.
    Missing,
    /// The table that this connection knows is gone; another has its name.
    Recreated,
}

/// All datasets and tables.
#[derive(Debug)]
pub(crate) struct Catalog {
    datasets: RwLock<BTreeMap<(String, String), Map<String, Value>>>,
    slots: RwLock<HashMap<TableKey, Slot>>,
    updates_per_10_s: u32,
    after_delete: AfterDelete,
}

impl Catalog {
    pub(crate) fn new(updates_per_10_s: u32, after_delete: AfterDelete) -> Self {
        Self { datasets: RwLock::default(), slots: RwLock::default(), updates_per_10_s, after_delete }
    }

    pub(crate) fn insert_dataset(&self, project: &str, dataset: &str, resource: Map<String, Value>) -> ApiResult<Map<String, Value>> {
        let mut datasets = self.datasets.write();
        let key = (project.to_owned(), dataset.to_owned());
        if datasets.contains_key(&key) {
            return Err(ApiError::duplicate(format_args!("Dataset {project}:{dataset}")));
        }
        datasets.insert(key, resource.clone());
        Ok(resource)
    }

    pub(crate) fn dataset(&self, project: &str, dataset: &str) -> ApiResult<Map<String, Value>> {
        let datasets = self.datasets.read();
        let found = datasets.get(&(project.to_owned(), dataset.to_owned())).cloned();
        found.ok_or_else(|| ApiError::not_found(format_args!("Dataset {project}:{dataset}")))
    }

    pub(crate) fn datasets(&self, project: &str) -> Vec<(String, Map<String, Value>)> {
        let datasets = self.datasets.read();
        datasets.iter().filter(|((p, _), _)| p == project).map(|((_, d), resource)| (d.clone(), resource.clone())).collect()
    }

    /// Deletes a dataset; with tables only when `contents`.
    pub(crate) fn delete_dataset(&self, project: &str, dataset: &str, contents: bool) -> ApiResult<()> {
        self.dataset(project, dataset)?;
        let tables = self.tables(project, dataset);
        if !contents && !tables.is_empty() {
            return Err(ApiError::new(400, "resourceInUse", format!("Dataset {project}:{dataset} is still in use")));
        }
        for table in tables {
            self.delete_table(&table.key)?;
        }
        self.datasets.write().remove(&(project.to_owned(), dataset.to_owned()));
        Ok(())
    }

    pub(crate) fn insert_table(&self, table: Table) -> ApiResult<Arc<Table>> {
        let mut slots = self.slots.write();
        let slot = slots.entry(table.key.clone()).or_default();
        if slot.current.is_some() {
            return Err(ApiError::duplicate(format_args!("Table {}", table.key)));
        }
        count_update(slot, self.updates_per_10_s)?;
        slot.counts.accepted += 1;
        let table = Arc::new(table);
        slot.current = Some(Arc::clone(&table));
        Ok(table)
    }

    pub(crate) fn table(&self, key: &TableKey) -> ApiResult<Arc<Table>> {
        let found = self.slots.read().get(key).and_then(|slot| slot.current.clone());
        found.ok_or_else(|| ApiError::not_found(format_args!("Table {key}")))
    }

    /// Tables of a dataset by name.
    pub(crate) fn tables(&self, project: &str, dataset: &str) -> Vec<Arc<Table>> {
        let mut tables = self.all_tables();
        tables.retain(|table| table.key.project == project && table.key.dataset == dataset);
        tables
    }

    pub(crate) fn all_tables(&self) -> Vec<Arc<Table>> {
        let mut tables: Vec<Arc<Table>> = self.slots.read().values().filter_map(|slot| slot.current.clone()).collect();
        tables.sort_by(|a, b| a.key.cmp(&b.key));
        tables
    }

    pub(crate) fn delete_table(&self, key: &TableKey) -> ApiResult<()> {
        let mut slots = self.slots.write();
        let gone = slots.get_mut(key).and_then(|slot| slot.current.take().map(|table| (slot, table)));
        let (slot, table) = gone.ok_or_else(|| ApiError::not_found(format_args!("Table {key}")))?;
        slot.gone = Some((Instant::now(), table));
        Ok(())
    }

    /// Runs a change of a table's metadata alone, counted against its rate.
    pub(crate) fn update_table(&self, key: &TableKey, change: impl FnOnce(&Table) -> ApiResult<()>) -> ApiResult<Arc<Table>> {
        let mut slots = self.slots.write();
        let found = slots.get_mut(key).and_then(|slot| slot.current.clone().map(|table| (slot, table)));
        let (slot, table) = found.ok_or_else(|| ApiError::not_found(format_args!("Table {key}")))?;
        count_update(slot, self.updates_per_10_s)?;
        let outcome = change(&table);
        match outcome {
            Ok(()) => slot.counts.accepted += 1,
            Err(_) => slot.counts.refused += 1,
        }
        outcome.map(|()| table)
    }

    /// What became of attempts to change the metadata under this name.
    pub(crate) fn metadata_updates(&self, key: &TableKey) -> MetadataUpdates {
        self.slots.read().get(key).map(|slot| slot.counts).unwrap_or_default()
    }

    /// What a connection knows under a name.
    pub(crate) fn destination(&self, key: &TableKey, observer: Observer, now: Instant) -> Destination {
        let slots = self.slots.read();
        let Some(slot) = slots.get(key) else { return Destination::Missing };
        if let Some(table) = slot.current.as_ref().filter(|table| observer.knows(table.created, now)) {
            let version = table.version_for(observer, now);
            return Destination::Table(Arc::clone(table), version);
        }
        match &slot.gone {
            // Appended to what is deleted: acknowledged and never seen again.
            Some((deleted, table)) if !observer.knows(*deleted, now) && self.after_delete == AfterDelete::Swallow => {
                Destination::Table(Arc::clone(table), table.version_for(observer, now))
            }
            Some(_) if slot.current.is_some() => Destination::Recreated,
            _ => Destination::Missing,
        }
    }
}

/// Five updates per 10 s by name (quotas), whether they succeed or not: recreating does not reset.
fn count_update(slot: &mut Slot, limit: u32) -> ApiResult<()> {
    let now = Instant::now();
    while slot.updates.front().is_some_and(|at| now.duration_since(*at) >= Duration::from_secs(10)) {
        slot.updates.pop_front();
    }
    if slot.updates.len() >= limit as usize {
        slot.counts.rate_limited += 1;
        return Err(ApiError::new(
            403,
            "rateLimitExceeded",
            "Exceeded rate limits: too many table update operations for this table. For more information, see https://cloud.google.com/bigquery/docs/troubleshoot-quotas",
        ));
    }
    slot.updates.push_back(now);
    Ok(())
}
