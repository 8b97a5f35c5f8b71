//! Keeping below BigQuery's rates: 100 calls a second for each user and method, 5 metadata updates in 10 s for each table name.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

use crate::table::TableName;

/// The time between two calls of this process: half of what a user may do, since other workers are the same user.
const CALL_SPACING: Duration = Duration::from_millis(20);
/// So many updates of one table's metadata ...
const UPDATES: usize = 5;
/// ... in this time (counted by name; making the table again does not reset it).
const UPDATES_WINDOW: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(crate) struct Pace {
    next_call: Mutex<Option<Instant>>,
    updates: Mutex<HashMap<TableName, VecDeque<Instant>>>,
}

impl Pace {
    /// Waits for the turn of one call.
    pub(crate) async fn call(&self) {
        let at = {
            let mut next = self.next_call.lock();
            let at = next.map_or_else(Instant::now, |n| n.max(Instant::now()));
            *next = Some(at + CALL_SPACING);
            at
        };
        sleep_until(at).await;
    }

    /// Waits until the table's metadata may be updated.
    pub(crate) async fn update(&self, table: &TableName) {
        let at = {
            let now = Instant::now();
            let mut tables = self.updates.lock();
            tables.retain(|_, times| times.back().is_some_and(|last| *last + UPDATES_WINDOW > now));
            let times = tables.entry(table.clone()).or_default();
            let at = if times.len() < UPDATES { now } else { times.pop_front().map_or(now, |first| now.max(first + UPDATES_WINDOW)) };
            times.push_back(at);
            at
        };
        sleep_until(at).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_table_is_updated_five_times_in_ten_seconds() {
        let pace = Pace::default();
        let table = TableName { project: "p".into(), dataset: "d".into(), table: "t".into() };
        let start = Instant::now();
        for _ in 0..5 {
            pace.update(&table).await;
        }
        assert!(start.elapsed() < Duration::from_millis(10));
        pace.update(&table).await;
        assert!(start.elapsed() >= UPDATES_WINDOW);
        let other = TableName { table: "o".into(), ..table };
        let before = Instant::now();
        pace.update(&other).await;
        assert!(before.elapsed() < Duration::from_millis(10));
    }

    #[tokio::test(start_paused = true)]
    async fn calls_are_spaced() {
        let pace = Pace::default();
        let start = Instant::now();
        for _ in 0..51 {
            pace.call().await;
        }
        assert!(start.elapsed() >= CALL_SPACING * 50);
    }
}
