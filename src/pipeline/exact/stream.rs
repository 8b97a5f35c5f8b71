//! A stream for what waits, and waits between tries that are shown when they last.

use std::time::{Duration, Instant};

use crate::bigquery::{Action, ActionContext, RetryPace};
use crate::flow::HoldCause;
use crate::kafka::Epoch;
use crate::pipeline::events::ShardEvent;
use crate::pipeline::remedy::advice;

use super::StreamNews;
use super::intents::METADATA_BYTES_MAX;
use super::writer::StreamWriter;

/// What is waited for longer than this is shown as a hold.
const SHOWN_AFTER: Duration = Duration::from_secs(3);

impl StreamWriter {
    /// Creates a stream for what waits and announces it. `false` always: look again.
    pub(super) async fn begin_stream(&mut self) -> bool {
        let began = self.parts.context.shared.tasks.now();
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
            let context =
                ActionContext { changed_recently: self.parts.context.shared.tables.changed_recently(&self.parts.table.name), attempts };
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
        let late = self.parts.context.shared.tasks.now().duration_since(began) >= SHOWN_AFTER;
        if late && !shown {
            self.news(StreamNews::Waits { cause: HoldCause::TakingOver, message: format!("{message}; tried again") }).await;
        }
        late
    }

    /// Shows whether the brokers take what is to be announced. Nothing else is to be done: the committer tries again, and what waits is
    /// sent once it is accepted.
    pub(super) async fn show_refusal(&mut self) {
        match self.parts.progress.published.refused_bytes() {
            Some(bytes) if !self.intents_refused => {
                self.intents_refused = true;
                let message = format!(
                    "{}: the brokers refuse {bytes} bytes beside the group's offset, where exactly once announces its appends; set offset.metadata.max.bytes on \
                     the brokers to 4096 (their default; {METADATA_BYTES_MAX} are needed at most), or guarantee = \"at-least-once\" in [delivery]; tried again",
                    self.parts.progress.partition
                );
                tracing::error!(connector = self.parts.context.shared.connector, message, "the partition holds");
                self.news(StreamNews::Waits { cause: HoldCause::OffsetMetadata, message }).await;
            }
            None if self.intents_refused => {
                self.intents_refused = false;
                self.news(StreamNews::GoesOn).await;
            }
            Some(_) | None => {}
        }
    }

    pub(super) async fn news(&mut self, news: StreamNews) {
        if matches!(news, StreamNews::GoesOn) {
            // Of the partition's reasons to wait one hold is shown: whichever ends, the others are looked at again.
            self.intents_refused = false;
        }
        let epoch: Epoch = self.parts.progress.epoch;
        self.parts.shard.send(ShardEvent::Stream { slot: self.parts.slot, epoch, news }).await;
    }

    /// Waits, or until the assignment ends.
    pub(super) async fn pause(&mut self, span: Duration) {
        let mut sleep = self.parts.context.shared.tasks.sleep(span);
        while !self.ends() {
            let changed = std::pin::pin!(self.parts.progress.published.changed());
            match futures::future::select(sleep, changed).await {
                futures::future::Either::Left(_) => return,
                futures::future::Either::Right(((), rest)) => sleep = rest,
            }
        }
    }
}
