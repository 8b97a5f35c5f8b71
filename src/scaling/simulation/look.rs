//! What the monitor would see of the simulated fleet: a snapshot.

use super::super::snapshot::{ConnectorGroup, GroupState, Owned, PartitionLoad, Snapshot, WorkerGroup, WorkerLoad};
use super::world::World;

/// The connector and topic of a simulated fleet.
const NAME: &str = "simulated";

/// Takes the snapshot of this second.
pub(super) fn look(world: &World<'_>) -> Snapshot {
    let setting = world.setting;
    let hidden = setting.hidden;
    let window = setting.window_s.min(world.now).max(1);
    let produced = |p: usize| (world.now - window..world.now).map(|t| world.trace.at(t, p)).sum::<f64>() * setting.capacity / window as f64;
    let partitions = world
        .queues
        .iter()
        .enumerate()
        .map(|(p, queue)| PartitionLoad {
            topic: NAME.to_owned(),
            partition: p as i32,
            end_offset: (!hidden.offsets).then_some(queue.produced as i64),
            high_watermark: None,
            committed_offset: (!hidden.offsets).then_some(queue.committed as i64),
            produced_records_per_s: (!hidden.produced).then(|| produced(p)),
            produced_bytes_per_s: (!hidden.produced).then(|| produced(p) * 300.0),
            lag_ms: (!hidden.lag).then(|| queue.lag_s(world.now) as i64 * 1000),
        })
        .collect();
    let members: Vec<_> = world.workers.iter().filter(|w| w.member).collect();
    let workers = members
        .iter()
        .map(|w| {
            let seconds = w.seconds.len().min(window).max(1) as f64;
            let sums = w.seconds.iter().rev().take(window).fold((0.0, 0.0, 0.0), |a, s| (a.0 + s.0, a.1 + s.1, a.2 + s.2));
            let owned = world.queues.iter().enumerate().filter(|(_, q)| q.owner == Some(w.ordinal));
            WorkerLoad {
                ready: None,
                id: format!("millrace-{}", w.ordinal),
                ordinal: Some(w.ordinal),
                busy_fraction: (!hidden.busy).then_some(sums.0 / seconds),
                sink_wait_fraction: (!hidden.busy).then_some(sums.1 / seconds),
                groups: vec![WorkerGroup {
                    connector: NAME.to_owned(),
                    partitions: owned.map(|(p, _)| Owned { topic: NAME.to_owned(), partition: p as i32 }).collect(),
                    consumed_records_per_s: (!hidden.consumed).then_some(sums.2 / seconds),
                }],
            }
        })
        .collect();
    Snapshot {
        now_ms: world.now as i64 * 1000,
        window_ms: setting.window_s as u64 * 1000,
        replicas: world.workers.len() as u32,
        waiting_workers: (!hidden.waiting).then(|| world.workers.iter().filter(|w| !w.member && w.ready_at <= world.now).count() as u32),
        ready_workers: (!hidden.ready).then_some(members.len() as u32),
        groups: Some(vec![ConnectorGroup {
            trouble: None,
            connector: NAME.to_owned(),
            assignor: Some(setting.assignor),
            protocol: Some(setting.protocol),
            state: Some(if world.now < world.rebalancing_until { GroupState::Rebalancing } else { GroupState::Stable }),
            partitions,
        }]),
        workers,
        limits: setting.limits,
    }
}
