//! One turn of a leader: measure, decide, say so, resize.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::announce::Announcer;
use super::assemble::{Coverage, Look, ready, remarks, waiting, written_down};
use super::joins::JoinHolds;
use super::measure::Measurer;
use super::memory::{Timeline, left_for_next};
use super::monitor::Monitor;
use super::resize::{Resized, resize};
use super::sizing::{Sizing, Wish};
use super::term::Term;
use crate::config::ConnectorConfig;
use crate::fleet::{ConnectorMeasure, Decided, FleetMeasure, Hearing, LeaderMemory, LiveWorker, Note, PublishedDecision, VERSION};
use crate::scaling::{Action, Decision, Memory, Tuning, at_least, decide_with};
use crate::telemetry::leader_page::{LeaderPage, PartitionGauges};
use crate::telemetry::outcomes;
use crate::telemetry::panics::join_words;
use crate::watchdog::{self, Beat};

/// Reading the number of workers.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the memory is left for whoever leads next, at least. It tells since when workers are missing, so that the next leader must not
/// take one that came and crashed meanwhile for one that never started: the time is short beside `startup_deadline`.
const REMEMBER_EVERY: Duration = Duration::from_secs(60);
/// The share of `startup_deadline`.
const DEADLINES_PART: u32 = 4;

/// One term's state.
pub(super) struct Lead {
    pub term: Term,
    measurer: Arc<Mutex<Measurer>>,
    coverage: Coverage,
    /// What was learnt, and the time that it counts in. `None` until the fleet's topics have been read: what the last leader left stands
    /// there.
    learnt: Option<(Memory, Timeline)>,
    page: Arc<LeaderPage>,
    pub(super) announcer: Announcer,
    pub(super) joins: JoinHolds,
    wish: Wish,
    remembered_at: Option<Duration>,
    /// What was last left out of the memory for the next leader.
    forgotten: Option<String>,
    beat: Arc<Beat>,
}

/// What a turn came to.
struct Outcome {
    /// As it is counted, once: `up`, `down`, `hold`, or `none` where nothing may be decided.
    kind: &'static str,
    decided: Option<Decided>,
    remarks: Vec<String>,
}

impl Lead {
    pub fn new(term: Term, measurer: Arc<Mutex<Measurer>>, page: Arc<LeaderPage>) -> Self {
        let beat = Arc::new(watchdog::watch("the leader's loop"));
        beat.idle();
        Self {
            beat,
            term,
            measurer,
            coverage: Coverage::default(),
            learnt: None,
            page,
            announcer: Announcer::default(),
            joins: JoinHolds::default(),
            wish: Wish::default(),
            remembered_at: None,
            forgotten: None,
        }
    }
}

