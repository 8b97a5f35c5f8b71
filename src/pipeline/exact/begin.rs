//! A partition's beginning: what its metadata say, and the takeover of the stream that a former owner has left.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::bigquery::ErrorClass;
use crate::config::OnLostStream;
use crate::flow::{Backoff, HoldCause, Tasks};
use crate::kafka::GroupControl;
use crate::pipeline::events::{ShardEvent, ShardHandle};
use crate::pipeline::progress::PartitionProgress;

use super::intents::{Intents, NotIntents};
use super::mend::{NOT_FOUND_TRIES, is_forgotten, lost_message};
use super::takeover::landed;
use super::{ExactParts, StreamNews};

/// How long the broker may take to say which offsets there are.
const WATERMARKS_TIMEOUT: Duration = Duration::from_secs(5);
/// What takes longer than this is shown with its reason.
const SHOWN_AFTER: Duration = Duration::from_secs(3);

/// What an assignment's metadata ask for.
#[derive(Debug, PartialEq, Eq)]
pub enum Beginning {
    /// Nothing is to be found out.
    Plain,
    /// These are to be taken over first.
    TakeOver(Intents),
    /// They cannot be understood, and nothing is guessed.
    Unreadable(NotIntents),
}

impl Beginning {
    /// From what was committed beside the group's offset. `is_exact`: what the connector promises now; at least once minds other programs'
    /// metadata as little as it minds none.
    pub fn of(metadata: Option<&str>, is_exact: bool) -> Self {
        match metadata.map(Intents::decode) {
            None => Self::Plain,
            Some(Ok(intents)) if intents.stream.is_none() && intents.base_next == 0 => Self::Plain,
            Some(Ok(intents)) => Self::TakeOver(intents),
            Some(Err(_)) if !is_exact => Self::Plain,
            Some(Err(why)) => Self::Unreadable(why),
        }
    }
}

/// What a takeover works with.
pub struct TakeOver {
    /// The connector's name.
    pub connector: String,
    /// Streams, and what the user chose.
    pub exact: Arc<ExactParts>,
    /// Asked which offsets there are.
    pub control: Arc<dyn GroupControl>,
    /// The assignment.
    pub progress: Arc<PartitionProgress>,
    /// Its slot in its shard.
    pub slot: u32,
    /// Who wants to know.
    pub shard: ShardHandle,
    /// What the former owner meant to do.
    pub intents: Intents,
    /// The table's duplicates, should rows be sent again.
    pub possible_duplicate_rows: metrics::Counter,
    /// Time, and work beside.
    pub tasks: Arc<dyn Tasks>,
}

impl TakeOver {
    /// Finds out where the partition goes on, and tells its shard. Tries again until it is known or the assignment is over.
    pub fn start(self) {
        let tasks = self.tasks.clone();
        tasks.spawn(Box::pin(async move {
            let Some(next_offset) = self.landed().await else { return };
            if let Some(start) = self.start_at(next_offset).await {
                self.tell(StreamNews::Begins { start: Some(start) }).await;
            }
        }));
    }

    async fn tell(&self, news: StreamNews) {
        self.shard.send(ShardEvent::Stream { slot: self.slot, epoch: self.progress.epoch, news }).await;
    }

    /// Ends the stream and counts. `None`: the partition holds, or its assignment is over.
    async fn landed(&self) -> Option<i64> {
        let Some(stream) = &self.intents.stream else { return Some(self.intents.base_next) };
        let partition = self.progress.partition.clone();
        let began = self.tasks.now();
        let mut backoff = Backoff::transient(self.tasks.random());
        let mut not_found = 0;
        while !self.progress.is_gone() {
            let failure = match self.exact.streams.finalize(stream).await {
                Ok(rows) => {
                    return match landed(&self.intents, rows) {
                        Ok(found) => {
                            self.exact.metrics.took_over(found.appends, found.of);
                            tracing::info!(
                                connector = self.connector,
                                partition = %partition,
                                stream = &**stream,
                                landed = found.appends,
                                of = found.of,
                                next_offset = found.next_offset,
                                "partition taken over"
                            );
                            Some(found.next_offset)
                        }
                        Err(count) => self.lost(stream, &count.to_string()).await,
                    };
                }
                Err(failure) => failure,
            };
            not_found += u32::from(is_forgotten(failure.class));
            if not_found > 0 && self.intents.window.is_empty() {
                // All of its appends were answered: there is nothing to be counted, and a stream that is gone takes no rows.
                return Some(self.intents.base_next);
            }
            if not_found >= NOT_FOUND_TRIES || failure.class == ErrorClass::StreamFinalized {
                return self.lost(stream, &format!("its rows cannot be counted: {failure}")).await;
            }
            if self.tasks.now().duration_since(began) >= SHOWN_AFTER {
                let message = format!("the stream of {partition}'s former owner cannot be ended: {failure}; tried again");
                self.tell(StreamNews::Waits { cause: HoldCause::TakingOver, message }).await;
            }
            self.tasks.sleep(backoff.next_delay()).await;
        }
        None
    }

