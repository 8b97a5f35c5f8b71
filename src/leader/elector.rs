//! Election by a lease, with client-go's timing and rules.
//!
//! Why at most one leads: a term ends `renew_deadline` after its last successful renewal was *begun*, by the leader's own clock; another takes
//! the lease at the earliest `lease_duration` after it *saw* that renewal, by its own clock. Every write names the version that it replaces, so
//! of two that find the lease free only one gets it.

use std::sync::Arc;
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::lease::{LeaseRecord, LeaseStore, Observed, Timing};
use super::store::StoreError;
use super::term::{Leadership, Term, Until};
use super::timer::{Timer, within};

/// Ordinals above this one do not wait longer before they take a free lease.
const PATIENT_ORDINAL: u32 = 8;

/// Who stands for election.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The worker's name: the pod's.
    pub name: String,
    /// Its number in the StatefulSet. The highest is removed first, so low ones are preferred as leaders.
    pub ordinal: u32,
    /// Differs between two processes of the same name: one that crashed and came back must not take itself for the leader that it was. It also
    /// seeds the jitter.
    pub incarnation: u64,
}

impl Candidate {
    fn identity(&self) -> String {
        format!("{}_{:016x}", self.name, self.incarnation)
    }
}

/// The worker's name in a holder's identity.
pub fn holder_name(identity: &str) -> &str {
    identity.rsplit_once('_').map_or(identity, |(name, _)| name)
}

/// One candidate's part in the election.
pub struct Elector<S> {
    store: S,
    timer: Arc<dyn Timer>,
    timing: Timing,
    identity: String,
    ordinal: u32,
    random: ChaCha8Rng,
    publish: watch::Sender<Leadership>,
    seen: Option<Observed>,
    free_since: Option<Duration>,
    term: Option<Term>,
    /// A claim was sent and not answered: the lease may be ours although it was not seen so.
    claiming: bool,
    trouble: Option<String>,
}

enum Standing {
    Leading,
    Following(Option<String>),
}

/// A term that nobody renews any more is over at once, also where a panic ends the election.
impl<S> Drop for Elector<S> {
    fn drop(&mut self) {
        if let Some(term) = self.term.take() {
            term.end();
        }
    }
}

impl<S: LeaseStore> Elector<S> {
    /// A candidate that has not looked yet, and what it publishes.
    pub fn new(store: S, timer: Arc<dyn Timer>, timing: Timing, candidate: &Candidate) -> (Self, watch::Receiver<Leadership>) {
        let (publish, leadership) = watch::channel(Leadership::unknown());
        let elector = Self {
            store,
            timer,
            timing,
            identity: candidate.identity(),
            ordinal: candidate.ordinal,
            random: ChaCha8Rng::seed_from_u64(candidate.incarnation),
            publish,
            seen: None,
            free_since: None,
            term: None,
            claiming: false,
            trouble: None,
        };
        (elector, leadership)
    }

