//! The model of a fleet at work: seconds, fluid records, start-up delays, rebalances, noisy workers, a sink with limits.

use std::collections::VecDeque;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::snapshot::{Assignor, RebalanceProtocol};
use super::setting::Setting;
use super::trace::Trace;

/// A partition: a queue of seconds, each with the records that came in it.
#[derive(Debug, Clone, Default)]
pub(super) struct Queue {
    /// (second, records) not consumed, oldest first.
    waiting: VecDeque<(usize, f64)>,
    pub backlog: f64,
    pub produced: f64,
    pub consumed: f64,
    pub committed: f64,
    /// Stopped until this second by a rebalance.
    pub stopped_until: usize,
    pub owner: Option<u32>,
}

impl Queue {
    /// Seconds that its oldest record waits.
    pub(super) fn lag_s(&self, now: usize) -> usize {
        self.waiting.front().map_or(0, |(came, _)| now - came)
    }

    /// Consumes; says how many of them were late.
    fn take(&mut self, now: usize, mut records: f64, late_after_s: usize) -> f64 {
        let mut late = 0.0;
        while records > 1e-9 {
            let Some((came, waits)) = self.waiting.front_mut() else { break };
            let taken = waits.min(records);
            if now - *came > late_after_s {
                late += taken;
            }
            *waits -= taken;
            records -= taken;
            self.consumed += taken;
            self.backlog -= taken;
            if *waits <= 1e-9 {
                self.waiting.pop_front();
            }
        }
        if self.waiting.is_empty() {
            self.backlog = 0.0;
        }
        late
    }
}

/// A worker, by its ordinal.
#[derive(Debug, Clone)]
pub(super) struct Worker {
    pub ordinal: u32,
    pub ready_at: usize,
    pub member: bool,
    pub speed: f64,
    /// (busy share, waiting share, records) of the last seconds.
    pub seconds: VecDeque<(f64, f64, f64)>,
}

/// The fleet at a moment.
#[derive(Debug, Clone)]
pub(super) struct World<'a> {
    pub setting: &'a Setting,
    pub trace: &'a Trace,
    pub now: usize,
    pub queues: Vec<Queue>,
    pub workers: Vec<Worker>,
    pub rebalancing_until: usize,
    /// Until this second nobody joins.
    pub joins_held_until: usize,
    rng: ChaCha8Rng,
    pub late: f64,
    pub worker_s: f64,
    pub resizes: u32,
}

impl<'a> World<'a> {
    pub(super) fn new(setting: &'a Setting, trace: &'a Trace) -> Self {
        let queues = vec![Queue::default(); trace.shares.len()];
        let rng = ChaCha8Rng::seed_from_u64(setting.seed);
        let mut world = Self {
            setting,
            trace,
            now: 0,
            queues,
            workers: Vec::new(),
            rebalancing_until: 0,
            joins_held_until: 0,
            rng,
            late: 0.0,
            worker_s: 0.0,
            resizes: 0,
        };
        for ordinal in 0..setting.workers {
            let worker = world.worker(ordinal, 0, true);
            world.workers.push(worker);
        }
        world.assign();
        world.queues.iter_mut().for_each(|q| q.stopped_until = 0);
        world.rebalancing_until = 0;
        world
    }

    fn worker(&mut self, ordinal: u32, ready_at: usize, member: bool) -> Worker {
        let noise = self.setting.noise / 2.0;
        let mut speed = 1.0 + self.rng.random_range(-noise..=noise);
        if let Some((slow, factor)) = self.trace.slow
            && slow == ordinal
        {
            speed *= factor;
        }
        Worker { ordinal, ready_at, member, speed, seconds: VecDeque::new() }
    }

    /// Asks for another number of workers. The highest ordinals leave first and at once: they drained and committed.
    pub(super) fn resize(&mut self, replicas: u32) {
        let before = self.workers.len() as u32;
        if replicas == before {
            return;
        }
        self.resizes += 1;
        for ordinal in before..replicas {
            let delay = if self.rng.random_bool(0.88) { self.rng.random_range(10..=50) } else { self.rng.random_range(50..=120) };
            let worker = self.worker(ordinal, self.now + delay, false);
            self.workers.push(worker);
        }
        let members = self.workers.iter().filter(|w| w.member).count();
        self.workers.truncate(replicas as usize);
        if self.workers.iter().filter(|w| w.member).count() != members {
            self.assign();
        }
    }

