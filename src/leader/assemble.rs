//! From reports and measures to the snapshot that a decision is made from, and to remarks: pure.

use std::collections::{BTreeMap, HashMap};

use super::assignment::assignment;
use crate::config::{ConnectorConfig, KafkaValue, ScalingConfig};
use crate::fleet::{ConnectorMeasure, ConnectorReport, Decided, LiveWorker, WorkerReport};
use crate::pipeline::ConnectorState;
use crate::scaling::{ConnectorGroup, Decision, GroupState, Limits, Owned, PartitionLoad, Snapshot, WorkerGroup, WorkerLoad};

/// A group that has not had all its partitions owned for this long is not rebalancing: a topic that nobody may read, a connector that
/// failed.
const REBALANCE_MAX_MS: i64 = 60_000;
/// Remarks of one look at most: a cluster in trouble would fill pages.
const REMARKS_MAX: usize = 20;

/// Since when each group's partitions have not all had exactly one owner.
#[derive(Debug, Default)]
pub(super) struct Coverage {
    incomplete_since_ms: HashMap<String, i64>,
}

impl Coverage {
    /// What the group does, as its members tell: stable when every partition has one owner. `None` without partitions or members.
    fn state(&mut self, now_ms: i64, measure: &ConnectorMeasure, live: &[LiveWorker]) -> Option<GroupState> {
        let mut owners: HashMap<(&str, i32), u32> = HashMap::new();
        let mut members = 0;
        let here = |of: &&ConnectorReport| of.connector == measure.connector && !is_waiting(of);
        for of in live.iter().flat_map(|worker| &worker.report.connectors).filter(here) {
            members += 1;
            for partition in &of.partitions {
                *owners.entry((&partition.topic, partition.partition)).or_default() += 1;
            }
        }
        if members == 0 || measure.partitions.is_empty() {
            return None;
        }
        let complete = measure.partitions.iter().all(|p| owners.get(&(p.topic.as_str(), p.partition)) == Some(&1));
        if complete {
            self.incomplete_since_ms.remove(&measure.connector);
            return Some(GroupState::Stable);
        }
        let since = *self.incomplete_since_ms.entry(measure.connector.clone()).or_insert(now_ms);
        Some(if now_ms - since < REBALANCE_MAX_MS { GroupState::Rebalancing } else { GroupState::Stable })
    }
}

/// A decision as it is published and shown; nothing was done about it yet.
pub(super) fn written_down(decision: &Decision, replicas_before: u32, live: &[LiveWorker]) -> Result<Decided, String> {
    Ok(Decided {
        replicas_before,
        replicas: decision.replicas,
        ready_workers: Some(ready(live)),
        reason: decision.reason.clone(),
        outcome: String::new(),
        decision: serde_json::to_value(decision).map_err(|error| format!("the decision cannot be written down: {error}"))?,
    })
}

/// Workers that are there and members: those whose connectors are all still starting are on their way, those of which one waits join
/// together.
pub(super) fn ready(live: &[LiveWorker]) -> u32 {
    count(live, started)
}

/// Workers that are there and wait to join their groups together.
pub(super) fn waiting(live: &[LiveWorker]) -> u32 {
    count(live, waits)
}

fn count(live: &[LiveWorker], of: fn(&WorkerReport) -> bool) -> u32 {
    u32::try_from(live.iter().filter(|worker| of(&worker.report)).count()).unwrap_or(u32::MAX)
}

fn started(report: &WorkerReport) -> bool {
    !waits(report) && (report.connectors.is_empty() || report.connectors.iter().any(|c| c.state != ConnectorState::Starting.as_str()))
}

fn waits(report: &WorkerReport) -> bool {
    report.connectors.iter().any(is_waiting)
}

fn is_waiting(connector: &ConnectorReport) -> bool {
    connector.state == ConnectorState::Waiting.as_str()
}

