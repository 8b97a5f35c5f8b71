//! What was heard, and what follows from when it was heard. No clock: every call says what time it is here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::joins::HeardHold;
use super::measure::FleetMeasure;
use super::report::{Origin, VERSION, WorkerReport};
use super::state::{DECISIONS_KEPT, LeaderMemory, PublishedDecision, StateNote};
use super::told::Told;

/// Workers that are remembered at most; the one that was not heard for longest goes first.
const WORKERS_MAX: usize = 1_000;
/// How long a stale worker is still shown.
const GONE_AFTER: Duration = Duration::from_secs(600);
/// How long something that is wrong with the topics is shown after it was last heard.
const TROUBLE_FOR: Duration = Duration::from_secs(60);
/// What may stand as an interval in a report.
const INTERVAL_MS: std::ops::RangeInclusive<u64> = 100..=60_000;

/// How a worker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    /// Its reports come.
    Live,
    /// A report of it lay in the topic when this worker began to read, and none came since: it may be gone.
    Unconfirmed,
    /// It missed three reports.
    Stale,
    /// It said that it leaves.
    Leaving,
}

/// A worker's last report, and when it came.
#[derive(Debug, Clone)]
pub(super) struct Heard {
    pub report: Arc<WorkerReport>,
    /// Local monotonic time of its arrival.
    pub at: Duration,
    /// It was in the topic before this worker began to read.
    pub replayed: bool,
    /// The process of this name that reported before this one.
    former_run: Option<u64>,
}

/// How long after a report the third missing one is late: three intervals, and half of one for the way.
pub(super) fn stale_after(interval_ms: u64) -> Duration {
    Duration::from_millis(interval_ms.clamp(*INTERVAL_MS.start(), *INTERVAL_MS.end()) * 7 / 2)
}

impl Heard {
    pub fn presence(&self, now: Duration) -> Presence {
        let age = now.saturating_sub(self.at);
        match () {
            () if self.report.leaving => Presence::Leaving,
            () if age > stale_after(self.report.interval_ms) => Presence::Stale,
            () if self.replayed => Presence::Unconfirmed,
            () => Presence::Live,
        }
    }
}

/// Everything that was heard. Bounded: see the constants.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub workers: BTreeMap<String, Heard>,
    pub measure: Option<(Arc<FleetMeasure>, Duration)>,
    /// By term and number: the last is the one that counts.
    pub decisions: BTreeMap<(u64, u64), Arc<PublishedDecision>>,
    pub desired: Told,
    /// What stands in the state topic, while it is read from its beginning: the past of a connector must not be followed once more.
    pub staged: Option<Told>,
    /// A leader's memory, and when it came; not known when for one that was there before the reading began.
    pub memory: Option<(Arc<LeaderMemory>, Option<Duration>)>,
    /// How long workers that have started wait.
    pub join_hold: Option<HeardHold>,
    /// Notes that this version does not understand.
    pub passed_over: u64,
    /// The highest version above this one's that was heard.
    pub newer: Option<u32>,
    /// Who else writes to these topics, and when that was last heard: another fleet's name.
    pub foreign: Option<(String, Duration)>,
    /// A name that two living processes report under, and when that was last heard.
    pub twice: Option<(String, Duration)>,
}

impl Known {
    /// A worker's report came.
    pub fn hear(&mut self, report: WorkerReport, now: Duration, replayed: bool) {
        if !self.workers.contains_key(&report.worker) && self.workers.len() >= WORKERS_MAX {
            let oldest = self.workers.iter().min_by_key(|(_, heard)| heard.at).map(|(name, _)| name.clone());
            oldest.and_then(|name| self.workers.remove(&name));
        }
        let before = self.workers.get(&report.worker).map(|heard| (heard.report.run, heard.former_run));
        let former_run = match before {
            Some((run, former)) if run == report.run => former,
            Some((run, former)) => {
                // A process that was followed by another of its name is gone, unless both live.
                if former == Some(report.run) && !replayed {
                    self.twice = Some((report.worker.clone(), now));
                }
                Some(run)
            }
            None => None,
        };
        self.workers.insert(report.worker.clone(), Heard { report: Arc::new(report), at: now, replayed, former_run });
    }

