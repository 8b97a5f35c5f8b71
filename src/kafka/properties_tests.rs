//! What may be set, what not, and that no secret is shown.

use crate::config::KafkaValue;

use super::super::prefetch::Prefetch;
use super::super::purpose::Errand;
use super::*;

fn cluster(pairs: &[(&str, &str)]) -> ClusterSettings {
    let mut kafka = BTreeMap::from([("bootstrap.servers".to_owned(), KafkaValue::Text("127.0.0.1:1".to_owned()))]);
    kafka.extend(pairs.iter().map(|(k, v)| ((*k).to_owned(), KafkaValue::Text((*v).to_owned()))));
    ClusterSettings { kafka, connector: "stock".to_owned(), ..ClusterSettings::default() }
}

fn member() -> Purpose<'static> {
    Purpose::Member { group_id: "connect-stock", prefetch: Prefetch::plan(64 << 20, 8, 3), topics_by_regex: false }
}

fn refused(pairs: &[(&str, &str)]) -> String {
    merge(&cluster(pairs), &member()).err().expect("must be refused").to_string()
}

#[test]
fn promises_cannot_be_overridden_and_the_message_says_why() {
    for (property, value) in [
        ("enable.auto.commit", "true"),
        ("enable.auto.offset.store", "true"),
        ("enable.partition.eof", "true"),
        ("auto.offset.reset", "latest"),
        ("isolation.level", "read_uncommitted"),
        ("group.id", "other"),
        ("group.instance.id", "a"),
        ("enable.idempotence", "false"),
        ("acks", "1"),
    ] {
        let message = refused(&[(property, value)]);
        assert!(message.starts_with(&format!("[kafka] \"{property}\": ")), "{message}");
        assert!(message.len() > 40, "it must say why: {message}");
    }
    assert!(merge(&cluster(&[("enable.auto.commit", "false")]), &member()).is_ok(), "saying the same is no mistake");
}

#[test]
fn ours_are_set() {
    let config = merge(&cluster(&[]), &member()).unwrap().config;
    for (property, value) in [
        ("isolation.level", "read_committed"),
        ("auto.offset.reset", "error"),
        ("enable.auto.commit", "false"),
        ("heartbeat.interval.ms", "500"),
        ("session.timeout.ms", "10000"),
        ("partition.assignment.strategy", "cooperative-sticky"),
        ("fetch.queue.backoff.ms", "10"),
        ("fetch.wait.max.ms", "100"),
        ("group.id", "connect-stock"),
        ("client.id", "millrace-stock"),
        ("ssl.ca.location", "probe"),
    ] {
        assert_eq!(config.get(property), Some(value), "{property}");
    }
    config.create_native_config().unwrap();
}

#[test]
fn the_consumer_protocol_gets_no_classic_properties() {
    let merged = merge(&cluster(&[("group.protocol", "consumer")]), &member()).unwrap();
    for property in ["session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy"] {
        assert_eq!(merged.config.get(property), None, "{property}");
    }
    let message = refused(&[("group.protocol", "consumer"), ("session.timeout.ms", "6000")]);
    assert!(message.contains("\"session.timeout.ms\"") && message.contains("broker"), "{message}");
}

#[test]
fn a_connector_overrides_the_fleet_and_is_named_in_errors() {
    let mut settings = cluster(&[("session.timeout.ms", "20000")]);
    settings.overrides.insert("session.timeout.ms".to_owned(), KafkaValue::Int(30_000));
    assert_eq!(merge(&settings, &member()).unwrap().session_timeout_ms, 30_000);
    settings.overrides.insert("no.such.property".to_owned(), KafkaValue::Bool(true));
    let message = merge(&settings, &member()).err().unwrap().to_string();
    assert_eq!(message, "[kafka] of connector stock \"no.such.property\": No such configuration property: \"no.such.property\"");
}

