//! Memory is short: partitions rest, and go on where they were.

use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use super::{STUCK_AFTER, is_fine, limited_stage, stage, value};
use crate::flow::BudgetKind;
use crate::kafka::QueueEvent;

/// What a process that holds far more than its limit of 64 MiB would see.
const CROWDED: u64 = 1 << 30;

/// A stalled sink and a crowded process: the partition is paused, its fetched records are given back. Afterwards every record lands once.
#[test]
fn a_partition_rests_while_memory_is_short_and_loses_nothing() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    // Slower than acknowledgements come, so that records still wait when the first ones are durable.
    let mut stage = limited_stage(runtime.handle(), (0..600).map(value).collect(), false, 5, Some(500));
    stage.assign();
    let started = Instant::now();
    while stage.progress.head().unwrap_or(0) < 30 {
        stage.turn();
        assert!(started.elapsed() < STUCK_AFTER);
    }
    let stalled = stage.budget.lease(BudgetKind::InFlight, stage.budget.limit_bytes());
    stage.budget.observe_resident(CROWDED);
    let rest = |stage: &super::Stage| stage.log.paused.load(SeqCst);
    while !rest(&stage) {
        assert_eq!(stage.turn(), 0, "nothing is taken over the limit");
        assert!(started.elapsed() < STUCK_AFTER, "it never rests");
        std::thread::sleep(Duration::from_millis(5));
    }
    // Throws away what was fetched, as librdkafka does: the shard must come back to where its ledger stands.
    let stood_at = stage.log.position.swap(0, SeqCst);
    std::thread::sleep(Duration::from_millis(150));
    stage.turn();
    assert!(rest(&stage), "it rests as long as memory is short");
    assert!(stage.progress.resting_since_ms().is_some(), "status shows it");
    drop(stalled);
    stage.budget.observe_resident(1);
    stage.run(|_, head| assert!(head <= 600));
    assert!(!rest(&stage) && stood_at < 600);
    std::thread::sleep(Duration::from_millis(150));
    stage.turn();
    assert_eq!(stage.progress.resting_since_ms(), None);
    let landed = stage.sink.rows.lock();
    assert!(landed.values().all(|copies| *copies == 1), "a rest doubles nothing");
    assert_eq!(landed.len(), (0..600).filter(|n| is_fine(*n)).count());
}

/// The last partition of a shard does not rest while records can be taken, however crowded the process is: it would never get better.
#[test]
fn one_partition_always_fetches() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let mut stage = stage(runtime.handle(), (0..300).map(value).collect(), false, 6);
    stage.budget.observe_resident(CROWDED);
    stage.assign();
    stage.run(|stage, _| assert!(!stage.log.paused.load(SeqCst) || stage.progress.hold().is_some()));
    assert_eq!(stage.sink.rows.lock().len(), (0..300).filter(|n| is_fine(*n)).count());
}

/// An offset that is not there stood behind fetched records that a rest throws away: the partition begins again at the first of those, not
/// behind them.
#[test]
fn what_a_rest_throws_away_before_an_offset_that_is_gone_is_read_again() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let mut stage = limited_stage(runtime.handle(), (0..600).map(value).collect(), false, 8, Some(500));
    stage.assign();
    let started = Instant::now();
    while stage.progress.head().unwrap_or(0) < 30 {
        stage.turn();
        assert!(started.elapsed() < STUCK_AFTER);
    }
    let _stalled = stage.budget.lease(BudgetKind::InFlight, stage.budget.limit_bytes());
    stage.budget.observe_resident(CROWDED);
    let next = stage.log.position.load(SeqCst);
    assert!(next < 400);
    *stage.log.event.lock() = Some(QueueEvent::OutOfRange { asked: 400 });
    while stage.log.restarts.lock().is_empty() {
        assert_eq!(stage.turn(), 0, "nothing is taken over the limit");
        assert!(started.elapsed() < STUCK_AFTER, "it never begins again: {:?}", stage.progress.hold());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(*stage.log.restarts.lock(), [Some(next)]);
    assert_eq!(stage.progress.head(), Some(next), "no record below it is left out");
}