    /// A note came that is not to be read. Whether that is news.
    pub fn pass_over(&mut self, origin: Origin, now: Duration) -> bool {
        self.passed_over += 1;
        match origin {
            Origin::Ours => false,
            Origin::Newer(version) => {
                let news = self.newer < Some(version);
                self.newer = self.newer.max(Some(version));
                news
            }
            Origin::Foreign(fleet) => {
                let known = self.foreign.as_ref().is_some_and(|(before, _)| *before == fleet);
                self.foreign = Some((fleet, now));
                !known
            }
        }
    }

    /// Why what is heard may be misleading, in words; what was last heard a minute ago is over.
    pub fn troubles(&self, now: Duration) -> Vec<String> {
        let lasts = |heard: &&(String, Duration)| now.saturating_sub(heard.1) < TROUBLE_FOR;
        let foreign = self.foreign.as_ref().filter(lasts).map(|(fleet, _)| {
            format!(
                "another fleet, `{fleet}`, writes to this fleet's topics: give each its own scaling.fleet_id, report_topic and state_topic (its \
                 notes are passed over)"
            )
        });
        let twice = self.twice.as_ref().filter(lasts).map(|(name, _)| {
            format!(
                "two processes report as `{name}`: two fleets with one scaling.fleet_id on this Kafka, or two workers with one POD_NAME or \
                 MILLRACE_ORDINAL"
            )
        });
        let newer = self.newer.map(|version| {
            format!("notes of version {version} are passed over, this worker reads up to {VERSION}: it is older than the rest of its fleet")
        });
        [foreign, twice, newer].into_iter().flatten().collect()
    }

    /// The highest term that something of a leader's stands under.
    pub fn last_term(&self) -> Option<u64> {
        let decision = self.decisions.last_key_value().map(|((term, _), _)| *term);
        let memory = self.memory.as_ref().map(|(memory, _)| memory.term);
        decision.max(memory).max(self.join_hold.as_ref().map(|heard| heard.hold.term))
    }

    /// The leader's measure came. One of an older term than the last is of a leader that is none any more.
    pub fn hear_measure(&mut self, measure: FleetMeasure, now: Duration) {
        let outdated = self
            .measure
            .as_ref()
            .is_some_and(|(last, at)| last.term > measure.term && now.saturating_sub(*at) <= stale_after(last.interval_ms));
        if !outdated {
            self.measure = Some((Arc::new(measure), now));
        }
    }

    /// A record of the state topic came.
    pub fn hear_state(&mut self, note: StateNote, now: Duration, replayed: bool) {
        match note {
            StateNote::Memory(memory) => self.memory = Some((Arc::from(memory), (!replayed).then_some(now))),
            StateNote::Decision(decision) => {
                self.decisions.insert((decision.term, decision.number), Arc::from(decision));
                while self.decisions.len() as u64 > DECISIONS_KEPT {
                    self.decisions.pop_first();
                }
            }
            StateNote::Joins(hold) => self.join_hold = Some(HeardHold::after(self.join_hold.take(), *hold, now)),
            StateNote::Replayed => {}
            StateNote::Connector(name, wish) => {
                let taken = self.staged.as_mut().unwrap_or(&mut self.desired).hear_state(name, wish);
                self.passed_over += u64::from(!taken);
            }
            StateNote::Restart(name, restart) => {
                let taken = self.staged.as_mut().unwrap_or(&mut self.desired).hear_restart(name, restart);
                self.passed_over += u64::from(!taken);
            }
        }
    }

    /// The state topic is read from its beginning: what it says about connectors counts when [`Known::state_read`] is called.
    pub fn state_begins(&mut self) {
        self.staged = Some(Told::default());
    }

    /// The state topic has been read to its end. `true` when that changed what connectors are wished to do.
    pub fn state_read(&mut self) -> bool {
        let Some(staged) = self.staged.take() else { return false };
        let changed = staged != self.desired;
        self.desired = staged;
        changed
    }

