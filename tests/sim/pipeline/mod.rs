//! The pipeline: shards, ledger, writers, dead letters, holds, committer, rebalances, evolution of the table by several workers. Production's code
//! runs as it is; Kafka, the registry, BigQuery and the dead-letter topic are played around it.
//!
//! Not shown here: librdkafka (`tests/kafka`), the wire of the Storage Write API (`tests/bigquery`).

mod bigquery;
mod consumer;
mod copies;
mod counted;
mod faults;
mod group;
mod letters;
mod log;
mod mutants;
mod oracle;
mod queue;
mod run;
mod scene;
mod seen;
mod settings;
mod streams;
mod tasks;
mod threads;
mod warehouse;

use std::time::Instant;

use crate::seeds;
use mutants::Mutant;
use run::run;
use seen::Seen;

/// Seeds that CI runs.
const SEEDS: u64 = 10_000;
/// Seeds within which a mutant must be caught.
const MUTANT_SEEDS: u64 = 1_000;

#[test]
fn nothing_is_lost_and_copies_are_counted() {
    let started = Instant::now();
    let seen = seeds::all("nothing_is_lost", SEEDS, |seed, traced| run(seed, traced, Mutant::None), Seen::add);
    println!("{seen:?} in {:?}", started.elapsed());
    if std::env::var_os("MILLRACE_SEED").is_none() {
        // What was looked for must have happened.
        let runs = seen.runs;
        assert!(
            seen.commits > runs && seen.landed > runs && seen.refused > runs && seen.letters > runs && seen.rebalances > runs,
            "{seen:?}"
        );
        assert!(seen.lost_answers > runs / 4 && seen.late > runs / 4 && seen.losses > runs / 4 && seen.withheld > runs / 10, "{seen:?}");
        assert!(seen.freezes > runs / 10 && seen.crashes > runs / 10 && seen.stops > runs / 10 && seen.copies > runs, "{seen:?}");
        assert!(seen.columns > runs && seen.conflicts > 0, "{seen:?}");
        assert!(seen.forgotten > runs / 20 && seen.not_found > runs / 20 && seen.deleted > runs / 10 && seen.swallowed > 0, "{seen:?}");
        assert!(seen.out_of_range > runs / 20 && seen.lost > runs / 20 && seen.skipped > runs / 10 && seen.poison > runs / 10, "{seen:?}");
        assert!(seen.plans_large > runs / 10 && seen.asked > runs / 20 && seen.asked_late > runs / 100, "{seen:?}");
        assert!(seen.full > runs / 10 && seen.rests > runs / 1000 && seen.choices > runs / 20 && seen.switches > runs / 20, "{seen:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..20 {
        let (first, second) = (run(seed, true, Mutant::None), run(seed, true, Mutant::None));
        assert!(first.trace.len() > 20, "seed {seed}: {} lines", first.trace.len());
        let differs = first.trace.iter().zip(&second.trace).position(|(a, b)| a != b);
        assert_eq!(differs.map(|at| (&first.trace[at], &second.trace[at])), None, "seed {seed}");
        assert_eq!(first.trace.len(), second.trace.len(), "seed {seed}");
    }
}

#[test]
fn every_mutant_of_the_pipeline_is_caught() {
    for mutant in Mutant::ALL {
        let caught = seeds::first_failure(MUTANT_SEEDS, |seed, traced| run(seed, traced, mutant));
        let (seed, how) = caught.unwrap_or_else(|| panic!("{mutant:?} was not caught in {MUTANT_SEEDS} seeds"));
        println!("{mutant:?}: seed {seed}: {how}");
        // What a failing seed is printed for: with its trace it fails in the same way.
        let again = run(seed, true, mutant);
        assert_eq!(again.wrong.first(), Some(&how), "{mutant:?}: seed {seed} again");
        assert!(again.trace.iter().any(|line| line.ends_with(&format!("WRONG: {how}"))), "{mutant:?}: seed {seed}: the trace says where");
    }
}
