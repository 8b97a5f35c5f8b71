//! What a real registry does: references between schemas, and not being there.

use std::time::Duration;

use anyhow::{Context, ensure};
use apache_avro::Schema;
use apache_avro::types::Value;
use millrace::embedded::ports::free_ports;
use serde_json::json;

use crate::harness::avro::{encode, framed, small, small_schema};
use crate::harness::gate::{Behind, Gate};
use crate::harness::installation::{Installation, avro_connector};
use crate::harness::journal::{Outgoing, Producer, reconcile_exactly};
use crate::harness::process::wait_for;
use crate::harness::servers::Servers;

const WITHIN: Duration = Duration::from_secs(60);

pub fn references_are_resolved(servers: &Servers) -> anyhow::Result<()> {
    let (kafka, registry, reader) = (servers.kafka()?, servers.registry()?, servers.emulator()?.reader());
    kafka.create_topic("references", 1, &[])?;
    kafka.create_topic("references.dead", 1, &[])?;
    reader.create_dataset("references_")?;
    // An order holds a customer, a customer holds an address: each a subject of its own.
    let address = json!({"type": "record", "name": "Address", "namespace": "live.people", "fields": [{"name": "city", "type": "string"}]});
    let customer = |address| {
        json!({"type": "record", "name": "Customer", "namespace": "live.people",
            "fields": [{"name": "name", "type": "string"}, {"name": "home", "type": address}]})
    };
    let order = |customer| {
        json!({"type": "record", "name": "Order", "namespace": "live.orders",
            "fields": [{"name": "id", "type": "long"}, {"name": "buyer", "type": customer}]})
    };
    registry.register("live.people.Address", &address, &[])?;
    registry.register(
        "live.people.Customer",
        &customer(json!("live.people.Address")),
        &[("live.people.Address", "live.people.Address", 1)],
    )?;
    let reference = ("live.people.Customer", "live.people.Customer", 1);
    let id = registry.register("references-value", &order(json!("live.people.Customer")), &[reference])?;

    let installation = Installation::new(servers, "registry::references_are_resolved")?;
    installation.connector("references", &avro_connector("references", "references_.orders", "references.dead"))?;
    let worker = installation.start()?;
    let encoder = Schema::parse(&order(customer(address)))?;
    let producer = Producer::new(kafka.client(), "references")?;
    for n in 0..20 {
        let record = |fields: Vec<(&str, Value)>| Value::Record(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect());
        let home = record(vec![("city", Value::String(format!("city {n}")))]);
        let buyer = record(vec![("name", Value::String("Ana".to_owned())), ("home", home)]);
        let value = encode(&encoder, record(vec![("id", Value::Long(n)), ("buyer", buyer)]))?;
        producer.send(n.to_string(), &Outgoing { value: Some(&framed(id, &value)), ..Outgoing::default() })?;
    }
    reconcile_exactly(reader, "references_.orders", "id", &producer.journal()?, WITHIN)?;
    let rows = reader.query("SELECT id, buyer.home.city AS city FROM references_.orders ORDER BY id")?;
    for (n, row) in rows.iter().enumerate() {
        ensure!(row["city"] == format!("city {n}"), "{row}");
    }
    ensure!(worker.metric("millrace_dead_letters_total", &[])? == 0.0, "a dead letter");
    Ok(())
}