    /// Forgets workers that are gone: those that left, after as long as three reports take; those that fell silent, after ten minutes.
    pub fn forget(&mut self, now: Duration) {
        self.workers.retain(|_, heard| {
            let age = now.saturating_sub(heard.at);
            age <= if heard.report.leaving { stale_after(heard.report.interval_ms) } else { GONE_AFTER }
        });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    pub(in crate::fleet) fn report(worker: &str, leaving: bool) -> WorkerReport {
        let text = format!(
            r#"{{"v":1,"worker":"{worker}","run":1,"number":1,"interval_ms":2000,"started_ms":0,"at_ms":99999999999,"leaving":{leaving}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn three_missed_reports_make_stale_whatever_the_workers_clock_says() {
        let mut known = Known::default();
        known.hear(report("a", false), S * 100, false);
        let presence = |known: &Known, at: Duration| known.workers["a"].presence(at);
        assert_eq!(presence(&known, S * 106), Presence::Live, "the third may still be on its way");
        assert_eq!(presence(&known, S * 108), Presence::Stale);
        known.hear(report("a", false), S * 109, false);
        assert_eq!(presence(&known, S * 110), Presence::Live, "it came back");
        known.forget(S * 700);
        assert_eq!(known.workers.len(), 1, "stale, and shown");
        known.forget(S * 710);
        assert!(known.workers.is_empty(), "gone");
    }

    #[test]
    fn what_lay_in_the_topic_is_not_live() {
        let mut known = Known::default();
        known.hear(report("a", false), S, true);
        assert_eq!(known.workers["a"].presence(S * 2), Presence::Unconfirmed);
        known.hear(report("a", false), S * 3, false);
        assert_eq!(known.workers["a"].presence(S * 4), Presence::Live);
    }

    #[test]
    fn one_that_leaves_goes_soon() {
        let mut known = Known::default();
        known.hear(report("a", true), S, false);
        assert_eq!(known.workers["a"].presence(S), Presence::Leaving);
        known.forget(S * 7);
        assert_eq!(known.workers.len(), 1);
        known.forget(S * 9);
        assert!(known.workers.is_empty());
    }

    #[test]
    fn memory_is_bounded() {
        let mut known = Known::default();
        for n in 0..WORKERS_MAX + 50 {
            known.hear(report(&format!("w-{n}"), false), S * u32::try_from(n).unwrap(), false);
        }
        assert_eq!(known.workers.len(), WORKERS_MAX);
        assert!(!known.workers.contains_key("w-0") && known.workers.contains_key("w-1049"));
        for number in 0..100 {
            let decision = PublishedDecision {
                v: 1,
                fleet: String::new(),
                term: 1,
                number,
                at_ms: 0,
                leader: "a".to_owned(),
                replicas_before: 1,
                replicas: 2,
                reason: String::new(),
                decision: serde_json::Value::Null,
            };
            known.hear_state(StateNote::Decision(Box::new(decision)), S, false);
        }
        assert_eq!(known.decisions.len() as u64, DECISIONS_KEPT);
        assert_eq!(known.decisions.last_key_value().unwrap().0, &(1, 99));
    }

    #[test]
    fn a_leader_of_an_older_term_is_not_listened_to() {
        let measure = |term| FleetMeasure {
            v: 1,
            fleet: String::new(),
            leader: format!("leader of {term}"),
            term,
            at_ms: 0,
            interval_ms: 5000,
            window_ms: 15_000,
            connectors: Vec::new(),
            remarks: Vec::new(),
            decided: None,
        };
        let mut known = Known::default();
        known.hear_measure(measure(5), S);
        known.hear_measure(measure(4), S * 2);
        assert_eq!(known.measure.as_ref().unwrap().0.term, 5);
        known.hear_measure(measure(4), S * 60);
        assert_eq!(known.measure.as_ref().unwrap().0.term, 4, "but terms begin anew with a lock file that was made anew");
    }

    #[test]
    fn two_processes_of_one_name_are_noticed_and_a_restart_is_not() {
        let mut known = Known::default();
        let of_run = |run| WorkerReport { run, ..report("a", false) };
        for (at, run) in [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3)] {
            known.hear(of_run(run), S * at, false);
        }
        assert_eq!(known.troubles(S * 5), Vec::<String>::new(), "two restarts");
        known.hear(of_run(2), S * 6, false);
        assert!(known.troubles(S * 6)[0].contains("two processes report as `a`"), "{:?}", known.troubles(S * 6));
        assert!(known.troubles(S * 66).is_empty(), "one of them is gone");
    }
}
