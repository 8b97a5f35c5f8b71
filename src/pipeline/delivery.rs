//! One append's life: sent, sent again, split, rows taken out, until every row is durable, dead-lettered or given up.
//!
//! What a failure asks for is decided in one place, `ErrorClass::action`; here it is done.

use std::sync::Arc;

use crate::bigquery::{Action, ActionContext, Append, AppendFailure, ErrorClass, RetryPace};
use crate::config::BadRecords;
use crate::decode::{row_to_json, split_rows};
use crate::flow::{BudgetKind, HoldCause};
use crate::record::RecordError;

use super::batch::{AppendJob, Share};
use super::events::{Outcome, ShareOutcome};
use super::health::TableHealth;
use super::part::{Indices, Part, halves, pick};
use super::rejected::{RejectedRow, RejectedRows};
use super::remedy::{Backoffs, KEEPS_FAILING, advice, lone_row, rejections};
use super::writers::WriterParts;

/// What deliveries of one (connector, table) share.
pub struct DeliveryContext {
    /// What all writers of the connector share.
    pub shared: Arc<WriterParts>,
    /// Whether the table takes rows.
    pub health: Arc<TableHealth>,
}

/// How a job ended.
pub struct Delivered {
    /// For the shard.
    pub outcome: Outcome,
    /// Rows whose dead letters are to be sent.
    pub rejected: Option<RejectedRows>,
}

/// Delivers a job. Ends when each of its rows is finished, rejected or given up; the outcome reaches the shard by the caller.
pub async fn deliver(context: &DeliveryContext, job: &AppendJob) -> Delivered {
    let none = vec![0; job.shares.len()];
    let mut run = Run { context, job, finished: none.clone(), letters: none, rejected: Vec::new() };
    let mut backoffs = Backoffs::new(seed_of(job));
    let all = Indices::All(u32::try_from(job.rows.origins.len()).unwrap_or(u32::MAX));
    let mut parts = vec![Part { rows: job.rows.rows.clone(), indices: all, maybe_durable: false, attempts: 0 }];
    let mut hold = None;
    while let Some(part) = parts.pop() {
        match run.send(part, &mut backoffs).await {
            Step::Done => {}
            Step::Again(more) => parts.extend(more),
            Step::GiveUp(part, cause, message) => {
                run.count_duplicates(&part);
                for rest in &parts {
                    run.count_duplicates(rest);
                }
                hold = Some((cause, message));
                break;
            }
        }
    }
    let counts = run.finished.iter().zip(&run.letters);
    let shares = job
        .shares
        .iter()
        .zip(counts)
        .map(|(share, (finished, letters))| ShareOutcome {
            share: *share,
            finished: *finished,
            abandoned: share.rows - finished - letters,
            rejected: *letters,
        })
        .collect();
    let rows = run.rejected;
    let rejected = (!rows.is_empty()).then(|| {
        let bytes = rows.iter().map(RejectedRow::size_bytes).sum::<usize>();
        RejectedRows { rows, shard: job.shard.clone(), lease: job.lease.beside(BudgetKind::DeadLetters, bytes as u64) }
    });
    Delivered { outcome: Outcome { table: Some(job.table.clone()), shares, hold, landed_below: None }, rejected }
}

/// Any number that differs between jobs spreads their retries.
fn seed_of(job: &AppendJob) -> u64 {
    let first = job.rows.origins.get(0).map_or(0, |origin| origin.offset.unsigned_abs() << 16 ^ u64::from(origin.slot));
    first ^ (job.rows.rows.len() as u64) << 40
}

/// What became of one send.
enum Step {
    Done,
    Again(Vec<Part>),
    GiveUp(Part, HoldCause, String),
}

/// What a failure means for the part that failed.
enum Verdict {
    /// Every row of it is finished.
    Done,
    /// The same rows again.
    Same,
    /// These instead.
    Instead(Vec<Part>),
    /// Its rows are read again later.
    GiveUp(HoldCause, String),
}

struct Run<'a> {
    context: &'a DeliveryContext,
    job: &'a AppendJob,
    /// Rows finished, by share.
    finished: Vec<u32>,
    /// Rows rejected whose dead letters are to be sent, by share.
    letters: Vec<u32>,
    rejected: Vec<RejectedRow>,
}

