//! What is done after an append failed, once every append on its way is answered: sent again at its place, taken apart, given up, or
//! settled by ending the stream and counting its rows.
//!
//! Places change (rows taken out, appends split) only while nothing is in doubt: a request that is still on its way somewhere must never
//! fit to a place that means other rows by now. Doubt is settled by the end of the stream, after which nothing lands.

use std::ops::Range;

use crate::bigquery::{Action, ActionContext, AppendFailure, ErrorClass, RetryPace};
use crate::config::{BadRecords, OnLostStream};
use crate::decode::{row_to_json, split_rows};
use crate::flow::{BudgetKind, HoldCause};
use crate::pipeline::batch::Share;
use crate::pipeline::dead_letters::LetterEnd;
use crate::pipeline::rejected::{RejectedRow, RejectedRows};
use crate::pipeline::remedy::{KEEPS_FAILING, advice, lone_row, rejections};
use crate::record::RecordError;

use super::StreamNews;
use super::takeover::landed;
use super::window::State;
use super::writer::{Ended, StreamWriter};

/// NOT_FOUND counts after so many answers: write servers may not know a stream at once.
pub(super) const NOT_FOUND_TRIES: u32 = 8;

/// Whether BigQuery does not know the stream (any more).
pub(super) fn is_forgotten(class: ErrorClass) -> bool {
    matches!(class, ErrorClass::StreamNotFound | ErrorClass::TableNotFound | ErrorClass::TableRecreated)
}

impl StreamWriter {
    /// One step out of trouble. Nothing is on its way.
    pub(super) async fn mend(&mut self) {
        self.settle_landed().await;
        if self.window.entries.iter().any(|entry| matches!(entry.state, State::Landed)) {
            // Behind one that has not: against all rules, so the count decides.
            return self.end_stream("an append landed before the one in front of it").await;
        }
        let failure = match self.window.entries.front().map(|entry| &entry.state) {
            Some(State::Failed(failure)) => Some(failure.clone()),
            _ => None,
        };
        for entry in &mut self.window.entries {
            if matches!(entry.state, State::Failed(_)) {
                entry.state = State::Waiting;
            }
        }
        let Some(failure) = failure else {
            self.troubled = false;
            return;
        };
        // A connection may know stream and table wrongly.
        self.line = None;
        let in_doubt = self.window.entries.front().is_some_and(|entry| entry.in_doubt);
        match failure.class {
            // The answer to this very append was lost, and nobody else writes at this place of this stream.
            ErrorClass::OffsetAlreadyExists if in_doubt => {
                if let Some(first) = self.window.entries.front_mut() {
                    first.state = State::Landed;
                }
                self.settle_landed().await;
                self.troubled = false;
            }
            ErrorClass::OffsetAlreadyExists
            | ErrorClass::OffsetOutOfRange
            | ErrorClass::StreamFinalized
            | ErrorClass::StreamAlreadyCommitted
            | ErrorClass::InvalidStreamType
            | ErrorClass::InvalidStreamState => self.end_stream(&failure.to_string()).await,
            ErrorClass::StreamNotFound if self.window.is_in_doubt() => self.end_stream(&failure.to_string()).await,
            ErrorClass::StreamNotFound => {
                // Nothing of what is left was ever stored there.
                self.wait_before_again(RetryPace::Transient).await;
                self.window.leave_stream();
                self.publish();
                self.troubled = false;
            }
            _ => self.act(failure).await,
        }
    }

    async fn act(&mut self, failure: AppendFailure) {
        let context = &self.parts.context;
        let table = self.parts.table.clone();
        let Some(first) = self.window.entries.front_mut() else { return };
        let asked = ActionContext { changed_recently: context.shared.tables.changed_recently(&table.name), attempts: first.part.attempts };
        first.part.attempts += 1;
        let rows = first.rows();
        let layout = first.job.rows.layout.clone();
        let action = failure.class.action(asked);
        tracing::debug!(connector = context.shared.connector, partition = %self.parts.progress.partition, ?action, %failure, "append failed");
        match action {
            Action::Retry(pace) => {
                if self.backoffs.of(pace).tries() == KEEPS_FAILING {
                    let partition = &self.parts.progress.partition;
                    tracing::warn!(connector = context.shared.connector, %partition, %failure, "an append keeps failing; it is sent again until it is durable");
                }
                table.metrics.append_retries.increment(1);
                self.wait_before_again(pace).await;
                self.troubled = false;
            }
            _ if self.window.is_in_doubt() => self.end_stream(&failure.to_string()).await,
            Action::Split if rows > 1 => {
                table.metrics.append_retries.increment(1);
                self.split_first();
            }
            Action::Split => {
                self.take_out(vec![(0, lone_row(&failure))]).await;
            }
            Action::DeadLetterRows => {
                let rejected = rejections(&failure, rows);
                if rejected.is_empty() {
                    return self.give_up(HoldCause::UnknownError, format!("BigQuery rejected rows without naming one: {failure}")).await;
                }
                table.metrics.append_retries.increment(1);
                self.take_out(rejected).await;
            }
            Action::Evolve => match context.evolve(&table, &layout).await {
                Ok(()) => {
                    table.metrics.append_retries.increment(1);
                    self.wait_before_again(RetryPace::Lagging).await;
                    self.troubled = false;
                }
                Err((cause, message)) => self.give_up(cause, message).await,
            },
            Action::Hold(cause) => self.give_up(cause, advice(cause, &failure)).await,
            Action::Stop => {
                let message = format!("millrace sent what BigQuery cannot take, please report it: {failure}");
                self.give_up(HoldCause::UnknownError, message).await;
            }
        }
    }

