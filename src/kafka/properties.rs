//! librdkafka properties: the user's, merged with those that millrace's promises rest on.

use std::collections::BTreeMap;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use super::context::ClientEvents;
use super::error::KafkaError;
use super::oauth::TokenSource;
use super::prefetch::Prefetch;
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

/// What a client is for.
pub(super) enum Purpose<'a> {
    /// A member of a group, with its limits on fetching ahead.
    Member { group_id: &'a str, prefetch: Prefetch, topics_by_regex: bool },
    /// Asks questions or reads again: carries the group's name, never joins it.
    Outsider { group_id: &'a str, name: &'static str },
    /// Writes dead letters, or what the fleet notes for itself.
    Producer { name: &'static str, buffer_bytes: u64, timeout_ms: u128 },
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
    let mut users: BTreeMap<String, (String, String)> = BTreeMap::new();
    let connector_origin = format!("[kafka] of connector {}", cluster.connector);
    for (origin, table) in [("[kafka]", &cluster.kafka), (connector_origin.as_str(), &cluster.overrides)] {
        for (property, value) in table {
            users.insert(property.trim().to_owned(), (value.to_property(), origin.to_owned()));
        }
    }
    refuse(&users)?;
    check_values(&users)?;
    let token = TokenSource::extract(&mut users, cluster.ca_file.as_deref())?;

    let mut config = ClientConfig::new();
    config.set_log_level(RDKafkaLogLevel::Info);
    let member = if cluster.connector.is_empty() { "fleet" } else { &cluster.connector };
    let set_by_user = |names: &[&str]| names.iter().any(|name| users.contains_key(*name));
    let consumer_protocol = users.get("group.protocol").is_some_and(|(value, _)| value.eq_ignore_ascii_case("consumer"));
    let mut session_timeout_ms = SESSION_TIMEOUT_MS;
    let not_for_this = if matches!(purpose, Purpose::Producer { .. }) { CONSUMER_ONLY } else { PRODUCER_ONLY };
    match purpose {
        Purpose::Member { group_id, prefetch, topics_by_regex } => {
            config.set("client.id", format!("millrace-{member}")).set("group.id", *group_id);
            if !consumer_protocol {
                config.set("session.timeout.ms", SESSION_TIMEOUT_MS.to_string());
                config.set("heartbeat.interval.ms", "500").set("partition.assignment.strategy", "cooperative-sticky");
                if let Some((value, _)) = users.get("session.timeout.ms") {
                    session_timeout_ms = value.parse().unwrap_or(SESSION_TIMEOUT_MS);
                }
            }
            for (name, value) in prefetch.properties() {
                config.set(name, value);
            }
            if *topics_by_regex {
                config.set("topic.metadata.refresh.interval.ms", "10000");
            } else {
                config.set("topic.metadata.refresh.interval.ms", "60000");
            }
        }
        Purpose::Outsider { group_id, name } => {
            config.set("client.id", format!("millrace-{member}-{name}")).set("group.id", *group_id);
            // Read one record at a time: no need to fetch ahead.
            config.set("queued.max.messages.kbytes", "1024").set("queued.min.messages", "100").set("fetch.message.max.bytes", "262144");
            config.set("fetch.max.bytes", "1048576");
        }
        Purpose::Producer { name, buffer_bytes, timeout_ms } => {
            config.set("client.id", format!("millrace-{member}-{name}"));
            config.set("linger.ms", "5").set("compression.type", "lz4");
            // The topic's own limit decides what is too large. A small batch, because a broker refuses a batch as a whole.
            config.set("message.max.bytes", "67108864").set("batch.size", "65536");
            config.set("queue.buffering.max.kbytes", (buffer_bytes / 1024).max(1024).to_string());
            config.set("queue.buffering.max.messages", "100000").set("message.timeout.ms", timeout_ms.to_string());
            config.set("topic.metadata.propagation.max.ms", "5000");
        }
    }
    config.set("socket.keepalive.enable", "true").set("reconnect.backoff.max.ms", "5000");
    if !set_by_user(&["ssl.ca.location", "ssl.ca.pem"]) {
        for (name, value) in trust::properties(cluster.ca_file.as_deref())? {
            config.set(name, value);
        }
    }
    if set_by_user(&["max.partition.fetch.bytes"]) {
        config.remove("fetch.message.max.bytes");
    }
    for (property, (value, _)) in &users {
        if !not_for_this.contains(&property.as_str()) {
            config.set(property, value);
        }
    }
    match purpose {
        Purpose::Producer { .. } => {
            config.set("enable.idempotence", "true").set("acks", "all");
            for alias in ["request.required.acks", "retries", "message.send.max.retries"] {
                config.remove(alias);
            }
        }
        Purpose::Member { .. } | Purpose::Outsider { .. } => {
            for (property, value, _) in OURS {
                config.set(*property, *value);
            }
        }
    }
    if matches!(purpose, Purpose::Outsider { name: "reread" | "sample" | super::topic_scan::NAME, .. }) {
        config.set("enable.partition.eof", "true");
    }
    if matches!(purpose, Purpose::Outsider { name: super::sample::NAME, .. }) {
        // It reads up to the end and leaves: the broker's answer "nothing more" is what it waits for.
        config.set("fetch.wait.max.ms", "50");
    }
    if matches!(purpose, Purpose::Outsider { name: super::lag::UNCOMMITTED, .. }) {
        // Asks where the topics end for those who write; reads nothing.
        config.set("isolation.level", "read_uncommitted");
    }
    if matches!(purpose, Purpose::Outsider { .. }) {
        for only_members in
            ["group.protocol", "group.remote.assignor", "session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy"]
        {
            config.remove(only_members);
        }
    }
    Ok(ClientProperties { config, events: ClientEvents::new(member, token), session_timeout_ms })
}

/// Refuses what a promise forbids.
fn refuse(users: &BTreeMap<String, (String, String)>) -> Result<(), KafkaError> {
    for (property, (value, origin)) in users {
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
        if property == "session.timeout.ms" && users.get("group.protocol").is_some_and(|(p, _)| p.eq_ignore_ascii_case("consumer")) {
            return error("is the broker's under group.protocol=consumer (group.consumer.session.timeout.ms); leave it out".to_owned());
        }
    }
    Ok(())
}

/// Lets librdkafka look at each property alone, so that an error names it and where it stands.
fn check_values(users: &BTreeMap<String, (String, String)>) -> Result<(), KafkaError> {
    for (property, (value, origin)) in users {
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
