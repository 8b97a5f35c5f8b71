//! Bad records beside good ones: read back from the dead-letter topic as they were, with the cause in headers.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use apache_avro::Schema;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message, OwnedMessage};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::harness::avro::{framed, small, small_schema};
use crate::harness::cluster::Cluster;
use crate::harness::installation::{Installation, avro_connector};
use crate::harness::journal::{Journal, Outgoing, Producer, reconcile_exactly};
use crate::harness::servers::Servers;

const WITHIN: Duration = Duration::from_secs(60);
const TIMESTAMP_MS: i64 = 1_700_000_000_123;

pub fn bad_records_read_back_with_their_headers(servers: &Servers) -> anyhow::Result<()> {
    let (kafka, reader) = (servers.kafka()?, servers.emulator()?.reader());
    kafka.create_topic("bad", 1, &[])?;
    kafka.create_topic("bad.dead", 1, &[])?;
    reader.create_dataset("bad")?;
    let schema = small_schema("Bad", &["note"]);
    let id = servers.registry()?.register("bad-value", &schema, &[])?;
    let schema = Schema::parse(&schema)?;
    let installation = Installation::new(servers, "dead_letters::bad_records_read_back_with_their_headers")?;
    installation.connector("bad", &avro_connector("bad", "bad.rows", "bad.dead"))?;
    let mut worker = installation.start()?;

    let good = framed(id, &small(&schema, 5, &[("note", "x")])?);
    let mut wrong_magic = good.clone();
    wrong_magic[0] = 7;
    let mut bad_union = framed(id, &[10]); // id 5, then branch 3 of a union of two
    bad_union.push(6);
    let mut bad_text = framed(id, &[10, 2, 4]); // id 5, branch 1, two bytes that are no UTF-8
    bad_text.extend([0xC3, 0x28]);
    let bad: Vec<(&str, Vec<u8>)> = vec![
        ("too short for the framing", vec![0, 0, 1]),
        ("empty", vec![]),
        ("wrong magic byte", wrong_magic),
        ("unknown schema id", framed(999_999, &[10, 0])),
        ("truncated", good[..good.len() - 1].to_vec()),
        ("overlong", [&good[..], &[0]].concat()),
        ("union branch out of range", bad_union),
        ("invalid UTF-8", bad_text),
    ];
    let producer = Producer::new(kafka.client(), "bad")?;
    let headers: [(&str, &[u8]); 3] = [("trace", b"\x00\x01\xFF"), ("trace", b"again"), ("empty", b"")];
    for (name, value) in &bad {
        let record = Outgoing {
            key: name.as_bytes(),
            value: Some(value),
            headers: &headers,
            timestamp_ms: Some(TIMESTAMP_MS),
            ..Outgoing::default()
        };
        producer.send(*name, &record)?;
        // A good one behind each bad one: it must not suffer.
        producer.send("5", &Outgoing { value: Some(&good), ..Outgoing::default() })?;
    }
    let (good, acknowledged): (Journal, Journal) = producer.journal()?.into_iter().partition(|(_, identity)| identity == "5");
    let offsets: BTreeMap<String, i64> = acknowledged.into_iter().map(|((_, offset), name)| (name, offset)).collect();
    ensure!((good.len(), offsets.len()) == (bad.len(), bad.len()), "{} good, {} bad acknowledged", good.len(), offsets.len());
    worker.wait_for_metric("millrace_dead_letters_total", &[("connector", "bad")], bad.len() as f64, WITHIN)?;
    let letters = read_all(kafka, "bad.dead", bad.len())?;
    for letter in &letters {
        let key = String::from_utf8_lossy(letter.key().unwrap_or_default()).into_owned();
        let (_, value) = bad.iter().find(|(name, _)| *name == key).with_context(|| format!("a dead letter that was not sent: {key}"))?;
        check(letter, offsets[&key], value).with_context(|| format!("the dead letter of \"{key}\""))?;
    }
    let mut keys: Vec<_> = letters.iter().filter_map(OwnedMessage::key).collect();
    keys.sort_unstable();
    keys.dedup();
    ensure!(keys.len() == bad.len(), "some dead letters are missing, others are there twice");
    reconcile_exactly(reader, "bad.rows", "id", &good, WITHIN)
}

/// Key, value, own headers and timestamp as they were; behind them the cause.
fn check(letter: &OwnedMessage, offset: i64, value: &[u8]) -> anyhow::Result<()> {
    ensure!(letter.payload().unwrap_or_default() == value, "value {:?}, wanted {value:?}", letter.payload());
    ensure!(letter.payload().is_some(), "an empty value became a tombstone");
    ensure!(letter.timestamp().to_millis() == Some(TIMESTAMP_MS), "timestamp {:?}, wanted {TIMESTAMP_MS}", letter.timestamp());
    let headers: Vec<(String, Vec<u8>)> =
        letter.headers().context("no headers")?.iter().map(|h| (h.key.to_owned(), h.value.unwrap_or_default().to_vec())).collect();
    let own: Vec<(&str, &[u8])> = headers.iter().take(3).map(|(key, value)| (key.as_str(), value.as_slice())).collect();
    ensure!(own == [("trace", &b"\x00\x01\xFF"[..]), ("trace", b"again"), ("empty", b"")], "the record's own headers are {own:?}");
    let one = |name: &str| {
        let mut values = headers.iter().filter(|(key, _)| key == name).map(|(_, value)| String::from_utf8_lossy(value).into_owned());
        let value = values.next().with_context(|| format!("no header {name} among {headers:?}"))?;
        ensure!(values.next().is_none(), "header {name} is there twice");
        anyhow::Ok(value)
    };
    ensure!(one("__connect.errors.topic")? == "bad");
    ensure!(one("__connect.errors.partition")? == "0");
    ensure!(one("__connect.errors.offset")? == offset.to_string(), "offset {}, wanted {offset}", one("__connect.errors.offset")?);
    ensure!(one("__connect.errors.connector.name")? == "bad");
    for name in ["__connect.errors.stage", "__connect.errors.exception.class.name", "__connect.errors.exception.message"] {
        ensure!(!one(name)?.is_empty(), "{name} is empty");
    }
    ensure!(headers.iter().any(|(key, _)| key.starts_with("__millrace.errors.")), "nothing says when: {headers:?}");
    Ok(())
}

/// The first `count` records of partition 0 of a topic.
fn read_all(kafka: &Cluster, topic: &str, count: usize) -> anyhow::Result<Vec<OwnedMessage>> {
    let consumer: BaseConsumer = kafka.client().set("group.id", "dead-letters").create()?;
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(topic, 0, Offset::Beginning)?;
    consumer.assign(&from)?;
    let mut found = Vec::new();
    while found.len() < count {
        let message = consumer.poll(WITHIN).with_context(|| format!("{} of {count} dead letters arrived", found.len()))??;
        found.push(message.detach());
    }
    if let Some(more) = consumer.poll(Duration::from_secs(1)) {
        anyhow::bail!("more dead letters than bad records: {:?}", more?.detach());
    }
    Ok(found)
}
