//! A shard's thread ends without a revocation: its assignments end with it.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use super::played::Control;
use super::{STUCK_AFTER, Stage, stage, value};
use crate::flow::BudgetKind;
use crate::pipeline::events::{ShardEvent, ShardHandle};
use crate::pipeline::half_started::HalfStarted;
use crate::pipeline::partition::NextOwner;
use crate::pipeline::shard_thread::{self, ShardLoop};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// The shard at work on a thread of its own, with its partition.
fn started(stage: Stage) -> (ShardHandle, std::thread::JoinHandle<()>) {
    let handle = stage.shard.parts.handle.clone();
    let mut stage = stage;
    stage.assign();
    (handle, shard_thread::start("shard-0-c", ShardLoop::new(stage.shard, stage.events)).expect("a thread"))
}

#[test]
fn a_start_that_fails_leaves_the_group_and_ends_the_shards_that_run() {
    let runtime = runtime();
    let stage = stage(runtime.handle(), (0..50).map(value).collect(), false, 1);
    let (log, progress) = (stage.log.clone(), stage.progress.clone());
    let mut half = HalfStarted::new(Arc::new(Control(log.clone())));
    let (handle, thread) = started(stage);
    half.shards.push((handle.clone(), thread));
    drop(half);
    assert!(log.closed.load(SeqCst), "it left its group");
    assert!(!handle.blocking_send(ShardEvent::Stop), "its shard's thread has ended");
    assert!(progress.is_gone(), "what was not sent is not sent any more");
}

#[test]
fn a_start_that_succeeds_is_left_alone() {
    let runtime = runtime();
    let stage = stage(runtime.handle(), (0..50).map(value).collect(), false, 1);
    let (log, progress) = (stage.log.clone(), stage.progress.clone());
    let mut half = HalfStarted::new(Arc::new(Control(log.clone())));
    half.shards.push(started(stage));
    let shards = half.complete();
    let began = Instant::now();
    while progress.head().unwrap_or(0) < 50 {
        assert!(began.elapsed() < STUCK_AFTER, "it takes no records: {:?}", progress.head());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!log.closed.load(SeqCst) && !progress.is_gone());
    crate::pipeline::half_started::end_shards(shards);
    assert!(progress.is_gone());
}

#[test]
fn what_is_finished_beyond_the_last_commit_is_counted_at_the_end() {
    let runtime = runtime();
    let mut stage = stage(runtime.handle(), (0..60).map(value).collect(), false, 1);
    stage.assign();
    stage.run(|_, _| {});
    stage.progress.set_committed(35);
    let partition = &stage.shard.slots[0];
    assert_eq!(partition.finished_again_records(NextOwner::ReadsFromCommit), 25);
    stage.shard.end();
    let partition = &stage.shard.slots[0];
    assert!(!partition.owned && partition.queue.is_none() && stage.progress.is_gone());
    // Once: a second end finds nothing that is owned.
    stage.shard.end();
}

/// After a pause rows wait until a commit proves that their worker is a member still. Rows whose assignment has ended wait no longer: the
/// first record of the next assignment, whose commit is that proof, may need their memory.
#[test]
fn rows_of_an_assignment_that_is_over_do_not_wait_for_the_fence() {
    let runtime = runtime();
    let mut stage = stage(runtime.handle(), (0..50).map(value).collect(), false, 1);
    stage.assign();
    let fence = stage.shard.parts.fence.clone();
    fence.set_session_timeout(Duration::from_secs(1));
    assert!(fence.poll_was_away(Duration::from_secs(2)));
    let in_flight = |stage: &Stage| stage.budget.used_by(BudgetKind::InFlight);
    let began = Instant::now();
    while in_flight(&stage) == 0 {
        stage.turn();
        assert!(began.elapsed() < STUCK_AFTER, "no batch was closed");
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(Duration::from_millis(300));
    assert!(in_flight(&stage) > 0, "they wait");
    stage.progress.set_gone();
    while in_flight(&stage) > 0 {
        assert!(began.elapsed() < STUCK_AFTER, "{} bytes wait for the fence", in_flight(&stage));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(fence.is_up() && stage.sink.rows.lock().is_empty(), "and nothing of them was sent");
}