/// Everything that goes into a snapshot.
pub(super) struct Look<'a> {
    pub now_ms: i64,
    pub replicas: u32,
    pub scaling: &'a ScalingConfig,
    /// Those that should run.
    pub connectors: &'a [std::sync::Arc<ConnectorConfig>],
    /// The fleet's Kafka properties.
    pub kafka: &'a BTreeMap<String, KafkaValue>,
    pub live: &'a [LiveWorker],
    /// Somebody is elected who tells workers to wait: where nobody is, they join at once.
    pub follows_holds: bool,
    pub measures: &'a [ConnectorMeasure],
}

impl Look<'_> {
    /// The snapshot.
    pub fn snapshot(&self, coverage: &mut Coverage) -> Snapshot {
        let millis = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Snapshot {
            now_ms: self.now_ms,
            window_ms: millis(self.scaling.rate_window()),
            replicas: self.replicas,
            waiting_workers: self.follows_holds.then(|| waiting(self.live)),
            ready_workers: Some(ready(self.live)),
            groups: Some(self.connectors.iter().map(|config| self.group(config, coverage)).collect()),
            workers: self.live.iter().map(|worker| self.worker(&worker.report)).collect(),
            limits: Limits {
                min: self.scaling.min,
                max: self.scaling.max,
                freshness_target_ms: millis(self.scaling.freshness_target.get()),
                recovery_target_ms: millis(self.scaling.recovery_target.get()),
                startup_deadline_ms: Some(millis(self.scaling.startup_deadline.get())),
                worker_cost_per_hour: self.scaling.worker_cost_per_hour,
            },
        }
    }

    fn group(&self, config: &ConnectorConfig, coverage: &mut Coverage) -> ConnectorGroup {
        let nothing = ConnectorMeasure::default();
        let measure = self.measures.iter().find(|measure| measure.connector == config.name).unwrap_or(&nothing);
        let (assignor, protocol) = assignment(self.kafka, &config.kafka);
        ConnectorGroup {
            connector: config.name.clone(),
            assignor,
            protocol,
            state: coverage.state(self.now_ms, measure, self.live),
            trouble: measure.trouble.clone(),
            partitions: measure
                .partitions
                .iter()
                .map(|partition| PartitionLoad {
                    topic: partition.topic.clone(),
                    partition: partition.partition,
                    end_offset: partition.end_offset,
                    high_watermark: partition.high_watermark,
                    // Where its lag counts from: below the first record that is left, or without a commit, there is nothing to read.
                    committed_offset: partition.end_offset.zip(partition.lag_records).map(|(end, lag)| end - lag),
                    produced_records_per_s: partition.produced_records_per_s,
                    produced_bytes_per_s: partition.produced_bytes_per_s,
                    lag_ms: partition.lag_ms,
                })
                .collect(),
        }
    }

    fn worker(&self, report: &WorkerReport) -> WorkerLoad {
        let of_running = report.connectors.iter().filter(|of| self.connectors.iter().any(|config| config.name == of.connector));
        WorkerLoad {
            id: report.worker.clone(),
            ordinal: report.ordinal,
            ready: Some(started(report)),
            busy_fraction: report.busy_fraction,
            sink_wait_fraction: report.sink_wait_fraction,
            groups: of_running
                .map(|of| WorkerGroup {
                    connector: of.connector.clone(),
                    partitions: of.partitions.iter().map(|p| Owned { topic: p.topic.clone(), partition: p.partition }).collect(),
                    consumed_records_per_s: of.partitions.iter().map(|p| p.records_per_s).sum::<Option<f64>>(),
                })
                .collect(),
        }
    }
}