impl Monitor {
    /// One look and one decision.
    pub(super) async fn turn(&self, lead: &mut Lead, stop: &CancellationToken) {
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
                tracing::error!(error = join_words(error), "measuring the fleet panicked");
                return;
            }
        };
        let beat = lead.beat.clone();
        let _step = beat.long_step("a decision and its resize");
        self.show(lead, &measures, &live);
        let outcome = self.decide(lead, &running, &measures, &live, stop).await.unwrap_or_else(|why| Outcome {
            kind: "none",
            decided: None,
            remarks: vec![format!("nothing is decided: {why}")],
        });
        outcomes::decided(outcome.kind);
        let remarks = outcome.remarks.into_iter().chain(remarks(&measures)).collect();
        let scaling = &self.fleet.scaling;
        let measure = FleetMeasure {
            v: VERSION,
            fleet: scaling.fleet_id.clone(),
            leader: self.view.identity().name.clone(),
            term: lead.announcer.known_term().unwrap_or_else(|| lead.term.number()),
            at_ms: self.timer.now_wall_us() / 1000,
            interval_ms: millis(scaling.decide_interval.get()),
            window_ms: millis(scaling.rate_window()),
            connectors: measures,
            remarks,
            decided: outcome.decided,
        };
        if let Err(error) = self.exchange.report(&format!("{}/measure", measure.leader), &Note::Measure(measure)).await {
            tracing::debug!(%error, "the leader's measure was not sent");
        }
        let every = REMEMBER_EVERY.min(scaling.startup_deadline.get() / DEADLINES_PART);
        let due = lead.remembered_at.is_none_or(|at| self.timer.now_monotonic().saturating_sub(at) >= every);
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
    ) -> Result<Outcome, String> {
        let asked = match &self.sizing {
            Sizing::Says(_) => None,
            Sizing::Sets(replicas) => {
                let scale = replicas.read(READ_TIMEOUT).await;
                Some(scale.map_err(|error| format!("the number of workers cannot be read: {error}"))?.replicas)
            }
        };
        if let Hearing::Poor(why) = self.view.hearing() {
            // The least that is allowed needs no hearing. It is published as soon as the topics are heard, for only then its number is
            // known.
            let raise = asked.and_then(|asked| Some((asked, at_least(asked, self.fleet.scaling.min)?)));
            let Some((asked, least)) = raise else { return Err(why) };
            let mut decided = written_down(&least, asked, live)?;
            lead.announcer.note(self.timer.now_monotonic(), least.action, &decided, self.timer.now_wall_us() / 1000);
            decided.outcome = self.act(lead, asked, &least).await;
            let remarks = vec![format!("nothing else is decided: {why}")];
            return Ok(Outcome { kind: "up", decided: Some(decided), remarks });
        }
        if lead.learnt.is_none() {
            lead.learnt = Some(Timeline::continued(&self.view, &*self.timer));
            lead.announcer.term(lead.term.number(), self.view.last_term());
        }
        let mut remarks = Vec::new();
        let replicas = match asked {
            Some(asked) => asked,
            None => self.wished(lead, live, &mut remarks).await,
        };
        let Some((memory, timeline)) = &mut lead.learnt else { return Err("the last leader's memory was not read".to_owned()) };
        let look = Look {
            now_ms: timeline.now_ms(&*self.timer),
            replicas,
            scaling: &self.fleet.scaling,
            connectors: running,
            kafka: &self.fleet.kafka,
            live,
            follows_holds: self.is_elected(),
            measures,
        };
        let snapshot = look.snapshot(&mut lead.coverage);
        let tuning = Tuning::shrinking_within(self.fleet.scaling.scale_down_window.get().as_secs_f64());
        let decision = decide_with(&snapshot, memory, &tuning);
        let kind = match decision.action {
            Action::Hold => "hold",
            Action::Up => "up",
            Action::Down => "down",
        };
        lead.page.desired(decision.replicas);
        if let Some(cost) = &decision.cost_per_hour {
            lead.page.cost_per_hour("now", cost.now);
            lead.page.cost_per_hour("chosen", cost.chosen);
            lead.page.cost_per_hour("one_per_partition", cost.one_per_partition);
        }
        let mut decided = written_down(&decision, replicas, live)?;
        lead.announcer.note(self.timer.now_monotonic(), decision.action, &decided, self.timer.now_wall_us() / 1000);
        if let Err(why) = self.publish(lead).await {
            remarks.push(format!("decisions are not published, and made all the same: {why}"));
        } else {
            // Before the fleet is resized: those that are asked for now read it when they start.
            remarks.extend(self.say_joins(lead, &decision, replicas, ready(live)).await.err());
        }
        decided.outcome =
            if stop.is_cancelled() { "not done: this worker stops".to_owned() } else { self.act(lead, replicas, &decision).await };
        Ok(Outcome { kind, decided: Some(decided), remarks })
    }

    /// How many workers were wanted before this decision, where somebody else resizes: see [`Wish`]. It begins with what the last leader
    /// wanted, if that is not long ago, else with what is asked for, else with who is there.
    async fn wished(&self, lead: &mut Lead, live: &[LiveWorker], remarks: &mut Vec<String>) -> u32 {
        let asked = match &self.sizing {
            Sizing::Sets(replicas) | Sizing::Says(Some(replicas)) => match replicas.read(READ_TIMEOUT).await {
                Ok(scale) => Some(scale.replicas),
                Err(error) => {
                    tracing::debug!(%error, "how many workers are asked for is not known");
                    None
                }
            },
            Sizing::Says(None) => None,
        };
        let actual = asked.unwrap_or_else(|| ready(live));
        let before = lead.learnt.as_ref().and_then(|(memory, _)| memory.replicas());
        // The memory is written now and then, decisions are newer.
        let before = before.map(|before| self.view.last_decision().map_or(before, |last| last.replicas));
        if lead.wish.is_known() {
            remarks.extend(lead.wish.remark(self.timer.now_monotonic(), actual));
        }
        lead.wish.or_begin_with(before.unwrap_or(actual))
    }

    /// Publishes what waits to be published.
    async fn publish(&self, lead: &mut Lead) -> Result<(), String> {
        while let Some(waiting) = lead.announcer.next(self.timer.now_monotonic())? {
            let number = lead.announcer.number(self.view.last_decision().as_deref());
            let decided = &waiting.decided;
            let published = PublishedDecision {
                v: VERSION,
                fleet: self.fleet.scaling.fleet_id.clone(),
                term: lead.announcer.known_term().unwrap_or_else(|| lead.term.number()),
                number,
                at_ms: waiting.at_ms,
                leader: self.view.identity().name.clone(),
                replicas_before: decided.replicas_before,
                replicas: decided.replicas,
                reason: decided.reason.clone(),
                decision: decided.decision.clone(),
            };
            match self.exchange.publish(&published).await {
                Ok(()) => lead.announcer.published(number),
                Err(error) => {
                    if lead.announcer.failed(self.timer.now_monotonic(), error.to_string()) {
                        tracing::warn!(%error, "a decision could not be published: it is tried again, and done all the same");
                    }
                }
            }
        }
        Ok(())
    }

    /// Resizes through the one way there is, and says what became of it.
    async fn act(&self, lead: &mut Lead, replicas: u32, decision: &Decision) -> String {
        if decision.replicas == replicas {
            return "nothing to do".to_owned();
        }
        let scale = match &self.sizing {
            Sizing::Sets(scale) => scale,
            Sizing::Says(_) => {
                lead.wish.decided(decision.replicas);
                return "only said".to_owned();
            }
        };
        let (outcome, words) = match resize(&**scale, &lead.term, &*self.timer, replicas, decision.replicas).await {
            Resized::Done { from, to } => {
                lead.announcer.done();
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
        outcomes::resized(outcome);
        words
    }

    pub(super) async fn remember(&self, lead: &mut Lead) {
        let Some((memory, timeline)) = &lead.learnt else { return };
        let now_ms = timeline.now_ms(&*self.timer);
        let term = lead.announcer.known_term().unwrap_or_else(|| lead.term.number());
        let left = left_for_next(memory);
        lead.page.memory_left(left.bytes, left.forgotten.is_some());
        if let Some(forgotten) = left.forgotten.as_ref().filter(|now| lead.forgotten.as_ref() != Some(now)) {
            tracing::warn!(forgotten, "what this leader learnt is too large for the state topic: the next one will not know all of it");
        }
        lead.forgotten = left.forgotten;
        lead.remembered_at = Some(self.timer.now_monotonic());
        let Some(memory) = left.memory else { return };
        let note = LeaderMemory {
            v: VERSION,
            fleet: self.fleet.scaling.fleet_id.clone(),
            term,
            now_ms,
            at_ms: Some(self.timer.now_wall_us() / 1000),
            memory,
        };
        if let Err(error) = self.exchange.remember(&note).await {
            tracing::debug!(%error, "the leader's memory was not written down");
        }
    }

    fn show(&self, lead: &Lead, measures: &[ConnectorMeasure], live: &[LiveWorker]) {
        lead.page.workers(ready(live), waiting(live), self.view.stale());
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

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
