//! A schema that grows while records flow.

use std::time::Duration;

use anyhow::{Context, ensure};
use apache_avro::Schema;

use crate::harness::avro::{framed, small, small_schema};
use crate::harness::installation::{Installation, avro_connector};
use crate::harness::journal::{Outgoing, Producer, reconcile_exactly};
use crate::harness::servers::Servers;

/// Records of the old and of the new schema alternate in one partition after the change; an untouched table beside it goes on.
pub fn a_new_column_in_mid_stream(servers: &Servers) -> anyhow::Result<()> {
    let (kafka, registry, reader) = (servers.kafka()?, servers.registry()?, servers.emulator()?.reader());
    kafka.create_topic("evolution", 2, &[])?;
    kafka.create_topic("evolution.dead", 1, &[])?;
    reader.create_dataset("evolution")?;
    let old = small_schema("Evolving", &[]);
    let new = small_schema("Evolving", &["colour"]);
    let old_id = registry.register("evolution-value", &old, &[])?;
    let (old, new_schema) = (Schema::parse(&old)?, Schema::parse(&new)?);

    let installation = Installation::new(servers, "evolution::a_new_column_in_mid_stream")?;
    installation.connector("evolution", &avro_connector("evolution", "evolution.rows", "evolution.dead"))?;
    let worker = installation.start()?;
    let producer = Producer::new(kafka.client(), "evolution")?;
    let send = |n: i64, value: Vec<u8>| {
        producer.send(n.to_string(), &Outgoing { partition: Some((n % 2) as i32), value: Some(&value), ..Outgoing::default() })
    };
    for n in 0..200 {
        send(n, framed(old_id, &small(&old, n, &[])?))?;
    }
    let mut journal = producer.journal()?;
    reconcile_exactly(reader, "evolution.rows", "id", &journal, Duration::from_secs(60))?;

    let new_id = registry.register("evolution-value", &new, &[])?;
    ensure!(new_id != old_id, "the registry gave both schemas one id");
    for n in 200..600 {
        let value =
            if n % 4 < 2 { framed(old_id, &small(&old, n, &[])?) } else { framed(new_id, &small(&new_schema, n, &[("colour", "red")])?) };
        send(n, value)?;
    }
    journal.append(&mut producer.journal()?);
    reconcile_exactly(reader, "evolution.rows", "id", &journal, Duration::from_secs(90))?;

    let coloured = reader.query("SELECT id, colour FROM evolution.rows")?;
    for row in coloured {
        let id = row["id"].as_i64().context("id")?;
        let wanted = if id >= 200 && id % 4 >= 2 { serde_json::json!("red") } else { serde_json::Value::Null };
        ensure!(row["colour"] == wanted, "row {row}, wanted {wanted}");
    }
    ensure!(worker.metric("millrace_dead_letters_total", &[])? == 0.0, "a dead letter");
    ensure!(worker.metric("millrace_table_schema_changes_total", &[])? <= 2.0, "one worker needs one create and one patch");
    Ok(())
}
