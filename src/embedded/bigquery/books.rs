//! Books for the reconciliation: what landed in which table, and a fast way to read it back.

use std::sync::Arc;

use serde::Serialize;

use super::schema::Schema;
use super::shared::Shared;
use super::state::{MetadataUpdates, Table, TableKey};
use super::values::Cell;

/// A table's entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableBook {
    /// Project.
    pub project: String,
    /// Dataset.
    pub dataset: String,
    /// Table.
    pub table: String,
    /// Rows that landed and show (rows of pending streams do not).
    pub rows: u64,
    /// Bytes of these rows as they are kept.
    pub bytes: u64,
    /// Attempts to change the metadata under this name.
    pub metadata_updates: MetadataUpdates,
}

/// Reads the tables of a running embedded BigQuery, past all faults and stalls.
#[derive(Debug, Clone)]
pub struct Books(Arc<Shared>);

impl Books {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    /// All tables, by name.
    pub fn tables(&self) -> Vec<TableBook> {
        let tables = self.0.catalog.all_tables();
        tables.iter().map(|table| self.entry(table)).collect()
    }

    /// Rows of a table that landed; `None` when there is no such table.
    pub fn rows(&self, project: &str, dataset: &str, table: &str) -> Option<u64> {
        let table = self.0.catalog.table(&TableKey::new(project, dataset, table)).ok()?;
        Some(self.entry(&table).rows)
    }

    /// As [`Self::read`], from the `from`th row on, with the moment at which each row landed, milliseconds since the epoch. Changes of
    /// tables with a primary key show as they came.
    pub fn read_landed(
        &self,
        (project, dataset, table): (&str, &str, &str),
        columns: &[&str],
        from: u64,
        mut f: impl FnMut(&[Cell], i64),
    ) -> Result<(), String> {
        let table = self.0.catalog.table(&TableKey::new(project, dataset, table)).map_err(|error| error.message)?;
        let schema = table.schema();
        let picks = Picks::of(&table, &schema, columns)?;
        let ((mut number, segments), arrivals) = {
            let store = table.store.lock();
            (store.snapshot_from(from), store.arrivals(from))
        };
        let mut arrivals = arrivals.into_iter().peekable();
        let mut picked = Vec::with_capacity(columns.len());
        for segment in segments {
            segment.each(&schema, Some(&picks.wanted), &mut |row, _| {
                number += 1;
                if number > from {
                    while arrivals.next_if(|(until, _)| *until < number).is_some() {}
                    picks.read(&row, &mut picked);
                    f(&picked, arrivals.peek().map_or(0, |(_, at)| *at));
                }
                true
            });
        }
        Ok(())
    }

    /// Calls `f` with the named top-level columns of every row, in the order of arrival; `f` returns whether to go on. Blocks: on a busy
    /// runtime call it from `spawn_blocking`. Errors name a table or column that does not exist.
    pub fn read(
        &self,
        project: &str,
        dataset: &str,
        table: &str,
        columns: &[&str],
        mut f: impl FnMut(&[Cell]) -> bool,
    ) -> Result<(), String> {
        let table = self.0.catalog.table(&TableKey::new(project, dataset, table)).map_err(|error| error.message)?;
        let schema = table.schema();
        let picks = Picks::of(&table, &schema, columns)?;
        let mut picked = Vec::with_capacity(columns.len());
        table.each_row(Some(&picks.wanted), |row| {
            picks.read(&row, &mut picked);
            f(&picked)
        });
        Ok(())
    }

    fn entry(&self, table: &Table) -> TableBook {
        let metadata_updates = self.0.catalog.metadata_updates(&table.key);
        let store = table.store.lock();
        let TableKey { project, dataset, table } = table.key.clone();
        TableBook { project, dataset, table, rows: store.rows(), bytes: store.bytes(), metadata_updates }
    }
}

/// Which columns of a table are read.
struct Picks {
    /// Their places in a row, in the order asked for.
    indices: Vec<usize>,
    /// For every column of the table, whether it is read.
    wanted: Vec<bool>,
}

impl Picks {
    fn of(table: &Table, schema: &Schema, columns: &[&str]) -> Result<Self, String> {
        let missing = |name: &str| format!("Table {} has no column {name}", table.key);
        let indices = columns.iter().map(|name| schema.position(name).ok_or_else(|| missing(name)));
        let indices = indices.collect::<Result<Vec<usize>, String>>()?;
        let wanted = (0..schema.columns.len()).map(|index| indices.contains(&index)).collect();
        Ok(Self { indices, wanted })
    }

    fn read(&self, row: &[Cell], picked: &mut Vec<Cell>) {
        picked.clear();
        picked.extend(self.indices.iter().map(|index| row.get(*index).cloned().unwrap_or(Cell::Null)));
    }
}
