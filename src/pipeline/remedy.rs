//! What deliveries of either guarantee do about a table and its rows: count what landed, evolve, hold, name rejected rows.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use crate::bigquery::{AppendFailure, ErrorClass, RetryPace};
use crate::flow::{Backoff, HoldCause};
use crate::record::{RecordError, RecordErrorClass, Stage};
use crate::table::Layout;

use super::batch::AppendJob;
use super::delivery::DeliveryContext;
use super::wishes::{meet_wishes, still_fits};
use super::worker::TableEntry;

impl DeliveryContext {
    /// Counts rows of a job that are in the table now; `whole`: all of the job's, whose ages count.
    pub(super) fn landed(&self, job: &AppendJob, rows: u64, bytes: u64, whole: bool) {
        let table = &job.table;
        table.rows_durable.fetch_add(rows, Relaxed);
        table.bytes_durable.fetch_add(bytes, Relaxed);
        table.metrics.rows_durable.increment(rows);
        table.metrics.bytes_durable.increment(bytes);
        table.set_last_error(None);
        self.health.succeeded();
        if whole {
            let now_ms = self.shared.tasks.now_wall_us() / 1000;
            for (age_ms, count) in job.times.ages_ms(now_ms) {
                self.shared.freshness.add(age_ms, count);
                self.shared.metrics.freshness.record_many(age_ms as f64 / 1000.0, count as usize);
            }
        }
    }

    /// The write servers do not know a column of these rows: makes sure that the table has it.
    ///
    /// # Errors
    /// Why the rows must wait; the table is held.
    pub(super) async fn evolve(&self, table: &TableEntry, layout: &Layout) -> Result<(), (HoldCause, String)> {
        let met = meet_wishes(self.shared.tables.as_ref(), &self.shared.spec, table).await;
        let state = match met {
            Ok(()) => self.shared.tables.get(&table.name).await,
            Err(error) => Err(error),
        };
        match state {
            Err(error) => {
                self.health.hold(error.cause, &error.message, error.retry_after, self.shared.tasks.now());
                Err((error.cause, error.message))
            }
            Ok(Some(state)) if !still_fits(layout, &state.columns) => {
                // Another table under the same name: plans and rows made for the old one are of no use.
                table.generation.fetch_add(1, SeqCst);
                // The table is held too: should the new plans be refused as well, the next try waits longer, and people see it.
                let message = "the table's columns changed; its plans are made again".to_owned();
                self.hold_table(table, HoldCause::PlanPending, &message);
                Err((HoldCause::PlanPending, message))
            }
            Ok(_) => Ok(()),
        }
    }

    /// The table takes nothing for now.
    pub(super) fn hold_table(&self, table: &TableEntry, cause: HoldCause, message: &str) {
        if self.health.hold(cause, message, None, self.shared.tasks.now()) {
            tracing::warn!(connector = self.shared.connector, table = %table.name, cause = cause.as_str(), message, "table holds");
        }
    }
}

/// How long to wait before the next try, for each pace.
pub struct Backoffs {
    transient: Backoff,
    lagging: Backoff,
    quota: Backoff,
}

impl Backoffs {
    /// Callers with different seeds try at different moments.
    pub fn new(seed: u64) -> Self {
        Self { transient: Backoff::transient(seed), lagging: Backoff::lagging(seed), quota: Backoff::quota(seed) }
    }

    /// The one of this pace.
    pub fn of(&mut self, pace: RetryPace) -> &mut Backoff {
        match pace {
            RetryPace::Transient => &mut self.transient,
            RetryPace::Lagging => &mut self.lagging,
            RetryPace::Quota => &mut self.quota,
        }
    }

    /// Something succeeded: the next waits are short again.
    pub fn reset(&mut self) {
        for backoff in [&mut self.transient, &mut self.lagging, &mut self.quota] {
            if backoff.tries() > 0 {
                backoff.reset();
            }
        }
    }
}

/// An append that failed so often in a row is worth a line in the log.
pub const KEEPS_FAILING: u32 = 8;

/// Why a row that was refused alone becomes a dead letter.
pub fn lone_row(failure: &AppendFailure) -> RecordError {
    let class = match failure.class {
        ErrorClass::RequestTooLarge => RecordErrorClass::RowTooLarge,
        _ => RecordErrorClass::RejectedByBigQuery,
    };
    RecordError::new(Stage::Append, class, failure.message.clone())
}

/// The rows of an append that BigQuery names as rejected, by their places in it, ascending; a row may have several errors, and is one dead
/// letter.
pub fn rejections(failure: &AppendFailure, rows: u32) -> Vec<(u32, RecordError)> {
    let mut rejected: Vec<(u32, RecordError)> = failure
        .row_errors
        .iter()
        .filter(|row| row.index < rows)
        .map(|row| (row.index, RecordError::new(Stage::Append, RecordErrorClass::RejectedByBigQuery, row.message.clone())))
        .collect();
    rejected.sort_by_key(|(index, _)| *index);
    rejected.dedup_by_key(|(index, _)| *index);
    rejected
}

/// A failure's words, and what a person may do about it.
pub fn advice(cause: HoldCause, failure: &AppendFailure) -> String {
    let what_to_do = match cause {
        HoldCause::TableMissing => "create the table, or set `create = true` in the connector's [table]",
        HoldCause::PermissionDenied => {
            "grant the worker's account bigquery.tables.updateData and bigquery.tables.get on the table (roles/bigquery.dataEditor)"
        }
        HoldCause::Unauthenticated => "check [bigquery] credentials in millrace.toml",
        HoldCause::TypeConflict => "state the column in [table.columns], or change the table",
        HoldCause::EncryptionKey => "check the table's encryption key and the service agent's access to it",
        HoldCause::TableRecreated => "nothing needs to be done: rows go on when the write servers know the new table",
        _ => "see BigQuery's words",
    };
    format!("{failure}; {what_to_do}")
}
