//! Tables over REST: what is known of each, and the questions about one table asked once for all connectors of a worker.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;

use super::changes::Changes;
use super::rest::{RestAction, RestClient, RestError};
use super::table_json::TableResource;
use super::{TableError, TableSpec, TableState, Tables};
use crate::flow::{HoldCause, Tasks};
use crate::table::{Column, TableName};

/// How long an answer of `tables.get` is believed.
const FRESH: Duration = Duration::from_secs(5);

/// How workers that change the same table keep out of each other's way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EvolutionPace {
    /// The longest wait before a patch; others that come meanwhile find the columns there.
    pub(crate) patch_jitter: Duration,
    /// The longest wait before a table is created.
    pub(crate) create_jitter: Duration,
    /// The time in which BigQuery's rate of updates refills: whoever is refused comes back after a fifth of it to six fifths.
    pub(crate) rate_window: Duration,
}

impl Default for EvolutionPace {
    fn default() -> Self {
        Self { patch_jitter: Duration::from_secs(2), create_jitter: Duration::from_millis(500), rate_window: Duration::from_secs(10) }
    }
}

/// [`Tables`] over REST.
pub(crate) struct RestTables {
    pub(super) rest: Arc<RestClient>,
    pub(super) changes: Arc<Changes>,
    pub(super) pace: EvolutionPace,
    pub(super) tasks: Arc<dyn Tasks>,
    entries: Mutex<HashMap<TableName, Arc<Entry>>>,
}

/// What is known of one table.
#[derive(Default)]
pub(super) struct Entry {
    /// Held by the one caller that looks at and changes the table.
    pub(super) turn: tokio::sync::Mutex<()>,
    /// What callers want who have the turn or wait for it.
    wanted: Mutex<Vec<(u64, Wanted)>>,
    next_wish: AtomicU64,
    seen: Mutex<Seen>,
}

/// One caller's wish.
#[derive(Clone)]
pub(super) struct Wanted {
    pub(super) spec: TableSpec,
    pub(super) columns: Vec<Column>,
}

impl Entry {
    /// Notes a wish for as long as the guard lives.
    pub(super) fn wish(&self, wanted: Wanted) -> Wish<'_> {
        let number = self.next_wish.fetch_add(1, Ordering::Relaxed);
        self.wanted.lock().push((number, wanted));
        Wish { entry: self, number }
    }

    /// All present wishes, in the order of their coming.
    pub(super) fn wishes(&self) -> Vec<Wanted> {
        self.wanted.lock().iter().map(|(_, wanted)| wanted.clone()).collect()
    }
}

/// A wish that is withdrawn when its caller has its answer, or is gone.
pub(super) struct Wish<'a> {
    entry: &'a Entry,
    number: u64,
}

impl Drop for Wish<'_> {
    fn drop(&mut self) {
        self.entry.wanted.lock().retain(|(number, _)| *number != self.number);
    }
}

#[derive(Default)]
struct Seen {
    resource: Option<Arc<TableResource>>,
    at: Option<Instant>,
    creation_time_ms: Option<i64>,
    recreated_at: Option<Instant>,
}

impl RestTables {
    pub(crate) fn new(rest: Arc<RestClient>, changes: Arc<Changes>, pace: EvolutionPace, tasks: Arc<dyn Tasks>) -> Self {
        Self { rest, changes, pace, tasks, entries: Mutex::default() }
    }

    pub(super) fn entry(&self, table: &TableName) -> Arc<Entry> {
        self.entries.lock().entry(table.clone()).or_default().clone()
    }

    /// A fresh look at the table.
    pub(super) async fn look(&self, table: &TableName, entry: &Entry) -> Result<Option<Arc<TableResource>>, TableError> {
        let raw = self.rest.get_table(table).await.map_err(|e| table_error(table, "reading it", &e))?;
        let Some(raw) = raw else {
            let mut seen = entry.seen.lock();
            (seen.resource, seen.at) = (None, None);
            return Ok(None);
        };
        self.note(table, entry, raw, false).map(Some)
    }

    /// The last look, if it is fresh.
    pub(super) fn remembered(&self, entry: &Entry) -> Option<Arc<TableResource>> {
        let seen = entry.seen.lock();
        if self.tasks.now().duration_since(seen.at?) > FRESH { None } else { seen.resource.clone() }
    }

