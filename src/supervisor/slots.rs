//! A slot per connector: what runs in it, what it says about itself, started and stopped on its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use super::desired::Wish;
use super::worker::Worker;
use crate::config::ConnectorConfig;
use crate::fleet::DesiredState;
use crate::pipeline::{Connector, ConnectorState, ConnectorStatus};
use crate::telemetry::metrics::ConnectorMetrics;

/// What a connector's stop may take beyond `shutdown_deadline`: leaving the group, closing the consumer. The chart's
/// `terminationGracePeriodSeconds` counts with it.
pub const CLOSE_MARGIN: Duration = Duration::from_secs(10);

/// One connector's place.
pub(super) struct Slot {
    pub(super) name: String,
    /// What it runs, or would run.
    pub(super) config: Mutex<Arc<ConnectorConfig>>,
    /// The memory that its consumer's queues may take.
    pub(super) prefetch_bytes: u64,
    phase: Mutex<Phase>,
    pub(super) metrics: ConnectorMetrics,
    /// Held by whoever starts or stops its connector: a reload, a wish of the fleet, the worker's start.
    turn: Arc<AsyncMutex<()>>,
    /// Somebody waits for the turn to do what the fleet wishes.
    queued: AtomicBool,
    /// What the fleet wished last.
    wish: Mutex<Wish>,
    /// The wish that the last start or stop did; `None` when there was none, or it was not known.
    done: Mutex<Option<Wish>>,
    /// A stop of its connector is under way, or ended late while the worker drained, whoever wanted it.
    pub(super) undrained: AtomicBool,
}

/// The right to start or stop a slot's connector.
pub(super) struct Turn(#[allow(dead_code, reason = "held, not read")] OwnedMutexGuard<()>);

/// How a connector did not stop as it should.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotStopped {
    /// Its threads ended, its consumer is still leaving the group.
    #[error("{0}")]
    Late(String),
    /// Its threads still run: another one beside them would append the same records.
    #[error("{0}")]
    Hangs(String),
}

/// Where the connector in a slot is in its life.
enum Phase {
    Starting {
        since_ms: i64,
        message: Option<String>,
    },
    /// Ready, and no member of its group before others are ready too.
    Waiting {
        since_ms: i64,
        message: String,
    },
    Running(Box<Connector>),
    Ended {
        state: ConnectorState,
        since_ms: i64,
        message: Option<String>,
    },
    /// It was told to stop and its threads did not end. For good: nobody can end them but the end of the process.
    Hung {
        since_ms: i64,
        message: String,
    },
}

impl Slot {
    /// A slot whose connector is about to be started.
    pub(super) fn new(config: Arc<ConnectorConfig>, prefetch_bytes: u64, now_ms: i64) -> Self {
        Self {
            name: config.name.clone(),
            metrics: ConnectorMetrics::new(&config.name),
            config: Mutex::new(config),
            prefetch_bytes,
            phase: Mutex::new(Phase::Starting { since_ms: now_ms, message: None }),
            turn: Arc::default(),
            queued: AtomicBool::new(false),
            wish: Mutex::default(),
            done: Mutex::default(),
            undrained: AtomicBool::new(false),
        }
    }

    /// Waits for the right to start or stop its connector.
    pub(super) async fn turn(&self) -> Turn {
        let turn = Turn(self.turn.clone().lock_owned().await);
        self.queued.store(false, SeqCst);
        turn
    }

    /// `true` for the first who asks: one that waits for the turn sees every wish that comes until it has it.
    pub(super) fn queue_for_change(&self) -> bool {
        !self.queued.swap(true, SeqCst)
    }

    /// Notes what the fleet wishes, where that is known; a pause, or its end, takes effect at once. Of two who note it at the same time the later one
    /// also `read`s it later: a start must not bring back what was wished before.
    pub(super) fn wished(&self, read: impl FnOnce() -> Option<Wish>) -> Option<Wish> {
        let mut noted = self.wish.lock();
        *noted = read()?;
        self.pause_as(*noted);
        Some(*noted)
    }

