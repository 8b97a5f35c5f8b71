//! Fleets of several connectors of which one fails, waits for its sink, or comes back: driven through `decide`.

use crate::scaling::{ConnectorGroup, Decision, Limits, Memory, Owned, PartitionLoad, Snapshot, WorkerGroup, WorkerLoad, decide};

/// A connector of four partitions as the fleet sees it.
#[derive(Clone, Copy)]
struct Connector {
    name: &'static str,
    trouble: bool,
    owned: bool,
    produced: f64,
    consumed: f64,
}

const WELL: Connector = Connector { name: "well", trouble: false, owned: true, produced: 1_000.0, consumed: 1_000.0 };
const FAILED: Connector = Connector { name: "failed", trouble: true, owned: false, produced: 0.0, consumed: 0.0 };

struct Fleet {
    now_ms: i64,
    replicas: u32,
    memory: Memory,
    offsets: std::collections::BTreeMap<&'static str, (f64, f64)>,
}

impl Fleet {
    fn of(replicas: u32) -> Self {
        Self { now_ms: 0, replicas, memory: Memory::default(), offsets: Default::default() }
    }

    /// A look every ten seconds, what is decided is done at once; the last decision.
    fn run(&mut self, seconds: i64, connectors: &[Connector]) -> Decision {
        let mut last = None;
        for _ in 0..seconds / 10 {
            self.now_ms += 10_000;
            let decision = decide(&self.snapshot(connectors), &mut self.memory);
            self.replicas = decision.replicas;
            last = Some(decision);
        }
        last.unwrap()
    }

    fn snapshot(&mut self, connectors: &[Connector]) -> Snapshot {
        let groups = connectors.iter().map(|c| {
            let (end, committed) = self.offsets.entry(c.name).or_default();
            *end += c.produced * 2.5;
            *committed = (*committed + c.consumed * 2.5).min(*end);
            let partition = |partition| PartitionLoad {
                topic: c.name.to_owned(),
                partition,
                end_offset: Some(*end as i64),
                high_watermark: None,
                committed_offset: Some(*committed as i64),
                produced_records_per_s: Some(c.produced / 4.0),
                produced_bytes_per_s: None,
                lag_ms: Some(((*end - *committed) / (c.produced / 4.0).max(1.0) * 1000.0) as i64),
            };
            let trouble = c.trouble.then(|| "no such topic".to_owned());
            let partitions = if c.trouble { Vec::new() } else { (0..4).map(partition).collect() };
            ConnectorGroup { connector: c.name.to_owned(), assignor: None, protocol: None, state: None, trouble, partitions }
        });
        let groups = groups.collect();
        let worker = |ordinal: u32| WorkerLoad {
            id: format!("w-{ordinal}"),
            ordinal: Some(ordinal),
            ready: None,
            busy_fraction: Some(connectors.iter().map(|c| c.consumed).sum::<f64>() / 2000.0 / f64::from(self.replicas)),
            sink_wait_fraction: Some(0.0),
            groups: connectors
                .iter()
                .map(|c| {
                    let owns = |partition: &i32| c.owned && partition.cast_unsigned() % self.replicas == ordinal;
                    let partitions: Vec<Owned> =
                        (0..4).filter(owns).map(|partition| Owned { topic: c.name.to_owned(), partition }).collect();
                    let consumed_records_per_s = Some(c.consumed / 4.0 * partitions.len() as f64);
                    WorkerGroup { connector: c.name.to_owned(), partitions, consumed_records_per_s }
                })
                .collect(),
        };
        let limits = Limits {
            min: 1,
            max: 8,
            freshness_target_ms: 30_000,
            recovery_target_ms: 300_000,
            startup_deadline_ms: None,
            worker_cost_per_hour: None,
        };
        let workers = (0..self.replicas).map(worker).collect();
        Snapshot {
            now_ms: self.now_ms,
            window_ms: 15_000,
            replicas: self.replicas,
            waiting_workers: None,
            ready_workers: Some(self.replicas),
            groups: Some(groups),
            workers,
            limits,
        }
    }
}

#[test]
fn a_failed_connector_keeps_the_others_from_shrinking_for_ten_minutes_only() {
    let mut fleet = Fleet::of(4);
    let early = fleet.run(590, &[WELL, FAILED]);
    assert_eq!(early.replicas, 4, "{}", early.reason);
    assert!(early.reason.contains("failed: cannot be measured: no such topic"), "{}", early.reason);
    let later = fleet.run(300, &[WELL, FAILED]);
    assert_eq!(later.replicas, 1, "{}", later.reason);
    assert!(
        later.reason.contains("nothing of it was consumed for 14 min (cannot be measured: no such topic): it counts for nothing"),
        "{later:?}"
    );
    // It comes back, and is looked at as any other.
    let back = fleet.run(60, &[WELL, Connector { trouble: false, owned: true, produced: 100.0, consumed: 100.0, ..FAILED }]);
    assert!(back.connectors[1].holds.is_none(), "{back:?}");
}

