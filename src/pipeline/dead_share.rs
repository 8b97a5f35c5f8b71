//! `[errors] max_dead_share`: a shard that turns more than that share of its records into dead letters takes nothing more, and tries now
//! and then whether the cause is gone. A record that dies in such a try is not given up: it waits where it is, so a broken schema or rule
//! costs about a hundred letters and not the topic. (A row that only BigQuery refuses has been sent when that is known: it becomes a
//! letter, ten a try at most.)

use std::time::Instant;

use crate::config::BadRecords;
use crate::flow::{HoldCause, Lets};
use crate::record::RecordError;

use super::partition::{Hold, Wait};
use super::shard::Shard;

impl Shard {
    /// What the share of dead records lets this turn take.
    pub(super) fn share_lets(&mut self, now: Instant) -> Lets {
        let slots = &self.slots;
        let lets = self.dead_share.lets(now, || slots.iter().any(|partition| partition.owned && partition.ledger.pending_records() > 0));
        if lets == Lets::Nothing {
            self.waits_for_sink = false;
        }
        lets
    }

    /// What is done with a bad record now.
    pub(super) fn bad_records_now(&self) -> BadRecords {
        match self.parts.config.errors.bad_records {
            BadRecords::DeadLetter if self.dead_share.is_trying() => BadRecords::Stop,
            policy => policy,
        }
    }

    /// Counts what a take brought; holds when too much of it died.
    pub(super) fn count_dead(&mut self, records: u64, dead: u64, last: Option<&RecordError>, now: Instant) {
        if let Some(error) = last {
            self.last_death = Some(error.to_string());
        }
        if let Some((dead, records)) = self.dead_share.took(records, dead) {
            self.hold_for_share(&format!("{dead} of the last {records} records became dead letters"), None, now);
        }
    }

    /// Counts rows that BigQuery rejected.
    pub(super) fn count_rejected(&mut self, dead: u64, now: Instant) {
        self.last_death.get_or_insert_with(|| "BigQuery rejected the row; its letter says why".to_owned());
        if let Some((dead, records)) = self.dead_share.died_late(dead) {
            self.hold_for_share(&format!("{dead} of the last {records} records became dead letters"), None, now);
        }
    }

    /// A record that died in a try stays where it is.
    pub(super) fn still_dies(&mut self, slot: usize, offset: i64, error: &RecordError, now: Instant) {
        self.last_death = Some(error.to_string());
        let place = self.slots.get(slot).map(|partition| partition.progress.partition.to_string()).unwrap_or_default();
        self.hold_for_share(&format!("{place} offset {offset} would be one more dead letter"), Some((slot, offset)), now);
    }

    fn hold_for_share(&mut self, what: &str, met: Option<(usize, i64)>, now: Instant) {
        let until = self.dead_share.hold(now);
        let errors = &self.parts.config.errors;
        let message = format!(
            "{what}, and max_dead_share = {} in [errors]: nothing is taken, so that the topic is not emptied into `{}`; the last cause: {}; it is tried again \
             with a few records every 30 s at most, and goes on by itself when they are good; to let the letters go on, raise max_dead_share (1: never hold)",
            errors.max_dead_share,
            self.parts.config.dead_letter_topic(),
            self.last_death.as_deref().unwrap_or("unknown"),
        );
        for slot in 0..self.slots.len() {
            let met_offset = met.filter(|(at, _)| *at == slot).map(|(_, offset)| offset);
            // One that has not read anything needs no seek to go on; the share holds it all the same.
            if met_offset.is_some() || self.slots.get(slot).is_some_and(|partition| partition.resume_offset().is_some()) {
                self.hold(slot, Hold { cause: HoldCause::DeadShare, wait: Wait::Until(until), met_offset }, message.clone());
            }
        }
    }
}
