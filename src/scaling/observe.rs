//! From a snapshot and what came before it to loads, backlogs and owners: unknown stays unknown.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::memory::{GroupMemory, Memory, PartitionMemory, Sample};
use super::snapshot::{Assignor, ConnectorGroup, GroupState, PartitionLoad, RebalanceProtocol, Snapshot, WorkerLoad};
use super::surge::{Recent, recent};

/// Rates are taken over at least this long: shorter differences of end offsets are noise.
const RATE_OVER_MS: i64 = 4_500;
/// How long offsets are kept.
const OFFSETS_FOR_MS: i64 = 90_000;
/// How long single loads are kept.
const FINE_FOR_MS: i64 = 180_000;
/// The coarser steps of the long history, and how many are kept: two and a half hours.
const HISTORY_STEP_MS: i64 = 10_000;
const HISTORY_STEPS: usize = 900;
/// An end that stands still below the high watermark for this long is held by an open transaction.
const OPEN_TRANSACTION_MS: i64 = 10_000;

/// A snapshot made understandable.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub groups: Vec<GroupView>,
    pub workers: Vec<WorkerView>,
}

#[derive(Debug, Clone)]
pub(super) struct GroupView {
    pub name: String,
    /// Why its partitions are not, or not all, known.
    pub unknown: Option<String>,
    pub assignor: Assignor,
    pub eager: bool,
    pub rebalancing: bool,
    /// No rebalance within the window: what was measured over it holds.
    pub settled: bool,
    pub topics: Vec<usize>,
    pub labels: Vec<String>,
    /// Records/s of each partition, smoothed: how the load is spread.
    pub rates: Vec<f64>,
    /// Partitions whose rate was never known.
    pub unknown_rates: usize,
    /// Records not committed.
    pub backlog: Vec<Option<f64>>,
    /// Seconds.
    pub lag_s: Vec<Option<f64>>,
    /// The owner's place in [`View::workers`].
    pub owners: Vec<Option<usize>>,
    /// Records/s now, all partitions.
    pub total: Option<f64>,
    /// The same over the last seconds, where looks are further apart than that.
    pub recent: Option<Recent>,
    /// Records/s consumed, all workers.
    pub consumed: Option<f64>,
    /// The partition that an open transaction holds.
    pub open_transaction: Option<String>,
}

impl GroupView {
    /// The largest lag of those that are known.
    pub(super) fn known_lag_s(&self) -> Option<f64> {
        self.lag_s.iter().flatten().copied().reduce(f64::max)
    }

    /// Records not committed, when every partition's are known.
    pub(super) fn total_backlog(&self) -> Option<f64> {
        self.backlog.iter().copied().try_fold(0.0, |sum, b| b.map(|b| sum + b))
    }
}

#[derive(Debug, Clone)]
pub(super) struct WorkerView {
    pub id: String,
    pub busy: Option<f64>,
    pub sink_wait: Option<f64>,
    /// Records/s by the group's place in [`View::groups`].
    pub consumed: Vec<Option<f64>>,
    /// The same by the newest commits.
    pub committed: Vec<Option<f64>>,
}

/// A share as a worker tells it: 0 to 1; what is no number is unknown.
fn share(value: Option<f64>) -> Option<f64> {
    value.filter(|v| v.is_finite() && *v >= 0.0).map(|v| v.min(1.0))
}

fn rate(value: Option<f64>) -> Option<f64> {
    value.filter(|v| v.is_finite() && *v >= 0.0)
}

