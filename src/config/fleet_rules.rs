//! Combinations in `millrace.toml` that cannot work.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::fleet::{BigQueryConfig, FleetConfig, KafkaValue, RegistryConfig, WorkerConfig};
use super::kafka_properties::{OWN, PROPERTIES};
use super::rules::{Complaints, Place, at};
use super::scaling::{ScalingConfig, ScalingMode};
use super::shape::nearest;
use super::values::{ByteSize, HumanDuration};

/// Guessing 16 characters of hexadecimal digits takes longer than anybody has.
const API_TOKEN_CHARS_MIN: usize = 16;

/// Complains about everything that the types cannot say.
pub(super) fn check_fleet(fleet: &FleetConfig, complaints: &mut Complaints<'_>) {
    if !fleet.kafka.contains_key("bootstrap.servers") && !fleet.kafka.contains_key("metadata.broker.list") {
        complaints
            .add(&at("kafka").key("bootstrap.servers"), "missing: expected the brokers' addresses, such as \"kafka-1:9092,kafka-2:9092\"");
    }
    check_kafka(&fleet.kafka, complaints);
    if let Some(registry) = &fleet.registry {
        check_registry(registry, complaints);
    }
    check_bigquery(&fleet.bigquery, complaints);
    check_worker(&fleet.worker, complaints);
    check_scaling(&fleet.scaling, complaints);
}

/// Properties for librdkafka: known, not our own, not at odds with each other.
pub(super) fn check_kafka(kafka: &BTreeMap<String, KafkaValue>, complaints: &mut Complaints<'_>) {
    let text = |key: &str| kafka.get(key).map(KafkaValue::to_property).unwrap_or_default();
    for (key, value) in kafka {
        let place = at("kafka").key(key);
        if let Some((_, why)) = OWN.iter().find(|(own, _)| own == key) {
            complaints.add(&place, format!("may not be set: {why}"));
        } else if !PROPERTIES.contains(&key.as_str()) {
            let hint = nearest(key, PROPERTIES).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            complaints.add(&place, format!("librdkafka has no such property{hint}"));
        } else if value.to_property().is_empty() {
            complaints.add(&place, "is empty");
        }
    }
    for key in ["sasl.mechanism", "sasl.mechanisms"] {
        if text(key).eq_ignore_ascii_case("AWS_MSK_IAM") {
            complaints.add(
                &at("kafka").key(key),
                "MSK IAM is not supported (librdkafka has no signer for it): use SASL/SCRAM or mutual TLS, which MSK offers too",
            );
        }
    }
    if text("group.protocol") == "consumer" {
        for key in ["session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy", "group.protocol.type"] {
            if kafka.contains_key(key) {
                complaints.add(&at("kafka").key(key), "is refused under group.protocol = \"consumer\": the broker decides it there");
            }
        }
    }
    let (certificate, key) = (kafka.contains_key("ssl.certificate.location"), kafka.contains_key("ssl.key.location"));
    if certificate && !key {
        complaints.add(&at("kafka").key("ssl.certificate.location"), "mutual TLS needs \"ssl.key.location\" too");
    }
    if key && !certificate {
        complaints.add(&at("kafka").key("ssl.key.location"), "mutual TLS needs \"ssl.certificate.location\" too");
    }
}

fn check_registry(registry: &RegistryConfig, complaints: &mut Complaints<'_>) {
    if registry.urls.is_empty() {
        complaints.add(&at("registry.urls"), "is empty: expected at least one address");
    }
    for (i, url) in registry.urls.iter().enumerate() {
        complaints.url(&at("registry.urls").index(i), url);
    }
    match (&registry.username, &registry.password) {
        (Some(_), None) => complaints.add_unless(&at("registry.username"), &[&at("registry.password")], "needs `password` beside it"),
        (None, Some(_)) => complaints.add_unless(&at("registry.password"), &[&at("registry.username")], "needs `username` beside it"),
        _ => {}
    }
    if registry.bearer_token.is_some() && registry.username.is_some() {
        complaints.add(&at("registry.bearer_token"), "cannot be combined with `username`: one way to authenticate");
    }
    match (&registry.client_cert_file, &registry.client_key_file) {
        (Some(_), None) => complaints.add(&at("registry.client_cert_file"), "needs `client_key_file` beside it"),
        (None, Some(_)) => complaints.add(&at("registry.client_key_file"), "needs `client_cert_file` beside it"),
        _ => {}
    }
    complaints.file(&at("registry.client_cert_file"), registry.client_cert_file.as_deref());
    complaints.file(&at("registry.client_key_file"), registry.client_key_file.as_deref());
    complaints.within(&at("registry.timeout"), registry.timeout, HumanDuration::from_millis(100), HumanDuration::from_secs(300));
}

