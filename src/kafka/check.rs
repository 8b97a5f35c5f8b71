//! `millrace check`: what Kafka says when it is tried.

use std::time::Duration;

use rdkafka::consumer::Consumer;

use super::client::Outsider;
use super::lag::LagClient;
use super::prefetch::Prefetch;
use super::properties;
use super::purpose::{Errand, Purpose};
use super::settings::{GroupSettings, Topics};
use super::{DeadLetterProducer, topics};

/// One thing that was tried, and what came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// What was tried, such as `describe topic stock`.
    pub what: String,
    /// What came out: a short fact, or what is wrong and what to do.
    pub outcome: Result<String, String>,
}

impl Tried {
    fn new(what: impl Into<String>, outcome: Result<String, String>) -> Self {
        Self { what: what.into(), outcome }
    }
}

/// Tries a connector's Kafka side without joining its group: properties, brokers, topics, the group's offsets, the dead-letter topic. Each
/// step takes at most `timeout`; blocking work runs off the runtime. After a failure the steps that need it are left out.
pub async fn check_connector(settings: &GroupSettings, dead_letter_topic: Option<&str>, timeout: Duration) -> Vec<Tried> {
    let (settings_there, dead) = (settings.clone(), dead_letter_topic.map(str::to_owned));
    let blocking = tokio::task::spawn_blocking(move || try_all(&settings_there, dead.as_deref(), timeout)).await;
    let mut tried = match blocking {
        Ok(tried) => tried,
        Err(error) => return vec![Tried::new("Kafka", Err(format!("the check itself failed: {error}")))],
    };
    let reachable = tried.iter().all(|t| t.outcome.is_ok());
    if let (Some(topic), true) = (dead_letter_topic, reachable)
        && let Ok(producer) = DeadLetterProducer::new(&settings.cluster, 1 << 20, Some(timeout))
        && let Ok(Some(limit)) = tokio::time::timeout(timeout, producer.max_message_bytes(topic)).await
    {
        tried.push(Tried::new(format!("max.message.bytes of dead-letter topic {topic}"), Ok(format!("{limit} bytes"))));
    }
    tried
}

fn try_all(settings: &GroupSettings, dead_letter_topic: Option<&str>, timeout: Duration) -> Vec<Tried> {
    let mut tried = Vec::new();
    let member = Purpose::Member {
        group_id: &settings.group_id,
        prefetch: Prefetch::plan(settings.prefetch_bytes, 1, 1),
        topics_by_regex: matches!(settings.topics, Topics::Regex(_)),
    };
    let merged = properties::merge(&settings.cluster, &member);
    let asker = merged.and_then(|_| Outsider::new(&settings.cluster, &settings.group_id, Errand::Check));
    let asker = match asker {
        Ok(asker) => {
            tried.push(Tried::new("Kafka properties", Ok("librdkafka takes them".to_owned())));
            asker
        }
        Err(error) => {
            tried.push(Tried::new("Kafka properties", Err(error.to_string())));
            return tried;
        }
    };
    // A topic's name that cannot exist asks for the brokers without listing every topic.
    let brokers = asker.consumer().fetch_metadata(Some("__millrace_check"), timeout);
    let outcome = match &brokers {
        Ok(metadata) => Ok(metadata.brokers().iter().map(|b| format!("{}:{}", b.host(), b.port())).collect::<Vec<_>>().join(", ")),
        Err(error) => Err(format!(
            "{error}{}: are \"bootstrap.servers\" and \"security.protocol\" right, and may this machine reach them?",
            asker.because()
        )),
    };
    let reached = outcome.is_ok();
    tried.push(Tried::new("reach the brokers", outcome));
    if !reached {
        return tried;
    }
    let known = topics::known(&asker, &settings.topics, timeout);
    match &known {
        Ok(known) => {
            for (topic, error) in &known.missing {
                tried.push(Tried::new(format!("describe topic {topic}"), Err(format!("{error}: create it, or allow DESCRIBE and READ"))));
            }
            if known.missing.is_empty() {
                let topics = known.partitions.iter().map(|p| &p.topic).collect::<std::collections::HashSet<_>>().len();
                let found = format!("{topics} topics, {} partitions", known.partitions.len());
                let nothing = known.partitions.is_empty() && matches!(settings.topics, Topics::List(_));
                tried.push(Tried::new("describe the topics", if nothing { Err(format!("{found}: none to read")) } else { Ok(found) }));
            }
        }
        Err(error) => tried.push(Tried::new("describe the topics", Err(error.to_string()))),
    }
    if let Ok(known) = &known
        && !known.partitions.is_empty()
    {
        let asked = LagClient::new(settings).and_then(|lag| lag.query(&known.partitions, timeout));
        let outcome = match asked {
            Ok(offsets) => {
                let committed = offsets.iter().filter(|o| o.committed.is_some()).count();
                Ok(format!("committed offsets for {committed} of {} partitions", offsets.len()))
            }
            Err(error) => Err(format!("{error}: the group needs READ (and DESCRIBE)")),
        };
        tried.push(Tried::new(format!("offsets of group {}", settings.group_id), outcome));
    }
    if let Some(topic) = dead_letter_topic {
        let outcome = match topics::known(&asker, &Topics::List(vec![topic.to_owned()]), timeout) {
            Ok(known) if known.missing.is_empty() => Ok(format!("{} partitions", known.partitions.len())),
            Ok(known) => {
                let words = known.missing.into_iter().map(|(_, words)| words).collect::<Vec<_>>().join(", ");
                Err(format!("{words}: create it, and allow WRITE and IDEMPOTENT_WRITE"))
            }
            Err(error) => Err(error.to_string()),
        };
        tried.push(Tried::new(format!("describe dead-letter topic {topic}"), outcome));
    }
    tried
}
