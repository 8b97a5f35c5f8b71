//! Fleets that should come to rest.

use super::*;

/// Resizes in the last two of three hours, done at once, under a load that is even but for noise.
fn resizes(rate: f64, partitions: usize, noise: f64) -> usize {
    let mut fleet = Fleet::of(4, &vec![rate; partitions]);
    let (mut count, mut state) = (0, 1_u64);
    fleet.watch(3 * 3600, |fleet, decision| {
        if decision.replicas != fleet.replicas {
            count += usize::from(fleet.now_s > 3600);
            (fleet.replicas, fleet.ready) = (decision.replicas, decision.replicas);
        }
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let factor = 1.0 + noise * ((state >> 33) as f64 / f64::from(1_u32 << 31) * 2.0 - 1.0);
        fleet.rates.fill(rate * factor);
    });
    count
}

#[test]
fn an_even_load_with_noise_comes_to_rest() {
    for (rate, partitions) in [(120.0, 100), (60.0, 200), (300.0, 24), (90.0, 64)] {
        let resizes = resizes(rate, partitions, 0.15);
        assert!(resizes <= 4, "{partitions} partitions of {rate} records/s: {resizes} resizes in two hours");
    }
}

#[test]
fn nobody_leaves_while_the_load_rises_slowly() {
    let mut fleet = Fleet::of(6, &[100.0; 40]);
    fleet.watch(1_200, |fleet, decision| {
        // From 4 to 7 workers' load in 20 minutes. The first steps find out what will do.
        fleet.rates.fill(100.0 + 75.0 * fleet.now_s as f64 / 1_200.0);
        assert!(decision.replicas >= fleet.replicas || fleet.now_s < 400, "at {} s: {}", fleet.now_s, decision.reason);
        (fleet.replicas, fleet.ready) = (decision.replicas, decision.replicas);
    });
    assert!(fleet.replicas >= 7, "{}", fleet.replicas);
}
