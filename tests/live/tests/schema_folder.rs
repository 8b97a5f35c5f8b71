//! Topics without a registry: a header names a schema in a local folder.

use std::time::Duration;

use anyhow::{Context, ensure};
use apache_avro::Schema;

use crate::harness::avro::{Stock, small, small_schema, stock_schema};
use crate::harness::installation::Installation;
use crate::harness::journal::{Journal, Outgoing, Producer, reconcile_exactly};
use crate::harness::process::wait_for;
use crate::harness::servers::Servers;

const WITHIN: Duration = Duration::from_secs(60);

pub fn schemas_named_by_a_header(servers: &Servers) -> anyhow::Result<()> {
    let (kafka, reader) = (servers.kafka()?, servers.emulator()?.reader());
    kafka.create_topic("headers", 2, &[])?;
    kafka.create_topic("headers.dead", 1, &[])?;
    reader.create_dataset("headers")?;
    let mut installation = Installation::new(servers, "schema_folder::schemas_named_by_a_header")?;
    installation.drop_section("registry");
    let folder = installation.folder().join("connectors/schemas");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("SMSPhysicalStockUpdates_values.avsc"), stock_schema()?.to_string())?;
    // A schema outside the folder, which a header must not reach.
    std::fs::write(installation.folder().join("connectors/outside.avsc"), small_schema("Outside", &[]).to_string())?;
    let connector = r#"
        topics = ["headers"]
        [value]
        format = "avro"
        schemas = "schemas"
        schema_header = "schema"
        [table]
        name = "headers.rows"
        create = true
        metadata = ["partition", "offset"]
        partition = { by = "timestamp", every = "day" }
        cluster = ["warehouse_id", "ean"]
        [table.columns]
        timestamp = { type = "TIMESTAMP", unit = "ms" }
    "#;
    installation.connector("headers", connector)?;
    let mut worker = installation.start()?;

    let stock = Stock::new()?;
    let producer = Producer::new(kafka.client(), "headers")?;
    let send = |n: i64, partition: i32, name: Option<&str>, value: &[u8]| {
        let headers = name.map(|name| ("schema", name.as_bytes()));
        let headers = headers.as_slice();
        producer.send(Stock::reference(n), &Outgoing { partition: Some(partition), value: Some(value), headers, ..Outgoing::default() })
    };
    // The record's full name, the file's name, the file's name without its ending.
    let names = ["com.huub.types.SMSPhysicalStockUpdates_values", "SMSPhysicalStockUpdates_values.avsc", "SMSPhysicalStockUpdates_values"];
    for n in 0..300 {
        send(n, (n % 2) as i32, Some(names[(n % 3) as usize]), &stock.encode(n)?)?;
    }
    let mut journal = producer.journal()?;
    for (name, n) in [(None, 1000), (Some("../outside"), 1001), (Some("../outside.avsc"), 1002), (Some("/etc/passwd"), 1003)] {
        send(n, 0, name, &stock.encode(n)?)?;
    }
    producer.journal()?; // these are dead letters, not rows
    reconcile_exactly(reader, "headers.rows", "reference", &journal, WITHIN)?;
    worker.wait_for_metric("millrace_dead_letters_total", &[("connector", "headers")], 4.0, WITHIN)?;
    let times =
        reader.query("SELECT MIN(timestamp) AS first, MAX(timestamp) AS last, COUNT(process_reference) AS named FROM headers.rows")?;
    let times = times.first().context("one row")?;
    ensure!(times["first"] == "2026-09-21T14:13:20+00:00" && times["last"] == "2026-09-21T14:13:20.299000+00:00", "{times}");
    ensure!(times["named"] == 200, "every third process_reference is null: {times}");

    // A name that is not there yet holds its partition only, until the file arrives.
    let late = small_schema("Late", &[]);
    let late_value = small(&Schema::parse(&late)?, 7, &[])?;
    send(2000, 0, Some("Late"), &late_value)?;
    send(2001, 0, Some(names[0]), &stock.encode(2001)?)?;
    let behind = producer.journal()?;
    worker.wait_for_metric("millrace_held_partitions", &[("connector", "headers"), ("cause", "schema_file_missing")], 1.0, WITHIN)?;
    send(3000, 1, Some(names[0]), &stock.encode(3000)?)?;
    journal.append(&mut producer.journal()?);
    reconcile_exactly(reader, "headers.rows", "reference", &journal, WITHIN)?;
    std::fs::write(folder.join("Late.avsc"), late.to_string())?;
    journal.extend(behind.into_iter().filter(|(_, identity)| *identity == Stock::reference(2001)).collect::<Journal>());
    let query = "SELECT COUNT(reference) AS stock, COUNT(id) AS late FROM headers.rows";
    wait_for("the held records", WITHIN, || {
        let rows = reader.query(query);
        let Ok(rows) = rows else { return Ok(None) }; // the column `id` is still to come
        Ok((rows[0]["late"] == 1 && rows[0]["stock"] == journal.len()).then_some(()))
    })?;
    wait_for("no hold", Duration::from_secs(10), || {
        Ok((worker.metric("millrace_held_partitions", &[("connector", "headers")])? == 0.0).then_some(()))
    })?;
    ensure!(
        worker.metric("millrace_dead_letters_total", &[("connector", "headers")])? == 4.0,
        "an unknown schema file became a dead letter"
    );
    Ok(())
}
