//! Who stands still for too long: pure. Time is what the watcher itself has turned through, so that a process that was stopped is not
//! blamed for it.

use std::collections::HashMap;
use std::time::Duration;

use super::beat::Standing;

/// How long somebody may stand still.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Without a turn, for those who turn.
    pub stand_still: Duration,
    /// Inside one announced step, or one record's decoding.
    pub long_step: Duration,
    /// Between two looks.
    pub tick: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let stand_still = Duration::from_secs(30);
        Self { stand_still, long_step: stand_still * 10, tick: Duration::from_secs(1) }
    }
}

impl Limits {
    /// What one look may count of the time since the last one. The watcher comes late when the process was stopped (SIGSTOP, a laptop's
    /// lid, a suspended machine) or got no CPU: nobody else could turn either.
    pub fn counted(&self, elapsed: Duration) -> Duration {
        elapsed.min(self.tick * 2)
    }
}

/// What a look saw of one who is watched.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// Who.
    pub id: u64,
    /// Another value than at the last look: it moved.
    pub mark: (u64, u64),
    /// What it is doing.
    pub standing: Standing,
}

/// What is to be done about somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// A long step has taken longer than a turn may: to be said, once for each [`Limits::stand_still`].
    Slow(u64, Duration),
    /// It stands still for too long.
    Wedged(u64, Duration),
}

struct Known {
    mark: (u64, u64),
    stood: Duration,
    said: u32,
}

/// What was seen before.
#[derive(Default)]
pub struct Judge {
    known: HashMap<u64, Known>,
}

impl Judge {
    /// One look at everyone, `elapsed` after the one before.
    pub fn look(&mut self, limits: &Limits, elapsed: Duration, all: &[Seen]) -> Vec<Finding> {
        let counted = limits.counted(elapsed);
        self.known.retain(|id, _| all.iter().any(|seen| seen.id == *id));
        let mut findings = Vec::new();
        for seen in all {
            let fresh = || Known { mark: seen.mark, stood: Duration::ZERO, said: 0 };
            let Some(known) = self.known.get_mut(&seen.id) else {
                self.known.insert(seen.id, fresh());
                continue;
            };
            if known.mark != seen.mark || seen.standing == Standing::Idle {
                *known = fresh();
                continue;
            }
            known.stood += counted;
            match seen.standing {
                Standing::Turning if known.stood >= limits.stand_still => findings.push(Finding::Wedged(seen.id, known.stood)),
                Standing::LongStep(_) if known.stood >= limits.long_step => findings.push(Finding::Wedged(seen.id, known.stood)),
                Standing::LongStep(_) if known.stood >= limits.stand_still * (known.said + 1) => {
                    known.said += 1;
                    findings.push(Finding::Slow(seen.id, known.stood));
                }
                Standing::Turning | Standing::LongStep(_) | Standing::Idle => {}
            }
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn seen(turns: u64, standing: Standing) -> [Seen; 1] {
        [Seen { id: 7, mark: (turns, 0), standing }]
    }

    /// Looks once a second until something is found; after how many looks.
    fn until_found(judge: &mut Judge, what: &[Seen]) -> (u32, Vec<Finding>) {
        for looks in 1..1_000 {
            let found = judge.look(&Limits::default(), SECOND, what);
            if !found.is_empty() {
                return (looks, found);
            }
        }
        (0, Vec::new())
    }

    #[test]
    fn who_stands_still_for_thirty_seconds_is_wedged_and_who_moves_is_not() {
        let mut judge = Judge::default();
        for turn in 0..100 {
            assert!(judge.look(&Limits::default(), SECOND, &seen(turn, Standing::Turning)).is_empty());
        }
        let (looks, found) = until_found(&mut judge, &seen(99, Standing::Turning));
        assert_eq!((looks, found), (30, vec![Finding::Wedged(7, SECOND * 30)]));
        assert!(judge.look(&Limits::default(), SECOND, &seen(100, Standing::Turning)).is_empty(), "it moved");
        assert!(judge.look(&Limits::default(), SECOND, &[]).is_empty(), "it ended");
    }

    #[test]
    fn a_process_that_was_stopped_is_not_blamed_however_long_and_often() {
        let mut judge = Judge::default();
        judge.look(&Limits::default(), SECOND, &seen(1, Standing::Turning));
        // A night with the lid closed counts as two seconds, and everyone turns again before the next look.
        assert!(judge.look(&Limits::default(), SECOND * 30_000, &seen(1, Standing::Turning)).is_empty());
        for turn in 2..50 {
            assert!(judge.look(&Limits::default(), SECOND * 40, &seen(turn, Standing::Turning)).is_empty());
        }
        // Who does not turn afterwards either is found all the same.
        let (looks, _) = until_found(&mut judge, &seen(49, Standing::Turning));
        assert_eq!(looks, 30);
    }

    #[test]
    fn a_long_step_is_said_and_allowed_ten_times_as_long() {
        let mut judge = Judge::default();
        let step = seen(1, Standing::LongStep("decoding"));
        judge.look(&Limits::default(), SECOND, &step);
        let (looks, found) = until_found(&mut judge, &step);
        assert_eq!((looks, found), (30, vec![Finding::Slow(7, SECOND * 30)]));
        for n in 2..10 {
            let (looks, found) = until_found(&mut judge, &step);
            assert_eq!((looks, found), (30, vec![Finding::Slow(7, SECOND * 30 * n)]), "once for each thirty seconds");
        }
        let (looks, found) = until_found(&mut judge, &step);
        assert_eq!((looks, found), (30, vec![Finding::Wedged(7, SECOND * 300)]));
    }

    #[test]
    fn who_waits_without_limit_is_not_watched_and_begins_anew_afterwards() {
        let mut judge = Judge::default();
        for _ in 0..100 {
            assert!(judge.look(&Limits::default(), SECOND, &seen(1, Standing::Idle)).is_empty());
        }
        let (looks, _) = until_found(&mut judge, &seen(1, Standing::Turning));
        assert_eq!(looks, 30);
    }
}
