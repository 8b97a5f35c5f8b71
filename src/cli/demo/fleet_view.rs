//! What the fleet says of itself: `GET /fleet`, asked of any worker, as any client would.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Deserialize;

use super::decisions::DecisionLine;

/// The part of the answer that the demo shows.
#[derive(Debug, Default, Deserialize)]
struct Answer {
    leader: Option<Leader>,
    decided: Option<Decided>,
    #[serde(default)]
    decisions: Vec<Published>,
}

#[derive(Debug, Deserialize)]
struct Leader {
    worker: String,
    stale: bool,
}

#[derive(Debug, Deserialize)]
struct Decided {
    reason: String,
}

#[derive(Debug, Deserialize)]
struct Published {
    number: u64,
    at_ms: i64,
    replicas_before: u32,
    replicas: u32,
    leader: String,
    term: u64,
    reason: String,
}

/// What was heard from the fleet so far.
#[derive(Debug, Default)]
pub(super) struct FleetView {
    client: reqwest::Client,
    /// The number of the worker that leads; `None` while nobody does, or nobody knows.
    pub(super) leader: Option<usize>,
    /// Why the fleet has the size that it has, by the last decision.
    pub(super) stands: Option<String>,
    resizes: BTreeMap<u64, DecisionLine>,
    terms: BTreeSet<u64>,
}

impl FleetView {
    /// Asks the worker on this port. Without an answer nothing changes: `false`.
    pub(super) async fn ask(&mut self, port: u16, production_began_ms: i64) -> bool {
        let request = self.client.get(format!("http://127.0.0.1:{port}/fleet")).timeout(Duration::from_secs(1));
        let Ok(answer) = request.send().await else { return false };
        let Ok(text) = answer.text().await else { return false };
        self.hear(&text, production_began_ms)
    }

    fn hear(&mut self, text: &str, production_began_ms: i64) -> bool {
        let Ok(answer) = serde_json::from_str::<Answer>(text) else { return false };
        self.leader = answer.leader.filter(|leader| !leader.stale).and_then(|leader| leader.worker.rsplit_once('-')?.1.parse().ok());
        self.stands = answer.decided.map(|decided| decided.reason).or(self.stands.take());
        self.terms.extend(answer.decisions.iter().map(|decision| decision.term));
        for decision in answer.decisions.into_iter().filter(|decision| decision.replicas != decision.replicas_before) {
            self.resizes.entry(decision.number).or_insert_with(|| DecisionLine {
                at_s: ((decision.at_ms - production_began_ms) as f64 / 100.0).round() / 10.0,
                from: decision.replicas_before,
                to: decision.replicas,
                leader: decision.leader,
                term: decision.term,
                reason: decision.reason,
            });
        }
        true
    }

    /// In how many terms decisions were published: a leader that comes next says its first one even when the number stays.
    pub(super) fn terms(&self) -> u64 {
        self.terms.len() as u64
    }

    /// Every resize that was decided, the first one first.
    pub(super) fn resizes(&self) -> impl DoubleEndedIterator<Item = &DecisionLine> {
        self.resizes.values()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn resizes_are_kept_in_order_and_once() {
        // The binary installs the provider in `main`; a test does it for itself, and another test may have done so already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut view = FleetView::default();
        let published = |number: u64, before: u32, after: u32| {
            format!(
                r#"{{"number":{number},"at_ms":{},"replicas_before":{before},"replicas":{after},"reason":"r{number}","leader":"worker-3","term":2}}"#,
                10_000 + number * 1000
            )
        };
        let answer = |decisions: &[String]| {
            format!(
                r#"{{"leader":{{"worker":"worker-3","term":2,"age_ms":5,"stale":false}},"decided":{{"reason":"stays"}},"decisions":[{}]}}"#,
                decisions.join(",")
            )
        };
        assert!(view.hear(&answer(&[published(2, 4, 4), published(1, 2, 4)]), 10_000));
        assert!(view.hear(&answer(&[published(3, 4, 2), published(2, 4, 4)]), 10_000), "the oldest is forgotten there");
        assert_eq!((view.leader, view.stands.as_deref()), (Some(3), Some("stays")));
        let line = |number: u64, from, to| DecisionLine {
            at_s: number as f64,
            from,
            to,
            leader: "worker-3".to_owned(),
            term: 2,
            reason: format!("r{number}"),
        };
        assert_eq!(view.resizes().cloned().collect::<Vec<_>>(), [line(1, 2, 4), line(3, 4, 2)]);
        assert_eq!(view.terms(), 1);
        assert!(!view.hear("not found", 10_000));
        assert!(view.hear(r#"{"leader":{"worker":"worker-1","stale":true},"decided":null}"#, 10_000));
        assert_eq!((view.leader, view.stands.as_deref()), (None, Some("stays")), "a stale leader leads no more");
    }
}