    /// To be called with the wish's lock held.
    fn pause_as(&self, wish: Wish) {
        // One that is to stop takes nothing from now on either, whatever else it waits for.
        if let Phase::Running(connector) = &*self.phase.lock() {
            connector.pause(wish.state != DesiredState::Running);
        }
    }

    /// Whether something must start or stop for this wish. The restart that was wished before the first start is done by that start.
    pub(super) fn needs_change(&self, wish: Wish) -> bool {
        let stopped = |wish: Wish| wish.state == DesiredState::Stopped;
        let mut done = self.done.lock();
        let before = *done.get_or_insert(Wish { restart: wish.restart, ..Wish::default() });
        stopped(before) != stopped(wish) || (before.restart != wish.restart && !stopped(wish))
    }

    /// The wish that what runs here follows from now on.
    pub(super) fn follows(&self, wish: Wish) {
        *self.done.lock() = Some(wish);
    }

    /// 1 where the fleet wishes that it does not run.
    pub(super) fn asked_to_rest(&self) -> bool {
        self.wish.lock().state != DesiredState::Running
    }

    /// What the connector says about itself, or what is known when it does not run.
    pub(super) fn status(&self) -> ConnectorStatus {
        let empty = |state, since_ms, message| ConnectorStatus {
            name: self.name.clone(),
            state,
            since_ms,
            message,
            partitions: Vec::new(),
            tables: Vec::new(),
            freshness: None,
            shards: Vec::new(),
            dead_letters: 0,
            skipped: 0,
        };
        match &*self.phase.lock() {
            Phase::Starting { since_ms, message } => empty(ConnectorState::Starting, *since_ms, message.clone()),
            Phase::Waiting { since_ms, message } => empty(ConnectorState::Waiting, *since_ms, Some(message.clone())),
            Phase::Running(connector) => connector.status(),
            Phase::Ended { state, since_ms, message } => empty(*state, *since_ms, message.clone()),
            Phase::Hung { since_ms, message } => empty(ConnectorState::Failed, *since_ms, Some(message.clone())),
        }
    }

    pub(super) fn is_starting(&self) -> bool {
        matches!(*self.phase.lock(), Phase::Starting { .. })
    }

    /// It waits to join its group together with others, as `message` says. To be called with its turn, before its start.
    pub(super) fn begin_wait(&self, now_ms: i64, message: String) {
        *self.phase.lock() = Phase::Waiting { since_ms: now_ms, message };
    }

    /// Says anew what it waits for; `false` when it waits no more: somebody started, stopped or removed it.
    pub(super) fn still_waits(&self, words: String) -> bool {
        let mut phase = self.phase.lock();
        let Phase::Waiting { message, .. } = &mut *phase else { return false };
        *message = words;
        true
    }

    /// It waits no more and is about to be started; `false` when somebody else did something with it meanwhile.
    pub(super) fn end_wait(&self, now_ms: i64) -> bool {
        let mut phase = self.phase.lock();
        let waits = matches!(*phase, Phase::Waiting { .. });
        if waits {
            *phase = Phase::Starting { since_ms: now_ms, message: None };
        }
        waits
    }

    pub(super) fn run(&self, connector: Connector) {
        let wish = self.wish.lock();
        *self.phase.lock() = Phase::Running(Box::new(connector));
        // A wish that came while it started.
        self.pause_as(*wish);
    }

    pub(super) fn end(&self, state: ConnectorState, now_ms: i64, message: Option<String>) {
        *self.phase.lock() = Phase::Ended { state, since_ms: now_ms, message };
    }

