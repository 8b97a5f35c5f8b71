//! Workers that wait for others before they join.

use super::*;

#[test]
fn who_has_started_waits_for_others_only_where_joins_are_dear() {
    let held = |assignor, protocol, waiting_workers, ready| {
        let mut fleet = Fleet { assignor, protocol, ..Fleet::of(4, &[150.0; 16]) };
        fleet.run(200);
        // Four more are on their way, nothing is late.
        (fleet.replicas, fleet.ready, fleet.waiting_workers) = (8, ready, waiting_workers);
        fleet.run(20).hold_joins_ms
    };
    use Assignor::{CooperativeSticky, Range, Uniform};
    use RebalanceProtocol::{Cooperative, Eager};
    assert!(held(Range, Eager, Some(2), 4) >= 20_000, "two more are to come");
    assert_eq!(held(Range, Eager, Some(4), 4), 0, "all are there");
    assert_eq!(held(Range, Eager, Some(0), 8), 0, "nobody waits");
    assert_eq!(held(Range, Eager, None, 4), 0, "the fleet does not follow");
    assert_eq!(held(Range, Cooperative, Some(2), 4), 0, "a stop of 3 s makes nothing late here");
    assert_eq!(held(CooperativeSticky, Cooperative, Some(2), 4), 0);
    assert_eq!(held(Uniform, Cooperative, Some(2), 4), 0);
}

#[test]
fn a_fleet_that_falls_behind_does_not_wait_for_the_last() {
    // 4.8 workers' load on four, one partition each: what has started would do.
    let mut fleet = Fleet { assignor: Assignor::Range, protocol: RebalanceProtocol::Eager, ..Fleet::of(4, &[200.0; 16]) };
    fleet.run(200);
    fleet.rates = vec![300.0; 16];
    fleet.run(20);
    (fleet.replicas, fleet.waiting_workers) = (9, Some(4));
    let mut hold_ms = u64::MAX;
    for _ in 0..12 {
        hold_ms = fleet.run(EVERY_S).hold_joins_ms;
        if hold_ms == 0 {
            break;
        }
    }
    let lag_s = fleet.waiting[0] / 300.0;
    assert_eq!(hold_ms, 0, "{lag_s:.0} s behind");
    assert!(lag_s + 8.0 < 30.0, "the stop of the join counts too: {lag_s:.0} s");
}

#[test]
fn nobody_waits_for_ever_for_one_that_never_starts() {
    let mut fleet = Fleet { assignor: Assignor::Range, protocol: RebalanceProtocol::Eager, ..Fleet::of(4, &[150.0; 16]) };
    fleet.run(200);
    (fleet.replicas, fleet.waiting_workers) = (8, Some(3));
    let held: Vec<bool> = (0..8).map(|_| fleet.run(EVERY_S).hold_joins_ms > 0).collect();
    assert_eq!(held, [true, true, true, true, true, true, false, false], "a minute, and then they join without it");
    // Those who wait have started: only the one that has not counts as absent.
    let late = fleet.run(300);
    assert!(late.absent && late.reason.contains("1 worker has not started"), "{}", late.reason);
}
