//! Records that cannot become rows, letters that nobody takes, schemas that cannot be had, and every error that BigQuery has for an append.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::ensure;
use millrace::embedded::bigquery::FaultClass;

use super::stage::{DEAD, PARTITIONS, Stage, TOPIC};
use crate::harness::journal::{Outgoing, Producer};
use crate::harness::process::wait_for;
use crate::harness::wire::Mode;
use crate::machine::Watch;

/// Holds are looked at again after a growing wait; these are short ones.
const RELEASED_WITHIN: Duration = Duration::from_secs(20);

/// A bad record in each partition while the dead-letter topic is not there: held and said. Then it is made: each letter is in it, nothing
/// else is.
pub fn poison_in_each_partition_and_a_topic_that_refuses(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let producer = Producer::new(stage.kafka.client(), TOPIC)?;
    for partition in 0..PARTITIONS {
        producer.send("poison", &Outgoing { partition: Some(partition), value: Some(b"poison"), ..Outgoing::default() })?;
    }
    producer.journal()?;
    let poisoned = Watch::start();
    let held = [("connector", TOPIC), ("cause", "dead_letter_topic")];
    wait_for("every partition holds for its letter", Duration::from_secs(15), || {
        Ok((stage.sum("millrace_held_partitions", &held)? == f64::from(PARTITIONS)).then_some(()))
    })?;
    eprintln!("    every partition holds {:.1} s after its poison", poisoned.elapsed().as_secs_f64());
    stage.all_live()?;
    stage.kafka.create_topic(DEAD, 1, &[])?;
    stage.flows("a dead-letter topic that refused", Watch::start(), RELEASED_WITHIN)?;
    // Rows behind a letter may land before the broker has acknowledged it.
    wait_for("each letter is counted", RELEASED_WITHIN, || {
        Ok((stage.sum("millrace_dead_letters_total", &[])? >= f64::from(PARTITIONS)).then_some(()))
    })?;
    let letters = stage.sum("millrace_dead_letters_total", &[])?;
    ensure!(letters == f64::from(PARTITIONS), "{letters} dead letters of {PARTITIONS} bad records");
    Ok(())
}

/// Records name a schema that is not known yet, and the registry takes connections and answers nothing.
pub fn a_registry_that_does_not_answer(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    stage.registry.set(Mode::Stall);
    stage.schema.store(stage.second_schema, Ordering::Relaxed);
    let held = [("connector", TOPIC), ("cause", "schema_source_unavailable")];
    wait_for("every partition holds for its schema", Duration::from_secs(20), || {
        Ok((stage.sum("millrace_held_partitions", &held)? == f64::from(PARTITIONS)).then_some(()))
    })?;
    stage.all_live()?;
    stage.registry.set(Mode::Pass);
    stage.flows("a registry that did not answer", Watch::start(), RELEASED_WITHIN)
}

/// Every documented error of an append, one after the other, as appends come. None is a dead letter, none needs a restart.
pub fn each_error_of_an_append(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let faults = stage.bigquery.faults();
    let name = |class: &FaultClass| serde_json::to_value(class).map_or(String::new(), |name| name.as_str().unwrap_or_default().to_owned());
    let of_appends: Vec<FaultClass> = FaultClass::ALL
        .iter()
        .copied()
        .filter(|class| !["rest_", "unary_", "insert_all_"].iter().any(|other| name(class).starts_with(other)))
        .collect();
    ensure!(of_appends.len() > 30, "{} classes", of_appends.len());
    for class in &of_appends {
        let connects = matches!(class, FaultClass::ConnectionQuota | FaultClass::ConnectUnavailable);
        faults.fire_next(*class, if connects { None } else { Some("faults.rows") });
    }
    // For those that strike a connection when it opens.
    (0..2).for_each(|_| faults.fire_next(FaultClass::ConnectionDrain, Some("faults.rows")));
    let since = Watch::start();
    wait_for("every error was met", Duration::from_secs(90), || {
        let fired = faults.fired();
        Ok(of_appends.iter().all(|class| fired.contains_key(class)).then_some(()))
    })
    .map_err(|error| {
        let fired = faults.fired();
        error.context(format!("not met: {:?}", of_appends.iter().filter(|class| !fired.contains_key(class)).collect::<Vec<_>>()))
    })?;
    eprintln!("    {} errors of appends met in {:.1} s", of_appends.len(), since.elapsed().as_secs_f64());
    // A hold is looked at again after 30 s at most.
    stage.flows("each error of an append", Watch::start(), Duration::from_secs(35))?;
    ensure!(stage.sum("millrace_dead_letters_total", &[])? == f64::from(PARTITIONS), "an error of BigQuery's became a dead letter");
    Ok(())
}