/// What is worth saying and nobody's decision.
pub(super) fn remarks(measures: &[ConnectorMeasure]) -> Vec<String> {
    let mut remarks = Vec::new();
    for measure in measures {
        let name = &measure.connector;
        if let Some(trouble) = &measure.trouble {
            remarks.push(format!("connector `{name}` cannot be measured: {trouble}"));
        }
        let silent = measure.partitions.iter().filter(|p| p.end_offset.is_none()).count();
        if silent > 0 {
            remarks.push(format!("connector `{name}`: the leaders of {silent} of {} partitions did not answer", measure.partitions.len()));
        }
        for partition in &measure.partitions {
            let place = format!("{}[{}]", partition.topic, partition.partition);
            if let (Some(open_ms), Some(end), Some(high)) = (partition.open_transaction_ms, partition.end_offset, partition.high_watermark)
            {
                remarks.push(format!(
                    "connector `{name}`: open transaction in {place}: readers stand at {end} for {} s while {} records wait behind it",
                    open_ms / 1000,
                    high - end
                ));
            }
        }
    }
    if remarks.len() > REMARKS_MAX {
        let more = remarks.len() - REMARKS_MAX + 1;
        remarks.truncate(REMARKS_MAX - 1);
        remarks.push(format!("and {more} more"));
    }
    remarks
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::fleet::PartitionMeasure;
    use crate::scaling::Assignor;

    fn worker(name: &str, ordinal: u32, state: &str, partitions: &[i32]) -> LiveWorker {
        let owned: Vec<String> = partitions.iter().map(|p| format!(r#"{{"topic":"t","partition":{p},"records_per_s":10.0}}"#)).collect();
        let text = format!(
            r#"{{"v":1,"worker":"{name}","ordinal":{ordinal},"run":1,"number":1,"interval_ms":2000,"started_ms":0,"at_ms":0,"busy_fraction":0.5,
            "connectors":[{{"connector":"c","state":"{state}","partitions":[{}]}},{{"connector":"paused","state":"running"}}]}}"#,
            owned.join(",")
        );
        let mut report: WorkerReport = serde_json::from_str(&text).unwrap();
        if state == "starting" {
            report.connectors.truncate(1);
        }
        LiveWorker { report: Arc::new(report), age: Duration::ZERO }
    }

    fn measure(partitions: i32) -> ConnectorMeasure {
        let partition = |partition| PartitionMeasure {
            topic: "t".to_owned(),
            partition,
            end_offset: Some(100),
            committed_offset: Some(20),
            lag_records: Some(50),
            lag_ms: Some(3_000),
            ..PartitionMeasure::default()
        };
        ConnectorMeasure { connector: "c".to_owned(), partitions: (0..partitions).map(partition).collect(), ..ConnectorMeasure::default() }
    }

    fn connector(kafka: &str) -> Arc<ConnectorConfig> {
        let text = format!("topics = [\"t\"]\n[kafka]\n{kafka}\n[value]\nformat = \"json\"\n[table]\nname = \"d.t\"\n");
        let mut config: ConnectorConfig = toml::from_str(&text).unwrap();
        config.name = "c".to_owned();
        Arc::new(config)
    }

    fn snapshot(coverage: &mut Coverage, now_ms: i64, live: &[LiveWorker]) -> Snapshot {
        let (scaling, kafka, measures) = (ScalingConfig::default(), BTreeMap::new(), [measure(4)]);
        let connectors = [connector("")];
        Look {
            now_ms,
            replicas: 3,
            scaling: &scaling,
            connectors: &connectors,
            kafka: &kafka,
            live,
            follows_holds: true,
            measures: &measures,
        }
        .snapshot(coverage)
    }

    #[test]
    fn a_snapshot_holds_what_was_reported_and_measured() {
        let live = [worker("w-0", 0, "running", &[0, 1]), worker("w-1", 1, "running", &[2, 3]), worker("w-2", 2, "starting", &[])];
        let snapshot = snapshot(&mut Coverage::default(), 1_000, &live);
        assert_eq!((snapshot.now_ms, snapshot.window_ms, snapshot.replicas, snapshot.ready_workers), (1_000, 15_000, 3, Some(2)));
        let group = &snapshot.groups.unwrap()[0];
        assert_eq!((group.state, group.assignor), (Some(GroupState::Stable), Some(Assignor::CooperativeSticky)));
        // The lag counts from where there is something to read, not from a commit that retention has overtaken.
        assert_eq!((group.partitions.len(), group.partitions[0].committed_offset), (4, Some(50)));
        assert_eq!(snapshot.workers.len(), 3);
        assert_eq!(snapshot.workers[0].groups.len(), 1, "a connector that should not run is nobody's load");
        assert_eq!(snapshot.workers[0].groups[0].consumed_records_per_s, Some(20.0));
        assert_eq!(snapshot.limits.startup_deadline_ms, Some(180_000));
    }

    #[test]
    fn workers_that_wait_for_others_are_counted_and_are_no_members() {
        let live = [worker("w-0", 0, "running", &[0, 1, 2, 3]), worker("w-1", 1, "waiting", &[]), worker("w-2", 2, "starting", &[])];
        let snapshot = snapshot(&mut Coverage::default(), 1_000, &live);
        assert_eq!((snapshot.ready_workers, snapshot.waiting_workers), (Some(1), Some(1)), "although another connector of it runs");
        assert_eq!(snapshot.workers.iter().map(|worker| worker.ready).collect::<Vec<_>>(), [Some(true), Some(false), Some(false)]);
        assert_eq!(snapshot.groups.unwrap()[0].state, Some(GroupState::Stable));
        let (scaling, kafka, connectors) = (ScalingConfig::default(), BTreeMap::new(), [connector("")]);
        let look = Look {
            now_ms: 0,
            replicas: 1,
            scaling: &scaling,
            connectors: &connectors,
            kafka: &kafka,
            live: &live,
            follows_holds: false,
            measures: &[],
        };
        assert_eq!(look.snapshot(&mut Coverage::default()).waiting_workers, None, "nobody is elected");
        let waits = [worker("w-1", 1, "waiting", &[])];
        assert_eq!(Coverage::default().state(0, &measure(4), &waits), None, "a group without members");
    }

    #[test]
    fn a_group_without_all_its_owners_rebalances_but_not_for_ever() {
        let mut coverage = Coverage::default();
        let state = |coverage: &mut Coverage, now_ms, live: &[LiveWorker]| snapshot(coverage, now_ms, live).groups.unwrap()[0].state;
        assert_eq!(state(&mut coverage, 0, &[]), None, "nobody says anything");
        let three = [worker("w-0", 0, "running", &[0, 1, 2])];
        assert_eq!(state(&mut coverage, 1_000, &three), Some(GroupState::Rebalancing));
        let twice = [worker("w-0", 0, "running", &[0, 1, 2]), worker("w-1", 1, "running", &[2, 3])];
        assert_eq!(state(&mut coverage, 30_000, &twice), Some(GroupState::Rebalancing));
        assert_eq!(state(&mut coverage, 62_000, &three), Some(GroupState::Stable), "a partition that nobody may read");
        let all = [worker("w-0", 0, "running", &[0, 1, 2, 3])];
        assert_eq!(state(&mut coverage, 63_000, &all), Some(GroupState::Stable));
        assert_eq!(state(&mut coverage, 64_000, &three), Some(GroupState::Rebalancing), "anew");
    }

    #[test]
    fn remarks_say_what_nobody_decides_and_are_few() {
        let mut measure = measure(50);
        for partition in &mut measure.partitions {
            partition.open_transaction_ms = Some(12_000);
            partition.high_watermark = Some(140);
        }
        let all = remarks(&[measure]);
        assert_eq!(all.len(), REMARKS_MAX);
        assert!(all[0].contains("open transaction in t[0]") && all[0].contains("100 for 12 s while 40 records wait"), "{}", all[0]);
        assert_eq!(all[REMARKS_MAX - 1], "and 31 more");
        let trouble = ConnectorMeasure { connector: "c".to_owned(), trouble: Some("no answer".to_owned()), ..ConnectorMeasure::default() };
        assert_eq!(remarks(&[trouble]), ["connector `c` cannot be measured: no answer"]);
    }
}
