//! Keeping below BigQuery's rates: 100 calls a second for each user and method, 5 metadata updates in 10 s for each table name.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::flow::Tasks;
use crate::table::TableName;
use parking_lot::Mutex;

/// The time between two calls of this process: half of what a user may do, since other workers are the same user.
const CALL_SPACING: Duration = Duration::from_millis(20);
/// So many updates of one table's metadata ...
const UPDATES: usize = 5;
/// ... in this time (counted by name; making the table again does not reset it).
const UPDATES_WINDOW: Duration = Duration::from_secs(10);

pub(crate) struct Pace {
    tasks: Arc<dyn Tasks>,
    next_call: Mutex<Option<Instant>>,
    updates: Mutex<HashMap<TableName, VecDeque<Instant>>>,
}

impl Pace {
    pub(crate) fn new(tasks: Arc<dyn Tasks>) -> Self {
        Self { tasks, next_call: Mutex::default(), updates: Mutex::default() }
    }

    /// Waits for the turn of one call.
    pub(crate) async fn call(&self) {
        let now = self.tasks.now();
        self.tasks.sleep(self.call_at(now) - now).await;
    }

    /// Waits until the table's metadata may be updated.
    pub(crate) async fn update(&self, table: &TableName) {
        let now = self.tasks.now();
        self.tasks.sleep(self.update_at(table, now) - now).await;
    }

    /// Waits until [`Self::update`] would not, without taking its turn.
    pub(crate) async fn update_due(&self, table: &TableName) {
        let now = self.tasks.now();
        self.tasks.sleep(self.update_due_at(table, now) - now).await;
    }

    fn update_due_at(&self, table: &TableName, now: Instant) -> Instant {
        let tables = self.updates.lock();
        let first = tables.get(table).filter(|times| times.len() >= UPDATES).and_then(|times| times.front());
        first.map_or(now, |first| now.max(*first + UPDATES_WINDOW))
    }

    fn call_at(&self, now: Instant) -> Instant {
        let mut next = self.next_call.lock();
        let at = next.map_or(now, |n| n.max(now));
        *next = Some(at + CALL_SPACING);
        at
    }

    fn update_at(&self, table: &TableName, now: Instant) -> Instant {
        let mut tables = self.updates.lock();
        tables.retain(|_, times| times.back().is_some_and(|last| *last + UPDATES_WINDOW > now));
        let times = tables.entry(table.clone()).or_default();
        let at = if times.len() < UPDATES { now } else { times.pop_front().map_or(now, |first| now.max(first + UPDATES_WINDOW)) };
        times.push_back(at);
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::TokioTasks;

    fn pace() -> Pace {
        Pace::new(Arc::new(TokioTasks::new(tokio::runtime::Handle::current())))
    }

    #[tokio::test]
    async fn a_table_is_updated_five_times_in_ten_seconds() {
        let pace = pace();
        let table = TableName { project: "p".into(), dataset: "d".into(), table: "t".into() };
        let now = Instant::now();
        assert_eq!(pace.update_due_at(&table, now), now);
        let waits: Vec<Duration> = (0..11).map(|_| pace.update_at(&table, now) - now).collect();
        assert_eq!(waits, [0, 0, 0, 0, 0, 10, 10, 10, 10, 10, 20].map(Duration::from_secs));
        assert_eq!(pace.update_due_at(&table, now) - now, Duration::from_secs(20), "asking takes no turn");
        assert_eq!(pace.update_at(&table, now) - now, Duration::from_secs(20));
        let other = TableName { table: "o".into(), ..table };
        assert_eq!(pace.update_at(&other, now), now);
    }

    #[tokio::test]
    async fn calls_are_spaced() {
        let pace = pace();
        let now = Instant::now();
        assert_eq!(pace.call_at(now), now);
        assert_eq!(pace.call_at(now), now + CALL_SPACING);
        let later = now + Duration::from_secs(1);
        assert_eq!(pace.call_at(later), later);
    }
}