    /// Takes the connector out, if one runs, and shows `starting` (it will be started anew) or `stopped` from now on.
    ///
    /// # Errors
    /// It was told to stop before, and hangs.
    fn take(&self, now_ms: i64, again: bool, why: Option<&str>) -> Result<Option<Connector>, NotStopped> {
        let message = why.map(str::to_owned);
        let mut phase = self.phase.lock();
        if let Phase::Hung { message, .. } = &*phase {
            return Err(NotStopped::Hangs(message.clone()));
        }
        let next = if again {
            Phase::Starting { since_ms: now_ms, message }
        } else {
            Phase::Ended { state: ConnectorState::Stopped, since_ms: now_ms, message }
        };
        Ok(match std::mem::replace(&mut *phase, next) {
            Phase::Running(connector) => Some(*connector),
            // What ended by itself keeps its reason, unless something new is about to begin.
            ended if !again => {
                *phase = ended;
                None
            }
            _ => None,
        })
    }

    /// Drains the connector of this slot, if one runs: it leaves its group with everything committed that is durable. `again`: it is shown as
    /// starting meanwhile.
    ///
    /// # Errors
    /// It did not stop as it should and is `failed` now; what was not committed comes again. One that hangs does so at every further stop.
    pub(super) async fn stop(&self, worker: &Worker, deadline: Duration, again: bool, why: Option<&str>) -> Result<(), NotStopped> {
        let stopped = match self.take(worker.now_ms(), again, why) {
            Ok(None) => return Ok(()),
            Ok(Some(connector)) => self.ends(worker, deadline, connector.stop(deadline)).await,
            Err(hangs) => Err(hangs),
        };
        if let Err(failed) = &stopped {
            tracing::error!(connector = self.name, error = %failed, "connector did not stop cleanly");
            self.not_stopped(failed, worker.now_ms());
        }
        stopped
    }