/// Reads a snapshot and writes what it says into the memory.
pub(super) fn observe(snapshot: &Snapshot, memory: &mut Memory) -> View {
    let now = snapshot.now_ms;
    let mut order: Vec<&WorkerLoad> = snapshot.workers.iter().collect();
    order.sort_by(|a, b| a.ordinal.unwrap_or(u32::MAX).cmp(&b.ordinal.unwrap_or(u32::MAX)).then_with(|| a.id.cmp(&b.id)));
    let mut owners: BTreeMap<(&str, &str, i32), usize> = BTreeMap::new();
    for (place, worker) in order.iter().enumerate() {
        for group in &worker.groups {
            for owned in &group.partitions {
                owners.insert((&group.connector, &owned.topic, owned.partition), place);
            }
        }
    }
    let mut workers: Vec<WorkerView> = order
        .iter()
        .map(|w| WorkerView {
            id: w.id.clone(),
            busy: share(w.busy_fraction),
            sink_wait: share(w.sink_wait_fraction),
            consumed: Vec::new(),
            committed: Vec::new(),
        })
        .collect();
    let listed = snapshot.groups.as_deref().unwrap_or_default();
    memory.groups.retain(|name, _| listed.iter().any(|g| g.connector == *name));
    let mut groups = Vec::with_capacity(listed.len());
    for group in listed {
        let entry = memory.groups.entry(group.connector.clone()).or_default();
        let (mut view, committed) = observe_group(snapshot, group, entry, &owners);
        view.unknown = unknown(group, &owners);
        let mut consumed = vec![None; workers.len()];
        for (place, worker) in order.iter().enumerate() {
            let own: Vec<_> = worker.groups.iter().filter(|g| g.connector == group.connector).collect();
            let told: Option<f64> = own.iter().try_fold(0.0, |sum, g| rate(g.consumed_records_per_s).map(|r| sum + r));
            let mine = (0..view.owners.len()).filter(|p| view.owners[*p] == Some(place));
            let by_commits = mine.map(|p| committed[p]).try_fold(0.0, |sum, r| r.map(|r| sum + r));
            workers[place].committed.push(by_commits);
            // Not told: by the commits of what it owns.
            consumed[place] = if own.is_empty() { Some(0.0) } else { told.or(by_commits) };
            workers[place].consumed.push(consumed[place]);
        }
        view.consumed = if workers.is_empty() {
            committed.iter().copied().try_fold(0.0, |sum, r| r.map(|r| sum + r))
        } else {
            consumed.iter().copied().try_fold(0.0, |sum, r| r.map(|r| sum + r))
        };
        groups.push(view);
    }
    for (place, worker) in workers.iter().enumerate() {
        let owned = groups.iter().map(|g| g.owners.iter().filter(|o| **o == Some(place)).count()).sum();
        let known = memory.workers.entry(worker.id.clone()).or_default();
        if known.speed == 0.0 {
            known.speed = 1.0;
            known.owned_since_ms = now;
        }
        if known.owned != owned {
            known.owned = owned;
            known.owned_since_ms = now;
        }
        known.seen_ms = now;
    }
    // A worker that was gone for ten minutes comes back as a new one.
    memory.workers.retain(|_, w| now - w.seen_ms < 600_000);
    memory.last_ms = Some(now);
    View { groups, workers }
}

/// Why a group's list of partitions does not tell how many it has: it could not be asked for, or its workers own some that are not in it.
fn unknown(group: &ConnectorGroup, owners: &BTreeMap<(&str, &str, i32), usize>) -> Option<String> {
    if let Some(trouble) = &group.trouble {
        return Some(format!("cannot be measured: {trouble}"));
    }
    let listed: BTreeSet<(&str, i32)> = group.partitions.iter().map(|p| (p.topic.as_str(), p.partition)).collect();
    let unlisted =
        |(connector, topic, partition): &&(&str, &str, i32)| *connector == group.connector && !listed.contains(&(*topic, *partition));
    let count = owners.keys().filter(unlisted).count();
    (count > 0).then(|| format!("its workers own {count} partitions that the brokers do not list"))
}