#[test]
fn a_failed_connector_whose_load_was_known_asks_for_nothing_after_ten_minutes() {
    // 1,900 records/s are nearly a whole worker: with both running two or more are needed.
    let busy = Connector { name: "failed", trouble: false, owned: true, produced: 1_900.0, consumed: 1_900.0 };
    let mut fleet = Fleet::of(4);
    assert!(fleet.run(900, &[WELL, busy]).replicas >= 2);
    let gone = [WELL, Connector { owned: false, consumed: 0.0, ..busy }];
    assert!(fleet.run(500, &gone).replicas >= 2);
    let later = fleet.run(900, &gone);
    assert_eq!(later.replicas, 1, "its records wait, but no worker would consume them: {}", later.reason);
    assert!(later.reason.contains("no worker owns a partition of it"), "{}", later.reason);
}

#[test]
fn what_waits_for_a_sink_keeps_what_it_needed_for_half_an_hour() {
    let busy = Connector { name: "held", trouble: false, owned: true, produced: 1_900.0, consumed: 1_900.0 };
    let mut fleet = Fleet::of(4);
    let before = fleet.run(900, &[WELL, busy]).replicas;
    assert!(before >= 2);
    let held = [WELL, Connector { consumed: 0.0, ..busy }];
    let early = fleet.run(1_700, &held);
    assert_eq!(early.replicas, before, "{}", early.reason);
    let later = fleet.run(600, &held);
    assert_eq!(later.replicas, 1, "{}", later.reason);
}

#[test]
fn without_a_running_connector_the_least_is_enough() {
    let mut fleet = Fleet::of(6);
    // As long as the fleet looks back before it shrinks: 90 s.
    let early = fleet.run(70, &[]);
    assert_eq!(early.replicas, 6);
    assert!(early.reason.contains("no connector is running, the least will do in "), "{}", early.reason);
    assert_eq!(fleet.run(30, &[]).replicas, 1);
    // The same when all have failed, and a quiet topic is no failure.
    let mut fleet = Fleet::of(6);
    assert_eq!(fleet.run(650, &[FAILED]).replicas, 6);
    assert_eq!(fleet.run(200, &[FAILED]).replicas, 1);
    let quiet = fleet.run(2_400, &[Connector { produced: 0.0, consumed: 0.0, ..WELL }]);
    assert!(quiet.connectors[0].holds.is_none(), "{quiet:?}");
}

#[test]
fn workers_that_do_not_say_what_they_own_take_nobody_for_failed() {
    let mut fleet = Fleet::of(4);
    for _ in 0..100 {
        fleet.now_ms += 10_000;
        let mut snapshot = fleet.snapshot(&[Connector { consumed: 0.0, owned: false, ..WELL }]);
        snapshot.workers.iter_mut().for_each(|w| w.groups.clear());
        assert_eq!(decide(&snapshot, &mut fleet.memory).replicas, 4);
    }
}

#[test]
fn what_was_futile_is_forgotten_once_nothing_waits() {
    // Two workers, then four: neither consumes more than 1,000 of 2,000 records/s.
    let limited = Connector { produced: 2_000.0, consumed: 1_000.0, ..WELL };
    let mut fleet = Fleet::of(2);
    fleet.run(120, &[Connector { produced: 1_000.0, consumed: 1_000.0, ..WELL }]);
    fleet.replicas = 2;
    let until = |fleet: &Fleet| fleet.memory.groups["well"].futile_until_ms;
    fleet.run(60, &[limited]);
    fleet.replicas = 4;
    for _ in 0..10 {
        fleet.run(10, &[limited]);
        fleet.replicas = 4;
    }
    assert!(until(&fleet).is_some_and(|until| until > fleet.now_ms), "{:?}", fleet.memory.groups["well"].saturated);
    fleet.run(300, &[Connector { produced: 1_000.0, consumed: 20_000.0, ..WELL }]);
    assert_eq!(until(&fleet), None);
}

#[test]
fn a_fleet_that_has_never_been_busy_shrinks() {
    // Four workers, each busy 5 % of the time: what a record costs was never learnt.
    let little = Connector { produced: 400.0, consumed: 400.0, ..WELL };
    let last = Fleet::of(4).run(1_500, &[little]);
    assert_eq!(last.replicas, 1, "{}", last.reason);
}
