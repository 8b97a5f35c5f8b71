//! Connections to brokers and registry that only a private authority vouches for: one `ca_file` reaches every stack.

use std::time::Duration;

use anyhow::ensure;

use crate::harness::avro::{Stock, framed, stock_schema};
use crate::harness::cluster::{SCRAM_PASSWORD, SCRAM_USER};
use crate::harness::installation::{Installation, avro_connector};
use crate::harness::journal::{Outgoing, Producer, reconcile_exactly};
use crate::harness::servers::Servers;

/// Stock updates through brokers and registry over TLS. `name` is that of the topic, dataset and connector.
fn flows(servers: &Servers, name: &str, installation: &Installation) -> anyhow::Result<()> {
    let (kafka, reader) = (servers.kafka()?, servers.emulator()?.reader());
    kafka.create_topic(name, 2, &[])?;
    kafka.create_topic(&format!("{name}.dead"), 1, &[])?;
    reader.create_dataset(name)?;
    let id = servers.registry()?.register(&format!("{name}-value"), &stock_schema()?, &[])?;
    installation.connector(name, &avro_connector(name, &format!("{name}.rows"), &format!("{name}.dead")))?;
    let mut worker = installation.start()?;
    let (stock, producer) = (Stock::new()?, Producer::new(kafka.client(), name)?);
    for n in 0..100 {
        let value = framed(id, &stock.encode(n)?);
        producer.send(Stock::reference(n), &Outgoing { partition: Some((n % 2) as i32), value: Some(&value), ..Outgoing::default() })?;
    }
    // The dead-letter producer's connection is secured as well.
    producer.send("bad", &Outgoing { partition: Some(0), value: Some(b"?"), ..Outgoing::default() })?;
    let mut journal = producer.journal()?;
    journal.retain(|_, identity| identity != "bad");
    reconcile_exactly(reader, &format!("{name}.rows"), "reference", &journal, Duration::from_secs(60))?;
    worker.wait_for_metric("millrace_dead_letters_total", &[("connector", name)], 1.0, Duration::from_secs(30))?;
    worker.terminate()
}

/// Without the authority nothing may flow: waits a while and looks for partitions.
fn refused(installation: &Installation, name: &str) -> anyhow::Result<()> {
    // Refusing to start is as good as never getting a partition.
    let Ok(worker) = installation.start() else { return Ok(()) };
    std::thread::sleep(Duration::from_secs(5));
    ensure!(worker.metric("millrace_assigned_partitions", &[("connector", name)])? == 0.0, "brokers of an unknown authority were trusted");
    Ok(())
}

pub fn scram_over_tls_with_a_private_authority(servers: &Servers) -> anyhow::Result<()> {
    let (kafka, certificates) = (servers.kafka()?, servers.certificates()?);
    let mut installation = Installation::new(servers, "security::scram_over_tls_with_a_private_authority")?;
    installation.set("kafka", "bootstrap.servers", kafka.bootstrap_sasl());
    installation.set("kafka", "security.protocol", "SASL_SSL");
    installation.set("kafka", "sasl.mechanism", "SCRAM-SHA-512");
    installation.set("kafka", "sasl.username", SCRAM_USER);
    let password = installation.folder().join("password");
    std::fs::write(&password, SCRAM_PASSWORD)?;
    installation.set("kafka", "sasl.password", format!("${{file:{}}}", password.display()));
    installation.set("registry", "urls", vec![servers.registry()?.tls_url()]);
    installation.set("worker", "ca_file", certificates.ca.display().to_string());
    flows(servers, "scram", &installation)?;
    // Whatever was logged, the password was not.
    for entry in std::fs::read_dir(installation.folder())? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "log") {
            ensure!(!std::fs::read_to_string(&path)?.contains(SCRAM_PASSWORD), "the password is in {}", path.display());
        }
    }
    installation.unset("worker", "ca_file");
    refused(&installation, "scram")
}

pub fn mutual_tls_with_a_private_authority(servers: &Servers) -> anyhow::Result<()> {
    let (kafka, certificates) = (servers.kafka()?, servers.certificates()?);
    let mut installation = Installation::new(servers, "security::mutual_tls_with_a_private_authority")?;
    installation.set("kafka", "bootstrap.servers", kafka.bootstrap_mutual_tls());
    installation.set("kafka", "security.protocol", "SSL");
    installation.set("kafka", "ssl.certificate.location", certificates.client_cert.display().to_string());
    installation.set("kafka", "ssl.key.location", certificates.client_key.display().to_string());
    installation.set("registry", "urls", vec![servers.registry()?.tls_url()]);
    installation.set("worker", "ca_file", certificates.ca.display().to_string());
    flows(servers, "mutual", &installation)?;
    installation.unset("kafka", "ssl.certificate.location");
    installation.unset("kafka", "ssl.key.location");
    refused(&installation, "mutual")
}
