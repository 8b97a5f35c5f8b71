//! Who leads and who resizes: the elector and the resize path against an API server behind a bad network.
//!
//! Not shown here: what the API server does with a version (`tests/live` does), and the lock on a file, which is the kernel's.

mod api;
mod faults;
mod oracle;
mod run;
mod workers;

use std::time::{Duration, Instant};

use millrace::leader::Timing;

use crate::seeds;
use run::{Mutant, run};

/// Seeds that CI runs.
const SEEDS: u64 = 10_000;
/// Seeds within which a mutant must be caught.
const MUTANT_SEEDS: u64 = 500;

#[test]
fn at_most_one_leads_and_a_late_write_is_repaired() {
    let started = Instant::now();
    let seen = seeds::all("at_most_one_leads", SEEDS, |seed, traced| run(seed, traced, Mutant::None), oracle::Seen::add);
    println!("{seen:?} in {:?}", started.elapsed());
    if std::env::var_os("MILLRACE_SEED").is_none() {
        // What was looked for must have happened.
        let runs = seen.runs;
        assert!(seen.terms > runs && seen.writes > runs && seen.late_writes > runs / 100 && seen.late_refused > runs / 20, "{seen:?}");
        assert!(seen.conflicts > 0 && seen.moved > 0 && seen.not_leader > 0 && seen.unanswered > 0, "{seen:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..20 {
        let (first, second) = (run(seed, true, Mutant::None), run(seed, true, Mutant::None));
        assert!(first.trace.len() > 20);
        assert_eq!(first.trace, second.trace, "seed {seed}");
    }
}

#[test]
fn every_mutant_is_caught() {
    for mutant in [Mutant::NoRecheck, Mutant::ScaleWithoutVersion, Mutant::LeaseWithoutVersion, Mutant::TrustsTimestamps, Mutant::NoMargin]
    {
        let caught = seeds::first_failure(MUTANT_SEEDS, |seed, traced| run(seed, traced, mutant));
        let (seed, how) = caught.unwrap_or_else(|| panic!("{mutant:?} was not caught in {MUTANT_SEEDS} seeds"));
        println!("{mutant:?}: seed {seed}: {how}");
    }
}

#[test]
fn a_clean_stop_hands_over_at_once() {
    for seed in 0..50 {
        let gap = run::hand_over(seed);
        let most = Timing::default().retry_period * 2;
        assert!(gap < most, "seed {seed}: nobody led for {gap:?}");
    }
    assert!(run::hand_over(0) < Duration::from_secs(15), "well before the lease would have expired");
}
