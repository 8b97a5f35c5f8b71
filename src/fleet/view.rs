//! The fleet as this worker sees it: what was heard, behind a lock, with this worker's clock.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::identity::Identity;
use super::known::{Known, Presence, stale_after};
use super::measure::Decided;
use super::report::{Note, Origin, WorkerReport};
use super::state::{LeaderMemory, PublishedDecision, StateNote};
use super::status::{ConnectorSeen, FleetStatus, LeaderSeen, WorkerPresence, WorkerSeen};
use super::wishes::Wishes;
use crate::config::{ScalingConfig, ScalingMode};
use crate::flow::Clock;

/// A note above this is not read: a worker with 10,000 partitions writes about 2 MB.
const NOTE_BYTES_MAX: usize = 8 << 20;

/// Whether what is heard can be relied on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hearing {
    /// Both topics are read, for at least as long as three reports take, and this worker's own reports come back.
    Clear,
    /// Not so, and why: nothing may be concluded from who is silent.
    Poor(String),
}

/// A worker whose reports come.
#[derive(Debug, Clone)]
pub struct LiveWorker {
    /// What it said last.
    pub report: Arc<WorkerReport>,
    /// How long ago that arrived here.
    pub age: Duration,
}

#[derive(Default)]
pub(super) struct Inner {
    pub(super) known: Known,
    /// Since when everything that comes is new; `None` while the topics are not read.
    live_since: Option<Duration>,
    trouble: Option<String>,
}

/// The view. Every worker has one; it answers at once.
pub struct FleetView {
    pub(super) clock: Arc<dyn Clock>,
    identity: Identity,
    mode: ScalingMode,
    fleet_id: String,
    interval: Duration,
    pub(super) inner: Mutex<Inner>,
    pub(super) wishes: watch::Sender<Wishes>,
    pub(super) join_holds: watch::Sender<u64>,
}

impl FleetView {
    /// A view of a fleet of which nothing was heard yet.
    pub fn new(identity: Identity, scaling: &ScalingConfig, clock: Arc<dyn Clock>) -> Self {
        let inner = Mutex::new(Inner { trouble: Some("the fleet's topics have not been read yet".to_owned()), ..Inner::default() });
        let fleet_id = scaling.fleet_id.clone();
        Self {
            clock,
            identity,
            mode: scaling.mode,
            fleet_id,
            interval: scaling.report_interval.get(),
            inner,
            wishes: watch::Sender::default(),
            join_holds: watch::Sender::default(),
        }
    }

    /// This worker.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// A record of the report topic. `replayed`: it was there before the reading began.
    pub fn hear_report(&self, value: &[u8], replayed: bool) {
        let now = self.clock.now_monotonic();
        let value = if value.len() > NOTE_BYTES_MAX { &[] } else { value };
        let Some(value) = self.ours(value, now, replayed) else { return };
        let note = serde_json::from_slice::<Note>(value).ok();
        let mut inner = self.inner.lock();
        match note {
            Some(Note::Worker(report)) => inner.known.hear(report, now, replayed),
            // A measure that lay there is of a time that is over.
            Some(Note::Measure(measure)) if !replayed => inner.known.hear_measure(measure, now),
            Some(Note::Measure(_)) => {}
            None => inner.known.passed_over += 1,
        }
    }

    /// A record of the state topic. `replayed`: it was there before the reading began.
    pub fn hear_state(&self, key: &[u8], value: Option<&[u8]>, replayed: bool) {
        let now = self.clock.now_monotonic();
        let value_read = value.filter(|value| value.len() <= NOTE_BYTES_MAX);
        if value_read.is_some_and(|value| self.ours(value, now, replayed).is_none()) {
            return;
        }
        let note = if value_read.is_none() && value.is_some() { None } else { StateNote::read(key, value_read) };
        let mut inner = self.inner.lock();
        match note {
            Some(note) => {
                let wish = matches!(note, StateNote::Connector(..) | StateNote::Restart(..));
                let joins = matches!(note, StateNote::Joins(_));
                inner.known.hear_state(note, now, replayed);
                if wish && inner.known.staged.is_none() {
                    self.wishes.send_modify(|wishes| wishes.changes += 1);
                }
                if joins {
                    self.join_holds.send_modify(|changes| *changes += 1);
                }
            }
            // A deletion of something that is not known here deletes nothing.
            None if value.is_none() => {}
            None => inner.known.passed_over += 1,
        }
    }

