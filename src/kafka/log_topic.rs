//! Topics that the fleet keeps for itself, each with one partition that matters: 0. Made when missing.

use std::collections::HashMap;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError as RdKafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::{FutureProducer, Producer};

use super::client::Outsider;
use super::context::ClientEvents;
use super::error::KafkaError;
use super::properties;
use super::purpose::{Errand, Purpose};
use super::settings::ClusterSettings;

/// The partition that is written and read, however many the topic has.
pub(super) const PARTITION: i32 = 0;

/// How long the brokers keep what is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// An hour, then deleted.
    Hour,
    /// The last record of each key, for ever.
    Compacted,
}

impl Kept {
    /// The topic's settings. Small segments: only closed ones are deleted or compacted, and a quiet topic would keep an open one for a
    /// week.
    const fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Hour => &[("cleanup.policy", "delete"), ("retention.ms", "3600000"), ("segment.ms", "600000")],
            Self::Compacted => &[
                ("cleanup.policy", "compact"),
                ("segment.ms", "600000"),
                ("segment.bytes", "16777216"),
                ("min.cleanable.dirty.ratio", "0.2"),
            ],
        }
    }
}

/// One such topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogTopic {
    /// Its name.
    pub name: String,
    /// How long it keeps.
    pub kept: Kept,
}

impl LogTopic {
    /// What to do about a topic that is not there or may not be used, in one sentence.
    pub fn advice(&self) -> String {
        let settings: Vec<String> = self.kept.settings().iter().map(|(key, value)| format!("{key}={value}")).collect();
        format!(
            "workers need DESCRIBE, READ and WRITE on topic {}, and CREATE unless it is made beforehand (one partition, {})",
            self.name,
            settings.join(", ")
        )
    }
}

/// Makes the topics that are missing, with the brokers' default replication. One that is there stays as it is. Blocks.
///
/// librdkafka's mock brokers know no CreateTopics: there a producer's question makes the topic.
///
/// # Errors
/// When the brokers do not answer in time, or refuse; the message names the rights that are needed.
pub fn ensure_log_topics(cluster: &ClusterSettings, topics: &[LogTopic], timeout: Duration) -> Result<(), KafkaError> {
    let asker = Outsider::new(cluster, GROUP, Errand::FleetTopics)?;
    let mut missing: HashMap<&str, &LogTopic> = HashMap::new();
    for topic in topics {
        let metadata = asker
            .consumer()
            .fetch_metadata(Some(&topic.name), timeout)
            .map_err(|error| failed(&asker, format!("topic {}", topic.name), &error, timeout))?;
        match metadata.topics().iter().find(|found| found.name() == topic.name).and_then(|found| found.error()).map(Code::from) {
            None => {}
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => {
                missing.insert(&topic.name, topic);
            }
            // It is being made: there soon.
            Some(Code::LeaderNotAvailable) => {}
            Some(code) => return Err(refused(topic, &code.to_string())),
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    // Known by now: it came with the metadata.
    let id = asker.consumer().client().fetch_cluster_id(timeout).unwrap_or_default();
    if id.starts_with(MOCK_CLUSTER) { make_by_asking(cluster, &missing, timeout) } else { make(cluster, &missing, timeout) }
}

/// How the ids of librdkafka's mock clusters begin (rdkafka_mock.c); a request to create topics is never answered there.
const MOCK_CLUSTER: &str = "mockCluster";

/// Goes with clients of these topics. They join no group and commit nothing, so nobody needs a right on it.
pub(super) const GROUP: &str = "millrace.fleet";

fn make(cluster: &ClusterSettings, missing: &HashMap<&str, &LogTopic>, timeout: Duration) -> Result<(), KafkaError> {
    let properties =
        properties::merge(cluster, &Purpose::Producer { name: "fleet-topics", buffer_bytes: 0, timeout_ms: timeout.as_millis() })?;
    let admin: AdminClient<ClientEvents> = properties.config.create_with_context(properties.events).map_err(properties::creation_error)?;
    let wanted: Vec<NewTopic<'_>> = missing
        .values()
        .map(|topic| {
            let new = NewTopic::new(&topic.name, 1, TopicReplication::Fixed(-1));
            topic.kept.settings().iter().fold(new, |new, (key, value)| new.set(key, value))
        })
        .collect();
    let options = AdminOptions::new().request_timeout(Some(timeout)).operation_timeout(Some(timeout));
    let answer = futures::executor::block_on(admin.create_topics(&wanted, &options));
    let results = match answer {
        Ok(results) => results,
        Err(error) => return Err(KafkaError::from_rdkafka("making the fleet's topics", &error, timeout)),
    };
    for result in results {
        match result {
            Ok(name) => tracing::info!(topic = name, "topic made"),
            // Another worker was faster.
            Err((_, Code::TopicAlreadyExists)) => {}
            Err((name, code)) => {
                return Err(missing.get(name.as_str()).map_or_else(
                    || KafkaError::Refused { what: format!("making topic {name}"), message: code.to_string() },
                    |topic| refused(topic, &code.to_string()),
                ));
            }
        }
    }
    Ok(())
}

fn make_by_asking(cluster: &ClusterSettings, missing: &HashMap<&str, &LogTopic>, timeout: Duration) -> Result<(), KafkaError> {
    let properties =
        properties::merge(cluster, &Purpose::Producer { name: "fleet-topics", buffer_bytes: 0, timeout_ms: timeout.as_millis() })?;
    let producer: FutureProducer<ClientEvents> =
        properties.config.create_with_context(properties.events).map_err(properties::creation_error)?;
    for topic in missing.values() {
        let metadata = producer
            .client()
            .fetch_metadata(Some(&topic.name), timeout)
            .map_err(|error| KafkaError::from_rdkafka(format!("topic {}", topic.name), &error, timeout))?;
        if let Some(error) = metadata.topics().iter().find_map(|found| found.error()) {
            return Err(refused(topic, &Code::from(error).to_string()));
        }
    }
    Ok(())
}

fn refused(topic: &LogTopic, words: &str) -> KafkaError {
    KafkaError::Refused { what: format!("topic {}", topic.name), message: format!("{words}: {}", topic.advice()) }
}

fn failed(asker: &Outsider, what: String, error: &RdKafkaError, timeout: Duration) -> KafkaError {
    KafkaError::from_rdkafka(format!("{what}{}", asker.because()), error, timeout)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn advice_names_rights_and_settings() {
        let topic = LogTopic { name: "millrace.state".to_owned(), kept: Kept::Compacted };
        let advice = topic.advice();
        for part in ["millrace.state", "READ", "WRITE", "CREATE", "cleanup.policy=compact"] {
            assert!(advice.contains(part), "{advice}");
        }
        assert!(LogTopic { name: "r".to_owned(), kept: Kept::Hour }.advice().contains("retention.ms=3600000"));
    }
}
