//! Counters of the process by outcome, each of which is 0 from the start: Prometheus sees no increase in a series that begins with 1, and would
//! never show the first resize.

use metrics::Label;

use super::catalog as names;
use super::metrics::counter;

/// The label's name and values of each.
const OUTCOMES: [(&str, &str, &[&str]); 3] = [
    (names::SCHEMA_FETCHES, "outcome", &["found", "unknown", "unusable", "unavailable"]),
    (names::DECISIONS, "kind", &["up", "down", "hold", "none"]),
    (names::RESIZES, "outcome", &["done", "unchanged", "moved", "not_leader", "failed"]),
];

/// Shows all of them as 0.
pub(super) fn begin() {
    for (name, label, values) in OUTCOMES {
        for value in values {
            count(name, label, value, 0);
        }
    }
}

/// A schema was asked for: [`names::SCHEMA_FETCHES`] of this outcome (`found`, `unknown`, `unusable`, `unavailable`).
pub fn schema_fetched(outcome: &'static str) {
    count(names::SCHEMA_FETCHES, "outcome", outcome, 1);
}

/// A leader decided: [`names::DECISIONS`] of this kind (`up`, `down`, `hold`; `none` where nothing may be decided).
pub fn decided(kind: &'static str) {
    count(names::DECISIONS, "kind", kind, 1);
}

/// A resize was tried: [`names::RESIZES`] of this outcome (`done`, `unchanged`, `moved`, `not_leader`, `failed`).
pub fn resized(outcome: &'static str) {
    count(names::RESIZES, "outcome", outcome, 1);
}

fn count(name: &'static str, label: &'static str, value: &'static str, by: u64) {
    counter(name, vec![Label::new(label, value)]).increment(by);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;
    use crate::telemetry::catalog::METRICS;
    use crate::telemetry::metrics::builder;

    #[test]
    fn each_outcome_is_zero_before_it_is_met() {
        let recorder = builder().unwrap().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            begin();
            resized("failed");
            let page = recorder.handle().render();
            let values = |name: &str| page.lines().filter(|line| line.starts_with(&format!("{name}{{"))).count();
            assert_eq!([names::SCHEMA_FETCHES, names::DECISIONS, names::RESIZES].map(values), [4, 4, 5], "{page}");
            assert!(page.contains("millrace_resizes_total{outcome=\"done\"} 0"), "{page}");
            assert!(page.contains("millrace_resizes_total{outcome=\"failed\"} 1"), "{page}");
        });
    }

    /// The catalog's words name each value, so that what is documented, counted and shown is one.
    #[test]
    fn the_outcomes_are_those_of_the_catalog() {
        for (name, label, values) in OUTCOMES {
            let metric = METRICS.iter().find(|metric| metric.name == name).unwrap();
            assert_eq!(metric.labels, [label]);
            for value in values {
                assert!(metric.help.contains(value), "{name} says nothing of {value}: {}", metric.help);
            }
        }
    }
}
