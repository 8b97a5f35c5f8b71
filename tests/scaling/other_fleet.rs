//! A second model of a fleet, made apart from `scaling::simulation`: whole records, workers that take the oldest first, several connectors with records of different
//! cost, snapshots that leave much out. It drives `millrace decide` through its pipes, as somebody else's simulator would.

use std::collections::VecDeque;

use serde_json::{Map, Value, json};

use crate::decider::Decider;

/// What somebody's monitor knows.
#[derive(Clone, Copy, PartialEq)]
enum Known {
    All,
    /// End and committed offsets, and who owns what.
    OffsetsOnly,
    /// As `All`, but for the workers' busy fractions.
    NotBusy,
}

struct Connector {
    name: &'static str,
    /// Seconds of a worker's work that a record costs.
    cost_s: f64,
    /// Records/s at a second.
    load: fn(i64) -> f64,
    /// By partition: (second, records) that wait, end, committed.
    waiting: Vec<VecDeque<(i64, u64)>>,
    ends: Vec<u64>,
    committed: Vec<u64>,
    moving_until: i64,
}

impl Connector {
    fn new(name: &'static str, partitions: usize, cost_s: f64, load: fn(i64) -> f64) -> Self {
        let waiting = vec![VecDeque::new(); partitions];
        Self { name, cost_s, load, waiting, ends: vec![0; partitions], committed: vec![0; partitions], moving_until: 0 }
    }
}

struct Pod {
    ready_at: i64,
    /// Seconds of work in each of the last seconds, and records by connector.
    past: VecDeque<(f64, Vec<u64>)>,
}

struct Fleet {
    connectors: Vec<Connector>,
    pods: Vec<Pod>,
    members: usize,
    state: u64,
    late: u64,
    all: u64,
    pod_s: f64,
    resizes: u32,
}

const WINDOW: usize = 20;

impl Fleet {
    fn new(connectors: Vec<Connector>, pods: usize) -> Self {
        let pods: Vec<Pod> = (0..pods).map(|_| Pod { ready_at: 0, past: VecDeque::new() }).collect();
        Self { connectors, members: pods.len(), pods, state: 42, late: 0, all: 0, pod_s: 0.0, resizes: 0 }
    }

    /// xorshift: 0 to 1.
    fn random(&mut self) -> f64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn second(&mut self, t: i64) {
        let members = self.pods.iter().filter(|p| p.ready_at <= t).count();
        if members != self.members {
            self.members = members;
            self.connectors.iter_mut().for_each(|c| c.moving_until = t + 3);
        }
        for c in 0..self.connectors.len() {
            let count = self.connectors[c].waiting.len();
            for p in 0..count {
                // Producers send in lumps: the fraction is a chance.
                let records = (self.connectors[c].load)(t) / count as f64 * (0.9 + 0.2 * self.random());
                let records = records as u64 + u64::from(self.random() < records.fract());
                self.connectors[c].waiting[p].push_back((t, records));
                self.connectors[c].ends[p] += records;
                self.all += records;
            }
        }
        for pod in 0..self.members {
            let mut left = 0.9 + 0.2 * self.random();
            let able = left;
            let mut taken = vec![0; self.connectors.len()];
            loop {
                // The oldest of what it owns: partition p of every connector belongs to member p % members.
                let mut oldest: Option<(i64, usize, usize)> = None;
                for (c, connector) in self.connectors.iter().enumerate() {
                    let stopped = connector.moving_until > t;
                    for p in (pod..connector.waiting.len()).step_by(self.members).filter(|p| !stopped || p % 2 == 0) {
                        if let Some((came, _)) = connector.waiting[p].front().filter(|(came, _)| oldest.is_none_or(|o| *came < o.0)) {
                            oldest = Some((*came, c, p));
                        }
                    }
                }
                let Some((came, c, p)) = oldest else { break };
                let connector = &mut self.connectors[c];
                let can = (left / connector.cost_s) as u64;
                let Some((_, waits)) = connector.waiting[p].front_mut() else { break };
                let records = can.min(*waits);
                *waits -= records;
                left -= records as f64 * connector.cost_s;
                taken[c] += records;
                connector.committed[p] += records;
                self.late += if t - came > 30 { records } else { 0 };
                if *waits == 0 {
                    connector.waiting[p].pop_front();
                } else {
                    break;
                }
            }
            let past = &mut self.pods[pod].past;
            past.push_back(((able - left) / able, taken));
            if past.len() > WINDOW {
                past.pop_front();
            }
        }
        self.pod_s += self.pods.len() as f64;
    }

    fn resize(&mut self, t: i64, n: usize) {
        if n != self.pods.len() {
            self.resizes += 1;
        }
        while self.pods.len() < n {
            let delay = 10.0 + 40.0 * self.random();
            self.pods.push(Pod { ready_at: t + delay as i64, past: VecDeque::new() });
        }
        self.pods.truncate(n);
    }

