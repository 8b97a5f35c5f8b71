//! The leader's loop: while this worker leads, turn after turn. Runs on every worker; does something only where that worker leads.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::measure::Measurer;
use super::sizing::Sizing;
use super::term::{Leadership, Term};
use super::timer::Timer;
use super::turn::Lead;
use crate::config::{ConnectorConfig, FleetConfig};
use crate::fleet::{Exchange, FleetView, Hearing};
use crate::telemetry::leader_page::LeaderPage;

/// How soon a worker that speaks without an election notices that another does.
const SILENT_WITHIN: Duration = Duration::from_millis(500);
/// A leader that hears its fleet poorly for this long lets another lead.
const DEAF_MAX: Duration = Duration::from_secs(60);

/// Why the loop ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It was told to.
    Stopped,
    /// This worker was elected and cannot decide, for this reason: another should lead.
    Unfit(String),
}

/// What the loop needs.
pub struct Monitor {
    /// `millrace.toml`.
    pub fleet: Arc<FleetConfig>,
    /// The connectors that should run, as they are now.
    pub connectors: Box<dyn Fn() -> Vec<Arc<ConnectorConfig>> + Send + Sync>,
    /// Who is there.
    pub view: Arc<FleetView>,
    /// Where measures and decisions go.
    pub exchange: Arc<Exchange>,
    /// Whether this worker leads.
    pub leadership: watch::Receiver<Leadership>,
    /// What becomes of decisions.
    pub sizing: Sizing,
    /// The gauges, there while this worker leads.
    pub page: Arc<Mutex<Option<Arc<LeaderPage>>>>,
    /// What time it is.
    pub timer: Arc<dyn Timer>,
}

/// How long the leader has heard its fleet poorly, and why.
#[derive(Debug, Default)]
struct Deaf {
    since: Option<Duration>,
    why: Option<String>,
}

impl Deaf {
    /// Notes what is heard, and logs each new reason. Why this worker should lead no more, once that has lasted.
    fn note(&mut self, now: Duration, hearing: Hearing) -> Option<String> {
        let Hearing::Poor(why) = hearing else {
            *self = Self::default();
            return None;
        };
        if self.why.as_ref() != Some(&why) {
            tracing::warn!(why, "this leader cannot decide");
            self.why = Some(why.clone());
        }
        let since = *self.since.get_or_insert(now);
        (now.saturating_sub(since) >= DEAF_MAX).then_some(why)
    }
}

impl Monitor {
    /// Runs until `stop`, or until this worker is elected and has heard its fleet poorly for a minute. Nothing is decided any more once it
    /// has returned.
    pub async fn run(mut self, stop: CancellationToken) -> Ended {
        while !stop.is_cancelled() {
            let term = self.leadership.borrow_and_update().term().filter(|term| term.is_valid()).cloned();
            let mine = term.filter(|_| self.speaks());
            match mine {
                Some(term) => {
                    if let Some(why) = self.lead(term, &stop).await {
                        return Ended::Unfit(why);
                    }
                }
                None => {
                    // A term that ended by itself, or a fleet without election, is noticed by looking again.
                    let mut look_again = self.timer.sleep(self.fleet.scaling.decide_interval.get());
                    tokio::select! {
                        () = stop.cancelled() => {}
                        changed = self.leadership.changed() => if changed.is_err() {
                            // Nobody is elected any more: the channel of a fleet without election ends at once.
                            (&mut look_again).await;
                        },
                        () = &mut look_again => {}
                    }
                }
            }
        }
        Ended::Stopped
    }

    /// Whether there is an election: the channel of a fleet without one has nobody at its other end.
    pub(super) fn is_elected(&self) -> bool {
        self.leadership.has_changed().is_ok()
    }

    /// Without an election (`observe` outside Kubernetes) every worker holds a term: the first of those that live speaks for all.
    fn speaks(&self) -> bool {
        self.is_elected() || self.view.live().first().is_some_and(|first| first.report.worker == self.view.identity().name)
    }

    /// Is ready when another speaks: two workers must not show two numbers of wanted workers for as long as a turn takes to come.
    async fn falls_silent(&self) {
        while self.speaks() {
            self.timer.sleep(SILENT_WITHIN).await;
        }
    }

    /// Leads while the term lasts; returns why it should not be this worker that leads, where that is so.
    async fn lead(&mut self, term: Term, stop: &CancellationToken) -> Option<String> {
        let page = match LeaderPage::new() {
            Ok(page) => Arc::new(page),
            Err(error) => {
                tracing::error!(%error, "no gauges for a leader, so none is made");
                self.timer.sleep(self.fleet.scaling.decide_interval.get()).await;
                return None;
            }
        };
        *self.page.lock() = Some(page.clone());
        let measurer = Arc::new(Mutex::new(Measurer::new(self.fleet.clone(), self.timer.clone() as Arc<dyn crate::flow::Clock>)));
        let mut lead = Lead::new(term, measurer, page);
        let mut deaf = Deaf::default();
        let mut unfit = None;
        let mut leadership = self.leadership.clone();
        while lead.term.is_valid() && self.speaks() {
            let next = self.timer.sleep(self.fleet.scaling.decide_interval.get());
            tokio::select! {
                biased;
                // Dropped where it stands when the term is over: a resize on its way is bounded by its own fence. A stop waits for its
                // answer.
                () = over(&mut leadership) => break,
                () = self.turn(&mut lead, stop) => {}
            }
            unfit = deaf.note(self.timer.now_monotonic(), self.view.hearing());
            // Where nobody is elected, there is nothing to let go of.
            if unfit.is_some() && self.is_elected() {
                break;
            }
            unfit = None;
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = over(&mut leadership) => break,
                () = self.falls_silent() => break,
                () = next => {}
            }
        }
        *self.page.lock() = None;
        if stop.is_cancelled() && lead.term.is_valid() {
            self.remember(&mut lead).await;
        }
        unfit
    }
}

/// Is ready when this worker's term is over, as far as the election says. A channel that ended says nothing any more.
async fn over(leadership: &mut watch::Receiver<Leadership>) {
    let ended = leadership.wait_for(|leadership| leadership.term().is_none()).await.is_err();
    if ended {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_that_hears_poorly_for_a_minute_is_unfit() {
        let mut deaf = Deaf::default();
        let poor = |why: &str| Hearing::Poor(why.to_owned());
        let at = Duration::from_secs;
        assert_eq!(deaf.note(at(0), poor("no topics")), None);
        assert_eq!(deaf.note(at(50), Hearing::Clear), None);
        assert_eq!(deaf.note(at(55), poor("no topics")), None);
        assert_eq!(deaf.note(at(114), poor("no own reports")), None, "another reason, the same silence");
        assert_eq!(deaf.note(at(115), poor("no own reports")), Some("no own reports".to_owned()));
    }
}
