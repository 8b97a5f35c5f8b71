//! One connector in this process against librdkafka's mock cluster and the embedded registry and BigQuery: what its states say when
//! something goes wrong, and that nothing is lost by it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod bad_records;
mod commits;
mod dead_letter_topic;
mod exactly_once;
mod fault_table;
mod faults;
#[allow(dead_code, reason = "each folder uses its part of it")]
#[path = "../machine/mod.rs"]
mod machine;
mod rig;
mod states;
mod table_again;
