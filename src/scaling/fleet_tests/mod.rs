//! A small fleet second by second, driven through `decide`. Here: the fleet. Beside it what it meets: long backlogs and few late partitions, a sink
//! that holds up, readings that are seldom or missing, workers that wait to join.

mod backlog;
mod joins;
mod readings;
mod sink;
mod steady;

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
    /// Workers say so when they wait for it.
    tells_sink: bool,
    /// Workers say nothing of themselves.
    silent: bool,
    /// Every so many seconds the workers commit.
    commits_every_s: usize,
    committed: Vec<f64>,
    /// A partition in which a transaction is open since: its end for readers.
    open: Option<(usize, f64)>,
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
            tells_sink: false,
            silent: false,
            commits_every_s: 1,
            committed: vec![1e9; rates.len()],
            open: None,
            waiting_workers: None,
            assignor: Assignor::CooperativeSticky,
            protocol: RebalanceProtocol::Cooperative,
            memory: Memory::default(),
        }
    }

    fn owned(&self, worker: usize) -> Vec<usize> {
        (0..self.rates.len()).filter(|p| p % self.ready as usize == worker).collect()
    }

    /// Where readers of committed records come to an end.
    fn readable_end(&self, p: usize) -> f64 {
        self.open.filter(|(open, _)| *open == p).map_or(self.ends[p], |(_, since)| since)
    }

    /// Records come and are consumed for so many seconds: those who have little waiting get all they want, the others share the rest. A look every ten
    /// seconds; what is decided is not done.
    fn run(&mut self, seconds: usize) -> Decision {
        self.watch(seconds, |_, _| {})
    }

    /// The same, with an eye on each decision; what is done about it is up to whoever looks.
    fn watch(&mut self, seconds: usize, mut look: impl FnMut(&mut Self, &Decision)) -> Decision {
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
                    let held = self.ends[*p] - self.readable_end(*p);
                    let gets = (left / (mine.len() - done) as f64).min((self.waiting[*p] - held).max(0.0));
                    self.waiting[*p] -= gets;
                    left -= gets;
                    *taken += gets;
                }
            }
            self.now_s += 1;
            if self.now_s.is_multiple_of(self.commits_every_s) {
                self.committed = self.ends.iter().zip(&self.waiting).map(|(end, waiting)| end - waiting).collect();
            }
            if second % EVERY_S == 0 {
                let decided = decide(&self.snapshot(&consumed), &mut self.memory);
                look(self, &decided);
                decision = Some(decided);
                consumed = vec![0.0; self.ready as usize];
            }
        }
        decision.unwrap()
    }

    fn snapshot(&self, consumed: &[f64]) -> Snapshot {
        let partition = |p: usize| PartitionLoad {
            topic: "t".to_owned(),
            partition: p as i32,
            end_offset: Some(self.readable_end(p) as i64),
            high_watermark: self.open.map(|_| self.ends[p] as i64),
            committed_offset: Some(self.committed[p] as i64),
            produced_records_per_s: Some(self.rates[p]),
            produced_bytes_per_s: None,
            lag_ms: Some(((self.ends[p] - self.committed[p]) / self.rates[p].max(1e-9) * 1000.0) as i64),
        };
        let worker = |w: usize| WorkerLoad {
            id: format!("w-{w}"),
            ordinal: Some(w as u32),
            ready: None,
            busy_fraction: Some((consumed[w] / EVERY_S as f64 / CAPACITY / if self.tells_sink { 1.0 } else { self.sink }).min(1.0)),
            sink_wait_fraction: self.tells_sink.then_some(1.0 - self.sink),
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
            workers: (0..if self.silent { 0 } else { self.ready as usize }).map(worker).collect(),
            limits,
        }
    }
}