    async fn wait_before_again(&mut self, pace: RetryPace) {
        let delay = self.backoffs.of(pace).next_delay();
        self.pause(delay).await;
    }

    /// The table takes nothing: what waits is read again when it does. Nothing is in doubt, or it stays in the intents.
    pub(super) async fn give_up(&mut self, cause: HoldCause, message: String) {
        if self.window.is_in_doubt() {
            return self.end_stream(&message).await;
        }
        self.parts.context.hold_table(&self.parts.table, cause, &message);
        self.abandon_all(cause, &message).await;
        // The stream may have gone with what is held for: what comes after the hold gets another one.
        self.line = None;
        self.window.leave_stream();
        self.publish();
        self.troubled = false;
    }

    /// The first append in two.
    fn split_first(&mut self) {
        let (one, two) = (self.window.next_id(), self.window.next_id());
        let Some(first) = self.window.entries.pop_front() else { return };
        let middle = first.rows() / 2;
        let (head, tail): (Vec<u32>, Vec<u32>) = (0..first.rows()).partition(|place| *place < middle);
        self.window.entries.push_front(first.only(two, &tail));
        self.window.entries.push_front(first.only(one, &head));
        self.number_again();
    }

    /// What is left has other places now: announced, and sent when that is committed.
    fn number_again(&mut self) {
        self.window.renumber();
        self.announce();
        self.troubled = false;
    }

    /// Takes rows out of the first append by the user's rule. Their letters are durable before the rows behind them are sent: whoever goes
    /// on behind those leaves these out.
    async fn take_out(&mut self, rejected: Vec<(u32, RecordError)>) {
        let Some(first) = self.window.entries.front() else { return };
        let letters = self.parts.context.shared.dead_letters.clone();
        let places: Vec<u32> = rejected.iter().map(|(place, _)| *place).collect();
        let bytes: Vec<Range<usize>> = split_rows(&first.part.rows).collect();
        let mut rows = Vec::with_capacity(rejected.len());
        for (place, error) in rejected {
            let Some((share, offset)) = first.place_of(place) else { continue };
            match letters.policy {
                BadRecords::Stop => {
                    let partition = &self.parts.progress.partition;
                    let message = format!("bad_records = \"stop\": {partition} offset {offset}: {error}");
                    self.abandon_all(HoldCause::BadRecord, &message).await;
                    self.publish();
                    self.troubled = false;
                    return;
                }
                BadRecords::Skip => letters.skipped(&error),
                BadRecords::DeadLetter => {
                    let row = bytes.get(place as usize).and_then(|range| first.part.rows.get(range.clone()));
                    let row_json = row.map(|row| row_to_json(&first.job.rows.layout, row)).unwrap_or_default();
                    let share = Share { rows: 1, ..share };
                    rows.push(RejectedRow { progress: self.parts.progress.clone(), share, offset, error, row_json });
                }
            }
        }
        if !rows.is_empty() && self.until_letters_durable(rows).await == LetterEnd::PartitionGone {
            return;
        }
        let (out, rest) = (self.window.next_id(), self.window.next_id());
        let Some(first) = self.window.entries.pop_front() else { return };
        self.tell(&first.only(out, &places), Ended::Finished, None).await;
        let left: Vec<u32> = (0..first.rows()).filter(|place| !places.contains(place)).collect();
        if !left.is_empty() {
            self.window.entries.push_front(first.only(rest, &left));
        }
        self.number_again();
    }