    fn snapshot(&self, t: i64, known: Known) -> Value {
        let group = |c: &Connector| {
            let partition = |p: usize| {
                let mut out = Map::new();
                out.insert("topic".into(), json!(c.name));
                out.insert("partition".into(), json!(p));
                // Somebody counts in floating point.
                out.insert("end_offset".into(), json!(c.ends[p] as f64));
                out.insert("committed_offset".into(), json!(c.committed[p] as f64));
                if known != Known::OffsetsOnly {
                    let lag = c.waiting[p].front().map_or(0, |(came, _)| t - came);
                    out.insert("lag_ms".into(), json!(lag as f64 * 1000.0));
                    let mean = (0..WINDOW as i64).map(|i| (c.load)((t - i).max(0))).sum::<f64>() / WINDOW as f64 / c.waiting.len() as f64;
                    out.insert("produced_records_per_s".into(), json!(mean));
                }
                Value::Object(out)
            };
            let state = if c.moving_until > t { "rebalancing" } else { "stable" };
            let partitions: Vec<Value> = (0..c.waiting.len()).map(partition).collect();
            json!({"connector": c.name, "assignor": "uniform", "protocol": "cooperative", "state": state, "partitions": partitions})
        };
        let worker = |pod: usize| {
            let past = &self.pods[pod].past;
            let over = past.len().max(1) as f64;
            let owned = |(i, c): (usize, &Connector)| {
                let partitions: Vec<Value> =
                    (pod..c.waiting.len()).step_by(self.members).map(|p| json!({"topic": c.name, "partition": p})).collect();
                let mut out = json!({"connector": c.name, "partitions": partitions});
                if known != Known::OffsetsOnly {
                    out["consumed_records_per_s"] = json!(past.iter().map(|s| s.1[i]).sum::<u64>() as f64 / over);
                }
                out
            };
            let groups: Vec<Value> = self.connectors.iter().enumerate().map(owned).collect();
            let mut out = json!({"id": format!("pod-{pod}"), "groups": groups});
            if known == Known::All {
                out["busy_fraction"] = json!(past.iter().map(|s| s.0).sum::<f64>() / over);
            }
            out
        };
        let mut out = json!({"now_ms": t * 1000, "window_ms": WINDOW * 1000, "replicas": self.pods.len(),
            "groups": self.connectors.iter().map(group).collect::<Vec<_>>(), "workers": (0..self.members).map(worker).collect::<Vec<_>>(),
            "limits": {"min": 1, "max": 40, "freshness_target_ms": 30000, "recovery_target_ms": 300000}});
        if known != Known::OffsetsOnly {
            out["ready_workers"] = json!(self.members);
        }
        out
    }

    /// Lets `millrace decide` size the fleet; the share of late records, mean workers, resizes an hour.
    fn run(mut self, seconds: i64, every: i64, known: Known) -> (f64, f64, f64) {
        let mut decider = Decider::start();
        for t in 1..=seconds {
            self.second(t);
            if t % every == 0 {
                let answer = decider.ask(&self.snapshot(t, known).to_string());
                let n = answer["replicas"].as_u64().unwrap_or_else(|| panic!("{answer}"));
                self.resize(t, n as usize);
            }
        }
        assert_eq!(decider.end(), 0);
        let waits =
            self.connectors.iter().flat_map(|c| &c.waiting).flatten().filter(|(came, _)| seconds - came > 30).map(|(_, n)| n).sum::<u64>();
        let late = (self.late + waits) as f64 / self.all as f64;
        (late, self.pod_s / seconds as f64, f64::from(self.resizes) * 3600.0 / seconds as f64)
    }
}

/// One connector, 16 partitions, a worker does 2,000/s: 1.2 workers' worth, from 600 s to 1,500 s 4.8 in a ramp of a minute.
fn hill(t: i64) -> f64 {
    2400.0 + 7200.0 * ((t - 600) as f64 / 60.0).clamp(0.0, 1.0) - 7200.0 * ((t - 1500) as f64 / 60.0).clamp(0.0, 1.0)
}

/// The mean of the load in workers over 2,400 s is 2.55; nobody without foresight gets below about 1.2 times that.
fn hill_is_followed(known: Known, every: i64) {
    let (late, workers, resizes) = Fleet::new(vec![Connector::new("hill", 16, 1.0 / 2000.0, hill)], 2).run(2400, every, known);
    println!("late {:.3} %, {workers:.2} workers, {resizes:.0} resizes/h", late * 100.0);
    assert!(late <= 0.005, "late {late}");
    assert!(workers <= 2.55 * 1.7, "workers {workers}");
    assert!(resizes <= 40.0, "resizes {resizes}");
}

#[test]
fn a_hill_with_everything_known() {
    hill_is_followed(Known::All, 10);
}

#[test]
fn a_hill_with_offsets_only() {
    hill_is_followed(Known::OffsetsOnly, 10);
}

#[test]
fn a_hill_without_busy_fractions_every_five_seconds() {
    hill_is_followed(Known::NotBusy, 5);
}

#[test]
fn two_connectors_share_the_fleet_and_one_of_them_grows() {
    let steady = Connector::new("steady", 12, 1.0 / 4000.0, |_| 4000.0);
    let grows = Connector::new("grows", 8, 1.0 / 500.0, |t| if t < 700 { 250.0 } else { 1500.0 });
    let (late, workers, resizes) = Fleet::new(vec![steady, grows], 2).run(1800, 10, Known::All);
    println!("late {:.3} %, {workers:.2} workers, {resizes:.0} resizes/h", late * 100.0);
    // 1.5 workers' worth, then 4.
    assert!(late <= 0.02, "late {late}");
    assert!((3.0..=6.0).contains(&workers), "workers {workers}");
}