    /// Gives partitions to members: balanced by count; what moves stops (cooperative), or all (eager).
    fn assign(&mut self) {
        let members: Vec<u32> = self.workers.iter().filter(|w| w.member).map(|w| w.ordinal).collect();
        let count = self.queues.len();
        let mut owners: Vec<Option<u32>> = vec![None; count];
        if !members.is_empty() {
            let (each, extra) = (count / members.len(), count % members.len());
            if self.setting.assignor == Assignor::Range {
                let mut next = 0;
                for (place, member) in members.iter().enumerate() {
                    for _ in 0..each + usize::from(place < extra) {
                        owners[next] = Some(*member);
                        next += 1;
                    }
                }
            } else {
                let mut room: Vec<(u32, usize)> = members.iter().map(|m| (*m, 0)).collect();
                let held = |m: u32| self.queues.iter().filter(|q| q.owner == Some(m)).count();
                let mut by_held: Vec<usize> = (0..members.len()).collect();
                by_held.sort_by_key(|i| std::cmp::Reverse(held(members[*i])));
                by_held.iter().enumerate().for_each(|(rank, i)| room[*i].1 = each + usize::from(rank < extra));
                let mut line: Vec<usize> = (0..count).collect();
                for i in (1..count).rev() {
                    line.swap(i, self.rng.random_range(0..=i));
                }
                for p in &line {
                    if let Some(owner) = self.queues[*p].owner
                        && let Some(place) = room.iter_mut().find(|(m, left)| *m == owner && *left > 0)
                    {
                        place.1 -= 1;
                        owners[*p] = Some(owner);
                    }
                }
                for p in &line {
                    if owners[*p].is_none()
                        && let Some(place) = room.iter_mut().find(|(_, left)| *left > 0)
                    {
                        place.1 -= 1;
                        owners[*p] = Some(place.0);
                    }
                }
            }
        }
        let until = self.now + self.setting.pause_s();
        for (queue, owner) in self.queues.iter_mut().zip(owners) {
            if queue.owner != owner || self.setting.protocol == RebalanceProtocol::Eager {
                queue.stopped_until = until;
            }
            queue.owner = owner;
        }
        self.rebalancing_until = until;
    }

    /// One second: workers become members, records come, workers take them.
    pub(super) fn second(&mut self) {
        let now = self.now;
        let due = |w: &Worker| !w.member && w.ready_at <= now;
        if now >= self.joins_held_until && self.workers.iter().any(due) {
            self.workers.iter_mut().filter(|w| due(w)).for_each(|w| w.member = true);
            self.assign();
        }
        self.worker_s += self.workers.len() as f64;
        let capacity = self.setting.capacity;
        for (p, queue) in self.queues.iter_mut().enumerate() {
            let records = self.trace.at(now, p) * capacity;
            if records > 0.0 {
                queue.waiting.push_back((now, records));
                queue.produced += records;
                queue.backlog += records;
            }
            queue.committed = queue.consumed;
        }
        let mut owned: Vec<Vec<usize>> = vec![Vec::new(); self.workers.len()];
        for (p, queue) in self.queues.iter().enumerate() {
            if let Some(owner) = queue.owner.filter(|_| queue.stopped_until <= now && queue.backlog > 0.0) {
                owned[owner as usize].push(p);
            }
        }
        let noise = self.setting.noise;
        let able: Vec<f64> =
            (0..self.workers.len()).map(|w| capacity * self.workers[w].speed * (1.0 + self.rng.random_range(-noise..=noise))).collect();
        let wants: Vec<f64> =
            owned.iter().zip(&able).map(|(mine, able)| mine.iter().map(|p| self.queues[*p].backlog).sum::<f64>().min(*able)).collect();
        let whole: f64 = wants.iter().sum();
        let part = match self.trace.sink_at(now) {
            Some(limit) if whole > limit * capacity => limit * capacity / whole,
            _ => 1.0,
        };
        let late_after_s = (self.setting.limits.freshness_target_ms / 1000) as usize;
        for (w, mine) in owned.iter_mut().enumerate() {
            let budget = wants[w] * part;
            let mut left = budget;
            // Taken in turn, fairly: the small ones get all they have, the large ones share what is left.
            mine.sort_by(|a, b| self.queues[*a].backlog.total_cmp(&self.queues[*b].backlog));
            for (done, p) in mine.iter().enumerate() {
                let fair = left / (mine.len() - done) as f64;
                let taken = fair.min(self.queues[*p].backlog);
                left -= taken;
                self.late += self.queues[*p].take(now, taken, late_after_s);
            }
            let waits = if part < 1.0 { (wants[w] - budget) / able[w].max(1e-9) } else { 0.0 };
            let worker = &mut self.workers[w];
            if worker.member {
                worker.seconds.push_back((budget / able[w].max(1e-9), waits, budget));
                if worker.seconds.len() > 60 {
                    worker.seconds.pop_front();
                }
            }
        }
        self.now += 1;
    }

    /// The latest partition's lag, seconds.
    pub(super) fn lag_s(&self) -> usize {
        self.queues.iter().map(|q| q.lag_s(self.now)).max().unwrap_or(0)
    }

    /// At the end: what still waits and is late already counts as late.
    pub(super) fn close(&mut self) {
        let late_after_s = (self.setting.limits.freshness_target_ms / 1000) as usize;
        for queue in &self.queues {
            self.late += queue.waiting.iter().filter(|(came, _)| self.now - came > late_after_s).map(|(_, records)| records).sum::<f64>();
        }
    }
}
