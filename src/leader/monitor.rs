//! The leader's loop: measure, decide, say so, resize. Runs on every worker; does something only where that worker leads.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::assemble::{Coverage, Look, ready, remarks, written_down};
use super::measure::Measurer;
use super::memory::{Timeline, left_for_next};
use super::replicas::Replicas;
use super::resize::{Resized, resize};
use super::term::{Leadership, Term};
use super::timer::Timer;
use crate::config::{ConnectorConfig, FleetConfig};
use crate::fleet::{ConnectorMeasure, Decided, Exchange, FleetMeasure, FleetView, Hearing, LiveWorker, Note, PublishedDecision, VERSION};
use crate::scaling::{Action, Decision, Memory, Tuning, at_least, decide_with};
use crate::telemetry::leader_page::{LeaderPage, PartitionGauges};
use crate::telemetry::metrics;

/// Reading the number of workers.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the memory is left for whoever leads next.
const REMEMBER_EVERY: Duration = Duration::from_secs(60);

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
    /// What is resized; `None` where decisions are only said.
    pub replicas: Option<Arc<dyn Replicas>>,
    /// The gauges, there while this worker leads.
    pub page: Arc<Mutex<Option<Arc<LeaderPage>>>>,
    /// What time it is.
    pub timer: Arc<dyn Timer>,
}

/// One term's state.
struct Lead {
    term: Term,
    measurer: Arc<Mutex<Measurer>>,
    coverage: Coverage,
    /// What was learnt, and the time that it counts in. `None` until the fleet's topics have been read: what the last leader left stands there.
    learnt: Option<(Memory, Timeline)>,
    page: Arc<LeaderPage>,
    said: bool,
    /// Done before the fleet's topics were heard, and not published yet.
    unsaid: Option<Decided>,
    remembered_at: Option<Duration>,
    deaf: Deaf,
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
    /// Runs until `stop`, or until this worker is elected and has heard its fleet poorly for a minute. Nothing is decided any more once it has
    /// returned.
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

