//! Records out and in: what is null stays null, what is empty stays empty, bytes stay bytes.

use std::time::Duration;

use bytes::Bytes;
use millrace::kafka::{DeadLetterProducer, KafkaError, ProduceError, Rereader};
use millrace::record::OwnedRecord;
use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::rig::{Protocol, settings};
use crate::machine::Watch;

fn record(key: Option<&'static [u8]>, value: Option<&'static [u8]>, headers: Vec<(&str, Option<&'static [u8]>)>) -> OwnedRecord {
    OwnedRecord {
        topic: "elsewhere".into(),
        partition: 9,
        offset: 77,
        timestamp_ms: Some(1_700_000_000_123),
        key: key.map(Bytes::from_static),
        value: value.map(Bytes::from_static),
        headers: headers.into_iter().map(|(n, v)| (n.to_owned(), v.map(Bytes::from_static))).collect(),
    }
}

#[tokio::test]
async fn dead_letters_come_back_as_they_were() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("dead", 1, 1).unwrap();
    let settings = settings(&cluster.bootstrap_servers(), "reread", &["dead"], Protocol::CooperativeSticky);
    let producer = DeadLetterProducer::new(&settings.cluster, 4 << 20, Some(Duration::from_secs(10))).unwrap();
    let sent = [
        record(None, None, vec![]),
        record(Some(b""), Some(b""), vec![("empty", Some(b"")), ("null", None)]),
        record(
            Some(b"\x00\xff\x00"),
            Some(b"\xde\xad\x00\xbe\xef"),
            vec![("bin", Some(b"\x00\x01\xfe")), ("bin", Some(b"second")), ("", Some(b"no name"))],
        ),
        record(Some(b"k"), None, vec![("tombstone", Some(b"yes"))]),
        record(None, Some(b"v"), vec![]),
    ];
    for record in &sent {
        producer.send("dead", record).await.unwrap();
    }
    let rereader = Rereader::new(&settings).unwrap();
    for _round in 0..3 {
        let read = rereader.reread("dead", 0, &[0, 1, 2, 3, 4, 99], Duration::from_secs(10)).await.unwrap();
        assert_eq!(read.len(), 6);
        assert_eq!(read[5], None, "beyond the end");
        for (n, (sent, read)) in sent.iter().zip(&read).enumerate() {
            let read = read.as_ref().unwrap();
            assert_eq!((&*read.topic, read.partition, read.offset), ("dead", 0, n as i64));
            assert_eq!(
                (&read.key, &read.value, &read.headers, read.timestamp_ms),
                (&sent.key, &sent.value, &sent.headers, sent.timestamp_ms),
                "{n}"
            );
        }
    }
    let some = rereader.reread("dead", 0, &[1, 4], Duration::from_secs(10)).await.unwrap();
    assert_eq!(some.iter().map(|r| r.as_ref().map(|r| r.offset)).collect::<Vec<_>>(), [Some(1), Some(4)]);
}

#[tokio::test]
async fn far_apart_offsets_are_reread_from_several_partitions() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("wide", 2, 1).unwrap();
    let brokers = cluster.bootstrap_servers();
    super::rig::produce(&super::rig::producer(&brokers), "wide", 2, 0, 5_000);
    let rereader = Rereader::new(&settings(&brokers, "wide", &["wide"], Protocol::CooperativeSticky)).unwrap();
    for partition in [0, 1, 0] {
        let wanted = [0, 3, 2_500, 2_600, 4_999];
        let read = rereader.reread("wide", partition, &wanted, Duration::from_secs(15)).await.unwrap();
        for (offset, record) in wanted.iter().zip(read) {
            let record = record.unwrap();
            assert_eq!((record.offset, record.partition), (*offset, partition));
            assert_eq!(record.value.unwrap(), format!("{offset:032}"));
        }
    }
}

#[tokio::test]
async fn rereading_is_bounded_when_no_broker_answers() {
    let rereader = Rereader::new(&settings("127.0.0.1:1", "nobody", &["t"], Protocol::CooperativeSticky)).unwrap();
    let begun = Watch::start();
    let answer = rereader.reread("t", 0, &[1], Duration::from_secs(1)).await;
    assert!(matches!(answer, Err(KafkaError::TimedOut { .. } | KafkaError::Refused { .. })), "{answer:?}");
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn produce_errors_are_typed() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("small", 1, 1).unwrap();
    let settings = settings(&cluster.bootstrap_servers(), "typed", &["small"], Protocol::CooperativeSticky);
    let producer = DeadLetterProducer::new(&settings.cluster, 4 << 20, Some(Duration::from_secs(3))).unwrap();
    producer.send("small", &record(None, Some(b"fits"), vec![])).await.unwrap();
    cluster.request_errors(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE]);
    let error = producer.send("small", &record(None, Some(b"does not"), vec![])).await.unwrap_err();
    assert!(matches!(&error, ProduceError::TooLarge { topic, size_bytes, .. } if topic == "small" && *size_bytes > 8), "{error:?}");
    cluster.request_errors(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED]);
    let error = producer.send("small", &record(None, Some(b"may not"), vec![])).await.unwrap_err();
    assert!(matches!(error, ProduceError::NotAuthorized { .. }), "{error:?}");
    // Whatever those two did to an idempotent producer, it goes on.
    let begun = Watch::start();
    while let Err(error) = producer.send("small", &record(None, Some(b"again"), vec![])).await {
        assert!(begun.elapsed() < Duration::from_secs(15), "{error:?}");
    }
    let nobody = super::rig::settings("127.0.0.1:1", "typed", &["small"], Protocol::CooperativeSticky);
    let producer = DeadLetterProducer::new(&nobody.cluster, 4 << 20, Some(Duration::from_secs(1))).unwrap();
    let begun = Watch::start();
    let error = producer.send("small", &record(None, Some(b"nobody"), vec![])).await.unwrap_err();
    assert!(matches!(error, ProduceError::TimedOut { .. }), "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
}
