//! What is known of tables across REST and gRPC: when their metadata changed last, and where they live.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::flow::Tasks;
use crate::table::TableName;

/// Recent changes of tables' metadata. Write servers see a change seconds to minutes after `tables.get` does, unevenly.
pub(crate) struct Changes {
    visibility_delay: Duration,
    tasks: Arc<dyn Tasks>,
    tables: Mutex<HashMap<TableName, Known>>,
}

#[derive(Default, Clone)]
struct Known {
    changed_at: Option<Instant>,
    location: Option<Arc<str>>,
}

impl Changes {
    /// Changes count as recent for `visibility_delay`.
    pub(crate) fn new(visibility_delay: Duration, tasks: Arc<dyn Tasks>) -> Self {
        Self { visibility_delay, tasks, tables: Mutex::default() }
    }

    /// For how long a change counts as recent.
    pub(crate) fn visibility_delay(&self) -> Duration {
        self.visibility_delay
    }

    /// Notes that the table's metadata changed `ago`. An older change never replaces a younger one.
    pub(crate) fn note_change(&self, table: &TableName, ago: Duration) {
        let Some(at) = self.tasks.now().checked_sub(ago) else { return };
        let mut tables = self.tables.lock();
        let known = tables.entry(table.clone()).or_default();
        known.changed_at = Some(known.changed_at.map_or(at, |before| before.max(at)));
    }

    /// Whether the last known change is younger than the visibility delay.
    pub(crate) fn is_recent(&self, table: &TableName) -> bool {
        let changed_at = self.tables.lock().get(table).and_then(|known| known.changed_at);
        changed_at.is_some_and(|at| self.tasks.now().duration_since(at) < self.visibility_delay)
    }

    /// Notes the location that `tables.get` gave.
    pub(crate) fn note_location(&self, table: &TableName, location: &str) {
        let mut tables = self.tables.lock();
        let known = tables.entry(table.clone()).or_default();
        if known.location.as_deref() != Some(location) {
            known.location = Some(Arc::from(location));
        }
    }

    /// The table's location, in lower case, where `tables.get` has given it.
    pub(crate) fn location(&self, table: &TableName) -> Option<Arc<str>> {
        self.tables.lock().get(table).and_then(|known| known.location.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::TokioTasks;

    fn changes() -> Changes {
        Changes::new(Duration::from_secs(60), Arc::new(TokioTasks::new(tokio::runtime::Handle::current())))
    }

    fn table(name: &str) -> TableName {
        TableName { project: "p".into(), dataset: "d".into(), table: name.into() }
    }

    #[tokio::test]
    async fn a_change_is_recent_until_the_delay_is_over() {
        let changes = changes();
        assert!(!changes.is_recent(&table("a")));
        changes.note_change(&table("a"), Duration::from_secs(59));
        assert!(changes.is_recent(&table("a")));
        assert!(!changes.is_recent(&table("b")));
        changes.note_change(&table("b"), Duration::from_secs(61));
        assert!(!changes.is_recent(&table("b")));
    }

    #[tokio::test]
    async fn an_older_change_does_not_hide_a_younger_one() {
        let changes = changes();
        changes.note_change(&table("a"), Duration::ZERO);
        changes.note_change(&table("a"), Duration::from_secs(120));
        assert!(changes.is_recent(&table("a")));
    }
}
