//! Long backlogs, and few partitions that are late behind others.

use super::*;

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
fn two_partitions_that_no_worker_can_carry_are_parted() {
    let mut rates = vec![20.0; 14];
    rates.extend([1_500.0, 1_500.0]);
    let mut fleet = Fleet::of(1, &rates);
    let decision = fleet.run(200);
    assert!(decision.replicas >= 2, "each gets twice as much on a worker of its own: {}", decision.reason);
}
