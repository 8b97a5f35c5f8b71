//! Faults of every kind, on Apache Kafka and a real registry, through which one fleet goes without a restart by hand: nothing is missing at
//! the end, nothing is there more often than was counted, and after each fault records flow again within the time that is stated.
//!
//! BigQuery is the embedded one: the emulator cannot fail in the documented ways, and its rows tell when they landed. What each class of
//! its errors does alone is shown in `tests/worker/faults.rs`, a table that is deleted and made again in `tests/worker/table_again.rs`.

mod away;
mod processes;
mod records;
mod stage;

use crate::harness::servers::Servers;
use stage::Stage;

pub fn one_fleet_through_all_of_them(servers: &Servers) -> anyhow::Result<()> {
    let mut stage = Stage::start(servers, "faults::one_fleet_through_all_of_them")?;
    processes::a_clock_that_jumps(&mut stage)?;
    records::poison_in_each_partition_and_a_topic_that_refuses(&mut stage)?;
    records::a_registry_that_does_not_answer(&mut stage)?;
    records::each_error_of_an_append(&mut stage)?;
    away::bigquery_cut_off(&mut stage)?;
    away::brokers_cut_off(&mut stage)?;
    away::a_broker_killed(&mut stage)?;
    away::all_brokers_away_for_a_minute(&mut stage)?;
    processes::a_worker_and_the_leader_killed_alone(&mut stage)?;
    processes::workers_and_the_leader_killed_every_few_seconds(&mut stage)?;
    processes::a_worker_stopped_for_longer_than_its_session(&mut stage)?;
    stage.reconcile()
}
