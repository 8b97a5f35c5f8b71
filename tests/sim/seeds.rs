//! Many seeds, on all cores; the first that fails is named with the command that repeats it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// What a run of one seed came to: its trace, and what was wrong.
pub struct Run<S> {
    /// One line for each thing that happened; kept only when asked for.
    pub trace: Vec<String>,
    /// Broken promises, in words.
    pub wrong: Vec<String>,
    /// What happened how often.
    pub seen: S,
}

/// Runs `seeds` seeds, or only `MILLRACE_SEED` with its trace. Returns the sums of what was seen.
pub fn all<S: Default + Send>(test: &str, seeds: u64, run: impl Fn(u64, bool) -> Run<S> + Sync, add: impl Fn(&mut S, S) + Sync) -> S {
    if let Some(seed) = number("MILLRACE_SEED") {
        let run = run(seed, true);
        println!("{}", run.trace.join("\n"));
        assert!(run.wrong.is_empty(), "seed {seed}:\n{}", run.wrong.join("\n"));
        return run.seen;
    }
    let (next, failed) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
    let seeds = number("MILLRACE_SIM_SEEDS").unwrap_or(seeds);
    let work = || {
        let mut sum = S::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.min(failed.load(Ordering::Relaxed)) {
                return sum;
            }
            let run = run(seed, false);
            if !run.wrong.is_empty() {
                failed.fetch_min(seed, Ordering::Relaxed);
            }
            add(&mut sum, run.seen);
        }
    };
    let mut sum = S::default();
    thread::scope(|scope| {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            add(&mut sum, worker.join().expect("a run does not panic"));
        }
    });
    let failed = failed.into_inner();
    if failed < u64::MAX {
        let wrong = run(failed, false).wrong.join("\n");
        panic!("seed {failed}:\n{wrong}\nagain, with its trace: MILLRACE_SEED={failed} cargo test --test sim {test} -- --nocapture");
    }
    sum
}

/// The first of `seeds` seeds that fails, and how.
pub fn first_failure<S>(seeds: u64, run: impl Fn(u64, bool) -> Run<S>) -> Option<(u64, String)> {
    (0..seeds).map(|seed| (seed, run(seed, false).wrong)).find(|(_, wrong)| !wrong.is_empty()).map(|(seed, wrong)| (seed, wrong[0].clone()))
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}