fn check_bigquery(bigquery: &BigQueryConfig, complaints: &mut Complaints<'_>) {
    let legal = |c: char| c.is_ascii_alphanumeric() || "-_:".contains(c);
    if bigquery.project.is_empty() || !bigquery.project.chars().all(legal) {
        let place = at("bigquery.project");
        let shown = complaints.show(&place, &bigquery.project);
        complaints.add(&place, format!("{shown} is no project's id: expected letters, digits and hyphens, such as `my-project`"));
    }
    if !matches!(bigquery.credentials.as_str(), "application-default" | "none") {
        let place = at("bigquery.credentials");
        if !Path::new(&bigquery.credentials).is_file() {
            let shown = complaints.show(&place, &bigquery.credentials);
            complaints
                .add(&place, format!("{shown} is no file that can be found: expected `application-default`, `none` or a credentials file"));
        }
    }
    for (key, endpoint) in [("rest_endpoint", &bigquery.rest_endpoint), ("grpc_endpoint", &bigquery.grpc_endpoint)] {
        if let Some(endpoint) = endpoint {
            complaints.url(&at("bigquery").key(key), endpoint);
        }
    }
    complaints.within(&at("bigquery.connections_max"), bigquery.connections_max, 1, 100);
    complaints.within(&at("bigquery.connection_in_flight"), bigquery.connection_in_flight, ByteSize::mib(1), ByteSize::mib(1024));
    complaints.within(&at("bigquery.append_timeout"), bigquery.append_timeout, HumanDuration::from_secs(1), HumanDuration::from_secs(3600));
    complaints.within(
        &at("bigquery.visibility_delay"),
        bigquery.visibility_delay,
        HumanDuration::from_secs(0),
        HumanDuration::from_secs(3600),
    );
}

fn check_worker(worker: &WorkerConfig, complaints: &mut Complaints<'_>) {
    if worker.api_token.as_ref().is_some_and(|token| token.expose().trim().len() < API_TOKEN_CHARS_MIN) {
        complaints.add(&at("worker.api_token"), format!("is shorter than {API_TOKEN_CHARS_MIN} characters: it could be guessed"));
    }
    if worker.api_token.as_ref().is_some_and(|token| !token.expose().trim().bytes().all(|byte| byte.is_ascii_graphic())) {
        complaints.add(&at("worker.api_token"), "holds more than visible ASCII characters: no HTTP header carries it");
    }
    let place = at("worker.listen");
    if worker.listen.parse::<SocketAddr>().is_err() {
        let shown = complaints.show(&place, &worker.listen);
        complaints.add(&place, format!("{shown} is no address to listen on: expected an IP address and a port, such as `0.0.0.0:8080`"));
    }
    complaints.within(&at("worker.shards"), worker.shards, 1, 64);
    if let Some(most) = worker.max_records_per_s {
        complaints.within(&at("worker.max_records_per_s"), most, 1, 1_000_000_000);
    }
    complaints.file(&at("worker.ca_file"), worker.ca_file.as_deref());
    complaints.within(&at("worker.commit_interval"), worker.commit_interval, HumanDuration::from_millis(50), HumanDuration::from_secs(60));
    complaints.within(&at("worker.revoke_deadline"), worker.revoke_deadline, HumanDuration::from_millis(100), HumanDuration::from_secs(30));
    complaints.within(
        &at("worker.shutdown_deadline"),
        worker.shutdown_deadline,
        HumanDuration::from_secs(1),
        HumanDuration::from_secs(600),
    );
    if worker.shutdown_deadline < worker.revoke_deadline {
        complaints.add(&at("worker.shutdown_deadline"), "is shorter than `revoke_deadline`, which a stop needs too");
    }
}

/// The memory that a worker needs at the very least for these batch sizes: for each connector and shard two batches (one that fills, one
/// in flight), and 4 MiB a connector for what librdkafka fetches ahead and for plans. Never below 32 MiB.
pub(super) fn check_memory(worker: &WorkerConfig, batch_bytes: &[u64], complaints: &mut Complaints<'_>) {
    if let Some(message) = memory_shortage(worker, batch_bytes) {
        let place: Place = at("worker.memory");
        complaints.add_unless(&place, &[&at("worker.shards")], message);
    }
}

