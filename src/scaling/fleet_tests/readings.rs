//! What is missing, or seldom, or says something else than it seems.

use super::*;

#[test]
fn missing_groups_are_unknown_and_none_are_none() {
    let mut fleet = Fleet::of(4, &[100.0; 16]);
    fleet.run(200);
    let mut memory = fleet.memory.clone();
    let mut unknown = fleet.snapshot(&[0.0; 4]);
    for _ in 0..60 {
        unknown.now_ms += 10_000;
        unknown.groups = None;
        let decision = decide(&unknown, &mut memory);
        assert_eq!(decision.replicas, 4, "{}", decision.reason);
    }
    for _ in 0..30 {
        unknown.now_ms += 10_000;
        unknown.groups = Some(Vec::new());
        unknown.replicas = decide(&unknown, &mut memory).replicas;
    }
    assert_eq!(unknown.replicas, 1);
}

#[test]
fn commits_that_come_seldom_do_not_look_like_standing_still() {
    let mut fleet = Fleet { commits_every_s: 13, ..Fleet::of(2, &[150.0; 16]) };
    let mut most = 2;
    fleet.watch(300, |_, decision| {
        let holds = decision.connectors[0].holds.clone().unwrap_or_default();
        assert!(!holds.contains("consumes nothing") && !holds.contains("something else"), "{holds}");
        most = most.max(decision.replicas);
    });
    assert!(most >= 3, "2.4 workers' load on two");
}

#[test]
fn an_open_transaction_asks_for_nobody() {
    let mut fleet = Fleet::of(4, &[150.0; 16]);
    fleet.run(300);
    fleet.open = Some((3, fleet.ends[3]));
    let last = fleet.watch(300, |_, decision| assert!(decision.replicas <= 4, "{}", decision.reason));
    assert!(last.reason.contains("transaction"), "{}", last.reason);
}

#[test]
fn commits_every_ten_seconds_keep_no_idle_worker() {
    let mut fleet = Fleet { commits_every_s: 10, ..Fleet::of(12, &[100.0; 16]) };
    let first = fleet.run(400);
    assert!(first.replicas <= 3, "1.6 workers' load: {}", first.reason);
    let mut fleet = Fleet { commits_every_s: 10, protocol: RebalanceProtocol::Eager, ..Fleet::of(12, &[100.0; 16]) };
    let eager = fleet.run(600);
    assert!(eager.replicas <= 4, "{}", eager.reason);
}

#[test]
fn workers_that_say_nothing_are_judged_by_what_is_committed() {
    let mut fleet = Fleet { silent: true, commits_every_s: 4, ..Fleet::of(1, &[100.0; 16]) };
    let decision = fleet.run(120);
    assert!((2..=6).contains(&decision.replicas), "1.6 workers' load, 45 s behind: {}", decision.reason);
}

#[test]
fn what_idle_workers_show_will_do_until_they_are_busy() {
    // 0.8 % busy, and then 4 workers' load at once.
    let mut fleet = Fleet::of(1, &[0.5; 16]);
    assert_eq!(fleet.run(300).replicas, 1);
    fleet.rates = vec![250.0; 16];
    let first = fleet.run(EVERY_S);
    assert!(first.replicas >= 4, "at the first look: {}", first.reason);
}

#[test]
fn workers_that_say_nothing_and_commit_seldom_are_not_taken_for_full() {
    // Half a worker's load on two, committed every nine seconds; the rate wobbles.
    let mut fleet = Fleet { silent: true, commits_every_s: 9, ..Fleet::of(2, &[30.0; 16]) };
    fleet.watch(1_800, |fleet, decision| {
        assert!(decision.replicas <= 2, "at {} s: {}", fleet.now_s, decision.reason);
        fleet.rates.fill(if fleet.now_s / 10 % 3 == 0 { 27.0 } else { 33.0 });
    });
}