    /// Without an election (`observe` outside Kubernetes) every worker holds a term: the first of those that live speaks for all.
    fn speaks(&self) -> bool {
        // Such a fleet's channel has nobody at its other end.
        let elected = self.leadership.has_changed().is_ok();
        elected || self.view.live().first().is_some_and(|first| first.report.worker == self.view.identity().name)
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
        let (coverage, deaf) = (Coverage::default(), Deaf::default());
        let mut lead = Lead { term, measurer, coverage, learnt: None, page, said: false, unsaid: None, remembered_at: None, deaf };
        let mut unfit = None;
        let mut leadership = self.leadership.clone();
        while lead.term.is_valid() && self.speaks() {
            let next = self.timer.sleep(self.fleet.scaling.decide_interval.get());
            tokio::select! {
                biased;
                // Dropped where it stands when the term is over: a resize on its way is bounded by its own fence. A stop waits for its answer.
                () = over(&mut leadership) => break,
                () = self.turn(&mut lead, stop) => {}
            }
            unfit = lead.deaf.note(self.timer.now_monotonic(), self.view.hearing());
            // Where nobody is elected, there is nothing to let go of.
            if unfit.is_some() && self.leadership.has_changed().is_ok() {
                break;
            }
            unfit = None;
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = over(&mut leadership) => break,
                () = next => {}
            }
        }
        *self.page.lock() = None;
        if stop.is_cancelled() && lead.term.is_valid() {
            self.remember(&mut lead).await;
        }
        unfit
    }

    /// One look and one decision.
    async fn turn(&self, lead: &mut Lead, stop: &CancellationToken) {
        let configs = (self.connectors)();
        let runs = |config: &&Arc<ConnectorConfig>| !matches!(self.view.desired_state(&config.name).as_deref(), Some("paused" | "stopped"));
        let running: Arc<Vec<Arc<ConnectorConfig>>> = Arc::new(configs.iter().filter(runs).cloned().collect());
        let live = Arc::new(self.view.live());
        let (measurer, asked, told) = (lead.measurer.clone(), running.clone(), live.clone());
        let looked = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            looked = tokio::task::spawn_blocking(move || measurer.lock().look(&asked, &told)) => looked,
        };
        let measures = match looked {
            Ok(measures) => measures,
            Err(error) => {
                tracing::error!(%error, "measuring the fleet panicked");
                return;
            }
        };
        self.show(lead, &measures, &live);
        let mut remarks = remarks(&measures);
        let decided = match self.decide(lead, &running, &measures, &live, stop).await {
            Ok(decided) => Some(decided),
            Err(why) => {
                metrics::decided("none");
                remarks.insert(0, format!("nothing is decided: {why}"));
                None
            }
        };
        let scaling = &self.fleet.scaling;
        let measure = FleetMeasure {
            v: VERSION,
            leader: self.view.identity().name.clone(),
            term: lead.term.number(),
            at_ms: self.timer.now_wall_us() / 1000,
            interval_ms: millis(scaling.decide_interval.get()),
            window_ms: millis(scaling.rate_window()),
            connectors: measures,
            remarks,
            decided,
        };
        if let Err(error) = self.exchange.report(&format!("{}/measure", measure.leader), &Note::Measure(measure)).await {
            tracing::debug!(%error, "the leader's measure was not sent");
        }
        let due = lead.remembered_at.is_none_or(|at| self.timer.now_monotonic().saturating_sub(at) >= REMEMBER_EVERY);
        if due {
            self.remember(lead).await;
        }
    }

    /// Decides and acts; the reason why nothing may be decided otherwise.
    async fn decide(
        &self,
        lead: &mut Lead,
        running: &[Arc<ConnectorConfig>],
        measures: &[ConnectorMeasure],
        live: &[LiveWorker],
        stop: &CancellationToken,
    ) -> Result<Decided, String> {
        let replicas = match &self.replicas {
            None => u32::try_from(live.len()).unwrap_or(u32::MAX),
            Some(replicas) => {
                replicas.read(READ_TIMEOUT).await.map_err(|error| format!("the number of workers cannot be read: {error}"))?.replicas
            }
        };
        if let Hearing::Poor(why) = self.view.hearing() {
            // The least that is allowed needs no hearing. It is published as soon as the topics are heard, for only then its number is known.
            let Some(least) = self.replicas.as_ref().and_then(|_| at_least(replicas, self.fleet.scaling.min)) else { return Err(why) };
            metrics::decided("up");
            let mut unsaid = written_down(&least, replicas, live)?;
            unsaid.outcome = self.act(lead, replicas, &least).await;
            let said = format!("{why}; {}: {}", unsaid.reason, unsaid.outcome);
            lead.unsaid = Some(unsaid);
            return Err(said);
        }
        if let Some(unsaid) = &lead.unsaid {
            self.publish(lead, unsaid).await.map_err(|error| format!("the raise to the least could not be published: {error}"))?;
            (lead.unsaid, lead.said) = (None, true);
            return Err("the raise to the least was published first".to_owned());
        }
        let (memory, timeline) = lead.learnt.get_or_insert_with(|| Timeline::continued(&self.view, &*self.timer));
        let look = Look {
            now_ms: timeline.now_ms(&*self.timer),
            replicas,
            scaling: &self.fleet.scaling,
            connectors: running,
            kafka: &self.fleet.kafka,
            live,
            measures,
        };
        let snapshot = look.snapshot(&mut lead.coverage);
        let tuning = Tuning::shrinking_within(self.fleet.scaling.scale_down_window.get().as_secs_f64());
        let decision = decide_with(&snapshot, memory, &tuning);
        metrics::decided(match decision.action {
            Action::Hold => "hold",
            Action::Up => "up",
            Action::Down => "down",
        });
        lead.page.desired(decision.replicas);
        if let Some(cost) = &decision.cost_per_hour {
            lead.page.cost_per_hour("now", cost.now);
            lead.page.cost_per_hour("chosen", cost.chosen);
            lead.page.cost_per_hour("one_per_partition", cost.one_per_partition);
        }
        let mut decided = written_down(&decision, replicas, live)?;
        // What the fleet does is said first, where it matters: a resize of which nobody knows why is worse than one a turn later.
        if decision.replicas != replicas || !lead.said {
            self.publish(lead, &decided).await.map_err(|error| format!("the decision could not be published: {error}"))?;
            lead.said = true;
        }
        if stop.is_cancelled() {
            return Err("this worker was told to stop".to_owned());
        }
        decided.outcome = self.act(lead, replicas, &decision).await;
        Ok(decided)
    }

    async fn publish(&self, lead: &Lead, decided: &Decided) -> Result<(), crate::kafka::KafkaError> {
        let number = self.view.last_decision().map_or(0, |last| last.number + 1);
        let published = PublishedDecision {
            v: VERSION,
            term: lead.term.number(),
            number,
            at_ms: self.timer.now_wall_us() / 1000,
            leader: self.view.identity().name.clone(),
            replicas_before: decided.replicas_before,
            replicas: decided.replicas,
            reason: decided.reason.clone(),
            decision: decided.decision.clone(),
        };
        self.exchange.publish(&published).await
    }

    /// Resizes through the one way there is, and says what became of it.
    async fn act(&self, lead: &Lead, replicas: u32, decision: &Decision) -> String {
        if decision.replicas == replicas {
            return "nothing to do".to_owned();
        }
        let Some(scale) = &self.replicas else { return "only said".to_owned() };
        let (outcome, words) = match resize(&**scale, &lead.term, &*self.timer, replicas, decision.replicas).await {
            Resized::Done { from, to } => {
                tracing::info!(from, to, reason = decision.reason, "the fleet is resized");
                ("done", format!("asked for {to}"))
            }
            Resized::Unchanged => ("unchanged", "was there already".to_owned()),
            Resized::Moved { found } => ("moved", format!("not done: somebody asked for {found} meanwhile")),
            Resized::NotLeader => ("not_leader", "not done: the term is over".to_owned()),
            Resized::Failed(error) => {
                tracing::warn!(%error, wanted = decision.replicas, "the fleet could not be resized; the next decision tries again");
                ("failed", format!("not done: {error}"))
            }
        };
        metrics::resized(outcome);
        words
    }

    async fn remember(&self, lead: &mut Lead) {
        let Some((memory, timeline)) = &lead.learnt else { return };
        let Some(memory) = left_for_next(memory, lead.term.number(), timeline.now_ms(&*self.timer)) else { return };
        lead.remembered_at = Some(self.timer.now_monotonic());
        if let Err(error) = self.exchange.remember(&memory).await {
            tracing::debug!(%error, "the leader's memory was not written down");
        }
    }

    fn show(&self, lead: &Lead, measures: &[ConnectorMeasure], live: &[LiveWorker]) {
        lead.page.workers(ready(live), self.view.stale());
        for measure in measures {
            for partition in &measure.partitions {
                let gauges = PartitionGauges {
                    lag_records: partition.lag_records.map(|lag| lag as f64),
                    lag_bytes: partition.lag_bytes,
                    lag_seconds: partition.lag_ms.map(|ms| ms as f64 / 1000.0),
                    produced_records_per_s: partition.produced_records_per_s,
                    produced_bytes_per_s: partition.produced_bytes_per_s,
                    consumed_records_per_s: partition.consumed_records_per_s,
                    consumed_bytes_per_s: partition.consumed_bytes_per_s,
                    bytes_per_record: partition.bytes_per_record,
                };
                lead.page.partition(&measure.connector, &partition.topic, partition.partition, &gauges);
            }
        }
    }
}

/// Is ready when this worker's term is over, as far as the election says. A channel that ended says nothing any more.
async fn over(leadership: &mut watch::Receiver<Leadership>) {
    let ended = leadership.wait_for(|leadership| leadership.term().is_none()).await.is_err();
    if ended {
        std::future::pending::<()>().await;
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
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
