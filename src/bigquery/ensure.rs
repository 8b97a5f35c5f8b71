//! Making a table have the wanted columns, without a coordinator: many workers do this at once with the same or other columns.

use std::sync::Arc;
use std::time::Duration;

use super::evolve::{created_columns, judge, patch_body};
use super::rest::{RestAction, RestError};
use super::table_json::{TableResource, create_body};
use super::tables::{Entry, RestTables, Wanted, table_error};
use super::{TableError, TableState};
use crate::flow::{HoldCause, even};
use crate::table::TableName;
use crate::telemetry::metrics::TableMetrics;

/// How often the table is looked at again after somebody was faster, before it is a hold.
const LOOKS: u32 = 12;

/// What came of a patch that is no reason to hold.
enum Patch {
    /// It was made, or somebody else changed the table: a look tells.
    Settled,
    /// The table was updated too often in the last seconds, by whomever.
    RateLimited(RestError),
}

impl RestTables {
    /// See [`super::Tables::ensure`]. Callers of one process queue for the table; whoever has the turn acts for all who wait.
    pub(super) async fn ensure_table(&self, table: &TableName, wanted: Wanted) -> Result<TableState, TableError> {
        let entry = self.entry(table);
        if let Some(hold) = self.recreated(table, &entry) {
            return Err(hold);
        }
        if let Some(resource) = self.remembered_fit(table, &entry, &wanted) {
            return Ok(resource.state.clone());
        }
        let _wish = entry.wish(wanted.clone());
        let _turn = entry.turn.lock().await;
        // The one before us may have done it.
        if let Some(resource) = self.remembered_fit(table, &entry, &wanted) {
            return self.unless_recreated(table, &entry, &resource);
        }
        let mut waited = false;
        let mut rate_limited = None;
        for _ in 0..LOOKS {
            if waited {
                self.rest.update_due(table).await;
            }
            let found = self.look(table, &entry).await?;
            if found.is_some()
                && let Some(hold) = self.recreated(table, &entry)
            {
                return Err(hold);
            }
            match found {
                Some(resource) if judge(table, &resource, &wanted)? => return Ok(resource.state.clone()),
                None if !wanted.spec.create => return Err(missing(table)),
                _ if !waited => {
                    // Others want the same at this moment: wait, so that most of them find it done.
                    waited = true;
                    self.jitter(if found.is_some() { self.pace.patch_jitter } else { self.pace.create_jitter }).await;
                    continue;
                }
                Some(resource) => {
                    if let Patch::RateLimited(error) = self.patch(table, &entry, &resource).await? {
                        // The same rate holds for all workers: come back at another moment than they, and look what they have done.
                        tracing::debug!(%table, %error, "BigQuery's rate of updates is used up; the table is looked at again");
                        rate_limited = Some(error);
                        self.tasks.sleep(self.pace.rate_window.mul_f64(0.2 + even(self.tasks.random()))).await;
                        continue;
                    }
                }
                None => self.create(table, &entry, &wanted).await?,
            }
            if let Some(resource) = self.remembered_fit(table, &entry, &wanted) {
                return self.unless_recreated(table, &entry, &resource);
            }
            self.jitter(self.pace.patch_jitter / 4).await;
        }
        if let Some(error) = rate_limited {
            return Err(table_error(table, "adding columns", &error));
        }
        Err(TableError {
            cause: HoldCause::TableServiceUnavailable,
            message: format!("table {table}: others changed it {LOOKS} times while its columns were to be added; it is tried again"),
            retry_after: None,
        })
    }

    /// The table as it was last seen, if it has what is wanted.
    fn remembered_fit(&self, table: &TableName, entry: &Entry, wanted: &Wanted) -> Option<Arc<TableResource>> {
        self.remembered(entry).filter(|resource| judge(table, resource, wanted) == Ok(true))
    }

    fn unless_recreated(&self, table: &TableName, entry: &Entry, resource: &Arc<TableResource>) -> Result<TableState, TableError> {
        self.recreated(table, entry).map_or_else(|| Ok(resource.state.clone()), Err)
    }

    /// One patch for all wishes, unless somebody else was faster.
    async fn patch(&self, table: &TableName, entry: &Entry, resource: &TableResource) -> Result<Patch, TableError> {
        let Some(body) = patch_body(resource, &entry.wishes()) else {
            return Err(TableError {
                cause: HoldCause::TypeConflict,
                message: format!("table {table}: a wanted column has the name of one whose type millrace does not know: rename it"),
                retry_after: None,
            });
        };
        match self.rest.patch_table(table, &resource.state.etag, &body).await {
            Ok(raw) => {
                let changed = self.note(table, entry, raw, true)?;
                TableMetrics::new(&table.to_string()).schema_changes.increment(1);
                tracing::info!(%table, before = resource.state.columns.len(), after = changed.state.columns.len(), "table evolved");
                Ok(Patch::Settled)
            }
            Err(error) if error.action() == RestAction::LookAgain => Ok(Patch::Settled),
            // Deleted meanwhile: the next look says so.
            Err(error) if error.action() == RestAction::NotFound => Ok(Patch::Settled),
            Err(error) if error.is_rate_limit() => Ok(Patch::RateLimited(error)),
            Err(error) => Err(table_error(table, "adding columns", &error)),
        }
    }

    /// The table with the columns of all wishes; partitioned and clustered as the caller at hand says.
    async fn create(&self, table: &TableName, entry: &Entry, own: &Wanted) -> Result<(), TableError> {
        let body = create_body(table, &own.spec, &created_columns(own, &entry.wishes()));
        match self.rest.create_table(table, &body).await {
            Ok(raw) => {
                let made = self.note(table, entry, raw, true)?;
                TableMetrics::new(&table.to_string()).schema_changes.increment(1);
                tracing::info!(%table, columns = made.state.columns.len(), "table created");
                Ok(())
            }
            Err(error) if error.action() == RestAction::Exists => {
                self.changes.note_change(table, Duration::ZERO);
                Ok(())
            }
            Err(error) => Err(table_error(table, "creating it", &error)),
        }
    }

    async fn jitter(&self, longest: Duration) {
        self.tasks.sleep(longest.mul_f64(even(self.tasks.random()))).await;
    }
}

fn missing(table: &TableName) -> TableError {
    TableError {
        cause: HoldCause::TableMissing,
        message: format!("table {table} does not exist: create it, or set `create = true` under [table]"),
        retry_after: None,
    }
}