    /// Notes what an answer says of the table; `ours`: it answered a change that we made.
    pub(super) fn note(
        &self,
        table: &TableName,
        entry: &Entry,
        raw: serde_json::Value,
        ours: bool,
    ) -> Result<Arc<TableResource>, TableError> {
        let resource = TableResource::parse(raw).map_err(|what| TableError {
            cause: HoldCause::TableServiceUnavailable,
            message: format!("table {table}: BigQuery's answer cannot be read: {what}"),
            retry_after: None,
        })?;
        let resource = Arc::new(resource);
        if let Some(location) = resource.location() {
            self.changes.note_location(table, &location.to_lowercase());
        }
        let created = resource.state.creation_time_ms;
        let mut seen = entry.seen.lock();
        let recreated = seen.creation_time_ms.is_some_and(|before| before != created);
        if recreated {
            seen.recreated_at = Some(self.tasks.now());
            tracing::warn!(%table, created_ms = created, "table was deleted and made again: rows acknowledged around that time may be lost");
        }
        match &seen.resource {
            _ if ours || recreated => self.changes.note_change(table, Duration::ZERO),
            Some(before) if before.state.etag != resource.state.etag && before.schema() != resource.schema() => {
                self.changes.note_change(table, Duration::ZERO);
            }
            Some(_) => {}
            // The first look: somebody else may have changed it a moment ago.
            None => {
                let modified_ms = resource.last_modified_ms().unwrap_or(created).max(created);
                let ago_ms = (self.tasks.now_wall_us() / 1000).saturating_sub(modified_ms).max(0);
                let ago = Duration::from_millis(ago_ms.unsigned_abs());
                if ago < self.changes.visibility_delay() {
                    self.changes.note_change(table, ago);
                }
            }
        }
        seen.creation_time_ms = Some(created);
        (seen.resource, seen.at) = (Some(resource.clone()), Some(self.tasks.now()));
        Ok(resource)
    }

    /// The hold of a table that was made again: for the visibility delay, since rows sent earlier may be swallowed without an error.
    pub(super) fn recreated(&self, table: &TableName, entry: &Entry) -> Option<TableError> {
        let since = self.tasks.now().duration_since(entry.seen.lock().recreated_at?);
        let left = self.changes.visibility_delay().checked_sub(since).filter(|left| !left.is_zero())?;
        Some(TableError {
            cause: HoldCause::TableRecreated,
            message: format!(
                "table {table} was deleted and made again {}s ago; BigQuery may swallow rows until its servers know the new one, so its \
                 partitions wait for {}s more. Rows acknowledged shortly before may be lost: compare the table with the topic",
                since.as_secs(),
                left.as_secs() + 1
            ),
            retry_after: Some(left),
        })
    }
}

#[async_trait]
impl Tables for RestTables {
    async fn get(&self, table: &TableName) -> Result<Option<TableState>, TableError> {
        let entry = self.entry(table);
        if let Some(resource) = self.remembered(&entry) {
            return Ok(Some(resource.state.clone()));
        }
        let _turn = entry.turn.lock().await;
        if let Some(resource) = self.remembered(&entry) {
            return Ok(Some(resource.state.clone()));
        }
        Ok(self.look(table, &entry).await?.map(|resource| resource.state.clone()))
    }

    async fn ensure(&self, table: &TableName, spec: &TableSpec, wanted: &[Column]) -> Result<TableState, TableError> {
        self.ensure_table(table, Wanted { spec: spec.clone(), columns: wanted.to_vec() }).await
    }

    fn changed_recently(&self, table: &TableName) -> bool {
        self.changes.is_recent(table)
    }
}

/// A failed REST call as a hold with what to do about it.
pub(super) fn table_error(table: &TableName, doing: &str, error: &RestError) -> TableError {
    let (cause, retry_after, advice) = match error.action() {
        RestAction::Retry(_) | RestAction::LookAgain => (HoldCause::TableServiceUnavailable, None, "it is tried again"),
        RestAction::NewToken => (HoldCause::Unauthenticated, None, "check [bigquery] credentials"),
        RestAction::NotFound => (HoldCause::TableMissing, None, "create the dataset, or correct [table] name (or [bigquery] project)"),
        RestAction::Exists => (HoldCause::TableServiceUnavailable, None, "it is read again"),
        RestAction::Refused => (HoldCause::TypeConflict, None, "change the table or [table] in the connector's file"),
        RestAction::Hold { cause: HoldCause::PermissionDenied, retry_after } => {
            (HoldCause::PermissionDenied, retry_after, "grant the role roles/bigquery.dataEditor on the dataset, and check billing")
        }
        RestAction::Hold { cause: HoldCause::Unauthenticated, retry_after } => {
            (HoldCause::Unauthenticated, retry_after, "check [bigquery] credentials")
        }
        RestAction::Hold { cause, retry_after } => (cause, retry_after, "see BigQuery's error reasons; it is tried again"),
    };
    TableError { cause, message: format!("table {table}: {doing} failed ({error}): {advice}"), retry_after }
}
