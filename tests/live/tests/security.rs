//! Connections to brokers and registry that only a private authority vouches for: one `ca_file` reaches every stack.

use std::time::Duration;

use anyhow::{Context, ensure};

use crate::harness::avro::{Stock, framed, stock_schema};
use crate::harness::cluster::{PLAIN_PASSWORD, PLAIN_USER, SCRAM_PASSWORD, SCRAM_USER};
use crate::harness::installation::{Installation, avro_connector};
use crate::harness::journal::{Outgoing, Producer, reconcile_exactly};
use crate::harness::process::wait_for;
use crate::harness::servers::Servers;
use crate::harness::tokens::{CLIENT_ID, CLIENT_SECRET};

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

/// An installation that reaches the brokers' SASL listeners over TLS with this mechanism; a password is in a file of its own.
fn over_sasl(servers: &Servers, test: &str, mechanism: &str) -> anyhow::Result<Installation> {
    let mut installation = Installation::new(servers, test)?;
    installation.set("kafka", "bootstrap.servers", servers.kafka()?.bootstrap_sasl());
    installation.set("kafka", "security.protocol", "SASL_SSL");
    installation.set("kafka", "sasl.mechanism", mechanism);
    installation.set("registry", "urls", vec![servers.registry()?.tls_url()]);
    installation.set("worker", "ca_file", servers.certificates()?.ca.display().to_string());
    Ok(installation)
}

/// The secret by way of a file.
fn secret(installation: &Installation, text: &str) -> anyhow::Result<String> {
    let file = installation.folder().join("secret");
    std::fs::write(&file, text)?;
    Ok(format!("${{file:{}}}", file.display()))
}

/// Whatever was logged, this was not.
fn not_logged(installation: &Installation, secret: &str) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(installation.folder())? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "log") {
            ensure!(!std::fs::read_to_string(&path)?.contains(secret), "the secret is in {}", path.display());
        }
    }
    Ok(())
}

fn with_a_password(servers: &Servers, test: &str, name: &str, mechanism: &str, user: &str, password: &str) -> anyhow::Result<()> {
    let mut installation = over_sasl(servers, test, mechanism)?;
    installation.set("kafka", "sasl.username", user);
    let by_file = secret(&installation, password)?;
    installation.set("kafka", "sasl.password", by_file.as_str());
    flows(servers, name, &installation)?;
    installation.set("kafka", "sasl.password", "wrong");
    refused(&installation, name)?;
    installation.set("kafka", "sasl.password", by_file);
    installation.unset("worker", "ca_file");
    refused(&installation, name)?;
    not_logged(&installation, password)
}

pub fn scram_over_tls_with_a_private_authority(servers: &Servers) -> anyhow::Result<()> {
    let test = "security::scram_over_tls_with_a_private_authority";
    with_a_password(servers, test, "scram", "SCRAM-SHA-512", SCRAM_USER, SCRAM_PASSWORD)
}

pub fn plain_over_tls_with_a_private_authority(servers: &Servers) -> anyhow::Result<()> {
    let test = "security::plain_over_tls_with_a_private_authority";
    with_a_password(servers, test, "plain", "PLAIN", PLAIN_USER, PLAIN_PASSWORD)
}

/// Tokens of an identity provider behind the private authority, checked by the brokers against its public key; they live shorter than the
/// test, so that connections are authenticated anew while records flow.
pub fn oauthbearer_with_a_token_endpoint_of_a_private_authority(servers: &Servers) -> anyhow::Result<()> {
    let mut installation = over_sasl(servers, "security::oauthbearer_with_a_token_endpoint_of_a_private_authority", "OAUTHBEARER")?;
    let provider = servers.tokens()?.serve(servers.certificates()?, Duration::from_secs(10))?;
    installation.set("kafka", "sasl.oauthbearer.method", "oidc");
    installation.set("kafka", "sasl.oauthbearer.token.endpoint.url", provider.url());
    installation.set("kafka", "sasl.oauthbearer.client.id", CLIENT_ID);
    let by_file = secret(&installation, CLIENT_SECRET)?;
    installation.set("kafka", "sasl.oauthbearer.client.secret", by_file.as_str());
    installation.set("kafka", "sasl.oauthbearer.scope", "kafka");
    flows(servers, "oauth", &installation)?;
    // Consumer, producer of dead letters, lag queries each have theirs.
    ensure!(provider.given() >= 3 && provider.refused() == 0, "{} tokens given, {} refused", provider.given(), provider.refused());
    let before = provider.given();
    let mut worker = installation.start()?;
    worker.wait_for_partitions("oauth", 2, Duration::from_secs(60))?;
    std::thread::sleep(Duration::from_secs(15));
    wait_for("renewed tokens, each after 10 s at most", Duration::from_secs(30), || Ok((provider.given() > before + 3).then_some(())))
        .with_context(|| format!("{} tokens, {before} before", provider.given()))?;
    ensure!(worker.metric("millrace_assigned_partitions", &[("connector", "oauth")])? == 2.0, "the renewal lost the partitions");
    worker.terminate()?;

    let (given, asked) = (provider.given(), provider.refused());
    installation.set("kafka", "sasl.oauthbearer.client.secret", "wrong");
    refused(&installation, "oauth")?;
    ensure!(provider.given() == given && provider.refused() > asked, "a wrong secret got a token");
    installation.set("kafka", "sasl.oauthbearer.client.secret", by_file);
    installation.unset("worker", "ca_file");
    refused(&installation, "oauth")?;
    ensure!(provider.given() == given, "the token endpoint was trusted without ca_file");
    not_logged(&installation, CLIENT_SECRET)
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
