//! Reading a topic once, from its first record to where it ended when the reading began, without a group.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError as RdKafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};

use super::client::ConsumerHandle;
use super::context::ClientEvents;
use super::error::KafkaError;
use super::purpose::Errand;
use super::settings::GroupSettings;
use crate::record::OwnedRecord;

/// Reads a topic once. Belongs to one thread, which may block. Fetches at most 1 MiB ahead.
pub struct TopicScan {
    consumer: ConsumerHandle<ClientEvents>,
    topic: Arc<str>,
    quiet_max: Duration,
    /// The partitions that are not read to their end, and where that is.
    open: HashMap<i32, i64>,
    ends: HashMap<i32, i64>,
}

impl TopicScan {
    /// Opens a topic with a connector's rights. No question, and no wait for a record, takes longer than `timeout`.
    ///
    /// # Errors
    /// Brokers that do not answer, a topic that is not there or may not be read.
    pub fn open(settings: &GroupSettings, topic: &str, timeout: Duration) -> Result<Self, KafkaError> {
        let consumer = ConsumerHandle::outside(&settings.cluster, &settings.group_id, Errand::Scan)?;
        let failed = |error: RdKafkaError| {
            KafkaError::from_rdkafka(format!("reading topic {topic}{}", consumer.context().because()), &error, timeout)
        };
        let metadata = consumer.fetch_metadata(Some(topic), timeout).map_err(failed)?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        if let Some(error) = found.and_then(|found| found.error()) {
            let message = rdkafka_sys::RDKafkaErrorCode::from(error).to_string();
            return Err(KafkaError::Refused { what: format!("reading topic {topic}"), message });
        }
        let (mut open, mut ends, mut list) = (HashMap::new(), HashMap::new(), TopicPartitionList::new());
        for partition in found.iter().flat_map(|found| found.partitions()).map(|partition| partition.id()) {
            let (low, end) = consumer.fetch_watermarks(topic, partition, timeout).map_err(failed)?;
            ends.insert(partition, end);
            if end > low {
                list.add_partition_offset(topic, partition, Offset::Offset(low)).map_err(failed)?;
                open.insert(partition, end);
            }
        }
        consumer.assign(&list).map_err(failed)?;
        Ok(Self { consumer, topic: Arc::from(topic), quiet_max: timeout, open, ends })
    }

    /// Where each partition ended when the reading began.
    pub fn ends(&self) -> &HashMap<i32, i64> {
        &self.ends
    }

    /// The next record, in each partition's order; `None` when all are read.
    ///
    /// # Errors
    /// Nothing came in time, or Kafka refused.
    pub fn next_record(&mut self) -> Result<Option<OwnedRecord>, KafkaError> {
        let mut heard = Instant::now();
        while !self.open.is_empty() {
            match self.consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    let Some(end) = self.open.get(&message.partition()).copied() else { continue };
                    if message.offset() + 1 >= end {
                        self.open.remove(&message.partition());
                    }
                    if message.offset() < end {
                        return Ok(Some(self.owned(&message)));
                    }
                    heard = Instant::now();
                }
                // Behind the last record there may be nothing but markers of transactions.
                Some(Err(RdKafkaError::PartitionEOF(partition))) => {
                    self.open.remove(&partition);
                }
                Some(Err(error)) if heard.elapsed() > self.quiet_max => {
                    return Err(KafkaError::from_rdkafka(format!("reading topic {}", self.topic), &error, self.quiet_max));
                }
                None if heard.elapsed() > self.quiet_max => {
                    return Err(KafkaError::TimedOut { what: format!("reading topic {}", self.topic), within: self.quiet_max });
                }
                // librdkafka goes on trying.
                Some(Err(_)) | None => {}
            }
        }
        Ok(None)
    }

    fn owned(&self, message: &BorrowedMessage<'_>) -> OwnedRecord {
        let headers = message
            .headers()
            .map(|headers| headers.iter().map(|header| (header.key.to_owned(), header.value.map(Bytes::copy_from_slice))).collect());
        OwnedRecord {
            topic: self.topic.clone(),
            partition: message.partition(),
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis(),
            key: message.key().map(Bytes::copy_from_slice),
            value: message.payload().map(Bytes::copy_from_slice),
            headers: headers.unwrap_or_default(),
        }
    }
}
