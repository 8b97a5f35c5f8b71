//! Which partitions a connector's topics have.

use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::metadata::{Metadata, MetadataTopic};
use regex::Regex;

use super::client::Outsider;
use super::error::KafkaError;
use super::settings::Topics;
use crate::record::TopicPartition;

/// Above this many topics one question for all topics is cheaper than one for each.
const ASK_EACH_MAX: usize = 20;

/// What the brokers know of a connector's topics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// Their partitions.
    pub partitions: Vec<TopicPartition>,
    /// Topics of a list that do not exist or may not be described, with librdkafka's words.
    pub missing: Vec<(String, String)>,
    /// The number of brokers.
    pub brokers: usize,
}

/// Asks the brokers for the topics' partitions.
pub(super) fn known(client: &Outsider, topics: &Topics, timeout: Duration) -> Result<Known, KafkaError> {
    let deadline = Instant::now() + timeout;
    let ask = |topic: Option<&str>| {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(100));
        client.consumer().fetch_metadata(topic, left).map_err(|e| {
            let what = topic.map_or_else(|| "the list of topics".to_owned(), |t| format!("topic {t}"));
            KafkaError::from_rdkafka(what, &e, timeout)
        })
    };
    let mut known = Known::default();
    match topics {
        Topics::List(names) if names.len() <= ASK_EACH_MAX => {
            for name in names {
                let metadata = ask(Some(name))?;
                known.take_listed(&metadata, std::slice::from_ref(name));
            }
        }
        Topics::List(names) => {
            let metadata = ask(None)?;
            known.take_listed(&metadata, names);
        }
        Topics::Regex(_) => {
            let whole = topics.subscription()?.concat();
            let regex = Regex::new(&whole).map_err(|e| KafkaError::Refused { what: "topics_regex".to_owned(), message: e.to_string() })?;
            let metadata = ask(None)?;
            known.brokers = metadata.brokers().len();
            for topic in metadata.topics().iter().filter(|t| regex.is_match(t.name())) {
                known.take(topic);
            }
        }
    }
    Ok(known)
}

impl Known {
    fn take_listed(&mut self, metadata: &Metadata, names: &[String]) {
        self.brokers = self.brokers.max(metadata.brokers().len());
        for name in names {
            match metadata.topics().iter().find(|t| t.name() == name) {
                Some(topic) => self.take(topic),
                None => self.missing.push((name.clone(), "the topic does not exist".to_owned())),
            }
        }
    }

    fn take(&mut self, topic: &MetadataTopic) {
        if let Some(error) = topic.error() {
            self.missing.push((topic.name().to_owned(), rdkafka_sys::RDKafkaErrorCode::from(error).to_string()));
            return;
        }
        self.partitions.extend(topic.partitions().iter().map(|p| TopicPartition::new(topic.name(), p.id())));
    }
}
