//! Whether a table takes rows from this connector: shared by its writer (which learns it) and its shards (which act on it).

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::flow::{Backoff, HoldCause};

/// Why and since when a table takes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableHold {
    /// Why.
    pub cause: HoldCause,
    /// What is wrong and what to do.
    pub message: String,
    /// When the writer looks again.
    pub retry_at: Instant,
}

#[derive(Debug)]
struct State {
    hold: Option<TableHold>,
    backoff: Backoff,
}

/// One table's health for one connector.
#[derive(Debug)]
pub struct TableHealth {
    state: Mutex<State>,
}

impl TableHealth {
    /// Healthy. The seed spreads the retries of many workers.
    pub fn new(seed: u64) -> Self {
        Self { state: Mutex::new(State { hold: None, backoff: Backoff::hold(seed) }) }
    }

    /// The table takes nothing; looked at again after a growing wait of at most 30 s, or after the wait that BigQuery asked for.
    /// Returns `true` when it was healthy before (worth a line in the log).
    pub fn hold(&self, cause: HoldCause, message: &str, retry_after: Option<Duration>, now: Instant) -> bool {
        let mut state = self.state.lock();
        if state.hold.is_some() {
            return false;
        }
        let wait = retry_after.unwrap_or_else(|| state.backoff.next_delay());
        state.hold = Some(TableHold { cause, message: message.to_owned(), retry_at: now + wait });
        true
    }

    /// The look failed again.
    pub fn hold_again(&self, cause: HoldCause, message: &str, retry_after: Option<Duration>, now: Instant) {
        let mut state = self.state.lock();
        let wait = retry_after.unwrap_or_else(|| state.backoff.next_delay());
        state.hold = Some(TableHold { cause, message: message.to_owned(), retry_at: now + wait });
    }

    /// The table may be tried again. The backoff goes on growing until an append was acknowledged.
    pub fn release(&self) {
        self.state.lock().hold = None;
    }

    /// An append was acknowledged.
    pub fn succeeded(&self) {
        let mut state = self.state.lock();
        if state.backoff.tries() > 0 {
            state.backoff.reset();
        }
    }

    /// The hold, if there is one.
    pub fn held(&self) -> Option<TableHold> {
        self.state.lock().hold.clone()
    }
}