/// Why a worker's memory is too small for connectors with these `batch_bytes`: see [`check_memory`].
pub fn memory_shortage(worker: &WorkerConfig, batch_bytes: &[u64]) -> Option<String> {
    const MIB: u64 = 1024 * 1024;
    let batches: u64 = batch_bytes.iter().map(|bytes| bytes.saturating_mul(2).saturating_mul(u64::from(worker.shards))).sum();
    let least = batches.saturating_add(4 * MIB * batch_bytes.len() as u64).max(32 * MIB);
    (worker.memory.bytes() < least).then(|| {
        format!(
            "{:?} is too small for {} connectors with their `batch_bytes` and {} shards each: expected at least {} MiB",
            worker.memory,
            batch_bytes.len(),
            worker.shards,
            least.div_ceil(MIB)
        )
    })
}

/// The session timeout that librdkafka takes by default, for the check that a revocation fits into it.
pub(super) const DEFAULT_SESSION_TIMEOUT: Duration = Duration::from_secs(45);

/// A revocation that outlasts the session would be fenced before it commits.
pub(super) fn check_session(fleet: &FleetConfig, complaints: &mut Complaints<'_>) {
    let given = fleet.kafka.get("session.timeout.ms").and_then(|value| value.to_property().parse().ok()).map(Duration::from_millis);
    let session = given.unwrap_or(DEFAULT_SESSION_TIMEOUT);
    if fleet.worker.revoke_deadline.get() >= session {
        complaints.add(
            &at("worker.revoke_deadline"),
            format!("is not below the session timeout of {session:?}: the group would give the partitions away before they are committed"),
        );
    }
}

fn check_scaling(scaling: &ScalingConfig, complaints: &mut Complaints<'_>) {
    if scaling.min == 0 {
        complaints.add(&at("scaling.min"), "is 0: expected at least 1, for the leader is a worker");
    }
    if scaling.max < scaling.min {
        complaints.add(&at("scaling.max"), format!("{} is below `min` ({})", scaling.max, scaling.min));
    }
    let seconds = HumanDuration::from_secs;
    complaints.within(&at("scaling.freshness_target"), scaling.freshness_target, seconds(1), seconds(86_400));
    complaints.within(&at("scaling.recovery_target"), scaling.recovery_target, seconds(10), seconds(86_400));
    complaints.within(&at("scaling.scale_down_window"), scaling.scale_down_window, seconds(5), seconds(86_400));
    complaints.within(&at("scaling.startup_deadline"), scaling.startup_deadline, seconds(5), seconds(3_600));
    complaints.within(&at("scaling.report_interval"), scaling.report_interval, HumanDuration::from_millis(200), seconds(60));
    complaints.within(&at("scaling.decide_interval"), scaling.decide_interval, HumanDuration::from_millis(200), seconds(300));
    if scaling.worker_cost_per_hour.is_some_and(|cost| !cost.is_finite() || cost < 0.0) {
        complaints.add(&at("scaling.worker_cost_per_hour"), "is no cost: expected a number of at least 0");
    }
    // With `.reports` behind it the fleet's name is a topic's.
    let names = [
        ("fleet_id", Some(&scaling.fleet_id), "no name of a fleet", 240),
        ("report_topic", scaling.report_topic.as_ref(), "no topic's name", 249),
        ("state_topic", scaling.state_topic.as_ref(), "no topic's name", 249),
    ];
    for (key, name, what, most) in names.into_iter().filter_map(|(key, name, what, most)| Some((key, name?, what, most))) {
        let legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if name.is_empty() || name.len() > most || !name.chars().all(legal) {
            let place = at("scaling").key(key);
            let shown = complaints.show(&place, name);
            complaints.add(&place, format!("{shown} is {what}: expected up to {most} letters, digits, `.`, `_` and `-`"));
        }
    }
    if scaling.report_topic_name() == scaling.state_topic_name() {
        complaints.add(&at("scaling.state_topic"), "is also `report_topic`: reports expire and states stay, so they need two topics");
    }
    let local = scaling.mode == ScalingMode::Local;
    for (key, file) in [("lock_file", &scaling.lock_file), ("replicas_file", &scaling.replicas_file)] {
        match file {
            None if local => complaints.add(&at("scaling").key(key), "missing: `mode = \"local\"` needs it"),
            Some(_) if !local => complaints.add(&at("scaling").key(key), "has no meaning here: only `mode = \"local\"` uses it"),
            _ => {}
        }
    }
}
