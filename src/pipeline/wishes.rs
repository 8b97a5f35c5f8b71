//! The columns that schemas want of a table, met again: before rows are sent again, and before a table that held is tried again.

use std::sync::atomic::Ordering::SeqCst;

use crate::bigquery::{TableError, TableSpec, Tables};
use crate::flow::HoldCause;
use crate::table::{Column, ColumnType, LaidColumn, Layout, Mode, accepts, same_name};

use super::worker::TableEntry;

/// Makes the table have what every schema seen so far wants.
///
/// A wish was met when it was noted. One that no longer fits is withdrawn, and plans are made again: the table was made anew with other
/// types, and a schema of former times must not keep the rows of others waiting. Should records of that schema come again, their plan says
/// what is wrong.
///
/// # Errors
/// The table cannot be had at all.
pub async fn meet_wishes(tables: &dyn Tables, spec: &TableSpec, table: &TableEntry) -> Result<(), TableError> {
    for (key, wanted) in table.wanted() {
        match tables.ensure(&table.name, spec, &wanted).await {
            Ok(_) => {}
            Err(error) if matches!(error.cause, HoldCause::TypeConflict | HoldCause::EvolutionForbidden) => {
                tracing::warn!(table = %table.name, schema = %key, %error, "the table no longer fits this schema: its plans are made again");
                table.withdraw(&key);
                table.generation.fetch_add(1, SeqCst);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether each column that the rows use is still there with the same type and mode.
pub fn still_fits(layout: &Layout, columns: &[Column]) -> bool {
    all_there(&layout.columns, columns)
}

fn all_there(laid: &[LaidColumn], columns: &[Column]) -> bool {
    let repeated = |mode| mode == Mode::Repeated;
    laid.iter().all(|laid| {
        columns.iter().find(|column| same_name(&column.name, &laid.name)).is_some_and(|column| {
            let inner = match &column.ty {
                ColumnType::Struct(fields) => all_there(&laid.children, fields),
                _ => true,
            };
            accepts(&column.ty, &laid.ty) && repeated(column.mode) == repeated(laid.mode) && inner
        })
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::Arc;

    use async_trait::async_trait;
    use parking_lot::Mutex;

    use super::*;
    use crate::bigquery::TableState;
    use crate::config::Evolve;
    use crate::decode::SchemaKey;
    use crate::flow::Budget;
    use crate::pipeline::WorkerShared;
    use crate::table::{LayoutHistory, TableName};

    /// A table whose column `v` has this type.
    struct Typed(Mutex<ColumnType>);

    #[async_trait]
    impl Tables for Typed {
        async fn get(&self, _table: &TableName) -> Result<Option<TableState>, TableError> {
            Ok(None)
        }
        async fn ensure(&self, _table: &TableName, _spec: &TableSpec, wanted: &[Column]) -> Result<TableState, TableError> {
            if wanted.iter().all(|column| column.ty == *self.0.lock()) {
                let columns = wanted.to_vec();
                return Ok(TableState { columns, etag: String::new(), creation_time_ms: 1, time_partition: None });
            }
            Err(TableError { cause: HoldCause::TypeConflict, message: "another type".into(), retry_after: None })
        }
        fn changed_recently(&self, _table: &TableName) -> bool {
            false
        }
    }

    /// A table made again with other types: the old schema's wish goes, so that the look at the table does not fail until a restart.
    #[tokio::test]
    async fn a_wish_that_no_longer_fits_is_withdrawn() {
        let worker = WorkerShared::new(Budget::new(1 << 20), tokio::runtime::Handle::current(), false);
        let entry = worker.table(&TableName { project: "p".into(), dataset: "d".into(), table: "t".into() });
        let column = |ty| vec![Column { name: "v".into(), ty, mode: Mode::Nullable, description: None }];
        let (old, new) = (SchemaKey::Id(1), SchemaKey::Id(2));
        entry.want(&old, &column(ColumnType::Int64));
        entry.want(&new, &column(ColumnType::String(None)));
        let tables = Arc::new(Typed(Mutex::new(ColumnType::String(None))));
        let spec = TableSpec { create: true, partition: None, cluster: Vec::new(), evolve: Evolve::Add };
        let generation = entry.generation.load(SeqCst);
        meet_wishes(tables.as_ref(), &spec, &entry).await.unwrap();
        assert_eq!(entry.wanted(), [(new, column(ColumnType::String(None)))]);
        assert!(entry.generation.load(SeqCst) > generation, "plans are made again");
        meet_wishes(tables.as_ref(), &spec, &entry).await.unwrap();
        assert_eq!(entry.generation.load(SeqCst), generation + 1, "once");
    }

    #[test]
    fn a_column_that_went_no_longer_fits_at_any_depth() {
        let column = |name: &str, ty| Column { name: name.into(), ty, mode: Mode::Nullable, description: None };
        let nested = |names: &[&str]| vec![column("r", ColumnType::Struct(names.iter().map(|n| column(n, ColumnType::Int64)).collect()))];
        let layout = LayoutHistory::new().include(&nested(&["x", "y"])).unwrap();
        assert!(still_fits(&layout, &nested(&["z", "Y", "x"])));
        assert!(!still_fits(&layout, &nested(&["x"])));
        assert!(!still_fits(&layout, &[]));
    }
}
