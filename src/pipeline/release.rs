//! The ends of holds: what each waits for, and how its partition goes on.

use std::time::{Duration, Instant};

use crate::decode::SchemaKey;
use crate::flow::HoldCause;
use crate::kafka::GroupError;
use crate::table::TableName;

use super::partition::{Hold, Wait};
use super::plans::PlanAnswer;
use super::shard::Shard;
use super::shard_table::PlanState;
use super::turn::SEEK_TIMEOUT;

/// What a look at a hold says.
enum HoldLook {
    /// Its reason is still there.
    Stays,
    /// Its reason is over.
    IsOver,
    /// The partition begins again at this offset (`None`: at the committed one), because librdkafka no longer fetches it.
    Restarts(Option<i64>),
    /// The plan that it waits for must be asked for once more, for the table of this index.
    AsksForPlan(usize, SchemaKey),
}

impl Shard {
    /// Holds a partition until the plan of this schema is made.
    pub(super) fn hold_for_plan(&mut self, slot: usize, table: usize, key: SchemaKey, offset: i64, now: Instant) {
        let hold = Hold { cause: HoldCause::PlanPending, wait: Wait::Plan(key.clone()), met_offset: Some(offset) };
        self.hold(slot, hold, format!("the plan of {key} is being made, for which its schema and its table are asked for"));
        self.ask_plan(table, &key, now);
    }

    fn ask_plan(&mut self, table: usize, key: &SchemaKey, now: Instant) {
        let handle = self.parts.handle.clone();
        if let Some(table) = self.tables.get_mut(table)
            && table.plans.ask(key, now)
        {
            self.parts.plans.request(table.entry.clone(), key.clone(), handle);
        }
    }

    /// Takes the answer to a question for a plan, and tells the partitions that wait for it.
    pub(super) fn take_plan(&mut self, table: &TableName, key: &SchemaKey, answer: PlanAnswer, now: Instant) {
        let indices = self.tables_of(table);
        let waiting: Vec<usize> = (0..self.slots.len())
            .filter(|slot| {
                self.slots.get(*slot).is_some_and(|partition| {
                    partition.table.is_some_and(|table| indices.contains(&table))
                        && partition.hold.as_ref().is_some_and(|hold| hold.wait == Wait::Plan(key.clone()))
                })
            })
            .collect();
        let delay = waiting
            .iter()
            .filter_map(|slot| self.slots.get_mut(*slot).map(|partition| partition.backoff.next_delay()))
            .max()
            .unwrap_or(Duration::from_secs(1));
        let news = match &answer {
            PlanAnswer::Hold { cause, message, .. } => Some((*cause, message.clone())),
            PlanAnswer::Ready(_) | PlanAnswer::Dead(_) => None,
        };
        for index in indices {
            if let Some(table) = self.tables.get_mut(index) {
                table.answer(key, answer.clone(), delay, now);
            }
        }
        for slot in waiting {
            let Some(partition) = self.slots.get_mut(slot) else { continue };
            match &news {
                None => {
                    partition.backoff.reset();
                    self.try_release(slot, now);
                }
                Some((cause, message)) if partition.change_hold(*cause, message.clone(), Wait::Plan(key.clone())) => {
                    let (partition, cause) = (&partition.progress.partition, cause.as_str());
                    self.parts.metrics.hold_began(cause);
                    tracing::warn!(connector = self.parts.config.name, %partition, cause, message, "partition holds");
                }
                Some(_) => {}
            }
        }
        self.account_plans();
    }

    /// Ends the hold of a partition if its reason is over.
    pub(super) fn try_release(&mut self, slot: usize, now: Instant) {
        match self.look_at_hold(slot, now) {
            HoldLook::Stays => {}
            HoldLook::AsksForPlan(table, key) => self.ask_plan(table, &key, now),
            HoldLook::Restarts(offset) => self.restart(slot, offset, now),
            HoldLook::IsOver => {
                if self.go_back_to_abandoned(slot) {
                    self.go_on(slot, now);
                }
            }
        }
    }

    fn look_at_hold(&self, slot: usize, now: Instant) -> HoldLook {
        let Some(partition) = self.slots.get(slot).filter(|partition| partition.owned && !partition.draining) else {
            return HoldLook::Stays;
        };
        let (Some(hold), Some(index)) = (&partition.hold, partition.table) else { return HoldLook::Stays };
        let Some(table) = self.tables.get(index) else { return HoldLook::Stays };
        let over = match &hold.wait {
            Wait::User | Wait::Stream => false,
            Wait::Until(at) => now >= *at,
            Wait::Restart { at, offset } if now >= *at => return HoldLook::Restarts(*offset),
            Wait::Restart { .. } => false,
            Wait::Letters => partition.letters.is_empty(),
            Wait::Table => table.health.held().is_none(),
            Wait::Plan(key) => match table.plans.state_of(key) {
                Some(PlanState::Ready(_) | PlanState::Dead(..)) => true,
                Some(PlanState::Pending) => false,
                Some(PlanState::Waiting(again_at)) if now < *again_at => false,
                Some(PlanState::Waiting(_)) | None => return HoldLook::AsksForPlan(index, key.clone()),
            },
        };
        if over { HoldLook::IsOver } else { HoldLook::Stays }
    }

    /// Makes abandoned records come again. `false`: the partition cannot go on yet.
    fn go_back_to_abandoned(&mut self, slot: usize) -> bool {
        let exact = self.is_exact();
        let Some(partition) = self.slots.get_mut(slot) else { return false };
        if partition.waits_for_stream() {
            return false;
        }
        if !partition.ledger.has_abandoned() {
            return true;
        }
        // Not before every answer is in: what becomes durable meanwhile need not be read again.
        let Some(rewind) = partition.ledger.rewind() else { return false };
        partition.run += 1;
        if exact {
            // None of them comes a second time.
            partition.ledger.finished_below(partition.landed_below);
        } else if let Some(table) = partition.table.and_then(|table| self.tables.get(table)) {
            table.entry.metrics.possible_duplicate_rows.increment(rewind.finished_again_records);
        }
        true
    }

    /// Fetches the partition again, and ends its hold.
    fn go_on(&mut self, slot: usize, now: Instant) {
        let now_ms = self.now_ms();
        let Some(partition) = self.slots.get_mut(slot) else { return };
        let target = partition.progress.partition.clone();
        if let Some(offset) = partition.resume_offset()
            && let Err(error) = self.parts.control.seek_and_resume(&target, offset, SEEK_TIMEOUT)
        {
            tracing::warn!(connector = self.parts.config.name, partition = %target, offset, %error, "seek failed; tried again");
            if let Some(hold) = partition.hold.as_mut() {
                let at = now + Duration::from_secs(1);
                hold.wait = match error {
                    // librdkafka has stopped fetching (an offset out of range, whose event was not taken yet): a seek does not revive it.
                    GroupError::Other(_) => Wait::Restart { at, offset: Some(offset) },
                    _ => Wait::Until(at),
                };
            }
            return;
        }
        if partition.hold.as_ref().is_some_and(|hold| hold.cause != HoldCause::PlanPending) {
            tracing::info!(connector = self.parts.config.name, partition = %target, "partition goes on");
        }
        partition.end_hold(now_ms);
        partition.publish();
    }
}
