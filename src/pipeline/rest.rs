//! Partitions at rest: when the process holds more than the user allowed, fewer partitions fetch ahead, in turn.
//!
//! librdkafka keeps at least one whole batch of every partition that it fetches, however small its limits are: with many partitions that
//! alone can be more than the budget. What was fetched and not taken is thrown away after a pause (librdkafka means to do that by itself,
//! but its purge stops at the barrier that the pause has just put before the records: rdkafka_queue.c:271) and fetched again when the
//! partition's turn comes. Nothing is lost: a partition goes on where its ledger stands, as after a hold.

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use crate::flow::{HoldCause, ProcessMemory};
use crate::kafka::{Flow, GroupError, QueueEvent};

use super::partition::{Hold, Wait};
use super::shard::Shard;
use super::turn::SEEK_TIMEOUT;

/// Between two looks at the process's memory, which is measured as often.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long a partition may fetch before another one takes its place.
const TURN: Duration = Duration::from_secs(1);
/// The share of the partitions that one look sends to rest, or wakes: memory follows only after a moment.
const STEP_SHARE: usize = 4;
/// Between two lines in the log.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// When a shard last looked, and last gave turns.
pub struct RestTurns {
    looked_at: Instant,
    turned_at: Instant,
    said_at: Option<Instant>,
}

impl RestTurns {
    /// Never yet.
    pub fn new(now: Instant) -> Self {
        Self { looked_at: now, turned_at: now, said_at: None }
    }
}

impl Shard {
    /// Sends partitions to rest or wakes them, as memory demands. Called on every turn of the thread.
    pub(super) fn rest_in_turn(&mut self, now: Instant) {
        if now.duration_since(self.rest_turns.looked_at) < LOOK_EVERY {
            return;
        }
        self.rest_turns.looked_at = now;
        self.show_rests();
        self.drop_idle_plans(now);
        let resting = self.slots.iter().filter(|partition| partition.resting_since.is_some()).count();
        let full = self.budget().over_limit();
        match self.budget().process_memory() {
            ProcessMemory::Crowded => self.send_to_rest(full, now),
            ProcessMemory::Roomy => self.wake_longest(resting.div_ceil(STEP_SHARE), now),
            ProcessMemory::Full => {}
        }
        // While nothing can be taken, giving another partition its turn is of no use.
        if resting > 0 && !full && now.duration_since(self.rest_turns.turned_at) >= TURN {
            self.rest_turns.turned_at = now;
            self.wake_longest(resting.div_ceil(STEP_SHARE), now);
        }
    }

    /// Pauses partitions that hold fetched records, beginning with those that have fetched for longest. `all` of them in the end, or all
    /// but one.
    fn send_to_rest(&mut self, all: bool, now: Instant) {
        let fetching = |slot: &usize| self.slots.get(*slot).is_some_and(|partition| partition.takes());
        let fetching: Vec<usize> = (0..self.slots.len()).filter(fetching).collect();
        let most = if all { fetching.len() } else { fetching.len().saturating_sub(1) };
        let waits = |slot: usize| {
            let partition = self.slots.get(slot)?;
            let waiting = partition.queue.as_ref().map_or(0, |queue| queue.waiting());
            // Without a place to go on at (nothing was committed or taken yet) it cannot be sought.
            (waiting > 0 && partition.ledger.next().is_some()).then_some((partition.fetching_since, Reverse(waiting), slot))
        };
        let mut holders: Vec<_> = fetching.iter().filter_map(|slot| waits(*slot)).collect();
        holders.sort_unstable();
        for (_, _, slot) in holders.into_iter().take(most.min(fetching.len().div_ceil(STEP_SHARE))) {
            let Some(partition) = self.slots.get_mut(slot) else { continue };
            match self.parts.control.pause(&partition.progress.partition) {
                Ok(()) => {
                    partition.resting_since = Some(now);
                    self.throw_away(slot);
                    self.say(now);
                }
                Err(error) => {
                    tracing::debug!(connector = self.parts.config.name, partition = %partition.progress.partition, %error, "pause failed");
                }
            }
        }
    }

    /// Shows in status and metrics which partitions rest, at the look after: a shorter rest is not worth showing.
    fn show_rests(&self) {
        let now_ms = self.now_ms();
        for partition in &self.slots {
            let shown = partition.progress.resting_since_ms();
            if partition.resting_since.is_some() != shown.is_some() {
                partition.progress.set_resting(partition.resting_since.map(|_| now_ms));
            }
        }
    }

    fn say(&mut self, now: Instant) {
        if self.rest_turns.said_at.is_none_or(|said_at| now.duration_since(said_at) >= SAY_EVERY) {
            self.rest_turns.said_at = Some(now);
            tracing::info!(connector = self.parts.config.name, "memory is near its limit: partitions fetch in turn");
        }
    }

    /// Empties a paused partition's queue: its records come again.
    fn throw_away(&mut self, slot: usize) {
        loop {
            let Some(queue) = self.slots.get_mut(slot).and_then(|partition| partition.queue.as_mut()) else { return };
            let taken = queue.take(&mut |_| Flow::Continue);
            match taken.event {
                Some(QueueEvent::OutOfRange { asked }) => {
                    // Records that stood before it were thrown away: they are missing too, or read again.
                    let next = self.slots.get(slot).and_then(|partition| partition.ledger.next());
                    self.queue_event(slot, QueueEvent::OutOfRange { asked: next.map_or(asked, |next| next.min(asked)) });
                }
                Some(event) => self.queue_event(slot, event),
                None if taken.records == 0 => return,
                None => {}
            }
        }
    }

    /// Wakes those that have rested for longest.
    fn wake_longest(&mut self, count: usize, now: Instant) {
        let rested = |slot: usize| {
            let partition = self.slots.get(slot).filter(|partition| partition.owned && !partition.draining)?;
            Some((partition.resting_since?, slot))
        };
        let mut resting: Vec<(Instant, usize)> = (0..self.slots.len()).filter_map(rested).collect();
        resting.sort_unstable();
        for (_, slot) in resting.into_iter().take(count) {
            self.wake(slot, now);
            if self.parts.tasks.now().duration_since(now) >= SEEK_TIMEOUT {
                break; // Kafka is slow, as in `tick`: the others at the next look, after the events that came meanwhile.
            }
        }
    }

    fn wake(&mut self, slot: usize, now: Instant) {
        let Some(partition) = self.slots.get_mut(slot) else { return };
        let Some(offset) = partition.ledger.next() else { return };
        let target = partition.progress.partition.clone();
        match self.parts.control.seek_and_resume(&target, offset, SEEK_TIMEOUT) {
            Ok(()) => (partition.resting_since, partition.fetching_since) = (None, now),
            // librdkafka has stopped fetching (an offset out of range, whose event the pause threw away): it has to begin again.
            Err(GroupError::Other(message)) => {
                let wait = Wait::Restart { at: now, offset: Some(offset) };
                self.hold(slot, Hold { cause: HoldCause::UnknownError, wait, met_offset: None }, format!("seek failed: {message}"));
            }
            Err(error) => {
                tracing::debug!(connector = self.parts.config.name, partition = %target, offset, %error, "seek failed; tried again");
                partition.resting_since = Some(now);
            }
        }
    }
}
