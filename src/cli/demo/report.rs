//! The demo's result: in words, and as one JSON object.

use std::collections::BTreeMap;

use serde::Serialize;

use super::decisions::DecisionLine;
use super::exact::{LANDED_TAKEOVERS, Takeovers};
use super::reconcile::Verdict;
use crate::cli::Exit;
use crate::cli::stdout::say;

/// Everything that the demo found out. Its JSON form is the last line of `--report json`.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Report {
    /// `complete`, `failed` or `inconclusive`.
    pub(super) verdict: &'static str,
    pub(super) produced: u64,
    pub(super) durable_distinct: u64,
    pub(super) duplicates: u64,
    /// Rows landed above the committed offset at each kill, plus `possible_duplicate_rows_total`.
    pub(super) duplicates_bound: u64,
    pub(super) missing: u64,
    pub(super) wrong_content: u64,
    pub(super) unexpected_rows: u64,
    pub(super) bad_records: u64,
    pub(super) dead_letters: u64,
    pub(super) duplicate_dead_letters: u64,
    pub(super) missing_dead_letters: u64,
    pub(super) wrong_dead_letters: u64,
    pub(super) unacknowledged: u64,
    pub(super) freshness_ms: Percentiles,
    pub(super) workers: Workers,
    /// With `--guarantee exactly-once`.
    pub(super) takeovers: Option<Takeovers>,
    /// So many of them must have found landed appends.
    pub(super) landed_takeovers_asked: u64,
    pub(super) kills: u64,
    /// Of these, how many struck the leader of the fleet.
    pub(super) leader_kills: u64,
    /// Workers that were told to leave and did.
    pub(super) departures: u64,
    /// Of these, how many had their last commit refused: the embedded broker takes none in a rebalance.
    pub(super) refused_departures: u64,
    /// Leaders' terms in which decisions were published: more than one when a leader was killed, or left, and another decided.
    pub(super) terms: u64,
    /// Every resize that the leader decided.
    pub(super) decisions: Vec<DecisionLine>,
    /// Worker processes times seconds, from the first record to the last commit.
    pub(super) worker_seconds: f64,
    /// What one worker per partition would have taken in the same time.
    pub(super) worker_seconds_one_per_partition: f64,
    /// How often each class of fault with a rate above zero fired.
    pub(super) faults: BTreeMap<String, u64>,
    /// How often the generator was stopped because unread records would have fallen out of the broker.
    pub(super) brakes: u64,
    pub(super) seed: u64,
    pub(super) seconds: f64,
    /// What else went wrong, in words.
    pub(super) complaints: Vec<String>,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Percentiles {
    pub(super) p50: Option<u64>,
    pub(super) p99: Option<u64>,
}

/// Workers seen alive at the same time.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Workers {
    pub(super) min: usize,
    pub(super) max: usize,
}

impl Report {
    /// Puts the reconciliation's numbers in and decides.
    pub(super) fn decide(mut self, verdict: Verdict) -> (Self, Exit) {
        self.produced = verdict.produced;
        self.durable_distinct = verdict.durable_distinct;
        self.duplicates = verdict.duplicates;
        self.missing = verdict.missing;
        self.wrong_content = verdict.wrong_content;
        self.unexpected_rows = verdict.unexpected_rows;
        self.bad_records = verdict.produced - verdict.good;
        self.dead_letters = verdict.dead_letters;
        self.duplicate_dead_letters = verdict.duplicate_dead_letters;
        self.missing_dead_letters = verdict.missing_dead_letters;
        self.wrong_dead_letters = verdict.wrong_dead_letters;
        let complete = verdict.is_complete(self.unacknowledged);
        self.complaints.extend(verdict.examples);
        if self.duplicates > self.duplicates_bound {
            self.complaints.push(format!("{} duplicates exceed the bound of {}", self.duplicates, self.duplicates_bound));
            self.complaints.extend(verdict.doubled);
        }
        if self.produced == 0 {
            self.complaints.push("nothing was produced: nothing is proved".to_owned());
        }
        let fine = complete && self.duplicates <= self.duplicates_bound && self.produced > 0 && self.complaints.is_empty();
        let silent: Vec<&String> = self.faults.iter().filter(|(_, n)| **n == 0).map(|(f, _)| f).collect();
        let mut doubts = Vec::new();
        if !silent.is_empty() {
            doubts.push(format!("never fired, so that the run proves nothing about them: {silent:?}"));
        }
        let landed = self.takeovers.map_or(0, |takeovers| takeovers.with_landed_appends);
        if landed < self.landed_takeovers_asked {
            doubts.push(format!(
                "{landed} takeovers found landed appends, fewer than the {} that were asked for: the run proves little about them; let it run longer (--for)",
                self.landed_takeovers_asked
            ));
        }
        let exit = match (fine, doubts.is_empty()) {
            (false, _) => Exit::Failed,
            (true, true) => Exit::Fine,
            (true, false) => Exit::Inconclusive,
        };
        self.complaints.append(&mut doubts);
        self.verdict = match exit {
            Exit::Fine => "complete",
            Exit::Inconclusive => "inconclusive",
            Exit::Failed | Exit::Usage => "failed",
        };
        (self, exit)
    }