impl Run<'_> {
    async fn send(&mut self, part: Part, backoffs: &mut Backoffs) -> Step {
        self.context.shared.fence.beat(self.context.shared.tasks.now());
        self.context.shared.fence.wait_down(|| self.job.all_gone()).await;
        if let Some(held) = self.context.health.held() {
            return Step::GiveUp(part, held.cause, held.message);
        }
        // Rows go out a second time without knowing that the first time failed: from here, or from whoever owns their partition now.
        self.count_duplicates(&part);
        let gate = self.job.gate(&self.context.shared.fence);
        let Some(mut part) = self.without_gone(Part { maybe_durable: false, ..part }) else { return Step::Done };
        let table = &self.job.table;
        let append = Append {
            table: table.name.clone(),
            layout: self.job.rows.layout.clone(),
            rows: part.rows.clone(),
            row_count: part.indices.len(),
            gate: Some(gate),
        };
        let sent_at = self.context.shared.tasks.now();
        table.metrics.appends.increment(1);
        match self.context.shared.appender.append(append).await {
            Ok(()) => {
                table.metrics.append_latency.record(self.context.shared.tasks.now().duration_since(sent_at).as_secs_f64());
                self.durable(&part);
                Step::Done
            }
            // Its turn came after a pause, or after its partition went: what is to be sent now, if anything, is seen when the fence is
            // down.
            Err(failure) if failure.class == ErrorClass::Withheld => Step::Again(vec![part]),
            Err(failure) => {
                table.metrics.error(failure.class.as_str());
                table.set_last_error(Some(failure.to_string()));
                part.maybe_durable = failure.maybe_durable;
                let verdict = self.act(&part, failure, backoffs).await;
                part.attempts += 1;
                match verdict {
                    Verdict::Done => Step::Done,
                    Verdict::Same => Step::Again(vec![part]),
                    Verdict::Instead(parts) => Step::Again(parts),
                    Verdict::GiveUp(cause, message) => Step::GiveUp(part, cause, message),
                }
            }
        }
    }

    /// Leaves out rows whose assignment is over: whoever owns the partition now reads them again.
    fn without_gone(&self, part: Part) -> Option<Part> {
        if !self.job.shares.iter().any(|share| self.job.is_gone(share)) {
            return Some(part);
        }
        let stays = |place: &u32| {
            let share = part.indices.get(*place).and_then(|row| self.job.share_of(row)).and_then(|share| self.job.shares.get(share));
            share.is_some_and(|share| !self.job.is_gone(share))
        };
        let places: Vec<u32> = (0..part.indices.len()).filter(stays).collect();
        (!places.is_empty()).then(|| pick(&part, &places))
    }

    async fn act(&mut self, part: &Part, failure: AppendFailure, backoffs: &mut Backoffs) -> Verdict {
        let table = &self.job.table;
        let context = ActionContext { changed_recently: self.context.shared.tables.changed_recently(&table.name), attempts: part.attempts };
        let action = failure.class.action(context);
        tracing::debug!(connector = self.context.shared.connector, table = %table.name, ?action, %failure, "append failed");
        match action {
            Action::Retry(pace) => {
                let backoff = backoffs.of(pace);
                let delay = backoff.next_delay();
                if backoff.tries() == KEEPS_FAILING {
                    tracing::warn!(connector = self.context.shared.connector, table = %table.name, %failure, "an append keeps failing; it is sent again until it is durable");
                }
                table.metrics.append_retries.increment(1);
                self.context.shared.tasks.sleep(delay).await;
                Verdict::Same
            }
            Action::Split if part.indices.len() > 1 => {
                table.metrics.append_retries.increment(1);
                Verdict::Instead(halves(part))
            }
            Action::Split => self.reject(part, vec![(0, lone_row(&failure))]),
            Action::DeadLetterRows => {
                let rejected = rejections(&failure, part.indices.len());
                if rejected.is_empty() {
                    return self.give_up(HoldCause::UnknownError, format!("BigQuery rejected rows without naming one: {failure}"));
                }
                table.metrics.append_retries.increment(1);
                self.reject(part, rejected)
            }
            Action::Evolve => self.evolve(backoffs).await,
            Action::Hold(cause) => self.give_up(cause, advice(cause, &failure)),
            Action::Stop => {
                self.give_up(HoldCause::UnknownError, format!("millrace sent what BigQuery cannot take, please report it: {failure}"))
            }
        }
    }

    /// The rows are in the table.
    fn durable(&mut self, part: &Part) {
        let whole = matches!(part.indices, Indices::All(_));
        self.context.landed(self.job, u64::from(part.indices.len()), part.rows.len() as u64, whole);
        self.finish(&part.indices);
    }

    fn finish(&mut self, indices: &Indices) {
        match indices {
            Indices::All(_) => {
                for (finished, share) in self.finished.iter_mut().zip(&self.job.shares) {
                    *finished = share.rows;
                }
            }
            Indices::Some(indices) => {
                for row in indices {
                    if let Some(finished) = self.job.share_of(*row).and_then(|share| self.finished.get_mut(share)) {
                        *finished += 1;
                    }
                }
            }
        }
    }

    /// Takes the named rows out by the user's rule; what is left goes again.
    fn reject(&mut self, part: &Part, rejected: Vec<(u32, RecordError)>) -> Verdict {
        let letters = &self.context.shared.dead_letters;
        let rows: Vec<std::ops::Range<usize>> = split_rows(&part.rows).collect();
        let mut out = Vec::with_capacity(rejected.len());
        for (at, error) in rejected {
            let Some((row, share, offset)) = self.place_of(part, at) else { continue };
            match letters.policy {
                BadRecords::Stop => {
                    let partition = self.job.partition_of(&share).map(|progress| progress.partition.to_string()).unwrap_or_default();
                    let message = format!("bad_records = \"stop\": {partition} offset {offset}: {error}");
                    return Verdict::GiveUp(HoldCause::BadRecord, message);
                }
                BadRecords::Skip => {
                    letters.skipped(&error);
                    self.finish(&Indices::Some(vec![row]));
                }
                BadRecords::DeadLetter => {
                    let Some(progress) = self.job.partition_of(&share).cloned() else { continue };
                    let bytes = rows.get(at as usize).and_then(|range| part.rows.get(range.clone()));
                    let row_json = bytes.map(|bytes| row_to_json(&self.job.rows.layout, bytes)).unwrap_or_default();
                    if let Some(count) = self.job.share_of(row).and_then(|share| self.letters.get_mut(share)) {
                        *count += 1;
                    }
                    self.rejected.push(RejectedRow { progress, share: Share { rows: 1, ..share }, offset, error, row_json });
                }
            }
            out.push(at);
        }
        let rest: Vec<u32> = (0..part.indices.len()).filter(|at| !out.contains(at)).collect();
        if rest.is_empty() { Verdict::Done } else { Verdict::Instead(vec![pick(part, &rest)]) }
    }

    /// A part's row in the job, its share, its record's offset.
    fn place_of(&self, part: &Part, at: u32) -> Option<(u32, Share, i64)> {
        let row = part.indices.get(at)?;
        let share = self.job.shares.get(self.job.share_of(row)?)?;
        Some((row, *share, self.job.rows.origins.get(row as usize)?.offset))
    }

    /// The write servers do not know a column: make sure that the table has it, then send again.
    async fn evolve(&mut self, backoffs: &mut Backoffs) -> Verdict {
        if let Err((cause, message)) = self.context.evolve(&self.job.table, &self.job.rows.layout).await {
            return Verdict::GiveUp(cause, message);
        }
        self.job.table.metrics.append_retries.increment(1);
        self.context.shared.tasks.sleep(backoffs.of(RetryPace::Lagging).next_delay()).await;
        Verdict::Same
    }

    fn give_up(&self, cause: HoldCause, message: String) -> Verdict {
        self.context.hold_table(&self.job.table, cause, &message);
        Verdict::GiveUp(cause, message)
    }

    fn count_duplicates(&self, part: &Part) {
        if part.maybe_durable {
            self.job.table.metrics.possible_duplicate_rows.increment(u64::from(part.indices.len()));
        }
    }
}
