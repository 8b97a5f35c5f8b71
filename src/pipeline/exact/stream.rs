//! A stream for what waits, and waits between tries that are shown when they last.

use std::time::{Duration, Instant};

use crate::bigquery::{Action, ActionContext, RetryPace};
use crate::flow::{Backoff, HoldCause};
use crate::kafka::Epoch;
use crate::pipeline::events::ShardEvent;
use crate::pipeline::remedy::advice;

use super::StreamNews;
use super::intents::METADATA_BYTES_MAX;
use super::writer::StreamWriter;

/// What is waited for longer than this is shown as a hold.
const SHOWN_AFTER: Duration = Duration::from_secs(3);

/// Waits between tries.
pub(super) struct Backoffs {
    transient: Backoff,
    lagging: Backoff,
    quota: Backoff,
}

impl Backoffs {
    pub(super) fn new(seed: u64) -> Self {
        Self { transient: Backoff::transient(seed), lagging: Backoff::lagging(seed), quota: Backoff::quota(seed) }
    }

    pub(super) fn of(&mut self, pace: RetryPace) -> &mut Backoff {
        match pace {
            RetryPace::Transient => &mut self.transient,
            RetryPace::Lagging => &mut self.lagging,
            RetryPace::Quota => &mut self.quota,
        }
    }

    pub(super) fn reset(&mut self) {
        for backoff in [&mut self.transient, &mut self.lagging, &mut self.quota] {
            if backoff.tries() > 0 {
                backoff.reset();
            }
        }
    }
}

impl StreamWriter {
    /// Creates a stream for what waits and announces it. `false` always: look again.
    pub(super) async fn begin_stream(&mut self) -> bool {
        let began = self.parts.context.tasks.now();
        let (mut shown, mut attempts) = (false, 0);
        while !self.ends() {
            let failure = match self.parts.exact.streams.create(&self.parts.table.name).await {
                Ok(stream) => {
                    self.parts.exact.metrics.streams_created.increment(1);
                    self.line = None;
                    self.window.stream = Some(stream);
                    if self.window.intents().encode().len() > METADATA_BYTES_MAX {
                        let name = self.parts.table.name.clone();
                        self.window.leave_stream();
                        let message = format!(
                            "the name of a stream of {name} leaves no room for intents in the offset's metadata (3 KiB): exactly once needs a table \
                             with a shorter name"
                        );
                        self.give_up(HoldCause::UnknownError, message).await;
                        return false;
                    }
                    self.announce();
                    break;
                }
                Err(failure) => failure,
            };
            self.parts.table.metrics.error(failure.class.as_str());
            let context = ActionContext { changed_recently: self.parts.context.tables.changed_recently(&self.parts.table.name), attempts };
            attempts += 1;
            let pace = match failure.class.action(context) {
                Action::Hold(cause) => {
                    let message = advice(cause, &failure);
                    self.give_up(cause, message).await;
                    break;
                }
                Action::Retry(pace) => pace,
                Action::Split | Action::DeadLetterRows | Action::Evolve | Action::Stop => RetryPace::Quota,
            };
            shown = self.show_late(began, shown, &format!("no stream can be created: {failure}")).await;
            let delay = self.backoffs.of(pace).next_delay();
            self.pause(delay).await;
        }
        if shown {
            self.news(StreamNews::GoesOn).await;
        }
        false
    }

    /// Shows a hold once something has taken too long. Returns whether it is shown.
    pub(super) async fn show_late(&mut self, began: Instant, shown: bool, message: &str) -> bool {
        let late = self.parts.context.tasks.now().duration_since(began) >= SHOWN_AFTER;
        if late && !shown {
            self.news(StreamNews::Waits { cause: HoldCause::TakingOver, message: format!("{message}; tried again") }).await;
        }
        late
    }

    pub(super) async fn news(&mut self, news: StreamNews) {
        let epoch: Epoch = self.parts.progress.epoch;
        self.parts.shard.send(ShardEvent::Stream { slot: self.parts.slot, epoch, news }).await;
    }

    /// Waits, or until the assignment ends.
    pub(super) async fn pause(&mut self, span: Duration) {
        let mut sleep = self.parts.context.tasks.sleep(span);
        while !self.ends() {
            let changed = std::pin::pin!(self.parts.progress.published.changed());
            match futures::future::select(sleep, changed).await {
                futures::future::Either::Left(_) => return,
                futures::future::Either::Right(((), rest)) => sleep = rest,
            }
        }
    }
}
