//! The end of a demo: stop the workers, read everything back, judge.

use std::time::Duration;

use anyhow::{Result, anyhow};

use super::exact::Takeovers;
use super::flows::FLOWS;
use super::kills::rows_at_risk;
use super::reconcile::{Verdict, reconcile};
use super::report::{Percentiles, Report};
use super::run::Demo;
use crate::cli::Exit;

/// For how long after its death a worker's last appends may land (see [`rows_at_risk`]): less than the group takes to give its
/// partitions to another.
const SETTLE_MS: i64 = 2_500;
/// How long the workers may take to stop.
const STOP_LIMIT: Duration = Duration::from_secs(30);

impl Demo<'_> {
    /// Stops the workers and reconciles. `seconds`: for how long records were produced.
    pub(super) async fn finish(&mut self, seconds: f64) -> Result<(Report, Exit)> {
        self.picture.phase = "reconciling";
        self.tick().await?;
        let possible = self.past_possible_duplicates + self.numbers.iter().map(|n| n.possible_duplicates).sum::<u64>();
        let stop_complaints = tokio::task::block_in_place(|| self.fleet.terminate(STOP_LIMIT));
        self.complaints.extend(stop_complaints);
        self.complaints.append(&mut self.fleet.crashes);
        let letters = self.letters.take().ok_or_else(|| anyhow!("dead letters were read already"))?;
        let (letters, unreadable) = tokio::task::block_in_place(|| letters.finish(Duration::from_secs(20)))?;
        self.complaints.extend(unreadable.into_iter().take(10).map(|u| format!("dead letter {u}")));
        let rows = tokio::task::block_in_place(|| self.landing.finish());
        self.complaints.extend(self.landing.unreadable().map(|u| format!("unreadable row: {u}")));
        let mut verdict = Verdict::default();
        if self.args.is_exact() && possible > 0 {
            self.complaints.push(format!("exactly once, and {possible} rows are said to be possible duplicates"));
        }
        let mut bound = if self.args.is_exact() { 0 } else { possible };
        for (number, (flow, flow_rows)) in FLOWS.iter().zip(rows).enumerate() {
            if !self.args.is_exact() {
                bound += rows_at_risk(number, &flow_rows, &self.kills, SETTLE_MS);
                bound += rows_at_risk(number, &flow_rows, &self.refused_departures, SETTLE_MS);
            }
            let journal = &self.journals[number];
            let entries: Vec<_> = (0..journal.partitions()).map(|p| journal.partition(p)).collect();
            verdict.add(reconcile(flow.topic, &entries, flow_rows, &letters[number]));
        }
        if let Some(failure) = self.journals.iter().find_map(|j| j.last_failure()) {
            self.event(&format!("a record was not acknowledged: {failure}"));
        }
        let takeovers = self.args.is_exact().then(|| Takeovers::in_logs(self.fleet.folder())).map(|(takeovers, unreadable)| {
            self.complaints.extend(unreadable);
            takeovers
        });
        let (p50, p99) = self.landing.freshness();
        let report = Report {
            verdict: "",
            produced: 0,
            durable_distinct: 0,
            duplicates: 0,
            duplicates_bound: bound,
            missing: 0,
            wrong_content: 0,
            unexpected_rows: 0,
            bad_records: 0,
            dead_letters: 0,
            duplicate_dead_letters: 0,
            missing_dead_letters: 0,
            wrong_dead_letters: 0,
            unacknowledged: self.journals.iter().map(|j| j.failed()).sum(),
            freshness_ms: Percentiles { p50, p99 },
            workers: self.alive,
            takeovers,
            landed_takeovers_asked: self.args.landed_takeovers(),
            kills: self.kills.len() as u64,
            leader_kills: self.leader_kills,
            departures: self.departures,
            refused_departures: self.refused_departures.len() as u64,
            terms: self.fleet_view.terms(),
            decisions: self.fleet_view.resizes().cloned().collect(),
            worker_seconds: tenths(self.meter.worker_seconds()),
            worker_seconds_one_per_partition: tenths(self.meter.one_per_partition()),
            faults: self.fired(),
            brakes: self.brake.times(),
            seed: self.args.seed,
            seconds,
            complaints: std::mem::take(&mut self.complaints),
        };
        Ok(report.decide(verdict))
    }
}

/// Rounded to a tenth: more would be noise.
fn tenths(seconds: f64) -> f64 {
    (seconds * 10.0).round() / 10.0
}
