//! millrace against real servers: Apache Kafka with three brokers, a schema registry, a BigQuery emulator, each started by this program and
//! ended with it. `tests/live/install` gets them.
//!
//! The tests are ignored unless asked for: `cargo test --test live -- --include-ignored [name]`, as `tests/run` does. They run one after
//! another and share one set of servers; each has topics, groups and datasets of its own.
#![allow(clippy::expect_used, reason = "tests")]

mod harness;
#[allow(dead_code, reason = "each folder uses its part of it")]
#[path = "../machine/mod.rs"]
mod machine;
mod tests;

fn main() -> std::process::ExitCode {
    let long = if std::env::var_os("MILLRACE_LIVE_AUTOSCALER").is_some() { tests::LONG } else { &[] };
    harness::run([tests::ALL, long].concat().leak(), true)
}
