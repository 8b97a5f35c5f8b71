//! A small fleet second by second, driven through `decide`: long backlogs, few late partitions, a sink that held up, workers that wait to join.

use super::{
    Assignor, ConnectorGroup, Decision, GroupState, Limits, Memory, Owned, PartitionLoad, RebalanceProtocol, Snapshot, WorkerGroup,
    WorkerLoad, decide,
};

/// What one worker can do, records/s.
const CAPACITY: f64 = 1_000.0;
const EVERY_S: usize = 10;

struct Fleet {
    now_s: usize,
    /// Records/s and records waiting of each partition.
    rates: Vec<f64>,
    waiting: Vec<f64>,
    ends: Vec<f64>,
    ready: u32,
    replicas: u32,
    /// The sink takes this share of what workers could write; they call their waiting work.
    sink: f64,
    /// Workers that have started and wait for others.
    waiting_workers: Option<u32>,
    assignor: Assignor,
    protocol: RebalanceProtocol,
    memory: Memory,
}

impl Fleet {
    fn of(replicas: u32, rates: &[f64]) -> Self {
        Self {
            now_s: 0,
            rates: rates.to_vec(),
            waiting: vec![0.0; rates.len()],
            ends: vec![1e9; rates.len()],
            ready: replicas,
            replicas,
            sink: 1.0,
            waiting_workers: None,
            assignor: Assignor::CooperativeSticky,
            protocol: RebalanceProtocol::Cooperative,
            memory: Memory::default(),
        }
    }

    fn owned(&self, worker: usize) -> Vec<usize> {
        (0..self.rates.len()).filter(|p| p % self.ready as usize == worker).collect()
    }

    /// Records come and are consumed for so many seconds: those who have little waiting get all they want, the others share the rest. A look every ten
    /// seconds; what is decided is not done.
    fn run(&mut self, seconds: usize) -> Decision {
        let mut decision = None;
        let mut consumed = vec![0.0; self.ready as usize];
        for second in 1..=seconds {
            for p in 0..self.rates.len() {
                self.waiting[p] += self.rates[p];
                self.ends[p] += self.rates[p];
            }
            for (worker, taken) in consumed.iter_mut().enumerate() {
                let mut mine = self.owned(worker);
                mine.sort_by(|a, b| self.waiting[*a].total_cmp(&self.waiting[*b]));
                let mut left = CAPACITY * self.sink;
                for (done, p) in mine.iter().enumerate() {
                    let gets = (left / (mine.len() - done) as f64).min(self.waiting[*p]);
                    self.waiting[*p] -= gets;
                    left -= gets;
                    *taken += gets;
                }
            }
            self.now_s += 1;
            if second % EVERY_S == 0 {
                decision = Some(decide(&self.snapshot(&consumed), &mut self.memory));
                consumed.fill(0.0);
            }
        }
        decision.unwrap()
    }

    fn snapshot(&self, consumed: &[f64]) -> Snapshot {
        let partition = |p: usize| PartitionLoad {
            topic: "t".to_owned(),
            partition: p as i32,
            end_offset: Some(self.ends[p] as i64),
            high_watermark: None,
            committed_offset: Some((self.ends[p] - self.waiting[p]) as i64),
            produced_records_per_s: Some(self.rates[p]),
            produced_bytes_per_s: None,
            lag_ms: Some((self.waiting[p] / self.rates[p].max(1e-9) * 1000.0) as i64),
        };
        let worker = |w: usize| WorkerLoad {
            id: format!("w-{w}"),
            ordinal: Some(w as u32),
            ready: None,
            busy_fraction: Some((consumed[w] / EVERY_S as f64 / CAPACITY / self.sink).min(1.0)),
            sink_wait_fraction: None,
            groups: vec![WorkerGroup {
                connector: "c".to_owned(),
                partitions: self.owned(w).iter().map(|p| Owned { topic: "t".to_owned(), partition: *p as i32 }).collect(),
                consumed_records_per_s: Some(consumed[w] / EVERY_S as f64),
            }],
        };
        let group = ConnectorGroup {
            connector: "c".to_owned(),
            assignor: Some(self.assignor),
            protocol: Some(self.protocol),
            state: Some(GroupState::Stable),
            trouble: None,
            partitions: (0..self.rates.len()).map(partition).collect(),
        };
        let limits = Limits {
            min: 1,
            max: 64,
            freshness_target_ms: 30_000,
            recovery_target_ms: 300_000,
            startup_deadline_ms: None,
            worker_cost_per_hour: None,
        };
        Snapshot {
            now_ms: self.now_s as i64 * 1000,
            window_ms: EVERY_S as u64 * 1000,
            replicas: self.replicas,
            ready_workers: Some(self.ready),
            waiting_workers: self.waiting_workers,
            groups: Some(vec![group]),
            workers: (0..self.ready as usize).map(worker).collect(),
            limits,
        }
    }
}

#[test]
fn a_backlog_that_no_fleet_drains_in_time_is_worked_on_all_the_same() {
    let mut fleet = Fleet::of(2, &[100.0; 16]);
    assert_eq!(fleet.run(200).replicas, 2);
    // An hour of records in every partition.
    fleet.waiting = vec![360_000.0; 16];
    let decision = fleet.run(20);
    assert!(decision.replicas >= 8, "{}", decision.reason);
    assert!(decision.reason.contains("the fullest worker then has"), "{}", decision.reason);
}