#[test]
fn bad_values_are_refused_in_librdkafkas_words() {
    let message = refused(&[("fetch.wait.max.ms", "soon")]);
    assert!(message.contains("fetch.wait.max.ms") && message.contains("Invalid value"), "{message}");
}

#[test]
fn msk_iam_is_refused_with_what_to_use_instead() {
    for property in ["sasl.mechanism", "sasl.mechanisms"] {
        let message = refused(&[(property, "AWS_MSK_IAM")]);
        assert!(message.contains("SCRAM-SHA-512") && message.contains("mutual TLS"), "{message}");
    }
}

#[test]
fn missing_brokers_are_named() {
    let message = merge(&ClusterSettings::default(), &member()).err().unwrap().to_string();
    assert!(message.contains("bootstrap.servers"), "{message}");
}

#[test]
fn secrets_are_shown_nowhere() {
    let secret = "hunter2-do-not-show";
    let pairs = [
        ("security.protocol", "SASL_SSL"),
        ("sasl.mechanism", "OAUTHBEARER"),
        ("sasl.oauthbearer.method", "oidc"),
        ("sasl.oauthbearer.client.id", "me"),
        ("sasl.oauthbearer.client.secret", secret),
        ("sasl.oauthbearer.token.endpoint.url", "http://127.0.0.1:1/token"),
    ];
    let merged = merge(&cluster(&pairs), &member()).unwrap();
    for property in ["sasl.oauthbearer.client.secret", "sasl.oauthbearer.method"] {
        assert_eq!(merged.config.get(property), None, "{property} is ours: this librdkafka has no HTTP client");
    }
    let unreachable = rdkafka::ClientContext::generate_oauth_token(&merged.events, None).err().unwrap().to_string();
    assert!(unreachable.contains("127.0.0.1:1/token") && !unreachable.contains(secret), "{unreachable}");
    let mut settings = cluster(&pairs);
    settings.kafka.insert("sasl.mechanism".to_owned(), KafkaValue::Text("AWS_MSK_IAM".to_owned()));
    assert!(!format!("{:?} {settings:?}", merge(&settings, &member()).err().unwrap()).contains(secret));
    let error = rdkafka::error::KafkaError::ClientConfig(
        rdkafka_sys::RDKafkaConfRes::RD_KAFKA_CONF_INVALID,
        format!("bad value {secret}"),
        "ssl.key.password".to_owned(),
        secret.to_owned(),
    );
    assert!(!creation_error(error).to_string().contains(secret));
}

/// One request, one answer; gives back what was asked.
fn token_endpoint(answer: &'static str) -> (String, std::thread::JoinHandle<String>) {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/token", listener.local_addr().unwrap());
    let asked = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        while !String::from_utf8_lossy(&request).contains("grant_type=") {
            let mut part = [0; 4096];
            let read = stream.read(&mut part).unwrap();
            assert!(read > 0, "closed before the form came");
            request.extend_from_slice(&part[..read]);
        }
        write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{answer}",
            answer.len()
        )
        .unwrap();
        String::from_utf8_lossy(&request).into_owned()
    });
    (url, asked)
}

#[test]
fn tokens_come_from_the_client_credentials_grant() {
    let (url, asked) = token_endpoint(r#"{"access_token":"opaque","expires_in":120,"token_type":"Bearer"}"#);
    let pairs = [
        ("sasl.mechanism", "OAUTHBEARER"),
        ("sasl.oauthbearer.method", "oidc"),
        ("sasl.oauthbearer.client.id", "me"),
        ("sasl.oauthbearer.client.secret", "s3cret"),
        ("sasl.oauthbearer.scope", "kafka"),
        ("sasl.oauthbearer.token.endpoint.url", url.as_str()),
    ];
    let merged = merge(&cluster(&pairs), &member()).unwrap();
    let token = rdkafka::ClientContext::generate_oauth_token(&merged.events, None).unwrap();
    let request = asked.join().unwrap();
    assert!(request.starts_with("POST /token "), "{request}");
    assert!(request.contains("Basic bWU6czNjcmV0"), "{request}");
    assert!(request.contains("grant_type=client_credentials") && request.contains("scope=kafka"), "{request}");
    assert_eq!((token.token.as_str(), token.principal_name.as_str()), ("opaque", "me"));
    let left =
        token.lifetime_ms - i64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis()).unwrap();
    assert!((100_000..=120_000).contains(&left), "{left}");
}

