//! What must hold, whatever the network and the machines do.

use std::collections::BTreeMap;

use millrace::leader::{Resized, StoreError};

/// What happened how often.
#[derive(Debug, Default)]
pub struct Seen {
    /// Runs.
    pub runs: u64,
    /// Terms that began, by the lease.
    pub terms: u64,
    /// Writes of the scale that took effect.
    pub writes: u64,
    /// Those that did after another had taken the lease.
    pub late_writes: u64,
    /// Writes that came as late and were refused.
    pub late_refused: u64,
    /// Writes of the leader itself that were refused because the version had moved on.
    pub conflicts: u64,
    /// Resizes that found another number, found their term over, got no answer.
    pub moved: u64,
    pub not_leader: u64,
    pub unanswered: u64,
}

impl Seen {
    /// Adds up.
    pub fn add(&mut self, other: Self) {
        self.runs += other.runs;
        self.terms += other.terms;
        self.writes += other.writes;
        self.late_writes += other.late_writes;
        self.late_refused += other.late_refused;
        self.conflicts += other.conflicts;
        self.moved += other.moved;
        self.not_leader += other.not_leader;
        self.unanswered += other.unanswered;
    }
}

/// A write of the scale that took effect.
#[derive(Debug, Clone, Copy)]
pub struct Landed {
    /// The term of the leader that decided it.
    pub term: u64,
    /// The decision's number.
    pub decision: u64,
    /// What it asked for.
    pub replicas: u32,
}

/// Watches the server.
#[derive(Default)]
pub struct Oracle {
    /// Broken promises, in words.
    pub wrong: Vec<String>,
    /// What happened.
    pub seen: Seen,
    newest_term: u64,
    late_in_term: BTreeMap<u64, u32>,
    last: Option<Landed>,
    changed_by_hand: bool,
}

impl Oracle {
    /// The lease changed hands.
    pub fn lease_taken(&mut self, term: u64, released: bool) {
        if !released {
            self.seen.terms += 1;
        }
        self.newest_term = self.newest_term.max(term);
    }

    /// Somebody set the scale by hand.
    pub fn by_hand(&mut self) {
        self.changed_by_hand = true;
    }

    /// A write was refused for its version.
    pub fn refused(&mut self, term: u64) {
        match term < self.newest_term {
            true => self.seen.late_refused += 1,
            false => self.seen.conflicts += 1,
        }
    }

    /// A write took effect. Decisions take effect in the order in which they were made; of each term at most one does after another began,
    /// and none that would undo what a later leader did.
    pub fn landed(&mut self, write: Landed) {
        self.seen.writes += 1;
        if write.term < self.newest_term {
            self.seen.late_writes += 1;
            let late = self.late_in_term.entry(write.term).or_default();
            *late += 1;
            if *late > 1 {
                self.wrong.push(format!("{late} late writes of term {}: {write:?}", write.term));
            }
        }
        if let Some(last) = self.last.filter(|last| last.decision >= write.decision || last.term > write.term) {
            self.wrong.push(format!("{write:?} undoes the later {last:?}"));
        }
        self.last = Some(write);
        self.changed_by_hand = false;
    }

    /// A resize ended. One that says it is done asked for what now stands there, unless somebody changed it again since.
    pub fn resized(&mut self, decision: u64, to: u32, outcome: &Resized) {
        match outcome {
            Resized::Done { .. } => {
                let undone = self.last.is_none_or(|last| last.decision < decision || (last.decision == decision && last.replicas != to));
                if undone {
                    self.wrong.push(format!("decision {decision} said that it is done, and {:?} is there", self.last));
                }
            }
            Resized::Unchanged => {}
            Resized::Moved { .. } => self.seen.moved += 1,
            Resized::NotLeader => self.seen.not_leader += 1,
            Resized::Failed(StoreError::Conflict) => {}
            Resized::Failed(_) => self.seen.unanswered += 1,
        }
    }

    /// Looked at after every step: workers whose term lasts, by their own clocks.
    pub fn believers(&mut self, names: &[String]) {
        if names.len() > 1 && self.wrong.len() < 5 {
            self.wrong.push(format!("several believe that they lead: {names:?}"));
        }
    }
}