#[test]
fn a_backlog_in_one_partition_asks_for_no_more_than_that_partition_can_use() {
    let mut fleet = Fleet::of(4, &[100.0; 16]);
    fleet.run(200);
    fleet.waiting[3] = 360_000.0;
    let decision = fleet.run(60);
    // Its worker takes 600/s from it beside three others; alone it would take 900/s: worth it, but with 16 workers, no more.
    assert!(decision.replicas <= 16, "{}", decision.reason);
}

#[test]
fn few_late_partitions_behind_others_that_take_their_workers_time_are_helped() {
    // Full to the brim: by the sum nothing is wrong, but the largest partition gets what the others leave.
    let mut rates = vec![20.0; 31];
    rates.push(400.0);
    let mut fleet = Fleet::of(1, &rates);
    let first = fleet.run(200);
    assert_eq!(first.replicas, 1, "{}", first.reason);
    let mut replicas = 1;
    for _ in 0..30 {
        replicas = replicas.max(fleet.run(EVERY_S).replicas);
    }
    let lag_s = fleet.waiting[31] / 400.0;
    assert!(replicas > 1, "{lag_s:.0} s behind");
    assert!(lag_s < 30.0, "only when it was late: {lag_s:.0} s");
}

#[test]
fn what_a_slow_sink_taught_is_forgotten_when_workers_are_nearly_idle() {
    let mut fleet = Fleet::of(8, &[60.0; 16]);
    fleet.run(120);
    // The sink takes a twentieth, and the workers do not tell that they wait for it.
    fleet.sink = 0.05;
    let slow = fleet.run(400);
    let of = |decision: &Decision| decision.connectors[0].worker_capacity_records_per_s.unwrap();
    assert!(of(&slow) < 0.3 * CAPACITY, "{}", slow.reason);
    fleet.sink = 1.0;
    fleet.waiting.fill(0.0);
    let idle = fleet.run(400);
    assert!(of(&idle) > 0.6 * CAPACITY, "{}", idle.reason);
    assert!(idle.replicas <= 4, "{}", idle.reason);
}

#[test]
fn missing_groups_are_unknown_and_none_are_none() {
    let mut fleet = Fleet::of(4, &[100.0; 16]);
    fleet.run(200);
    let mut memory = fleet.memory.clone();
    let mut unknown = fleet.snapshot(&[0.0; 4]);
    for _ in 0..60 {
        unknown.now_ms += 10_000;
        unknown.groups = None;
        let decision = decide(&unknown, &mut memory);
        assert_eq!(decision.replicas, 4, "{}", decision.reason);
    }
    for _ in 0..30 {
        unknown.now_ms += 10_000;
        unknown.groups = Some(Vec::new());
        unknown.replicas = decide(&unknown, &mut memory).replicas;
    }
    assert_eq!(unknown.replicas, 1);
}

#[test]
fn who_has_started_waits_for_others_only_where_joins_are_dear() {
    let held = |assignor, protocol, waiting_workers, ready| {
        let mut fleet = Fleet { assignor, protocol, ..Fleet::of(4, &[150.0; 16]) };
        fleet.run(200);
        // Four more are on their way, nothing is late.
        (fleet.replicas, fleet.ready, fleet.waiting_workers) = (8, ready, waiting_workers);
        fleet.run(20).hold_joins_ms
    };
    use Assignor::{CooperativeSticky, Range, Uniform};
    use RebalanceProtocol::{Cooperative, Eager};
    assert!(held(Range, Eager, Some(2), 4) >= 20_000, "two more are to come");
    assert_eq!(held(Range, Eager, Some(4), 4), 0, "all are there");
    assert_eq!(held(Range, Eager, Some(0), 8), 0, "nobody waits");
    assert_eq!(held(Range, Eager, None, 4), 0, "the fleet does not follow");
    assert_eq!(held(Range, Cooperative, Some(2), 4), 0, "a stop of 3 s makes nothing late here");
    assert_eq!(held(CooperativeSticky, Cooperative, Some(2), 4), 0);
    assert_eq!(held(Uniform, Cooperative, Some(2), 4), 0);
}

#[test]
fn a_fleet_that_falls_behind_does_not_wait_for_the_last() {
    // 4.8 workers' load on four, one partition each: what has started would do.
    let mut fleet = Fleet { assignor: Assignor::Range, protocol: RebalanceProtocol::Eager, ..Fleet::of(4, &[200.0; 16]) };
    fleet.run(200);
    fleet.rates = vec![300.0; 16];
    fleet.run(20);
    (fleet.replicas, fleet.waiting_workers) = (9, Some(4));
    let mut hold_ms = u64::MAX;
    for _ in 0..12 {
        hold_ms = fleet.run(EVERY_S).hold_joins_ms;
        if hold_ms == 0 {
            break;
        }
    }
    let lag_s = fleet.waiting[0] / 300.0;
    assert_eq!(hold_ms, 0, "{lag_s:.0} s behind");
    assert!(lag_s + 8.0 < 30.0, "the stop of the join counts too: {lag_s:.0} s");
}

#[test]
fn nobody_waits_for_ever_for_one_that_never_starts() {
    let mut fleet = Fleet { assignor: Assignor::Range, protocol: RebalanceProtocol::Eager, ..Fleet::of(4, &[150.0; 16]) };
    fleet.run(200);
    (fleet.replicas, fleet.waiting_workers) = (8, Some(3));
    let held: Vec<bool> = (0..8).map(|_| fleet.run(EVERY_S).hold_joins_ms > 0).collect();
    assert_eq!(held, [true, true, true, true, true, true, false, false], "a minute, and then they join without it");
    // Those who wait have started: only the one that has not counts as absent.
    let late = fleet.run(300);
    assert!(late.absent && late.reason.contains("1 worker has not started"), "{}", late.reason);
}