#[test]
fn unsecured_tokens_carry_principal_and_expiry() {
    let pairs = [
        ("sasl.mechanism", "OAUTHBEARER"),
        ("enable.sasl.oauthbearer.unsecure.jwt", "true"),
        ("sasl.oauthbearer.config", "principal=admin scope=a,b lifeSeconds=60"),
    ];
    let merged = merge(&cluster(&pairs), &member()).unwrap();
    let token = rdkafka::ClientContext::generate_oauth_token(&merged.events, None).unwrap();
    assert_eq!(token.principal_name, "admin");
    assert_eq!(token.token.split('.').count(), 3);
    assert!(token.token.starts_with("eyJhbGciOiJub25lIn0."), "{}", token.token);
}

#[test]
fn a_producer_is_idempotent_and_gets_no_consumer_properties() {
    let purpose = Purpose::Producer { name: "dead-letters", buffer_bytes: 8 << 20, timeout_ms: 5_000 };
    let config = merge(&cluster(&[("fetch.min.bytes", "10"), ("compression.type", "zstd")]), &purpose).unwrap().config;
    assert_eq!(config.get("acks"), Some("all"));
    assert_eq!(config.get("enable.idempotence"), Some("true"));
    assert_eq!(config.get("compression.type"), Some("zstd"));
    assert_eq!(config.get("fetch.min.bytes"), None);
    assert_eq!(config.get("queue.buffering.max.kbytes"), Some("8192"));
    config.create_native_config().unwrap();
}

#[test]
fn an_outsider_never_joins_and_gets_what_its_errand_needs() {
    let asked = cluster(&[("session.timeout.ms", "20000"), ("enable.partition.eof", "false"), ("fetch.wait.max.ms", "900")]);
    let of = |errand| merge(&asked, &Purpose::Outsider { group_id: "g", errand }).unwrap().config;
    let sample = of(Errand::Sample);
    for (property, value) in [("client.id", "millrace-stock-sample"), ("enable.partition.eof", "true"), ("fetch.wait.max.ms", "50")] {
        assert_eq!(sample.get(property), Some(value), "{property}");
    }
    assert_eq!(of(Errand::Scan).get("enable.partition.eof"), Some("true"));
    assert_eq!(of(Errand::HighWatermarks).get("isolation.level"), Some("read_uncommitted"));
    let lag = of(Errand::Lag);
    assert_eq!((lag.get("isolation.level"), lag.get("enable.partition.eof")), (Some("read_committed"), Some("false")));
    assert_eq!((lag.get("fetch.wait.max.ms"), lag.get("group.id")), (Some("900"), Some("g")));
    assert_eq!((lag.get("session.timeout.ms"), lag.get("partition.assignment.strategy")), (None, None));
}

#[test]
fn a_private_authority_stands_beside_the_systems() {
    let missing = ClusterSettings { ca_file: Some("/nonexistent/ca.pem".into()), ..cluster(&[]) };
    let message = merge(&missing, &member()).err().unwrap().to_string();
    assert!(message.contains("ca_file") && message.contains("/nonexistent/ca.pem"), "{message}");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    let with = ClusterSettings { ca_file: Some(file.path().to_owned()), ..cluster(&[]) };
    let config = merge(&with, &member()).unwrap().config;
    assert!(config.get("ssl.ca.pem").is_some_and(|pem| pem.contains("AAAA")));
    assert_ne!(config.get("ssl.ca.location"), Some("probe"));
}
