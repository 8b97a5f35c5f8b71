//! A sink that takes less for a while.

use super::*;

#[test]
fn what_a_slow_sink_taught_is_forgotten_when_workers_are_nearly_idle() {
    let mut fleet = Fleet::of(8, &[60.0; 16]);
    fleet.run(120);
    // The sink takes a twentieth, and the workers do not tell that they wait for it.
    fleet.sink = 0.05;
    let slow = fleet.run(400);
    let of = |decision: &Decision| decision.connectors[0].worker_capacity_records_per_s.unwrap();
    assert!(of(&slow) < 0.3 * CAPACITY, "{}", slow.reason);
    fleet.sink = 1.0;
    fleet.waiting.fill(0.0);
    let idle = fleet.run(400);
    assert!(of(&idle) > 0.6 * CAPACITY, "{}", idle.reason);
    assert!(idle.replicas <= 4, "{}", idle.reason);
}

#[test]
fn an_outage_beside_a_resize_does_not_count_against_more_workers() {
    let mut fleet = Fleet { tells_sink: true, ..Fleet::of(4, &[200.0; 32]) };
    // 6.4 workers' load on four: behind already. They become six, and just then the sink takes next to nothing for a minute and a half.
    fleet.run(60);
    (fleet.replicas, fleet.ready) = (6, 6);
    fleet.sink = 0.02;
    fleet.run(90);
    fleet.sink = 1.0;
    let mut most = 0;
    fleet.watch(90, |_, decision| most = most.max(decision.replicas));
    assert!(most >= 8, "{most}");
}
