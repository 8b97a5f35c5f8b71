//! What the workers say of themselves: `/metrics`, read as any Prometheus server would.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::telemetry::catalog as names;

/// One series of a scrape.
#[derive(Debug, Clone, PartialEq)]
struct Sample {
    labels: BTreeMap<String, String>,
    value: f64,
}

/// One worker's numbers.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct WorkerNumbers {
    pub(super) possible_duplicates: u64,
    pub(super) dead_letters: u64,
    /// Partitions that hold now, by cause.
    pub(super) held: BTreeMap<String, u64>,
    /// (connector, partition) that it has taken records from; it may own fewer by now.
    pub(super) taken_from: Vec<(String, i32)>,
    /// How many partitions that are, by the worker's own count.
    pub(super) assigned: u64,
    pub(super) resident_bytes: u64,
}

/// Asks workers.
pub(super) struct Scraper(reqwest::Client);

impl Scraper {
    pub(super) fn new() -> Self {
        Self(reqwest::Client::new())
    }

    /// A worker's numbers; `None` while it does not answer.
    pub(super) async fn ask(&self, port: u16) -> Option<WorkerNumbers> {
        let url = format!("http://127.0.0.1:{port}/metrics");
        let answer = self.0.get(url).timeout(Duration::from_secs(1)).send().await.ok()?;
        Some(read(&answer.text().await.ok()?))
    }
}

fn read(text: &str) -> WorkerNumbers {
    let sum = |name: &str| samples(text, name).map(|s| s.value).sum::<f64>() as u64;
    let mut numbers = WorkerNumbers {
        possible_duplicates: sum(names::POSSIBLE_DUPLICATE_ROWS),
        dead_letters: sum(names::DEAD_LETTERS),
        assigned: sum(names::ASSIGNED_PARTITIONS),
        resident_bytes: sum(names::RESIDENT_MEMORY),
        ..WorkerNumbers::default()
    };
    for sample in samples(text, names::HELD_PARTITIONS).filter(|s| s.value > 0.0) {
        *numbers.held.entry(sample.labels.get("cause").cloned().unwrap_or_default()).or_default() += sample.value as u64;
    }
    for sample in samples(text, names::PARTITION_RECORDS_CONSUMED) {
        if let (Some(connector), Some(Ok(partition))) = (sample.labels.get("connector"), sample.labels.get("partition").map(|p| p.parse()))
        {
            numbers.taken_from.push((connector.clone(), partition));
        }
    }
    numbers
}

/// The series of this name: `name{label="value",...} number`. Label values of ours hold no quotes, backslashes or newlines.
fn samples<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = Sample> + 'a {
    text.lines().filter(|l| !l.starts_with('#')).filter_map(move |line| {
        let rest = line.strip_prefix(name)?;
        let (labels, value) = match rest.strip_prefix('{') {
            Some(inside) => inside.split_once('}')?,
            None => ("", rest),
        };
        if !value.starts_with(' ') {
            return None;
        }
        let labels =
            labels.split("\",").filter_map(|pair| pair.split_once("=\"")).map(|(k, v)| (k.to_owned(), v.trim_end_matches('"').to_owned()));
        Some(Sample { labels: labels.collect(), value: value.trim().parse().ok()? })
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn prometheus_text_is_read() {
        let text = "# TYPE millrace_possible_duplicate_rows_total counter\n\
            millrace_possible_duplicate_rows_total{table=\"a.b.c\"} 3\n\
            millrace_possible_duplicate_rows_total{table=\"a.b.d\"} 4\n\
            millrace_possible_duplicate_rows_total_more 9\n\
            millrace_held_partitions{connector=\"x\",cause=\"type_conflict\"} 2\n\
            millrace_held_partitions{connector=\"x\",cause=\"plan_pending\"} 0\n\
            millrace_partition_records_consumed_total{connector=\"x\",topic=\"t\",partition=\"7\"} 0\n\
            millrace_resident_memory_bytes 1e6\n";
        let numbers = read(text);
        assert_eq!(numbers.possible_duplicates, 7);
        assert_eq!(numbers.held.into_iter().collect::<Vec<_>>(), [("type_conflict".to_owned(), 2)]);
        assert_eq!(numbers.taken_from, [("x".to_owned(), 7)]);
        assert_eq!(numbers.resident_bytes, 1_000_000);
    }
}
