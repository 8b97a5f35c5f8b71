//! An offset that is not there: what the broker has instead, what was lost, where the partition goes on.

use std::time::{Duration, Instant};

use crate::config::OnLostRange;
use crate::flow::HoldCause;
use crate::kafka::Epoch;

use super::events::ShardEvent;
use super::partition::{Hold, Wait};
use super::shard::Shard;

/// How long the broker may take to say which offsets there are.
const WATERMARKS_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two requests to begin again; the first one is usually followed by a new assignment within milliseconds.
const RESTART_AGAIN: Duration = Duration::from_secs(5);

impl Shard {
    pub(super) fn ask_watermarks(&mut self, slot: usize, asked: i64) {
        let Some(partition) = self.slots.get(slot) else { return };
        let target = partition.progress.partition.clone();
        let epoch = partition.epoch();
        let hold = Hold { cause: HoldCause::LostRange, wait: Wait::User, met_offset: Some(asked) };
        self.hold(slot, hold, format!("offset {asked} is not there; asking the broker what is"));
        let control = self.parts.control.clone();
        let handle = self.parts.handle.clone();
        self.parts.tasks.spawn_blocking(Box::new(move || {
            let range = control.watermarks(&target, WATERMARKS_TIMEOUT).map_err(|error| error.to_string());
            handle.blocking_send(ShardEvent::Watermarks { slot: u32::try_from(slot).unwrap_or(u32::MAX), epoch, asked, range });
        }));
    }

    pub(super) fn out_of_range(&mut self, slot: usize, epoch: Epoch, asked: i64, range: Result<(i64, i64), String>, now: Instant) {
        let Some(partition) = self.slots.get_mut(slot).filter(|partition| partition.is_current(epoch)) else { return };
        let target = partition.progress.partition.clone();
        let (low, high) = match range {
            Ok(range) => range,
            Err(error) => {
                // Asked again by beginning again: the same event comes again.
                partition.change_hold(
                    HoldCause::LostRange,
                    format!("offset {asked} is not there, and the broker does not say what is: {error}"),
                    Wait::Restart { at: now + RESTART_AGAIN, offset: Some(asked) },
                );
                return;
            }
        };
        if asked >= low && asked <= high {
            let wait = Wait::Restart { at: now, offset: Some(asked) };
            partition.change_hold(HoldCause::LostRange, "the offset is there again".to_owned(), wait);
            return;
        }
        let lost = if asked < low { u64::try_from(low - asked).unwrap_or(0) } else { 0 };
        self.parts.metrics.lost_ranges.increment(1);
        self.parts.metrics.lost_records.increment(lost);
        let what = if asked < low {
            format!("offsets {asked} to {} of {target} were deleted by retention before they were read ({lost} offsets)", low - 1)
        } else {
            format!("offset {asked} of {target} lies beyond the end {high}: the topic was truncated or made again")
        };
        match self.parts.config.on_lost_range {
            OnLostRange::Hold => {
                tracing::error!(connector = self.parts.config.name, partition = %target, asked, low, high, "{what}; the partition holds");
                partition.change_hold(
                    HoldCause::LostRange,
                    format!("{what}; set `on_lost_range = \"continue\"` in the connector to go on at the first record that is left"),
                    Wait::User,
                );
            }
            OnLostRange::Continue => {
                tracing::error!(connector = self.parts.config.name, partition = %target, asked, low, high, "{what}; going on at the first record that is left");
                // By its offset: should retention take that one too before it is read, that is another lost range, and said. Offsets of a topic
                // that was made again are no place to name.
                let offset = (asked < low).then_some(low);
                partition.change_hold(HoldCause::LostRange, what, Wait::Restart { at: now, offset });
            }
        }
    }

    /// Has the partition begin again at `offset` (`None`: the first record that is left): after an offset that was out of range librdkafka has
    /// stopped fetching, and a seek does not revive it (rdkafka_partition.c:1882).
    ///
    /// Not before every row of it is settled: a new assignment drops rows of the former one that were not sent, and retention may have
    /// taken their records.
    pub(super) fn restart(&mut self, slot: usize, offset: Option<i64>, now: Instant) {
        let Some(partition) = self.slots.get_mut(slot) else { return };
        if partition.ledger.pending_records() > 0 {
            return;
        }
        // Rows that were given up are read again; those that are no longer there come as a lost range of their own.
        let from = if partition.ledger.has_abandoned() { partition.ledger.head() } else { offset };
        let (target, epoch) = (partition.progress.partition.clone(), partition.epoch());
        if let Some(hold) = &mut partition.hold {
            hold.wait = Wait::Restart { at: now + RESTART_AGAIN, offset };
        }
        if let Err(error) = self.parts.control.restart_at(&target, epoch, from) {
            tracing::warn!(connector = self.parts.config.name, partition = %target, %error, "restart failed; tried again");
        }
    }
}
