//! Which records became dead letters: read back from their topic, by the coordinates in their headers.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::{Offset, TopicPartitionList};

use super::kafka::Kafka;

/// What lies in a dead-letter topic.
#[derive(Debug, Default)]
pub struct Letters {
    /// All of them.
    pub count: u64,
    /// The different records (topic, partition, offset) that they are of.
    pub records: HashSet<(String, i32, i64)>,
}

impl Letters {
    /// Reads a topic from its beginning to its present end.
    pub fn read(kafka: &Kafka, topic: &str, partitions: i32) -> Result<Self> {
        let end = kafka.records(topic, partitions)?;
        let mut client = kafka.client();
        let consumer: BaseConsumer = client.set("group.id", "bench-letters").set("enable.auto.commit", "false").create()?;
        let mut from = TopicPartitionList::new();
        for partition in 0..partitions {
            from.add_partition_offset(topic, partition, Offset::Beginning)?;
        }
        consumer.assign(&from)?;
        let (mut letters, deadline) = (Self::default(), Instant::now() + Duration::from_secs(120));
        while letters.count < end {
            if Instant::now() > deadline {
                bail!("{topic}: {} of {end} dead letters could be read within two minutes", letters.count);
            }
            let Some(message) = consumer.poll(Duration::from_millis(200)) else { continue };
            let message = message?;
            let headers = message.headers().context("a dead letter without headers")?;
            let header = |name: &str| -> Result<String> {
                let found = headers.iter().find(|header| header.key == name).and_then(|header| header.value);
                Ok(String::from_utf8(found.with_context(|| format!("a dead letter without {name}"))?.to_vec())?)
            };
            letters.records.insert((
                header("__connect.errors.topic")?,
                header("__connect.errors.partition")?.parse()?,
                header("__connect.errors.offset")?.parse()?,
            ));
            letters.count += 1;
        }
        Ok(letters)
    }
}
