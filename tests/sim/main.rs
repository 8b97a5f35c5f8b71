//! millrace's own code at its trait seams, in a world without network and without real time: machines that pause, clocks that run at
//! different speeds, requests that arrive late or never, all drawn from a seed. The same seed gives the same run.
//!
//! `MILLRACE_SIM_SEEDS=100000` runs more seeds than CI; a seed that fails is printed with the one command that runs it again and shows its
//! trace.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod leadership;
mod machine_timer;
mod pipeline;
mod seeds;
mod world;
