//! `millrace check` against the real servers: what it says before a record has come.

use anyhow::ensure;
use serde_json::json;

use crate::harness::avro::small_schema;
use crate::harness::installation::{Installation, avro_connector};
use crate::harness::servers::Servers;

pub fn schemas_are_held_against_the_table(servers: &Servers) -> anyhow::Result<()> {
    let (kafka, registry, reader) = (servers.kafka()?, servers.registry()?, servers.emulator()?.reader());
    for topic in ["checked", "checked.dead", "unregistered"] {
        kafka.create_topic(topic, 1, &[])?;
    }
    reader.create_dataset("checked")?;
    registry.register("checked-value", &small_schema("Checked", &[]), &[])?;
    let id = registry.register("checked-value", &small_schema("Checked", &["colour"]), &[])?;
    let installation = Installation::new(servers, "check::schemas_are_held_against_the_table")?;
    let connector =
        avro_connector("checked", "checked.${topic}", "checked.dead").replace("[\"checked\"]", "[\"checked\", \"unregistered\"]");
    installation.connector("checked", &connector)?;
    let (fine, said) = installation.check()?;
    let lines = [
        format!("✓ subject checked-value, version 2 (schema id {id}): id INT64, "),
        "· subject unregistered-value: the registry has none yet; ".to_owned(),
        "✓ table live.checked.checked: is not there, and is created".to_owned(),
        "· table live.checked.checked: would get id INT64, ".to_owned(),
    ];
    let project = crate::harness::emulator::PROJECT;
    for line in lines.map(|line| line.replace("live.", &format!("{project}."))) {
        ensure!(said.contains(&line), "no `{line}` in\n{said}");
    }
    ensure!(fine, "something failed:\n{said}");

    let fields = json!([{"name": "id", "type": "STRING"}, {"name": "kafka_partition", "type": "INTEGER"}]);
    reader.create_table("checked.checked", &fields)?;
    let (fine, said) = installation.check()?;
    let what = format!("table {project}.checked.checked for schema checked-value, version 2");
    let lines = [
        format!("✗ {what}: column `id` is STRING and the schema gives INT64"),
        format!("· {what}: column `colour` STRING would be added"),
        format!("· {what}: column `kafka_offset` INT64 would be added"),
    ];
    for line in lines {
        ensure!(said.contains(&line), "no `{line}` in\n{said}");
    }
    ensure!(!fine, "a column of another type is no mistake:\n{said}");
    Ok(())
}
