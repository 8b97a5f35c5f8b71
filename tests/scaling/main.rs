//! `millrace decide` and `millrace simulate` as other people's programs use them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod decider;
mod junk;
mod lines;
mod other_fleet;
mod simulate;