    /// A note that may be read; `None` for another fleet's and for a later version's, which are said once.
    fn ours<'a>(&self, value: &'a [u8], now: Duration, replayed: bool) -> Option<&'a [u8]> {
        let origin = Origin::of(value, &self.fleet_id);
        // Another fleet's notes of old lie in a topic that it no longer shares.
        if origin == Origin::Ours || (replayed && matches!(origin, Origin::Foreign(_))) {
            return (origin == Origin::Ours).then_some(value);
        }
        let mut inner = self.inner.lock();
        if inner.known.pass_over(origin, now) {
            for trouble in inner.known.troubles(now) {
                tracing::warn!("{trouble}");
            }
        }
        None
    }

    /// Everything that was there has been read: what comes now is new.
    pub fn caught_up(&self) {
        let mut inner = self.inner.lock();
        if inner.live_since.is_none() {
            inner.live_since = Some(self.clock.now_monotonic());
        }
        inner.trouble = None;
    }

    /// The topics cannot be read, for this reason.
    pub fn deaf(&self, why: String) {
        let mut inner = self.inner.lock();
        inner.live_since = None;
        inner.trouble = Some(why);
    }

    /// Whether what is heard can be relied on.
    pub fn hearing(&self) -> Hearing {
        let now = self.clock.now_monotonic();
        self.hearing_at(&self.inner.lock(), now)
    }

    fn hearing_at(&self, inner: &Inner, now: Duration) -> Hearing {
        let patience = stale_after(u64::try_from(self.interval.as_millis()).unwrap_or(u64::MAX));
        let Some(since) = inner.live_since else {
            return Hearing::Poor(inner.trouble.clone().unwrap_or_else(|| "the fleet's topics are not read".to_owned()));
        };
        let own = inner.known.workers.get(&self.identity.name).filter(|own| !own.replayed);
        match own {
            _ if now.saturating_sub(since) < patience => {
                Hearing::Poor("the fleet's topics have been read for less time than three reports take".to_owned())
            }
            Some(own) if now.saturating_sub(own.at) <= patience => Hearing::Clear,
            _ => Hearing::Poor("this worker's own reports do not arrive".to_owned()),
        }
    }

    /// The workers whose reports come, in order of their ordinals and names.
    pub fn live(&self) -> Vec<LiveWorker> {
        let now = self.clock.now_monotonic();
        let inner = self.inner.lock();
        let live = inner.known.workers.values().filter(|heard| heard.presence(now) == Presence::Live);
        let mut live: Vec<LiveWorker> =
            live.map(|heard| LiveWorker { report: heard.report.clone(), age: now.saturating_sub(heard.at) }).collect();
        live.sort_by(|a, b| {
            (a.report.ordinal.unwrap_or(u32::MAX), &a.report.worker).cmp(&(b.report.ordinal.unwrap_or(u32::MAX), &b.report.worker))
        });
        live
    }

    /// How many workers missed three reports and have not been forgotten.
    pub fn stale(&self) -> usize {
        let now = self.clock.now_monotonic();
        self.inner.lock().known.workers.values().filter(|heard| heard.presence(now) == Presence::Stale).count()
    }

    /// The decision that counts: that of the highest term, and of its decisions the last.
    pub fn last_decision(&self) -> Option<Arc<PublishedDecision>> {
        self.inner.lock().known.decisions.last_key_value().map(|(_, decision)| decision.clone())
    }

    /// The highest term that stands in the state topic.
    pub fn last_term(&self) -> Option<u64> {
        self.inner.lock().known.last_term()
    }

    /// What the last leader left for the next, and how long ago it came here where that is known.
    pub fn leader_memory(&self) -> Option<(Arc<LeaderMemory>, Option<Duration>)> {
        let now = self.clock.now_monotonic();
        let inner = self.inner.lock();
        inner.known.memory.as_ref().map(|(memory, at)| (memory.clone(), at.map(|at| now.saturating_sub(at))))
    }

    /// Forgets who is gone. To be called now and then.
    pub fn forget(&self) {
        let now = self.clock.now_monotonic();
        self.inner.lock().known.forget(now);
    }

    /// `GET /fleet`.
    pub fn status(&self) -> FleetStatus {
        let (now, now_ms) = (self.clock.now_monotonic(), self.clock.now_wall_us() / 1000);
        let inner = self.inner.lock();
        let known = &inner.known;
        let workers: Vec<WorkerSeen> = known
            .workers
            .values()
            .map(|heard| WorkerSeen {
                presence: match heard.presence(now) {
                    Presence::Live => WorkerPresence::Live,
                    Presence::Unconfirmed => WorkerPresence::Unconfirmed,
                    Presence::Stale => WorkerPresence::Stale,
                    Presence::Leaving => WorkerPresence::Leaving,
                },
                age_ms: millis(now.saturating_sub(heard.at)),
                report: heard.report.clone(),
            })
            .collect();
        let count = |presence| workers.iter().filter(|worker| worker.presence == presence).count();
        let measure = known.measure.as_ref().map(|(measure, _)| measure.clone());
        let last = known.decisions.last_key_value().map(|(_, decision)| decision.clone());
        let decided = measure.as_ref().and_then(|measure| measure.decided.clone()).or_else(|| last.as_ref().map(|last| Decided::of(last)));
        let wishes = known.desired.all();
        let desired = |connector: &str| wishes.get(connector).map_or("running", |desired| desired.state.as_str());
        FleetStatus {
            answered_by: self.identity.name.clone(),
            now_ms,
            fleet_id: self.fleet_id.clone(),
            mode: self.mode,
            trouble: {
                let poor = match self.hearing_at(&inner, now) {
                    Hearing::Clear => None,
                    Hearing::Poor(why) => Some(why),
                };
                let all: Vec<String> = poor.into_iter().chain(known.troubles(now)).collect();
                (!all.is_empty()).then(|| all.join("; "))
            },
            leader: known.measure.as_ref().map(|(measure, at)| {
                let age = now.saturating_sub(*at);
                let stale = age > stale_after(measure.interval_ms);
                LeaderSeen { worker: measure.leader.clone(), term: measure.term, age_ms: millis(age), stale }
            }),
            decided,
            live_workers: count(WorkerPresence::Live),
            stale_workers: count(WorkerPresence::Stale),
            workers,
            connectors: measure
                .iter()
                .flat_map(|measure| &measure.connectors)
                .map(|connector| ConnectorSeen::of(connector, desired(&connector.connector)))
                .collect(),
            wishes,
            joins_held_until_ms: known.join_hold.as_ref().map(|heard| heard.hold.until_ms).filter(|until_ms| *until_ms > now_ms),
            remarks: measure.map(|measure| measure.remarks.clone()).unwrap_or_default(),
            decisions: known.decisions.values().rev().cloned().collect(),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;
    use crate::flow::ManualClock;

    const S: Duration = Duration::from_secs(1);

    fn view() -> (Arc<ManualClock>, FleetView) {
        let clock = Arc::new(ManualClock::at(0));
        let identity = Identity { name: "w-0".to_owned(), ordinal: Some(0) };
        (clock.clone(), FleetView::new(identity, &ScalingConfig::default(), clock))
    }

    fn report(worker: &str, ordinal: u32) -> Vec<u8> {
        // Its own clock is far off.
        format!(
            r#"{{"kind":"worker","v":1,"worker":"{worker}","ordinal":{ordinal},"run":1,"number":1,"interval_ms":2000,"started_ms":0,"at_ms":9999999999}}"#
        )
        .into_bytes()
    }

    fn poor(view: &FleetView, why: &str) {
        match view.hearing() {
            Hearing::Poor(said) => assert!(said.contains(why), "{said}"),
            Hearing::Clear => panic!("it hears well although {why}"),
        }
    }

    #[test]
    fn nothing_is_concluded_from_silence_before_three_reports_could_come() {
        let (clock, view) = view();
        poor(&view, "not been read yet");
        view.deaf("no broker".to_owned());
        poor(&view, "no broker");
        view.hear_report(&report("w-0", 0), true);
        view.caught_up();
        poor(&view, "less time than three reports");
        for _ in 0..4 {
            clock.advance(S * 2);
            view.hear_report(&report("w-0", 0), false);
        }
        assert_eq!(view.hearing(), Hearing::Clear);
        assert!(view.status().trouble.is_none());
        clock.advance(S * 8);
        poor(&view, "own reports do not arrive");
        view.hear_report(&report("w-0", 0), false);
        assert_eq!(view.hearing(), Hearing::Clear);
        view.deaf("gone".to_owned());
        view.caught_up();
        poor(&view, "less time than three reports");
    }

    #[test]
    fn live_workers_stand_in_the_order_of_their_ordinals() {
        let (clock, view) = view();
        for (worker, ordinal) in [("w-10", 10), ("w-2", 2), ("w-0", 0)] {
            view.hear_report(&report(worker, ordinal), false);
        }
        view.hear_report(&report("w-3", 3), true);
        let names = |view: &FleetView| view.live().iter().map(|live| live.report.worker.clone()).collect::<Vec<_>>();
        assert_eq!(names(&view), ["w-0", "w-2", "w-10"], "one that lay in the topic is not known to live");
        clock.advance(S * 8);
        view.hear_report(&report("w-2", 2), false);
        assert_eq!((names(&view), view.stale()), (vec!["w-2".to_owned()], 3));
        let status = view.status();
        assert_eq!((status.live_workers, status.stale_workers, status.workers.len()), (1, 3, 4));
        assert_eq!(status.workers.iter().find(|w| w.report.worker == "w-0").unwrap().age_ms, 8_000, "by the clock here");
    }

    #[test]
    fn what_is_not_understood_changes_nothing() {
        let (_, view) = view();
        for value in [&b"no json"[..], br#"{"kind":"rumour","v":7}"#, b"", &vec![b' '; NOTE_BYTES_MAX + 1]] {
            view.hear_report(value, false);
        }
        view.hear_state(b"connector/c", Some(b"5"), false);
        view.hear_state(b"what/else", None, false);
        assert_eq!(view.inner.lock().known.passed_over, 5);
        assert!(view.status().workers.is_empty() && view.desired_state("c").is_none());
        view.hear_state(b"connector/c", Some(br#"{"v":1,"state":"paused","at_ms":0}"#), false);
        assert_eq!(view.desired_state("c").as_deref(), Some("paused"));
        view.hear_state(b"connector/c", None, false);
        assert!(view.desired_state("c").is_none());
    }

    #[test]
    fn other_fleets_and_later_versions_are_passed_over_and_said() {
        let (clock, view) = view();
        let text = String::from_utf8(report("w-1", 1)).unwrap();
        let of = |from: &str, to: &str| text.replace(from, to).into_bytes();
        view.hear_report(&of("\"v\":1", "\"v\":1,\"fleet\":\"millrace\""), false);
        assert_eq!(view.live().len(), 1);
        let foreign = of("\"v\":1", "\"v\":1,\"fleet\":\"other\",\"program\":\"theirs\"");
        view.hear_report(&foreign, true);
        assert!(!view.status().trouble.unwrap().contains("another fleet"), "it lay there before");
        view.hear_report(&foreign, false);
        assert!(view.status().trouble.unwrap().contains("another fleet, `other`, writes to this fleet's topics"));
        assert_eq!(view.live()[0].report.program, "", "its worker is none of ours");
        let decision =
            r#"{"v":1,"fleet":"other","term":1,"number":1,"at_ms":0,"leader":"x","replicas_before":1,"replicas":9,"reason":"r"}"#;
        view.hear_state(b"decision/01", Some(decision.as_bytes()), false);
        assert!(view.last_decision().is_none());
        clock.advance(S * 61);
        assert!(!view.status().trouble.unwrap().contains("another fleet"));
        // A shape of tomorrow that reads well today means something else.
        view.hear_report(&of("\"v\":1", "\"v\":2"), false);
        view.hear_state(b"connector/c", Some(br#"{"v":2,"state":"paused","at_ms":0}"#), false);
        assert!(view.live().is_empty() && view.desired_state("c").is_none());
        assert!(view.status().trouble.unwrap().contains("notes of version 2 are passed over"));
    }
}