/// One group; also the rate of commits for each partition.
fn observe_group(
    snapshot: &Snapshot,
    group: &ConnectorGroup,
    memory: &mut GroupMemory,
    owners: &BTreeMap<(&str, &str, i32), usize>,
) -> (GroupView, Vec<Option<f64>>) {
    let now = snapshot.now_ms;
    let window_s = snapshot.window_ms as f64 / 1000.0;
    let mut partitions: Vec<&PartitionLoad> = group.partitions.iter().collect();
    partitions.sort_by(|a, b| a.topic.cmp(&b.topic).then(a.partition.cmp(&b.partition)));
    let rebalancing = group.state == Some(GroupState::Rebalancing);
    if rebalancing {
        memory.rebalancing_since_ms.get_or_insert(now);
        memory.unsettled_ms = Some(now);
    } else {
        memory.rebalancing_since_ms = None;
    }
    // Ends that stand still while the window's rates say otherwise were not asked for anew: no difference is taken from them.
    let moved = partitions.iter().any(|p| {
        let last = memory.partitions.get(&p.topic).and_then(|t| t.get(&p.partition)).and_then(|m| m.ends.back());
        p.end_offset.is_some() && last.is_none_or(|(_, end)| Some(*end) != p.end_offset)
    });
    let told: f64 = partitions.iter().filter_map(|p| rate(p.produced_records_per_s)).sum();
    let fresh = moved || told < 0.5;
    let mut view = GroupView {
        name: group.connector.clone(),
        unknown: None,
        assignor: group.assignor.unwrap_or(Assignor::CooperativeSticky),
        eager: group.protocol == Some(RebalanceProtocol::Eager),
        rebalancing,
        settled: memory.unsettled_ms.is_none_or(|at| now - at > snapshot.window_ms as i64),
        topics: Vec::new(),
        labels: Vec::new(),
        rates: Vec::new(),
        unknown_rates: 0,
        backlog: Vec::new(),
        lag_s: Vec::new(),
        owners: Vec::new(),
        total: None,
        recent: None,
        consumed: None,
        open_transaction: None,
    };
    let (mut committed_rates, mut total, mut span_s) = (Vec::new(), 0.0, window_s);
    let (mut known, mut current_rates) = (0, BTreeMap::new());
    for (place, p) in partitions.iter().enumerate() {
        let topic = if place > 0 && partitions[place - 1].topic != p.topic {
            view.topics[place - 1] + 1
        } else {
            view.topics.last().copied().unwrap_or(0)
        };
        view.topics.push(topic);
        view.labels.push(format!("{}/{}", p.topic, p.partition));
        view.owners.push(owners.get(&(group.connector.as_str(), p.topic.as_str(), p.partition)).copied());
        let m = memory.partitions.entry(p.topic.clone()).or_default().entry(p.partition).or_default();
        let end = p.end_offset.filter(|o| *o >= 0);
        let committed = p.committed_offset.filter(|o| *o >= 0);
        if let (Some(end), true) = (end, fresh) {
            remember(&mut m.ends, now, end);
        }
        if let Some(committed) = committed {
            remember(&mut m.commits, now, committed);
        }
        open_transaction(p, m, now, &mut view);
        let by_offsets = slope(&m.ends, now);
        let by_window = rate(p.produced_records_per_s);
        // Whichever looks less far back; the difference of offsets has no other error.
        let current = match (by_offsets, by_window) {
            (Some((r, over_s)), Some(w)) => Some(if over_s <= window_s * 1.05 { (r, over_s) } else { (w, window_s) }),
            (Some(offsets), None) => Some(offsets),
            (None, w) => w.map(|w| (w, window_s)),
        };
        committed_rates.push(commit_rate(&m.commits, now));
        if let Some((r, over_s)) = current {
            known += 1;
            total += r;
            span_s = over_s;
            current_rates.insert((p.topic.as_str(), p.partition), r);
            let before = memory.last_ms_of_fine();
            let dt_s = before.map_or(0.0, |at| (now - at) as f64 / 1000.0);
            let weight = if before.is_none() { 1.0 } else { 1.0 - (-dt_s / 30.0).exp() };
            let m = memory.partitions.entry(p.topic.clone()).or_default().entry(p.partition).or_default();
            m.rate = Some(m.rate.map_or(r, |old| old + (r - old) * weight));
        }
        let m = memory.partitions.entry(p.topic.clone()).or_default().entry(p.partition).or_default();
        match m.rate {
            Some(r) => view.rates.push(r),
            None => {
                view.rates.push(0.0);
                view.unknown_rates += 1;
            }
        }
        let told_lag_s = p.lag_ms.map(|ms| ms.max(0) as f64 / 1000.0);
        let records = match (end, committed) {
            (Some(end), Some(committed)) => Some((end - committed).max(0) as f64),
            _ => None,
        };
        view.lag_s.push(told_lag_s.or_else(|| records.and_then(|b| aged(b, m, committed, now))));
        view.backlog.push(records.or_else(|| told_lag_s.map(|lag| lag * m.rate.unwrap_or(0.0))));
    }
    let listed: Vec<(&str, i32)> = partitions.iter().map(|p| (p.topic.as_str(), p.partition)).collect();
    if group.trouble.is_none() && listed.len() < memory.partitions.values().map(BTreeMap::len).sum() {
        memory.partitions.iter_mut().for_each(|(t, ps)| ps.retain(|p, _| listed.contains(&(t.as_str(), *p))));
        memory.partitions.retain(|_, ps| !ps.is_empty());
    }
    // A few partitions without news keep the rate that was last known; the group's load is unknown only when most are.
    if known > 0 && known * 2 >= partitions.len() {
        let rest: f64 = if known == partitions.len() {
            0.0
        } else {
            (view.rates.iter().sum::<f64>() - total).max(0.0) * (1.0 - known as f64 / partitions.len() as f64)
        };
        view.total = Some(total + rest);
        memory.note_load(now, span_s, total + rest);
        view.recent = recent(group, |topic, partition| current_rates.get(&(topic, partition)).copied(), span_s);
    }
    (view, committed_rates)
}