    /// Waits until the dead-letter topic has these rows' records, or their partition goes; shown when that takes long.
    async fn until_letters_durable(&mut self, rows: Vec<RejectedRow>) -> LetterEnd {
        let letters = self.parts.context.shared.dead_letters.clone();
        let began = self.parts.context.shared.tasks.now();
        let bytes = rows.iter().map(RejectedRow::size_bytes).sum::<usize>();
        let lease = self.window.entries.front().map(|first| first.job.lease.beside(BudgetKind::DeadLetters, bytes as u64));
        let Some(lease) = lease else { return LetterEnd::PartitionGone };
        let rejected = RejectedRows { rows, shard: self.parts.shard.clone(), lease };
        let mut done = Box::pin(async move { letters.until_all_durable(rejected).await });
        let mut shown = false;
        let end = loop {
            let wait = self.parts.context.shared.tasks.sleep(std::time::Duration::from_secs(1));
            match futures::future::select(done, wait).await {
                futures::future::Either::Left((end, _)) => break end,
                futures::future::Either::Right(((), rest)) => done = rest,
            }
            if self.parts.progress.is_gone() {
                return LetterEnd::PartitionGone;
            }
            let late = self.parts.context.shared.tasks.now().duration_since(began);
            if !shown && late >= std::time::Duration::from_secs(3) {
                shown = true;
                let message = self.parts.context.shared.dead_letters.late_message(late);
                self.news(StreamNews::Waits { cause: HoldCause::DeadLetterTopic, message }).await;
            }
        };
        if shown {
            self.news(StreamNews::GoesOn).await;
        }
        end
    }

    /// Ends the stream: nothing lands in it any more, and its row count says what of the window did. What did not goes to a new one.
    async fn end_stream(&mut self, why: &str) {
        let Some(stream) = self.window.stream.clone() else {
            self.window.renumber();
            self.troubled = false;
            return;
        };
        tracing::info!(connector = self.parts.context.shared.connector, partition = %self.parts.progress.partition, why, "the partition's stream is ended and its rows counted");
        self.line = None;
        let began = self.parts.context.shared.tasks.now();
        let (mut shown, mut not_found) = (false, 0);
        while !self.ends() {
            let failure = match self.parts.exact.streams.finalize(&stream).await {
                Ok(rows) => {
                    self.parts.exact.metrics.streams_ended.increment(1);
                    match landed(&self.window.intents(), rows) {
                        Ok(landed) if self.window.entries.iter().skip(landed.appends).any(|entry| matches!(entry.state, State::Landed)) => {
                            self.lost(&stream, &format!("an append was acknowledged that is not among its {rows} rows")).await;
                        }
                        Ok(landed) => {
                            self.window.entries.iter_mut().take(landed.appends).for_each(|entry| entry.state = State::Landed);
                            self.settle_landed().await;
                            self.leave().await;
                        }
                        Err(count) => self.lost(&stream, &count.to_string()).await,
                    }
                    break;
                }
                Err(failure) => failure,
            };
            not_found += u32::from(is_forgotten(failure.class));
            if not_found >= NOT_FOUND_TRIES || failure.class == ErrorClass::StreamFinalized {
                self.lost(&stream, &format!("its rows cannot be counted: {failure}")).await;
                break;
            }
            shown = self.show_late(began, shown, &format!("{stream} cannot be ended: {failure}")).await;
            self.wait_before_again(RetryPace::Transient).await;
        }
        if shown {
            self.news(StreamNews::GoesOn).await;
        }
    }

    /// Leaves a stream that is ended. Its successor is made when something waits, not at once when this happens again and again.
    async fn leave(&mut self) {
        self.wait_before_again(RetryPace::Transient).await;
        self.window.leave_stream();
        self.publish();
        self.troubled = false;
    }

    /// Nobody can know what landed.
    async fn lost(&mut self, stream: &str, why: &str) {
        self.parts.exact.metrics.streams_lost.increment(1);
        let rows = self.window.entries.iter().map(|entry| u64::from(entry.rows())).sum::<u64>();
        let partition = self.parts.progress.partition.clone();
        let message = lost_message(&partition.to_string(), rows, stream, why);
        match self.parts.exact.on_lost {
            OnLostStream::Hold => {
                tracing::error!(connector = self.parts.context.shared.connector, %partition, message, "the partition holds");
                self.news(StreamNews::Lost { message: message.clone() }).await;
                // The intents stay as they are: whoever comes next finds the same.
                self.abandon_all(HoldCause::StreamLost, &message).await;
                self.refused_run = Some(u64::MAX);
                self.troubled = false;
            }
            OnLostStream::AtLeastOnce => {
                tracing::error!(connector = self.parts.context.shared.connector, %partition, message, "the rows are sent again");
                self.parts.exact.metrics.replayed_rows.increment(rows);
                self.parts.table.metrics.possible_duplicate_rows.increment(rows);
                self.leave().await;
            }
        }
    }
}

/// What is said of a partition whose rows cannot be told apart.
pub(super) fn lost_message(partition: &str, rows: u64, stream: &str, why: &str) -> String {
    format!(
        "{partition}: whether {rows} rows that were to be appended to {stream} landed cannot be known ({why}); set `on_lost_stream = \"at-least-once\"` \
         in [delivery] to send them again and count them as possible duplicates"
    )
}
