//! Assignments end and begin: revocations, late ones, offsets that are not there.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use super::{STUCK_AFTER, stage, value};
use crate::kafka::{Epoch, StartOffset};
use crate::pipeline::events::ShardEvent;
use crate::pipeline::progress::PartitionProgress;

/// A revocation answers with a head below which everything is durable, and late answers of the old epoch move nothing.
#[test]
fn a_revocation_drains_and_the_next_epoch_starts_clean() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let mut stage = stage(runtime.handle(), (0..500).map(value).collect(), false, 2);
    stage.assign();
    let started = Instant::now();
    while stage.progress.head().unwrap_or(0) < 50 {
        stage.turn();
        assert!(started.elapsed() < STUCK_AFTER);
    }
    let (reply, answer) = std::sync::mpsc::sync_channel(1);
    let partitions = vec![stage.progress.partition.clone()];
    stage.shard.handle(ShardEvent::Revoke { partitions, deadline: Instant::now() + Duration::from_secs(5), reply }, Instant::now());
    let heads = loop {
        assert_eq!(stage.turn(), 0, "a partition that goes takes nothing");
        if let Ok(heads) = answer.try_recv() {
            break heads;
        }
        assert!(started.elapsed() < STUCK_AFTER);
    };
    let head = heads.first().expect("a head").offset;
    assert_eq!(head, stage.log.position.load(SeqCst), "drained: everything taken is finished");
    stage.progress = Arc::new(PartitionProgress::new(stage.progress.partition.clone(), Epoch(2), StartOffset::Committed(head)));
    stage.assign();
    stage.run(|_, _| {});
    assert!(stage.sink.rows.lock().values().all(|copies| *copies == 1), "a clean handover doubles nothing");
}

/// A shard that heard of a revocation too late (the poll thread has stopped waiting, and the partition is back already) ends the former
/// assignment only: the new one takes records.
#[test]
fn a_revocation_heard_late_does_not_end_the_next_assignment() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let mut stage = stage(runtime.handle(), (0..300).map(value).collect(), false, 3);
    stage.assign();
    while stage.log.position.load(SeqCst) < 20 {
        stage.turn();
    }
    let former = stage.progress.clone();
    let committed = former.head().unwrap_or(0);
    let (reply, answer) = std::sync::mpsc::sync_channel(1);
    drop(answer);
    let partitions = vec![former.partition.clone()];
    stage.shard.handle(ShardEvent::Revoke { partitions, deadline: Instant::now(), reply }, Instant::now());
    stage.progress = Arc::new(PartitionProgress::new(former.partition.clone(), Epoch(2), StartOffset::Committed(committed)));
    stage.log.position.store(committed, SeqCst);
    stage.assign();
    stage.run(|_, _| {});
    assert!(former.is_gone(), "rows of the former assignment are not sent any more");
    assert!(!stage.progress.is_gone());
}

/// After an offset that is not there the partition begins again, for a seek does not revive it; and not while rows are on their way, for a
/// new assignment would drop them.
#[test]
fn a_partition_whose_offset_is_gone_begins_again_when_its_rows_are_settled() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let mut stage = stage(runtime.handle(), (0..300).map(value).collect(), false, 4);
    stage.assign();
    while stage.log.position.load(SeqCst) < 20 {
        stage.turn();
    }
    let asked = stage.log.position.load(SeqCst);
    stage.shard.ask_watermarks(0, asked);
    assert!(stage.progress.head() < Some(asked), "rows are on their way");
    let started = Instant::now();
    while stage.log.restarts.lock().is_empty() {
        stage.turn();
        assert!(started.elapsed() < STUCK_AFTER, "never begun again: {:?}", stage.progress.hold());
    }
    assert_eq!(stage.progress.head(), Some(asked), "every row was settled before");
    assert_eq!(*stage.log.restarts.lock(), [Some(asked)]);
    assert!(stage.progress.hold().is_some() && stage.log.paused.load(SeqCst), "held until the new assignment");
}

/// A hold that meets a consumer that has stopped fetching does not seek for ever: the partition begins again.
#[test]
fn a_refused_seek_begins_the_partition_again() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let mut stage = stage(runtime.handle(), (0..300).map(value).collect(), false, 5);
    stage.log.stopped.store(true, SeqCst);
    stage.assign();
    let started = Instant::now();
    while stage.log.restarts.lock().is_empty() {
        stage.turn();
        assert!(started.elapsed() < STUCK_AFTER, "never begun again: {:?}", stage.progress.hold());
    }
    assert_eq!(*stage.log.restarts.lock(), [Some(0)]);
    assert_eq!(stage.progress.head(), Some(0));
}
