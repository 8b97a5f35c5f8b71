//! librdkafka properties: the user's, merged with those that millrace's promises rest on.

use std::collections::BTreeMap;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use super::context::ClientEvents;
use super::error::KafkaError;
use super::oauth::TokenSource;
use super::purpose::Purpose;
use super::settings::ClusterSettings;
use super::trust;

/// The session timeout of classic groups unless set. Also what is assumed under `group.protocol=consumer`, where the broker decides (45 s
/// by default): assuming less only makes a worker that stood still ask sooner whether it is still a member.
pub(super) const SESSION_TIMEOUT_MS: u64 = 10_000;

/// Properties that a promise rests on: name, value, why. The user may repeat ours, not change it.
const OURS: &[(&str, &str, &str)] = &[
    ("enable.auto.commit", "false", "offsets are committed only when their rows are durable in BigQuery"),
    ("enable.auto.offset.store", "false", "offsets are committed only when their rows are durable in BigQuery"),
    ("enable.partition.eof", "false", "the end of a partition is no event for a sink"),
    ("auto.offset.reset", "error", "a committed offset that is out of range is lost data and is reported: see `start` and `on_lost_range`"),
    ("isolation.level", "read_committed", "records of aborted transactions must never reach a table"),
];

/// Properties that may not be set at all: name, why and what to do instead.
const REFUSED: &[(&str, &str)] = &[
    ("group.id", "is the connector's `group`"),
    (
        "group.instance.id",
        "is not supported: a static member keeps its partitions after a stop, and nobody reads them until its session ends",
    ),
    ("transactional.id", "is not used: millrace's producer writes dead letters only"),
    ("plugin.library.paths", "is not supported"),
];

const CONSUMER_ONLY: &[&str] = &[
    "auto.commit.interval.ms",
    "auto.offset.reset",
    "check.crcs",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.partition.eof",
    "fetch.error.backoff.ms",
    "fetch.max.bytes",
    "fetch.message.max.bytes",
    "fetch.min.bytes",
    "fetch.queue.backoff.ms",
    "fetch.wait.max.ms",
    "group.protocol",
    "group.protocol.type",
    "group.remote.assignor",
    "heartbeat.interval.ms",
    "isolation.level",
    "max.partition.fetch.bytes",
    "max.poll.interval.ms",
    "partition.assignment.strategy",
    "queued.max.messages.kbytes",
    "queued.min.messages",
    "session.timeout.ms",
];
const PRODUCER_ONLY: &[&str] = &[
    "acks",
    "batch.num.messages",
    "batch.size",
    "compression.codec",
    "compression.level",
    "compression.type",
    "delivery.timeout.ms",
    "enable.idempotence",
    "linger.ms",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "message.send.max.retries",
    "message.timeout.ms",
    "partitioner",
    "queue.buffering.backpressure.threshold",
    "queue.buffering.max.kbytes",
    "queue.buffering.max.messages",
    "queue.buffering.max.ms",
    "request.required.acks",
    "request.timeout.ms",
    "retries",
    "sticky.partitioning.linger.ms",
];

/// A property as the user gave it. Its value may be a secret.
pub(super) struct Given {
    pub value: String,
    /// The table that it stands in, as errors name it.
    pub origin: String,
}

/// A client's properties, checked by librdkafka, and where its OAUTHBEARER tokens come from.
pub(super) struct ClientProperties {
    pub config: ClientConfig,
    pub events: ClientEvents,
    /// The session timeout in force, or assumed, ms.
    pub session_timeout_ms: u64,
}

/// Merges the fleet's and the connector's properties with ours.
///
/// # Errors
/// [`KafkaError::Property`] for one that librdkafka does not know or take, and for one that millrace's promises forbid.
pub(super) fn merge(cluster: &ClusterSettings, purpose: &Purpose<'_>) -> Result<ClientProperties, KafkaError> {
    let mut users = given(cluster);
    refuse(&users)?;
    check_values(&users)?;
    let token = TokenSource::extract(&mut users, cluster.ca_file.as_deref())?;
    let connector = if cluster.connector.is_empty() { "fleet" } else { &cluster.connector };

    let mut config = ClientConfig::new();
    config.set_log_level(RDKafkaLogLevel::Info).set("client.id", purpose.client_id(connector));
    purpose.set_defaults(&mut config);
    let mut session_timeout_ms = SESSION_TIMEOUT_MS;
    if !has_consumer_protocol(&users) {
        purpose.set_classic_group(&mut config, SESSION_TIMEOUT_MS);
        if let Some(given) = users.get("session.timeout.ms") {
            // librdkafka took it in `check_values`: it is a number.
            session_timeout_ms = given.value.parse().unwrap_or(SESSION_TIMEOUT_MS);
        }
    }
    config.set("socket.keepalive.enable", "true").set("reconnect.backoff.max.ms", "5000");
    if !["ssl.ca.location", "ssl.ca.pem"].iter().any(|name| users.contains_key(*name)) {
        for (name, value) in trust::properties(cluster.ca_file.as_deref())? {
            config.set(name, value);
        }
    }
    if users.contains_key("max.partition.fetch.bytes") {
        config.remove("fetch.message.max.bytes"); // the same limit by its other name
    }
    let not_for_this = if matches!(purpose, Purpose::Producer { .. }) { CONSUMER_ONLY } else { PRODUCER_ONLY };
    for (property, given) in users.iter().filter(|(property, _)| !not_for_this.contains(&property.as_str())) {
        config.set(property, &given.value);
    }
    purpose.set_needs(&mut config, OURS);
    Ok(ClientProperties { config, events: ClientEvents::new(connector, token), session_timeout_ms })
}