/// The schema's id in a header, in each of the forms in use; the value is the data alone.
pub fn schema_ids_in_a_header(servers: &Servers) -> anyhow::Result<()> {
    let (kafka, registry, reader) = (servers.kafka()?, servers.registry()?, servers.emulator()?.reader());
    kafka.create_topic("idheader", 1, &[])?;
    kafka.create_topic("idheader.dead", 1, &[])?;
    reader.create_dataset("idheader")?;
    let text = small_schema("ById", &[]);
    let id = registry.register("idheader-value", &text, &[])?;
    let schema = Schema::parse(&text)?;
    let installation = Installation::new(servers, "registry::schema_ids_in_a_header")?;
    let connector = avro_connector("idheader", "idheader.rows", "idheader.dead");
    let header = "format = \"avro\"\nschema_id_header = \"__value_schema_id\"";
    installation.connector("idheader", &connector.replace("format = \"avro\"", header))?;
    let mut worker = installation.start()?;
    let producer = Producer::new(kafka.client(), "idheader")?;
    let forms = [framed(id, &[]), id.to_string().into_bytes()];
    for n in 0..100 {
        let headers = [("__value_schema_id", &forms[(n % 2) as usize][..])];
        let value = small(&schema, n, &[])?;
        producer.send(n.to_string(), &Outgoing { value: Some(&value), headers: &headers, ..Outgoing::default() })?;
    }
    let journal = producer.journal()?;
    // Without the header, with one of no form, with an id that nobody registered: dead letters, and what follows goes on.
    let value = small(&schema, 1000, &[])?;
    let bad: [&[(&str, &[u8])]; 3] = [&[], &[("__value_schema_id", b"seven")], &[("__value_schema_id", &framed(999_999, &[]))]];
    for headers in bad {
        producer.send("bad", &Outgoing { value: Some(&value), headers, ..Outgoing::default() })?;
    }
    producer.journal()?;
    reconcile_exactly(reader, "idheader.rows", "id", &journal, WITHIN)?;
    worker.wait_for_metric("millrace_dead_letters_total", &[("connector", "idheader")], 3.0, WITHIN)?;
    reconcile_exactly(reader, "idheader.rows", "id", &journal, WITHIN)?;
    worker.terminate()
}

/// Refused connections, then rubbish with status 200 and 502: held, nothing dead-lettered, health says so. Then it flows without a restart.
pub fn a_registry_that_is_down_holds(servers: &Servers) -> anyhow::Result<()> {
    let (kafka, registry, reader) = (servers.kafka()?, servers.registry()?, servers.emulator()?.reader());
    kafka.create_topic("down", 2, &[])?;
    kafka.create_topic("down.dead", 1, &[])?;
    reader.create_dataset("down")?;
    let schema = small_schema("Patient", &[]);
    let id = registry.register("down-value", &schema, &[])?;
    let schema = Schema::parse(&schema)?;
    let [port] = free_ports()?;
    let mut installation = Installation::new(servers, "registry::a_registry_that_is_down_holds")?;
    installation.set("registry", "urls", vec![registry.url().replace(&registry.port().to_string(), &port.to_string())]);
    installation.set("registry", "timeout", "2s");
    installation.connector("down", &avro_connector("down", "down.rows", "down.dead"))?;

    let producer = Producer::new(kafka.client(), "down")?;
    for n in 0..100 {
        let value = framed(id, &small(&schema, n, &[])?);
        producer.send(n.to_string(), &Outgoing { partition: Some((n % 2) as i32), value: Some(&value), ..Outgoing::default() })?;
    }
    let journal = producer.journal()?;
    let mut worker = installation.start()?;
    let held = [("connector", "down"), ("cause", "schema_source_unavailable")];
    worker.wait_for_metric("millrace_held_partitions", &held, 2.0, WITHIN)?;
    let told = wait_for("health tells", WITHIN, || {
        let (_, ready) = worker.get("/health/ready")?;
        Ok(ready.contains("schema_source_unavailable").then_some(ready))
    })?;
    ensure!(told.contains("connector `down` holds down[0], down[1]"), "/health/ready does not name what is held: {told}");
    for status in [200, 502] {
        let gate = Gate::open(port, Behind::Rubbish(status))?;
        wait_for("a request that gets rubbish", WITHIN, || Ok((gate.connections() > 0).then_some(())))?;
        std::thread::sleep(Duration::from_secs(1));
        ensure!(worker.metric("millrace_held_partitions", &held)? == 2.0, "not held any more at rubbish with status {status}");
    }
    ensure!(reader.schema("down.rows")?.is_none(), "a table was made of rubbish");
    let _gate = Gate::open(port, Behind::Server(registry.port()))?;
    reconcile_exactly(reader, "down.rows", "id", &journal, Duration::from_secs(90)).context("after the registry came back")?;
    ensure!(worker.metric("millrace_dead_letters_total", &[])? == 0.0, "a dead letter");
    wait_for("no hold", WITHIN, || Ok((worker.metric("millrace_held_partitions", &[("connector", "down")])? == 0.0).then_some(())))
}