fn open_transaction(p: &PartitionLoad, m: &mut PartitionMemory, now: i64, view: &mut GroupView) {
    let stands = m.ends.len() > 1
        && m.ends.iter().rev().take_while(|(at, _)| now - at <= OPEN_TRANSACTION_MS).all(|(_, end)| Some(*end) == p.end_offset);
    match (p.high_watermark, p.end_offset) {
        (Some(high), Some(end)) if high > end && stands => {
            let since = *m.open_since_ms.get_or_insert(now);
            if now - since >= OPEN_TRANSACTION_MS {
                view.open_transaction.get_or_insert_with(|| format!("{}/{}", p.topic, p.partition));
            }
        }
        _ => m.open_since_ms = None,
    }
}

/// Keeps an offset. One that went back means another log: what was known of it is forgotten.
fn remember(ring: &mut VecDeque<(i64, i64)>, now: i64, offset: i64) {
    if ring.back().is_some_and(|(_, last)| offset < *last) {
        ring.clear();
    }
    // Looks that follow each other closely share a place: the ring is bounded however often somebody looks.
    if ring.len() >= 2 && now - ring[ring.len() - 2].0 < 900 {
        ring.pop_back();
    }
    ring.push_back((now, offset));
    while ring.front().is_some_and(|(at, _)| now - at > OFFSETS_FOR_MS) && ring.len() > 2 {
        ring.pop_front();
    }
}

/// Records/s over the newest stretch that is long enough, and how long it is in seconds.
fn slope(ring: &VecDeque<(i64, i64)>, now: i64) -> Option<(f64, f64)> {
    let (last_ms, last) = *ring.back()?;
    if now - last_ms > 30_000 {
        return None;
    }
    let (first_ms, first) = *ring.iter().rev().find(|(at, _)| last_ms - at >= RATE_OVER_MS)?;
    let over_s = (last_ms - first_ms) as f64 / 1000.0;
    (over_s <= 120.0).then(|| ((last - first) as f64 / over_s, over_s))
}

/// Records/s committed: between two moments at which the commit moved, for commits that come seldom say nothing over a shorter stretch; of none that is overdue.
fn commit_rate(ring: &VecDeque<(i64, i64)>, now: i64) -> Option<f64> {
    let (plain, _) = slope(ring, now)?;
    let mut moves = (1..ring.len()).rev().filter(|i| ring[*i].1 > ring[*i - 1].1).map(|i| ring[i]);
    let between = moves.next().and_then(|last| moves.find(|before| last.0 - before.0 >= RATE_OVER_MS).map(|before| (before, last)));
    match between {
        Some((before, last)) if now - last.0 <= last.0 - before.0 => Some((last.1 - before.1) as f64 * 1000.0 / (last.0 - before.0) as f64),
        _ => Some(plain),
    }
}

/// Seconds since the first record that is not committed was produced: interpolated in the history of end offsets, as kafka-lag-exporter does; beyond it by the rate.
fn aged(backlog: f64, m: &PartitionMemory, committed: Option<i64>, now: i64) -> Option<f64> {
    if backlog <= 0.0 {
        return Some(0.0);
    }
    let committed = committed?;
    let mut after: Option<(i64, i64)> = None;
    for (at, end) in m.ends.iter().rev() {
        if *end <= committed {
            let at = match after {
                Some((later, more)) if more > *end => *at as f64 + (later - at) as f64 * (committed - end) as f64 / (more - end) as f64,
                _ => *at as f64,
            };
            return Some(((now as f64 - at) / 1000.0).max(0.0));
        }
        after = Some((*at, *end));
    }
    let (first_ms, first) = after?;
    let known_s = (now - first_ms) as f64 / 1000.0;
    let rate = m.rate.filter(|r| *r > 0.0)?;
    Some(known_s + (first - committed).max(0) as f64 / rate)
}

impl GroupMemory {
    fn last_ms_of_fine(&self) -> Option<i64> {
        self.fine.back().map(|s| s.at_ms)
    }

    /// Adds the load since the last snapshot.
    fn note_load(&mut self, now: i64, span_s: f64, rate: f64) {
        let for_s = self.last_ms_of_fine().map_or(span_s, |at| ((now - at) as f64 / 1000.0).min(60.0));
        self.fine.push_back(Sample { at_ms: now, for_s, rate });
        while self.fine.front().is_some_and(|s| now - s.at_ms > FINE_FOR_MS) {
            self.fine.pop_front();
        }
        match self.history.back_mut() {
            Some(last) if last.for_s * 1000.0 + for_s * 1000.0 <= HISTORY_STEP_MS as f64 + 1.0 => {
                last.rate = (last.rate * last.for_s + rate * for_s) / (last.for_s + for_s);
                last.for_s += for_s;
                last.at_ms = now;
            }
            _ => self.history.push_back(Sample { at_ms: now, for_s, rate }),
        }
        while self.history.len() > HISTORY_STEPS {
            self.history.pop_front();
        }
    }
}