    async fn lost(&self, stream: &str, why: &str) -> Option<i64> {
        self.exact.metrics.streams_lost.increment(1);
        let rows = self.intents.window_rows();
        let message = lost_message(&self.progress.partition.to_string(), rows, stream, why);
        match self.exact.on_lost {
            OnLostStream::Hold => {
                tracing::error!(connector = self.connector, partition = %self.progress.partition, message, "the partition holds");
                self.tell(StreamNews::Lost { message }).await;
                None
            }
            OnLostStream::AtLeastOnce => {
                tracing::error!(connector = self.connector, partition = %self.progress.partition, message, "the rows are sent again");
                self.exact.metrics.replayed_rows.increment(rows);
                self.possible_duplicate_rows.increment(rows);
                Some(self.intents.base_next)
            }
        }
    }

    /// Where records are to be taken from. A partition that begins anew elsewhere (its offset was out of range) keeps to what the broker
    /// has: offsets of a topic that was made again mean other records.
    async fn start_at(&self, next_offset: i64) -> Option<i64> {
        if let Some(start) = self.progress.head() {
            return Some(start.max(next_offset));
        }
        let mut backoff = Backoff::transient(self.tasks.random());
        while !self.progress.is_gone() {
            let (sender, answer) = oneshot::channel();
            let (control, partition) = (self.control.clone(), self.progress.partition.clone());
            self.tasks.spawn_blocking(Box::new(move || {
                // Nobody listens any more when the worker stops.
                let _ = sender.send(control.watermarks(&partition, WATERMARKS_TIMEOUT));
            }));
            match answer.await {
                Ok(Ok((low, high))) if (low..=high).contains(&next_offset) => return Some(next_offset),
                Ok(Ok((low, _))) => return Some(low),
                Ok(Err(error)) => {
                    let message = format!("the broker does not say which offsets {} has: {error}; tried again", self.progress.partition);
                    self.tell(StreamNews::Waits { cause: HoldCause::TakingOver, message }).await;
                }
                Err(_) => return None,
            }
            self.tasks.sleep(backoff.next_delay()).await;
        }
        None
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_understood_is_never_passed_over_by_exactly_once() {
        let nothing = Intents::default().encode();
        let far = Intents { base_next: 7, ..Intents::default() };
        let named = Intents { stream: Some(Arc::from("s")), ..Intents::default() };
        for (metadata, exact, at_least_once) in [
            (None, Beginning::Plain, Beginning::Plain),
            (Some(&*nothing), Beginning::Plain, Beginning::Plain),
            (Some(&*far.encode()), Beginning::TakeOver(far.clone()), Beginning::TakeOver(far.clone())),
            (Some(&*named.encode()), Beginning::TakeOver(named.clone()), Beginning::TakeOver(named.clone())),
            (Some("flink 7"), Beginning::Unreadable(NotIntents::Foreign), Beginning::Plain),
            (Some("millrace/1 x"), Beginning::Unreadable(NotIntents::Garbled), Beginning::Plain),
            (Some("millrace/9 x"), Beginning::Unreadable(NotIntents::Newer), Beginning::Plain),
        ] {
            assert_eq!(Beginning::of(metadata, true), exact, "{metadata:?}");
            assert_eq!(Beginning::of(metadata, false), at_least_once, "{metadata:?}");
        }
    }
}
