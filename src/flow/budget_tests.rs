//! What a budget counts, and whom it wakes.

use std::time::{Duration, Instant};

use super::*;

#[test]
fn counts_by_kind_and_in_all() {
    let budget = Budget::new(1000);
    budget.add(BudgetKind::Prefetch, 300);
    budget.add(BudgetKind::OpenBuffers, 499);
    assert_eq!((budget.used(), budget.used_by(BudgetKind::Prefetch), budget.used_by(BudgetKind::InFlight)), (799, 300, 0));
    assert!(!budget.pressure() && !budget.over_limit());
    budget.add(BudgetKind::Plans, 1);
    assert!(budget.pressure() && !budget.over_limit());
    budget.add(BudgetKind::DeadLetters, 200);
    assert!(budget.over_limit());
    budget.sub(BudgetKind::DeadLetters, 1);
    assert!(!budget.over_limit());
}

#[test]
fn a_lease_frees_what_is_left_of_it() {
    let budget = Budget::new(1000);
    let mut lease = budget.lease(BudgetKind::OpenBuffers, 100);
    lease.resize(150);
    let part = lease.split(50).into_kind(BudgetKind::InFlight);
    assert_eq!((budget.used_by(BudgetKind::OpenBuffers), budget.used_by(BudgetKind::InFlight), budget.used()), (100, 50, 150));
    lease.resize(20);
    drop(part);
    assert_eq!((budget.used_by(BudgetKind::OpenBuffers), budget.used_by(BudgetKind::InFlight), budget.used()), (20, 0, 20));
    let rest = lease.split(1_000_000);
    assert_eq!((lease.bytes(), rest.bytes()), (0, 20));
    drop((lease, rest));
    assert_eq!(budget.used(), 0);
}

#[test]
fn each_fall_below_the_limit_unparks_the_waiters() {
    let budget = Budget::new(100);
    let (says, said) = std::sync::mpsc::channel();
    let own = Arc::clone(&budget);
    let waiter = std::thread::spawn(move || {
        let room = own.unpark_below_limit(std::thread::current());
        for _ in 0..3 {
            while !own.over_limit() {
                std::thread::sleep(Duration::from_millis(1));
            }
            says.send(Duration::ZERO).unwrap();
            let start = Instant::now();
            while own.over_limit() {
                std::thread::park_timeout(Duration::from_secs(30));
            }
            says.send(start.elapsed()).unwrap();
        }
        drop(room);
    });
    for round in 0..3 {
        let lease = budget.lease(BudgetKind::InFlight, 100);
        said.recv().unwrap();
        std::thread::sleep(Duration::from_millis(20));
        drop(lease);
        let waited = said.recv().unwrap();
        assert!(waited < Duration::from_secs(10), "{waited:?} in round {round}");
    }
    waiter.join().unwrap();
    assert!(budget.waiting.lock().is_empty(), "who has ended is forgotten");
}

#[test]
fn rows_have_their_share_whatever_plans_use() {
    let budget = Budget::new(1000);
    let _prefetch = budget.lease(BudgetKind::Prefetch, 250);
    let mut plans = budget.lease(BudgetKind::Plans, 5000);
    assert!(!budget.over_limit() && budget.pressure());
    assert_eq!(budget.plans_excess_bytes(), 4750);
    let open = budget.lease(BudgetKind::OpenBuffers, 249);
    assert!(!budget.over_limit());
    let letter = budget.lease(BudgetKind::DeadLetters, 1);
    assert!(budget.over_limit());
    drop(open.into_kind(BudgetKind::InFlight));
    assert!(!budget.over_limit());
    plans.resize(250);
    assert_eq!((budget.plans_excess_bytes(), budget.used()), (0, 501));
    budget.observe_resident(1 << 40);
    assert_eq!(budget.used_by(BudgetKind::Unaccounted), 250, "and beside what is unaccounted for");
    drop(letter);
}

#[test]
fn threads_that_count_at_once_end_at_zero() {
    let budget = Budget::new(1 << 40);
    std::thread::scope(|scope| {
        for kind in BudgetKind::ALL {
            let budget = &budget;
            scope.spawn(move || {
                for bytes in 0..10_000 {
                    drop(budget.lease(kind, bytes).into_kind(BudgetKind::InFlight));
                }
            });
        }
    });
    assert_eq!((budget.used(), BudgetKind::ALL.map(|kind| budget.used_by(kind))), (0, [0; BudgetKind::ALL.len()]));
}

#[test]
fn what_the_system_sees_counts_but_rows_keep_a_share() {
    let mib: u64 = 1 << 20;
    let budget = Budget::new(256 * mib);
    let _prefetch = budget.lease(BudgetKind::Prefetch, 64 * mib);
    budget.observe_resident(100 * mib);
    assert_eq!(budget.used_by(BudgetKind::Unaccounted), 0, "program and prefetch explain it");
    assert_eq!(budget.process_memory(), ProcessMemory::Roomy);
    let rows = budget.lease(BudgetKind::InFlight, 50 * mib);
    budget.observe_resident(222 * mib);
    assert_eq!(budget.used_by(BudgetKind::Unaccounted), 60 * mib);
    assert_eq!(budget.process_memory(), ProcessMemory::Full);
    budget.observe_resident(900 * mib);
    assert_eq!(budget.process_memory(), ProcessMemory::Crowded);
    assert_eq!(budget.used_by(BudgetKind::Unaccounted), 128 * mib, "a quarter stays for rows");
    assert!(!budget.over_limit());
    budget.observe_resident(170 * mib);
    assert_eq!(budget.used_by(BudgetKind::Unaccounted), 8 * mib);
    drop(rows);
    assert_eq!(budget.used(), 72 * mib);
}
