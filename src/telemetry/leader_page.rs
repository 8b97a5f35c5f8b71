//! Gauges that only a leader has: a recorder of their own, so that they are gone with the leadership and not a minute later. Two workers
//! that show different numbers of desired workers would mislead whoever scales by them.

use metrics::{Key, Label, Recorder};
use metrics_exporter_prometheus::{BuildError, PrometheusHandle, PrometheusRecorder};

use super::catalog as names;
use super::metrics::{METADATA, builder, describe_on};

/// A leader's gauges. Dropping it ends them all; one that is not set for [`super::metrics::GAUGE_IDLE`] ends by itself.
pub struct LeaderPage {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
}

/// What a leader knows of a partition. What is `None` is not shown.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PartitionGauges {
    /// [`names::FLEET_LAG_RECORDS`].
    pub lag_records: Option<f64>,
    /// [`names::FLEET_LAG_BYTES`].
    pub lag_bytes: Option<f64>,
    /// [`names::FLEET_LAG_SECONDS`].
    pub lag_seconds: Option<f64>,
    /// [`names::FLEET_PRODUCED_RECORDS`].
    pub produced_records_per_s: Option<f64>,
    /// [`names::FLEET_PRODUCED_BYTES`].
    pub produced_bytes_per_s: Option<f64>,
    /// [`names::FLEET_CONSUMED_RECORDS`].
    pub consumed_records_per_s: Option<f64>,
    /// [`names::FLEET_CONSUMED_BYTES`].
    pub consumed_bytes_per_s: Option<f64>,
    /// [`names::FLEET_RECORD_BYTES`].
    pub bytes_per_record: Option<f64>,
}

impl LeaderPage {
    /// Without any gauge.
    ///
    /// # Errors
    /// When the exporter refuses its settings.
    pub fn new() -> Result<Self, BuildError> {
        let recorder = builder()?.build_recorder();
        describe_on(&recorder);
        let handle = recorder.handle();
        Ok(Self { recorder, handle })
    }

    fn set(&self, name: &'static str, labels: &[Label], value: f64) {
        self.recorder.register_gauge(&Key::from_parts(name, labels.to_vec()), &METADATA).set(value);
    }

    /// The gauges of a partition.
    pub fn partition(&self, connector: &str, topic: &str, partition: i32, gauges: &PartitionGauges) {
        let labels = [
            Label::new("connector", connector.to_owned()),
            Label::new("topic", topic.to_owned()),
            Label::new("partition", partition.to_string()),
        ];
        for (name, value) in [
            (names::FLEET_LAG_RECORDS, gauges.lag_records),
            (names::FLEET_LAG_BYTES, gauges.lag_bytes),
            (names::FLEET_LAG_SECONDS, gauges.lag_seconds),
            (names::FLEET_PRODUCED_RECORDS, gauges.produced_records_per_s),
            (names::FLEET_PRODUCED_BYTES, gauges.produced_bytes_per_s),
            (names::FLEET_CONSUMED_RECORDS, gauges.consumed_records_per_s),
            (names::FLEET_CONSUMED_BYTES, gauges.consumed_bytes_per_s),
            (names::FLEET_RECORD_BYTES, gauges.bytes_per_record),
        ] {
            if let Some(value) = value {
                self.set(name, &labels, value);
            }
        }
    }

    /// Workers that are there, those that wait to join together, and those that missed their reports.
    pub fn workers(&self, ready: u32, waiting: u32, stale: usize) {
        self.set(names::WORKERS_READY, &[], f64::from(ready));
        self.set(names::WORKERS_WAITING, &[], f64::from(waiting));
        self.set(names::WORKERS_STALE, &[], stale as f64);
    }

    /// Workers that are to be there.
    pub fn desired(&self, desired: u32) {
        self.set(names::WORKERS_DESIRED, &[], f64::from(desired));
    }

    /// What the fleet costs in an hour, in the currency of `worker_cost_per_hour`: `now`, `chosen`, `one_per_partition`.
    pub fn cost_per_hour(&self, of: &'static str, cost: f64) {
        self.set(names::COST_PER_HOUR, &[Label::new("of", of)], cost);
    }

    /// Bytes of what the leader leaves for the next, and whether something had to be left out.
    pub fn memory_left(&self, bytes: usize, cut: bool) {
        self.set(names::LEADER_MEMORY, &[], bytes as f64);
        let cuts = self.recorder.register_counter(&Key::from_static_name(names::LEADER_MEMORY_CUT), &METADATA);
        cuts.increment(u64::from(cut));
    }

    /// In Prometheus' text format.
    pub fn render(&self) -> String {
        self.handle.render()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn shows_what_is_known_and_nothing_else() {
        let page = LeaderPage::new().unwrap();
        page.partition("stock", "a", 7, &PartitionGauges { lag_seconds: Some(1.5), ..PartitionGauges::default() });
        page.workers(3, 2, 1);
        page.desired(4);
        page.cost_per_hour("chosen", 0.4);
        page.memory_left(900, false);
        page.memory_left(921_000, true);
        let text = page.render();
        for line in [
            "# HELP millrace_fleet_partition_lag_seconds ",
            "millrace_fleet_partition_lag_seconds{connector=\"stock\",topic=\"a\",partition=\"7\"} 1.5",
            "millrace_workers_desired 4",
            "millrace_workers_ready 3",
            "millrace_workers_waiting 2",
            "millrace_workers_stale 1",
            "millrace_cost_per_hour{of=\"chosen\"} 0.4",
            "millrace_leader_memory_bytes 921000",
            "millrace_leader_memory_cut_total 1",
        ] {
            assert!(text.contains(line), "no `{line}` in\n{text}");
        }
        assert!(!text.contains("lag_bytes") && !text.contains("build_info"), "{text}");
    }
}