/// The user's properties by name; a connector's own stand above the fleet's.
fn given(cluster: &ClusterSettings) -> BTreeMap<String, Given> {
    let connector_origin = format!("[kafka] of connector {}", cluster.connector);
    let mut users = BTreeMap::new();
    for (origin, table) in [("[kafka]", &cluster.kafka), (connector_origin.as_str(), &cluster.overrides)] {
        for (property, value) in table {
            users.insert(property.trim().to_owned(), Given { value: value.to_property(), origin: origin.to_owned() });
        }
    }
    users
}

fn has_consumer_protocol(users: &BTreeMap<String, Given>) -> bool {
    users.get("group.protocol").is_some_and(|given| given.value.eq_ignore_ascii_case("consumer"))
}

/// Refuses what a promise forbids.
fn refuse(users: &BTreeMap<String, Given>) -> Result<(), KafkaError> {
    for (property, Given { value, origin }) in users {
        let error = |message: String| Err(KafkaError::Property { origin: origin.clone(), property: property.clone(), message });
        if let Some((_, ours, why)) = OURS.iter().find(|(name, _, _)| name == property)
            && !value.eq_ignore_ascii_case(ours)
        {
            return error(format!("is always \"{ours}\" in millrace: {why}; leave it out"));
        }
        if let Some((_, why)) = REFUSED.iter().find(|(name, _)| name == property) {
            return error((*why).to_owned());
        }
        if matches!(property.as_str(), "sasl.mechanism" | "sasl.mechanisms") && value.trim().eq_ignore_ascii_case("AWS_MSK_IAM") {
            return error(
                "\"AWS_MSK_IAM\" is not supported by librdkafka: give the MSK cluster SASL/SCRAM (`SCRAM-SHA-512`, with the user in AWS Secrets \
                 Manager) or mutual TLS, and use that here"
                    .to_owned(),
            );
        }
        if property == "enable.idempotence" && !value.eq_ignore_ascii_case("true") {
            return error("is always \"true\" in millrace: dead letters are written idempotently; leave it out".to_owned());
        }
        if matches!(property.as_str(), "acks" | "request.required.acks") && !matches!(value.as_str(), "all" | "-1") {
            return error("is always \"all\" in millrace: a dead letter counts as durable; leave it out".to_owned());
        }
        if property == "session.timeout.ms" && has_consumer_protocol(users) {
            return error("is the broker's under group.protocol=consumer (group.consumer.session.timeout.ms); leave it out".to_owned());
        }
    }
    Ok(())
}

/// Lets librdkafka look at each property alone, so that an error names it and where it stands.
fn check_values(users: &BTreeMap<String, Given>) -> Result<(), KafkaError> {
    for (property, Given { value, origin }) in users {
        if TokenSource::is_ours(property) {
            continue;
        }
        let mut alone = ClientConfig::new();
        alone.set(property, value);
        if let Err(rdkafka::error::KafkaError::ClientConfig(_, text, ..)) = alone.create_native_config() {
            let message = if is_secret(property) { "librdkafka does not take this value".to_owned() } else { text };
            return Err(KafkaError::Property { origin: origin.clone(), property: property.clone(), message });
        }
    }
    if !users.contains_key("bootstrap.servers") && !users.contains_key("metadata.broker.list") {
        let (origin, property) = ("[kafka]".to_owned(), "bootstrap.servers".to_owned());
        return Err(KafkaError::Property {
            origin,
            property,
            message: "is missing: the brokers' addresses, `host:port`, separated by commas".to_owned(),
        });
    }
    Ok(())
}

/// Properties whose value never stands in a message.
fn is_secret(property: &str) -> bool {
    ["password", "secret", ".pem", "passphrase", "oauthbearer.config", "sasl.username"].iter().any(|part| property.contains(part))
}

/// librdkafka's refusal of the properties together, without a value.
pub(super) fn creation_error(error: rdkafka::error::KafkaError) -> KafkaError {
    match error {
        rdkafka::error::KafkaError::ClientConfig(_, text, property, _) => {
            let message = if is_secret(&property) { "librdkafka does not take this value".to_owned() } else { text };
            KafkaError::Property { origin: "[kafka]".to_owned(), property, message }
        }
        other => KafkaError::Client(other.to_string()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#[path = "properties_tests.rs"]
mod tests;
