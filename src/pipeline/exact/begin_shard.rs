//! The shard's side of a partition's stream: it begins after the takeover, holds while the stream cannot go on, and is written to by a
//! writer of its own.

use std::time::Instant;

use crate::config::OnLostStream;
use crate::flow::HoldCause;
use crate::kafka::Epoch;
use crate::pipeline::ledger::Ledger;
use crate::pipeline::partition::{Hold, Wait};
use crate::pipeline::shard::Shard;
use crate::pipeline::writer::WriterHandle;

use super::StreamNews;
use super::begin::{Beginning, TakeOver};
use super::intents::{Intents, NotIntents};
use super::writer::{StreamWriterParts, start};

impl Shard {
    /// Begins a partition that was just assigned: at once, or after the takeover of what its former owner has left.
    pub(in crate::pipeline) fn begin_stream(&mut self, slot: usize, metadata: Option<&str>) {
        let exact = self.parts.writers.exact().clone();
        match Beginning::of(metadata, exact.is_exact()) {
            Beginning::Plain => self.stream_begins(slot, None),
            Beginning::TakeOver(intents) => self.take_over(slot, intents),
            Beginning::Unreadable(why) => self.unreadable(slot, why),
        }
    }

    fn take_over(&mut self, slot: usize, intents: Intents) {
        let Some(partition) = self.slots.get(slot) else { return };
        let Some(table) = partition.table.and_then(|table| self.tables.get(table)) else { return };
        let take_over = TakeOver {
            connector: self.parts.config.name.clone(),
            exact: self.parts.writers.exact().clone(),
            control: self.parts.control.clone(),
            progress: partition.progress.clone(),
            slot: u32::try_from(slot).unwrap_or(u32::MAX),
            shard: self.parts.handle.clone(),
            intents,
            possible_duplicate_rows: table.entry.metrics.possible_duplicate_rows.clone(),
            tasks: self.parts.tasks.clone(),
        };
        let message = "what the partition's former owner appended is being found out".to_owned();
        self.hold(slot, Hold { cause: HoldCause::TakingOver, wait: Wait::Stream, met_offset: None }, message);
        take_over.start();
    }

    fn unreadable(&mut self, slot: usize, why: NotIntents) {
        let exact = self.parts.writers.exact().clone();
        let Some(partition) = self.slots.get(slot).map(|partition| partition.progress.partition.clone()) else { return };
        exact.metrics.streams_lost.increment(1);
        let what = format!("{partition}: beside the group's offset there are {why}: what a former owner appended cannot be known");
        match exact.on_lost {
            OnLostStream::Hold => {
                let message = format!(
                    "{what}; set `on_lost_stream = \"at-least-once\"` in [delivery] to go on at the committed offset, or commit an offset without metadata"
                );
                tracing::error!(connector = self.parts.config.name, %partition, message, "the partition holds");
                self.hold(slot, Hold { cause: HoldCause::StreamLost, wait: Wait::User, met_offset: None }, message);
            }
            OnLostStream::AtLeastOnce => {
                tracing::error!(connector = self.parts.config.name, %partition, "{what}; going on at the committed offset");
                self.stream_begins(slot, None);
            }
        }
    }

    /// From here on the partition's rows may be sent. `next`: every record below it is finished.
    fn stream_begins(&mut self, slot: usize, next: Option<i64>) {
        let exact = self.parts.writers.exact().clone();
        let Some(partition) = self.slots.get_mut(slot) else { return };
        if let Some(next) = next {
            partition.ledger = Ledger::new(Some(next));
            partition.landed_below = next;
            partition.publish();
        }
        let base_next = next.or_else(|| partition.progress.head()).unwrap_or(0);
        if !exact.is_exact() {
            // Commits of at-least-once carry nothing: what was there is taken over.
            partition.progress.published.set(None);
            return;
        }
        partition.progress.published.set(Some(Intents { base_next, ..Intents::default() }.encode()));
        let progress = partition.progress.clone();
        let Some(table) = partition.table.and_then(|table| self.tables.get_mut(table)) else { return };
        table.writer = start(StreamWriterParts {
            context: self.parts.writers.context_of(&table.entry),
            exact,
            table: table.entry.clone(),
            progress,
            slot: u32::try_from(slot).unwrap_or(u32::MAX),
            shard: self.parts.handle.clone(),
            base_next,
        });
    }

