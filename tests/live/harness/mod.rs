//! What the tests stand on: servers, workers, records, and the journal that is held against the tables.
//!
//! `tests/cloud` uses it too, with the real BigQuery in the emulator's place.
#![allow(dead_code, reason = "tests/cloud uses a part of it")]

pub mod api_gate;
pub mod autoscalers;
pub mod avro;
pub mod certificates;
pub mod cluster;
pub mod emulator;
pub mod external_metrics;
pub mod gate;
pub mod installation;
pub mod journal;
pub mod kafka_node;
pub mod kubelet;
pub mod manifests;
pub mod plane;
pub mod process;
pub mod prometheus;
pub mod registry;
pub mod release;
pub mod servers;
pub mod tokens;
pub mod wire;
pub mod worker;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use libtest_mimic::{Arguments, Failed, Trial};

use servers::Servers;

/// A test's name, which is also the name of its folder, and the test.
pub type Test = (&'static str, fn(&Servers) -> anyhow::Result<()>);

/// Runs the tests that the command line asks for, one after another; `ignored` ones only with `--ignored` or `--include-ignored`. A test
/// that fails is shown when it ends with much of its workers' output, and at the end of all by its cause and little of that: the last lines
/// of a long output are what everybody sees.
pub fn run(tests: &'static [Test], ignored: bool) -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One at a time: the tests kill brokers and workers, and measure times, on as little as two cores. It also keeps them on this thread,
    // which must outlive the servers: they are told to end when the thread that started them does.
    arguments.test_threads = Some(1);
    rustls::crypto::aws_lc_rs::default_provider().install_default().expect("no other provider before this line");
    let servers = Arc::new(Servers::new());
    let trial = |(name, test): &Test| {
        let (servers, name, test) = (Arc::clone(&servers), *name, *test);
        let check = move || {
            let started = Instant::now();
            let outcome = test(&servers);
            eprintln!("    {name}: {:.1} s", started.elapsed().as_secs_f64());
            outcome.map_err(|error| {
                eprintln!("    {name}: FAILED: {error:#}\n{}", servers.worker_output(name, 20, 40));
                let cause: Vec<String> = format!("{error:#}").lines().take(16).map(str::to_owned).collect();
                Failed::from(format!("{}\n{}", cause.join("\n"), servers.worker_output(name, 3, 5)))
            })
        };
        Trial::test(name, check).with_ignored_flag(ignored)
    };
    let conclusion = libtest_mimic::run(&arguments, tests.iter().map(trial).collect());
    drop(servers); // ends the servers and removes their folders
    conclusion.exit_code()
}