    fn print_bound(&self) {
        say!(
            "  duplicates        {:>10}   (bound {}: rows landed above the committed offset at each kill, plus those that",
            self.duplicates,
            self.duplicates_bound
        );
        say!("                                 the workers sent again without knowing)");
        // Kills have duplicates of their own.
        if self.duplicates > 0 && self.kills == 0 {
            say!(
                "                                 (the embedded broker refuses commits while partitions move; Apache Kafka takes them: README)"
            );
        }
    }

    /// For people.
    pub(super) fn print(&self) {
        say!("\nreconciliation, record by record:");
        say!("  produced          {:>10}   ({} bad on purpose, {} not acknowledged)", self.produced, self.bad_records, self.unacknowledged);
        say!("  durable, distinct {:>10}", self.durable_distinct);
        say!("  missing           {:>10}", self.missing);
        say!("  wrong content     {:>10}", self.wrong_content);
        say!("  unexpected rows   {:>10}", self.unexpected_rows);
        if let Some(takeovers) = self.takeovers {
            say!("  duplicates        {:>10}   (exactly once: none is allowed)", self.duplicates);
            say!(
                "  takeovers         {:>10}   ({} of them found landed appends, {} in all, that nobody had committed; asked for: {})",
                takeovers.all,
                takeovers.with_landed_appends,
                takeovers.landed_appends,
                self.landed_takeovers_asked
            );
            if self.landed_takeovers_asked < LANDED_TAKEOVERS {
                say!("                                 (a proof asks for {LANDED_TAKEOVERS} or more)");
            }
        } else {
            self.print_bound();
        }
        say!(
            "  dead letters      {:>10}   ({} missing, {} wrong, {} twice)",
            self.dead_letters,
            self.missing_dead_letters,
            self.wrong_dead_letters,
            self.duplicate_dead_letters
        );
        let ms = |p: Option<u64>| p.map_or_else(|| "-".to_owned(), |p| p.to_string());
        say!("  freshness         p50 {} ms, p99 {} ms", ms(self.freshness_ms.p50), ms(self.freshness_ms.p99));
        let leader = if self.leader_kills > 0 { format!(" ({} of the leader)", self.leader_kills) } else { String::new() };
        say!(
            "  workers           {} to {} alive, {} kills{leader}, {} drained and left",
            self.workers.min,
            self.workers.max,
            self.kills,
            self.departures
        );
        say!("  worker-seconds    {:.0}; one worker per partition: {:.0}", self.worker_seconds, self.worker_seconds_one_per_partition);
        for decision in &self.decisions {
            say!("  decision          {decision}");
        }
        for (fault, fired) in &self.faults {
            say!("  fault             {fired:>10} x {fault}");
        }
        for complaint in &self.complaints {
            say!("  ! {complaint}");
        }
        say!("verdict: {} (seed {})", self.verdict, self.seed);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    fn report(faults: &[(&str, u64)]) -> Report {
        Report {
            verdict: "",
            produced: 0,
            durable_distinct: 0,
            duplicates: 0,
            duplicates_bound: 3,
            missing: 0,
            wrong_content: 0,
            unexpected_rows: 0,
            bad_records: 0,
            dead_letters: 0,
            duplicate_dead_letters: 0,
            missing_dead_letters: 0,
            wrong_dead_letters: 0,
            unacknowledged: 0,
            freshness_ms: Percentiles { p50: Some(1), p99: None },
            workers: Workers { min: 1, max: 2 },
            takeovers: None,
            landed_takeovers_asked: 0,
            kills: 0,
            leader_kills: 0,
            departures: 0,
            refused_departures: 0,
            terms: 1,
            decisions: vec![DecisionLine { at_s: 1.0, from: 2, to: 4, leader: "worker-0".to_owned(), term: 1, reason: "more".to_owned() }],
            worker_seconds: 22.5,
            worker_seconds_one_per_partition: 84.0,
            faults: faults.iter().map(|(f, n)| ((*f).to_owned(), *n)).collect(),
            brakes: 0,
            seed: 1,
            seconds: 1.0,
            complaints: Vec::new(),
        }
    }

    fn verdict() -> Verdict {
        Verdict { produced: 10, good: 9, durable_distinct: 9, duplicates: 3, dead_letters: 1, ..Verdict::default() }
    }

    #[test]
    fn exit_codes_follow_the_findings() {
        assert_eq!(report(&[("a", 1)]).decide(verdict()).1, Exit::Fine);
        assert_eq!(report(&[("a", 1), ("b", 0)]).decide(verdict()).1, Exit::Inconclusive);
        assert_eq!(report(&[("b", 0)]).decide(Verdict { missing: 1, ..verdict() }).1, Exit::Failed);
        assert_eq!(report(&[]).decide(Verdict { duplicates: 4, ..verdict() }).1, Exit::Failed);
        assert_eq!(report(&[]).decide(Verdict { wrong_content: 1, ..verdict() }).1, Exit::Failed);
        assert_eq!(report(&[]).decide(Verdict { missing_dead_letters: 1, ..verdict() }).1, Exit::Failed);
        assert_eq!(report(&[]).decide(Verdict::default()).1, Exit::Failed, "an empty run proves nothing");
    }

    #[test]
    fn too_few_takeovers_that_matter_are_no_proof() {
        let judge = |with_landed_appends: u64, verdict: Verdict| {
            let takeovers = Some(Takeovers { all: 50, with_landed_appends, landed_appends: 60 });
            let report = Report { takeovers, landed_takeovers_asked: 20, ..report(&[]) };
            report.decide(verdict)
        };
        assert_eq!(judge(20, verdict()).1, Exit::Fine);
        let (few, exit) = judge(19, verdict());
        assert_eq!((exit, few.verdict), (Exit::Inconclusive, "inconclusive"));
        assert!(few.complaints.iter().any(|c| c.starts_with("19 takeovers found landed appends")), "{:?}", few.complaints);
        assert_eq!(judge(20, Verdict { duplicates: 4, ..verdict() }).1, Exit::Failed);
        assert_eq!(judge(19, Verdict { missing: 1, ..verdict() }).1, Exit::Failed);
    }

    #[test]
    fn the_json_has_what_the_readme_names() {
        let json = serde_json::to_value(report(&[]).decide(verdict()).0).unwrap();
        for key in ["produced", "durable_distinct", "duplicates", "missing", "dead_letters"] {
            assert!(json[key].is_u64(), "{key}");
        }
        assert_eq!(json["freshness_ms"]["p50"], 1);
        assert_eq!(json["workers"]["min"], 1);
        assert_eq!(
            json["decisions"][0],
            serde_json::json!({"at_s": 1.0, "from": 2, "to": 4, "leader": "worker-0", "term": 1, "reason": "more"})
        );
        assert_eq!((&json["worker_seconds"], &json["worker_seconds_one_per_partition"]), (&22.5.into(), &84.0.into()));
    }
}