    /// Waits for the end of its connector, which was told to stop.
    async fn ends<E: std::fmt::Display>(
        &self,
        worker: &Worker,
        deadline: Duration,
        stop: impl Future<Output = Result<(), E>>,
    ) -> Result<(), NotStopped> {
        self.undrained.store(true, SeqCst);
        let ended = match tokio::time::timeout(deadline + CLOSE_MARGIN, stop).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(NotStopped::Late(error.to_string())),
            Err(_) => Err(NotStopped::Hangs(format!("it did not stop within {:?}: restart the worker", deadline + CLOSE_MARGIN))),
        };
        // What was late before the worker was told to end is another story, told then.
        self.undrained.store(ended.is_err() && worker.draining.is_cancelled(), SeqCst);
        ended
    }

    fn not_stopped(&self, failed: &NotStopped, now_ms: i64) {
        match failed {
            NotStopped::Late(message) => self.end(ConnectorState::Failed, now_ms, Some(message.clone())),
            NotStopped::Hangs(message) => {
                let mut phase = self.phase.lock();
                if !matches!(*phase, Phase::Hung { .. }) {
                    *phase = Phase::Hung { since_ms: now_ms, message: message.clone() };
                }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::super::drain::drain;
    use super::*;

    fn slot() -> Slot {
        let toml = "topics = [\"t\"]\n[value]\nformat = \"json\"\n[table]\nname = \"d.t\"\n";
        Slot::new(Arc::new(toml::from_str(toml).unwrap()), 0, 1)
    }

    #[test]
    fn a_connector_that_hangs_does_so_at_every_further_stop_and_stays_visible() {
        let slot = slot();
        slot.not_stopped(&NotStopped::Hangs("it hangs".into()), 2);
        for (now_ms, again) in [(3, true), (4, false), (5, true)] {
            let taken = slot.take(now_ms, again, Some("its file changed"));
            assert!(matches!(&taken, Err(NotStopped::Hangs(message)) if message == "it hangs"));
            slot.not_stopped(&taken.err().unwrap(), now_ms);
            let status = slot.status();
            assert_eq!((status.state, status.since_ms, status.message.as_deref()), (ConnectorState::Failed, 2, Some("it hangs")));
        }
    }

    #[test]
    fn a_wish_that_was_read_before_another_does_not_replace_it() {
        let slot = slot();
        let fleet = Mutex::new(Wish::default());
        let (reads, was_read) = std::sync::mpsc::channel();
        let (noted, was_noted) = std::sync::mpsc::channel::<()>();
        let (slot, fleet) = (&slot, &fleet);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                slot.wished(|| {
                    let wish = *fleet.lock();
                    reads.send(()).unwrap();
                    // A start that is held up here until the follower is done, if that does not wait for it.
                    let _ = was_noted.recv_timeout(Duration::from_millis(300));
                    Some(wish)
                });
            });
            was_read.recv().unwrap();
            *fleet.lock() = Wish { state: DesiredState::Paused, restart: 0 };
            slot.wished(|| Some(*fleet.lock()));
            let _ = noted.send(());
        });
        assert!(slot.asked_to_rest(), "the pause came later");
    }

    #[tokio::test]
    async fn a_stop_that_was_under_way_and_ends_late_is_named_in_the_exit() {
        const DEADLINE: Duration = Duration::from_secs(1);
        // How a stop that the fleet wished ends, before the worker is told to end or meanwhile.
        for (ends, before, named) in [
            (Some(Ok(())), false, false),
            (Some(Err("still leaving")), false, true),
            (None, false, true),
            // That was told when it happened.
            (Some(Err("still leaving")), true, false),
        ] {
            let slot = Arc::new(slot());
            let worker = super::super::wedges::worker();
            *worker.slots.write() = vec![slot.clone()];
            let (end, ended) = tokio::sync::oneshot::channel();
            let stopping = (worker.clone(), slot.clone());
            let stop = worker.changes.spawn(async move { stopping.1.ends(&stopping.0, DEADLINE, async { ended.await.unwrap() }).await });
            while !slot.undrained.load(SeqCst) {
                tokio::task::yield_now().await;
            }
            let mut end = Some(end);
            let mut tell = || ends.and_then(|ends| end.take().map(|end| end.send(ends)));
            if before {
                tell();
                let _late = stop.await.unwrap();
            }
            worker.draining.cancel();
            tell();
            let drained = drain(&worker, DEADLINE).await.map_err(|error| error.to_string());
            assert_eq!(drained.err().is_some_and(|words| words.contains("within the deadline")), named, "{ends:?} {before}");
        }
    }

    #[test]
    fn one_that_waits_is_started_by_whoever_comes_first() {
        let slot = slot();
        slot.begin_wait(2, "for others".to_owned());
        assert!(slot.still_waits("for others, longer".to_owned()));
        let status = slot.status();
        assert_eq!((status.state, status.since_ms, status.message.as_deref()), (ConnectorState::Waiting, 2, Some("for others, longer")));
        assert!(matches!(slot.take(3, false, None), Ok(None)) && slot.still_waits(String::new()), "nothing runs that a drain would end");
        assert!(matches!(slot.take(4, true, Some("its file changed")), Ok(None)));
        assert!(slot.is_starting() && !slot.still_waits(String::new()) && !slot.end_wait(5), "a changed file starts it");
        slot.begin_wait(6, String::new());
        slot.end(ConnectorState::Stopped, 7, None);
        assert!(!slot.end_wait(8), "a stop is not undone");
        slot.begin_wait(9, String::new());
        assert!(slot.end_wait(10) && slot.is_starting() && !slot.end_wait(11));
    }

    #[test]
    fn one_that_only_left_its_group_late_may_begin_anew() {
        let slot = slot();
        slot.not_stopped(&NotStopped::Late("still leaving".into()), 2);
        assert!(matches!(slot.take(3, false, None), Ok(None)));
        assert_eq!(slot.status().message.as_deref(), Some("still leaving"), "a removal keeps the reason");
        assert!(matches!(slot.take(4, true, None), Ok(None)));
        assert!(slot.is_starting());
    }
}
