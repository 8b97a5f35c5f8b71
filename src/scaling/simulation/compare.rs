//! Policies side by side over many cases.

use serde::Serialize;

use super::clairvoyant::plan;
use super::prompt::prompt;
use super::run::{Outcome, Policy, run};
use super::variety::Case;

/// A policy's figures over the cases of one class.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Who decided.
    pub policy: String,
    /// The shape's name, or a summary: `all without faults`, `all with faults`.
    pub class: String,
    /// How many cases.
    pub cases: usize,
    /// Worker-hours over the clairvoyant's: mean and worst.
    pub worker_hours_ratio: Figure,
    /// Worker-hours over those of one worker for each partition: mean and worst.
    pub of_one_per_partition: Figure,
    /// Records late beyond the unavoidable, percent of all: mean and worst. Unavoidable is what is late with one worker for each partition all the time.
    /// Not known of the clairvoyant: a plan in a model without noise is never run.
    pub late_percent: Option<Figure>,
    /// The same beyond what is late too with [`prompt`](super::prompt()), the fleet that asks for the best number at once when the load has risen.
    pub late_percent_beyond_prompt: Option<Figure>,
    /// In how many of the cases [`late_percent`](Self::late_percent) is over 0.5.
    pub cases_over_half_percent: Option<usize>,
    /// In how many [`late_percent_beyond_prompt`](Self::late_percent_beyond_prompt) is.
    pub cases_over_half_percent_beyond_prompt: Option<usize>,
    /// Resizes an hour: mean and worst.
    pub resizes_per_hour: Figure,
    /// The largest lag in seconds: mean and worst.
    pub lag_s: Option<Figure>,
}

/// A figure over several cases.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Figure {
    /// The mean over the cases.
    pub mean: f64,
    /// The largest.
    pub worst: f64,
}

impl Figure {
    fn of(values: impl Iterator<Item = f64> + Clone) -> Self {
        let count = values.clone().count().max(1) as f64;
        Self { mean: values.clone().sum::<f64>() / count, worst: values.fold(0.0, f64::max) }
    }
}

/// What one policy made of one case.
#[derive(Debug, Clone, Copy)]
struct Score {
    ratio: f64,
    of_all: f64,
    late: Option<f64>,
    beyond_prompt: Option<f64>,
    resizes: f64,
    lag: Option<f64>,
}

/// Runs every policy on every case; the last rows of each policy sum up the classes without and with faults. A clairvoyant's row comes last for each class.
pub fn compare(cases: &[Case], policies: &[Policy]) -> Vec<Row> {
    let names: Vec<String> = policies.iter().map(Policy::name).chain(["clairvoyant".to_owned()]).collect();
    let mut scores: Vec<Vec<Score>> = vec![Vec::with_capacity(cases.len()); names.len()];
    for case in cases {
        let best = plan(&case.setting, &case.trace);
        let most = run(&case.setting, &case.trace, &Policy::OnePerPartition);
        let hours = best.worker_s.max(1.0);
        let unavoidable = most.late_records.max(prompt(&case.setting, &case.trace).map_or(0.0, |p| p.late_records)) / most.records.max(1.0);
        for (i, policy) in policies.iter().enumerate() {
            let outcome = if matches!(policy, Policy::OnePerPartition) { most.clone() } else { run(&case.setting, &case.trace, policy) };
            scores[i].push(score(&outcome, &most, hours, unavoidable));
        }
        let resizes = f64::from(best.resizes) * 3600.0 / case.trace.load.len().max(1) as f64;
        scores[policies.len()].push(Score {
            ratio: 1.0,
            of_all: hours / most.worker_s.max(1.0),
            late: None,
            beyond_prompt: None,
            resizes,
            lag: None,
        });
    }
    let mut classes: Vec<&str> = Vec::new();
    cases.iter().for_each(|c| {
        if !classes.contains(&c.class.as_str()) {
            classes.push(&c.class)
        }
    });
    let mut rows = Vec::new();
    for (i, name) in names.iter().enumerate() {
        let mut row = |class: &str, of: &dyn Fn(&Case) -> bool| {
            let chosen: Vec<Score> = cases.iter().zip(&scores[i]).filter(|(c, _)| of(c)).map(|(_, s)| *s).collect();
            if !chosen.is_empty() {
                rows.push(summed(name, class, &chosen));
            }
        };
        for class in &classes {
            row(class, &|c| c.class == *class);
        }
        if classes.len() > 1 {
            row("all without faults", &|c| !c.faulty);
            row("all with faults", &|c| c.faulty);
        }
    }
    rows
}

fn score(outcome: &Outcome, most: &Outcome, clairvoyant_s: f64, unavoidable: f64) -> Score {
    let beyond = |share: f64| Some((outcome.late_share() - share).max(0.0) * 100.0);
    Score {
        ratio: outcome.worker_s / clairvoyant_s,
        of_all: outcome.worker_s / most.worker_s.max(1.0),
        late: beyond(most.late_share()),
        beyond_prompt: beyond(unavoidable),
        resizes: outcome.resizes_per_hour(),
        lag: Some(outcome.worst_lag_s as f64),
    }
}

fn summed(policy: &str, class: &str, scores: &[Score]) -> Row {
    let figure = |of: fn(&Score) -> f64| Figure::of(scores.iter().map(of));
    let all = |of: fn(&Score) -> Option<f64>| scores.iter().map(of).collect::<Option<Vec<f64>>>();
    let known = |of| all(of).map(|values| Figure::of(values.into_iter()));
    let over = |of| all(of).map(|values| values.into_iter().filter(|late| *late > 0.5).count());
    Row {
        policy: policy.to_owned(),
        class: class.to_owned(),
        cases: scores.len(),
        worker_hours_ratio: figure(|s| s.ratio),
        of_one_per_partition: figure(|s| s.of_all),
        late_percent: known(|s| s.late),
        late_percent_beyond_prompt: known(|s| s.beyond_prompt),
        cases_over_half_percent: over(|s| s.late),
        cases_over_half_percent_beyond_prompt: over(|s| s.beyond_prompt),
        resizes_per_hour: figure(|s| s.resizes),
        lag_s: known(|s| s.lag),
    }
}
