//! Plans that take more memory than there is.

use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use super::{Stage, is_fine, sized_stage, value};
use crate::decode::SchemaKey;
use crate::flow::BudgetKind;
use crate::pipeline::plans::PlanAnswer;

/// So many bytes hold no plan.
const LITTLE: u64 = 200;

/// The one plan that all records need is larger than the whole budget: they go on, in small appends.
#[test]
fn a_plan_that_fills_the_memory_does_not_stop_the_records() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let mut stage = sized_stage(runtime.handle(), (0..60).map(value).collect(), false, 6, None, LITTLE);
    stage.assign();
    stage.run(|_, _| {});
    assert!(stage.budget.used_by(BudgetKind::Plans) > stage.budget.limit_bytes(), "the plan is larger than that");
    assert_eq!(stage.sink.rows.lock().len(), (0..60).filter(|n| is_fine(*n)).count());
    assert!(stage.sink.rows.lock().values().all(|copies| *copies == 1));
}

/// A plan of its own under this key, beside those that are there.
fn add_plan(stage: &mut Stage, runtime: &tokio::runtime::Runtime, id: u32, now: Instant) {
    let entry = stage.shard.tables[0].entry.clone();
    let answer = runtime.block_on(stage.shard.parts.plans.make(&entry, &SchemaKey::Columns));
    assert!(matches!(answer, PlanAnswer::Ready(_)));
    stage.shard.tables[0].answer(&SchemaKey::Id(id), answer, Duration::from_secs(1), now);
}

fn has_plan(stage: &Stage, id: u32) -> bool {
    stage.shard.tables[0].plans.state_of(&SchemaKey::Id(id)).is_some()
}

/// Schemas that were met once, long ago, leave the memory when there is too little of it; those in use stay, whatever they take.
#[test]
fn plans_that_nobody_uses_are_dropped_when_they_take_more_than_their_share() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let mut stage = sized_stage(runtime.handle(), (0..60).map(value).collect(), false, 7, None, 64 << 10);
    stage.assign();
    stage.run(|_, _| {});
    let start = Instant::now();
    let mut plans = 0;
    while stage.budget.plans_excess_bytes() == 0 {
        plans += 1;
        add_plan(&mut stage, &runtime, plans, start + Duration::from_millis(plans.into()));
        stage.shard.account_plans();
    }
    assert!(plans > 4, "{plans}");
    stage.shard.drop_idle_plans(start + Duration::from_secs(29));
    assert!((1..=plans).all(|id| has_plan(&stage, id)), "they were used half a minute ago");
    // The second one is found again, the records' own is used by a take.
    let later = start + Duration::from_secs(29);
    assert!(stage.shard.tables[0].plans.find(0, crate::decode::SchemaKeyRef::Id(2), later).is_some());
    stage.shard.tables[0].plans.used(0, later);
    stage.shard.drop_idle_plans(start + Duration::from_secs(40));
    assert_eq!(stage.budget.plans_excess_bytes(), 0);
    assert!(!has_plan(&stage, 1) && has_plan(&stage, 2) && has_plan(&stage, plans), "the one that was idle for longest, and no more");
    // Records that need what is gone have it made again.
    let before = stage.log.position.load(SeqCst);
    stage.shard.tables[0].plans.forget(&SchemaKey::Columns);
    stage.log.position.store(0, SeqCst);
    assert_eq!(before, 60);
    stage.progress = std::sync::Arc::new(crate::pipeline::progress::PartitionProgress::new(
        stage.progress.partition.clone(),
        crate::kafka::Epoch(2),
        crate::kafka::StartOffset::Committed(0),
    ));
    stage.assign();
    stage.run(|_, _| {});
    assert!(stage.sink.rows.lock().values().all(|copies| *copies == 2));
}
