//! The servers themselves do what the other tests take for granted.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use serde_json::json;

use crate::harness::cluster::{SCRAM_PASSWORD, SCRAM_USER};
use crate::harness::journal::{Outgoing, Producer};
use crate::harness::registry::get;
use crate::harness::servers::Servers;

pub fn start_and_are_as_strict_as_they_should_be(servers: &Servers) -> anyhow::Result<()> {
    let started = Instant::now();
    let (kafka, certificates) = (servers.kafka()?, servers.certificates()?);
    eprintln!("    Kafka: {:.1} s", started.elapsed().as_secs_f64());
    let registry = servers.registry()?;
    eprintln!("    registry: {:.1} s", started.elapsed().as_secs_f64());
    let reader = servers.emulator()?.reader();
    eprintln!("    emulator: {:.1} s", started.elapsed().as_secs_f64());

    kafka.create_topic("servers", 1, &[])?;
    let producer = Producer::new(kafka.client(), "servers")?;
    for n in 0..10 {
        producer.send(n.to_string(), &Outgoing { value: Some(b"x"), ..Outgoing::default() })?;
    }
    ensure!(producer.journal()?.keys().map(|(_, offset)| *offset).eq(0..10), "the journal has other offsets than the topic");

    // The listeners let in who proves who they are, and nobody else.
    let mut scram = ClientConfig::new();
    scram.set("bootstrap.servers", kafka.bootstrap_sasl()).set("security.protocol", "SASL_SSL").set("sasl.mechanism", "SCRAM-SHA-512");
    scram
        .set("sasl.username", SCRAM_USER)
        .set("sasl.password", SCRAM_PASSWORD)
        .set("ssl.ca.location", certificates.ca.display().to_string());
    ensure!(sees(&scram, "servers"), "SCRAM over TLS does not work");
    ensure!(!sees(scram.clone().set("sasl.password", "another"), "servers"), "any password will do");
    ensure!(!sees(scram.clone().remove("ssl.ca.location"), "servers"), "the brokers' certificates are not of a private authority");
    let mut mutual = ClientConfig::new();
    mutual.set("bootstrap.servers", kafka.bootstrap_mutual_tls()).set("security.protocol", "SSL");
    mutual.set("ssl.ca.location", certificates.ca.display().to_string());
    ensure!(!sees(&mutual, "servers"), "no client certificate is wanted");
    mutual.set("ssl.certificate.location", certificates.client_cert.display().to_string());
    mutual.set("ssl.key.location", certificates.client_key.display().to_string());
    ensure!(sees(&mutual, "servers"), "mutual TLS does not work");

    registry.register("servers-value", &json!({"type": "record", "name": "A", "fields": [{"name": "a", "type": "int"}]}), &[])?;
    ensure!(get(&format!("{}/schemas/ids/999999", registry.url()))?.0 == 404, "an unknown schema id is not 404");
    ensure!(get(&format!("{}/subjects", registry.tls_url())).is_err(), "the registry's certificate is not of a private authority");

    reader.create_dataset("servers")?;
    ensure!(reader.schema("servers.none")?.is_none());
    reader.create_table("servers.rows", &json!([{"name": "kafka_offset", "type": "INTEGER", "description": "d"}]))?;
    let columns = reader.schema("servers.rows")?.context("the table")?;
    ensure!(columns[0]["type"] == "INTEGER" && columns[0]["description"] == "d", "{columns:?}");
    ensure!(reader.query("SELECT COUNT(*) AS n FROM servers.rows")? == [json!({"n": 0})]);
    ensure!(reader.rows("servers.rows")?.is_empty());
    Ok(())
}

fn sees(config: &ClientConfig, topic: &str) -> bool {
    let consumer: Result<BaseConsumer, _> = config.clone().set("log_level", "0").create();
    let found = consumer.and_then(|consumer| consumer.fetch_metadata(Some(topic), Duration::from_secs(5)));
    found.is_ok_and(|metadata| metadata.topics().iter().any(|t| t.name() == topic && t.partitions().len() == 1))
}