    /// Stands for election until `stop`; then ends its term and releases the lease, so that another may lead at once. Whoever acts as leader
    /// must have stopped acting before.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let wait = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                wait = self.turn() => wait,
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = self.timer.sleep(wait) => {}
            }
        }
        self.leave().await;
    }

    /// Looks, and takes or renews the lease when it may. Returns how long to wait before the next turn.
    async fn turn(&mut self) -> Duration {
        if self.term.as_ref().is_some_and(|term| !term.is_valid()) {
            self.step_down("the lease could not be renewed in time");
        }
        let outcome = self.attempt().await;
        // After an error a free lease is not asked for any sooner than a held one.
        let free_since = self.free_since.filter(|_| outcome.is_ok());
        match outcome {
            Ok(Standing::Leading) => self.trouble = None,
            Ok(Standing::Following(leader)) => {
                self.step_down("another holds the lease");
                self.trouble = None;
                self.follow(leader);
            }
            // Two wanted it at the same time: the next look shows who has it.
            Err(StoreError::Conflict) => {}
            Err(error) => self.say(error.to_string()),
        }
        let period = self.timing.retry_period;
        match (&self.term, free_since) {
            (Some(_), _) => period,
            (None, Some(since)) => {
                let waited = self.timer.now_monotonic().saturating_sub(since);
                self.patience().saturating_sub(waited).clamp(period / 100, period)
            }
            (None, None) => period.mul_f64(self.random.random_range(0.9..1.1)),
        }
    }

    async fn attempt(&mut self) -> Result<Standing, StoreError> {
        if let (Some(_), Some(seen)) = (&self.term, &self.seen) {
            let seen = seen.clone();
            match self.claim(&seen).await {
                Err(StoreError::Conflict) => {} // a person set a label, or an earlier request took effect late: look
                other => return other,
            }
        }
        let (record, version) = self.limited(self.store.read(), "reading").await?;
        let now = self.timer.now_monotonic();
        let seen = Observed::update(self.seen.take(), record, version, now);
        self.seen = Some(seen.clone());
        if seen.record.holder == self.identity {
            return self.claim(&seen).await;
        }
        if !seen.is_free(&self.timing, now) {
            self.free_since = None;
            return Ok(Standing::Following(Some(seen.record.holder)));
        }
        let since = *self.free_since.get_or_insert(now);
        if now.saturating_sub(since) < self.patience() {
            return Ok(Standing::Following(None));
        }
        self.claim(&seen).await
    }

    /// Writes itself into the lease that it saw.
    async fn claim(&mut self, seen: &Observed) -> Result<Standing, StoreError> {
        // Before the request: whoever sees it sees it later than this.
        let until = Until::after(&*self.timer, self.timing.renew_deadline);
        let now_us = self.timer.now_wall_us();
        let renewing = self.term.as_ref().filter(|_| seen.record.holder == self.identity);
        let record = LeaseRecord {
            holder: self.identity.clone(),
            duration: Some(self.timing.lease_duration),
            acquired_us: if renewing.is_some() { seen.record.acquired_us } else { Some(now_us) },
            // Never the same twice: a record that does not change is no sign of life, whatever the wall clock does.
            renewed_us: Some(seen.record.renewed_us.map_or(now_us, |before| now_us.max(before.saturating_add(1)))),
            transitions: if renewing.is_some() { seen.record.transitions } else { seen.record.transitions + 1 },
        };
        self.claiming = true;
        let answer = self.limited(self.store.replace(&seen.version, &record), "writing").await;
        self.claiming = matches!(answer, Err(StoreError::Unanswered(_)));
        let version = answer?;
        self.free_since = None;
        let number = record.transitions;
        self.seen = Some(Observed::update(self.seen.take(), record, version, self.timer.now_monotonic()));
        if self.term.as_ref().is_some_and(|term| term.extend(until)) {
            return Ok(Standing::Leading);
        }
        self.step_down("the lease was renewed too late");
        let term = Term::new(number, until, self.timing.margin(), self.timer.clone());
        if !term.is_valid() {
            return Ok(Standing::Following(None)); // a pause ate the term before it began
        }
        tracing::info!(term = number, "this worker leads the fleet");
        self.publish.send_replace(Leadership::Leader(term.clone()));
        self.term = Some(term);
        Ok(Standing::Leading)
    }

    /// A request, as long as it may take: a leader must not wait for an answer beyond the end of its term.
    async fn limited<T>(&self, request: impl Future<Output = Result<T, StoreError>>, what: &str) -> Result<T, StoreError> {
        let limit = self.timing.request_timeout();
        let limit = self.term.as_ref().and_then(Term::remaining).map_or(limit, |left| left.min(limit));
        match within(&*self.timer, limit, request).await {
            Some(answer) => answer,
            None => Err(StoreError::Unanswered(format!("{what} the lease took longer than {limit:?}"))),
        }
    }

    /// How long this candidate leaves a free lease to those with lower ordinals.
    fn patience(&self) -> Duration {
        self.timing.retry_period * self.ordinal.min(PATIENT_ORDINAL) / (2 * PATIENT_ORDINAL)
    }

    fn step_down(&mut self, why: &str) {
        if let Some(term) = self.term.take() {
            term.end();
            tracing::warn!(term = term.number(), why, "this worker leads the fleet no more");
            self.publish.send_replace(Leadership::unknown());
        }
    }

    fn follow(&self, leader: Option<String>) {
        let leader = leader.map(|identity| holder_name(&identity).to_owned());
        self.publish.send_if_modified(|now| match now {
            Leadership::Follower { leader: known, trouble: None } if *known == leader => false,
            _ => {
                *now = Leadership::Follower { leader, trouble: None };
                true
            }
        });
    }

    /// Logged once for each new text; shown by followers until it is over.
    fn say(&mut self, trouble: String) {
        if self.trouble.as_ref() != Some(&trouble) {
            tracing::warn!(trouble, leading = self.term.is_some(), "the election does not get on");
            self.trouble = Some(trouble.clone());
        }
        if self.term.is_none() {
            self.publish.send_replace(Leadership::Follower { leader: None, trouble: Some(trouble) });
        }
    }

    async fn leave(mut self) {
        if let Some(term) = self.term.take() {
            term.end();
        }
        self.publish.send_replace(Leadership::unknown());
        let mut seen = self.seen.take();
        // A claim that was under way when it was told to stop may have moved the version on; so may a person. Then once more.
        for look in [self.claiming, true] {
            if look {
                let read = self.limited(self.store.read(), "reading").await;
                seen = read.ok().map(|(record, version)| Observed::update(None, record, version, self.timer.now_monotonic()));
            }
            let Some(Observed { record, version, .. }) = seen.take().filter(|seen| seen.record.holder == self.identity) else { return };
            let released = LeaseRecord { holder: String::new(), duration: Some(Duration::from_secs(1)), ..record };
            match self.limited(self.store.replace(&version, &released), "releasing").await {
                Ok(_) => return tracing::info!("the lease was released"),
                Err(StoreError::Conflict) => {}
                Err(error) => return tracing::warn!(%error, "the lease was not released: others take it when it expires"),
            }
        }
    }
}