    /// Takes in what a partition's stream tells.
    pub(in crate::pipeline) fn stream_news(&mut self, slot: usize, epoch: Epoch, news: StreamNews, now: Instant) {
        let Some(partition) = self.slots.get_mut(slot).filter(|partition| partition.is_current(epoch)) else { return };
        let waits = partition.hold.as_ref().is_some_and(|hold| hold.wait == Wait::Stream);
        partition.stream_waits = match &news {
            StreamNews::Waits { cause, message } => Some((*cause, message.clone())),
            StreamNews::Begins { .. } | StreamNews::GoesOn | StreamNews::Lost { .. } => None,
        };
        match news {
            StreamNews::Begins { start } => {
                self.stream_begins(slot, start);
                self.stream_goes_on(slot, now);
            }
            StreamNews::Waits { cause, message } if waits => {
                partition.change_hold(cause, message, Wait::Stream);
            }
            StreamNews::Waits { cause, message } => self.hold(slot, Hold { cause, wait: Wait::Stream, met_offset: None }, message),
            StreamNews::GoesOn => self.stream_goes_on(slot, now),
            StreamNews::Lost { message } if partition.hold.is_some() => {
                if partition.change_hold(HoldCause::StreamLost, message, Wait::User) {
                    self.parts.metrics.hold_began(HoldCause::StreamLost.as_str());
                }
            }
            StreamNews::Lost { message } => {
                self.hold(slot, Hold { cause: HoldCause::StreamLost, wait: Wait::User, met_offset: None }, message);
            }
        }
    }

    fn stream_goes_on(&mut self, slot: usize, now: Instant) {
        if let Some(hold) = self.slots.get_mut(slot).and_then(|partition| partition.hold.as_mut())
            && hold.wait == Wait::Stream
        {
            hold.wait = Wait::Until(now);
        }
    }

    /// Leaves what waits in this shard to the partition's next owner: it is not sent any more, and read again.
    pub(in crate::pipeline) fn leave_unsent(&mut self, slot: usize) {
        let Some(partition) = self.slots.get_mut(slot) else { return };
        let Some(table) = partition.table.and_then(|table| self.tables.get_mut(table)) else { return };
        let open = table.batch.take().map(|batch| batch.shares).unwrap_or_default();
        let ready = table.ready.drain(..).flat_map(|job| job.shares);
        for share in open.into_iter().chain(ready) {
            if partition.is_current(share.epoch) {
                partition.ledger.abandon(share.span, share.rows);
            }
        }
    }

    /// Ends the partition's writer with its assignment.
    pub(in crate::pipeline) fn end_stream(&mut self, slot: usize) {
        self.leave_unsent(slot);
        let table = self.slots.get(slot).and_then(|partition| partition.table).and_then(|table| self.tables.get_mut(table));
        if let Some(table) = table {
            table.writer = WriterHandle::closed();
        }
    }

    /// Whether the shard's rows go to streams of their own.
    pub(in crate::pipeline) fn is_exact(&self) -> bool {
        self.parts.writers.exact().is_exact()
    }

    /// Whether a job may go to its partition's writer: every dead letter of a record below its end is durable, and nothing below was given
    /// up.
    pub(in crate::pipeline) fn may_be_announced(&self, job: &crate::pipeline::batch::AppendJob) -> bool {
        let Some(last) = job.shares.last() else { return true };
        self.slots.get(last.slot as usize).is_none_or(|partition| !partition.letters.has_up_to(last.span))
    }
}
