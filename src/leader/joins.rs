//! How long workers that have started wait before they join, as it is said to them: what of a decision is published, and what need not be.

use std::time::Duration;

use super::monitor::Monitor;
use super::turn::Lead;
use crate::fleet::{JoinHold, VERSION};
use crate::scaling::Decision;

/// An end that lies this near to the one that was said is said already: each decision counts from its own moment.
const SAME_WITHIN_MS: u64 = 1_000;
/// How long nothing is tried after the state topic could not be written: a try takes up to 5 s of a turn, and holds end by themselves.
const REST: Duration = Duration::from_secs(15);

/// What this leader said last.
#[derive(Debug, Default)]
pub(super) struct JoinHolds {
    said: Option<JoinHold>,
    failed_at: Option<Duration>,
}

/// A decision about joining, and what it was made of.
#[derive(Debug, Clone, Copy)]
struct Asked {
    /// The leader's clock, milliseconds since the epoch.
    wall_ms: i64,
    /// [`Decision::hold_joins_ms`].
    hold_ms: u64,
    term: u64,
    /// Workers below this ordinal were there before.
    members: u32,
}

impl JoinHolds {
    /// What a worker goes by: the last of the highest term, of what was heard and of what was said here and did not come back yet.
    fn standing<'a>(&'a self, heard: Option<&'a JoinHold>) -> Option<&'a JoinHold> {
        match (&self.said, heard) {
            (Some(said), Some(heard)) if heard.term > said.term => Some(heard),
            (Some(said), _) => Some(said),
            (None, heard) => heard,
        }
    }

    /// What is to be published of a decision: what changes anything for a worker that waits. Nothing while a leader of a later term speaks.
    fn next(&self, asked: &Asked, leader: &str, fleet: &str, heard: Option<&JoinHold>) -> Option<JoinHold> {
        let standing = self.standing(heard);
        if standing.is_some_and(|standing| standing.term > asked.term) {
            return None;
        }
        let until_ms = asked.wall_ms.saturating_add(i64::try_from(asked.hold_ms).unwrap_or(i64::MAX));
        let holds = standing.filter(|standing| standing.until_ms > asked.wall_ms);
        let from_ordinal = match holds {
            None if asked.hold_ms == 0 => return None,
            None => asked.members,
            Some(holds) if asked.hold_ms > 0 && holds.until_ms.abs_diff(until_ms) <= SAME_WITHIN_MS => return None,
            // Those that are waited for now came after the hold began.
            Some(holds) => holds.from_ordinal,
        };
        Some(JoinHold {
            v: VERSION,
            fleet: fleet.to_owned(),
            term: asked.term,
            leader: leader.to_owned(),
            at_ms: asked.wall_ms,
            until_ms,
            from_ordinal,
        })
    }
}

impl Monitor {
    /// Says what a decision means for workers that have started and are no members yet: `replicas` were asked for before it, `ready` are
    /// members. Where nobody is elected nobody waits. Why it could not be said, if so: then workers go on by what was said before, which
    /// ends by itself.
    pub(super) async fn say_joins(&self, lead: &mut Lead, decision: &Decision, replicas: u32, ready: u32) -> Result<(), String> {
        let now = self.timer.now_monotonic();
        let rests = lead.joins.failed_at.is_some_and(|at| now.saturating_sub(at) < REST);
        if !self.is_elected() || rests {
            return Ok(());
        }
        let asked = Asked {
            wall_ms: self.timer.now_wall_us() / 1000,
            // Where nobody is a member nobody is stopped by those who join, and nobody reads.
            hold_ms: if ready == 0 { 0 } else { decision.hold_joins_ms },
            term: lead.announcer.known_term().unwrap_or_else(|| lead.term.number()),
            members: replicas.min(ready),
        };
        let heard = self.view.join_hold();
        let Some(hold) = lead.joins.next(&asked, &self.view.identity().name, &self.fleet.scaling.fleet_id, heard.as_deref()) else {
            return Ok(());
        };
        match self.exchange.hold_joins(&hold).await {
            Ok(()) => {
                tracing::info!(
                    hold_ms = asked.hold_ms,
                    from_ordinal = hold.from_ordinal,
                    "workers that have started were told how long they wait"
                );
                (lead.joins.said, lead.joins.failed_at) = (Some(hold), None);
                Ok(())
            }
            Err(error) => {
                lead.joins.failed_at = Some(now);
                Err(format!(
                    "workers that have started were not told how long they wait, and join when what they heard before has ended: {error}"
                ))
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const NOON_MS: i64 = 1_000_000;

    /// What is published `at_s` after noon of a hold of `hold_s` by the leader of this term: its end in seconds after noon, and the first
    /// ordinal that waits.
    fn said(holds: &mut JoinHolds, at_s: i64, hold_s: u64, term: u64, heard: Option<&JoinHold>) -> Option<(i64, u32)> {
        let asked = Asked { wall_ms: NOON_MS + at_s * 1000, hold_ms: hold_s * 1000, term, members: u32::try_from(at_s).unwrap() };
        let next = holds.next(&asked, "w-0", "f", heard)?;
        assert_eq!((next.term, next.at_ms, next.leader.as_str()), (term, asked.wall_ms, "w-0"));
        holds.said = Some(next.clone());
        Some(((next.until_ms - NOON_MS) / 1000, next.from_ordinal))
    }

    #[test]
    fn only_what_changes_anything_is_said() {
        let mut holds = JoinHolds::default();
        assert_eq!(said(&mut holds, 0, 0, 1, None), None, "nobody holds, nobody held");
        assert_eq!(said(&mut holds, 5, 40, 1, None), Some((45, 5)));
        assert_eq!(said(&mut holds, 10, 35, 1, None), None, "the same end");
        assert_eq!(said(&mut holds, 11, 35, 1, None), None, "nearly");
        assert_eq!(said(&mut holds, 15, 40, 1, None), Some((55, 5)), "longer, for the same workers");
        assert_eq!(said(&mut holds, 20, 10, 1, None), Some((30, 5)), "shorter");
        assert_eq!(said(&mut holds, 25, 0, 1, None), Some((25, 5)), "now");
        assert_eq!(said(&mut holds, 30, 0, 1, None), None);
        assert_eq!(said(&mut holds, 60, 20, 1, None), Some((80, 60)), "another hold, and those who joined meanwhile are members");
        assert_eq!(said(&mut holds, 85, 0, 1, None), None, "it has ended by itself");
        assert!(holds.next(&Asked { wall_ms: 0, hold_ms: u64::MAX, term: 1, members: 0 }, "w-0", "f", None).is_some());
    }

    #[test]
    fn the_next_leader_ends_what_the_last_one_began_and_the_last_one_is_silent() {
        let mut first = JoinHolds::default();
        assert_eq!(said(&mut first, 5, 40, 1, None), Some((45, 5)));
        let heard = first.said.clone();
        let mut second = JoinHolds::default();
        assert_eq!(said(&mut second, 7, 38, 2, heard.as_ref()), None, "it says the same");
        assert_eq!(said(&mut second, 10, 0, 2, heard.as_ref()), Some((10, 5)));
        let heard = second.said.clone();
        assert_eq!(said(&mut first, 12, 50, 1, heard.as_ref()), None);
        // Its own word of a moment ago counts before it has come back.
        assert_eq!(said(&mut second, 11, 0, 2, first.said.as_ref()), None);
    }
}
