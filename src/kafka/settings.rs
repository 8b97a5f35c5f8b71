//! What a connector's consumer, its producer and its queries are made of.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::error::KafkaError;
use crate::config::{ConnectorConfig, FleetConfig, KafkaValue, StartAt};

/// The cluster and how it is reached: `[kafka]` of `millrace.toml` and the authorities that TLS trusts.
#[derive(Debug, Clone, Default)]
pub struct ClusterSettings {
    /// librdkafka properties of `millrace.toml`.
    pub kafka: BTreeMap<String, KafkaValue>,
    /// librdkafka properties of the connector's file; they win.
    pub overrides: BTreeMap<String, KafkaValue>,
    /// The connector's name, for `client.id` and messages; empty for a client that serves none in particular.
    pub connector: String,
    /// PEM file of authorities that are trusted beside the system's.
    pub ca_file: Option<PathBuf>,
}

impl ClusterSettings {
    /// The fleet's cluster as this connector sees it.
    pub fn of(fleet: &FleetConfig, connector: &ConnectorConfig) -> Self {
        Self {
            kafka: fleet.kafka.clone(),
            overrides: connector.kafka.clone(),
            connector: connector.name.clone(),
            ca_file: fleet.worker.ca_file.clone(),
        }
    }

    /// The fleet's cluster, for a client that serves no connector in particular.
    pub fn of_fleet(fleet: &FleetConfig) -> Self {
        Self { kafka: fleet.kafka.clone(), ca_file: fleet.worker.ca_file.clone(), ..Self::default() }
    }
}

/// Which topics a connector takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topics {
    /// These.
    List(Vec<String>),
    /// All whose whole name matches, also those that are made later.
    Regex(String),
}

impl Topics {
    /// A connector's topics.
    pub fn of(connector: &ConnectorConfig) -> Self {
        match &connector.topics_regex {
            Some(regex) => Self::Regex(regex.clone()),
            None => Self::List(connector.topics.clone()),
        }
    }

    /// The subscription in librdkafka's terms: names, or one regular expression anchored at both ends (librdkafka takes a name that begins
    /// with `^` for one).
    ///
    /// # Errors
    /// An expression that the three engines concerned do not read alike: POSIX's extended one (librdkafka, classic groups), RE2 (brokers,
    /// `group.protocol=consumer`), Rust's (planning, `check`). POSIX's takes `\d` for a `d` and would silently match nothing.
    pub fn subscription(&self) -> Result<Vec<String>, KafkaError> {
        let regex = match self {
            Self::List(names) => return Ok(names.clone()),
            Self::Regex(regex) => regex,
        };
        let error =
            |message: String| Err(KafkaError::Property { origin: "connector".to_owned(), property: "topics_regex".to_owned(), message });
        let mut characters = regex.chars().peekable();
        while let Some(character) = characters.next() {
            let next = characters.peek().copied();
            match (character, next) {
                ('\\', Some(escaped)) if escaped.is_alphanumeric() => {
                    return error(format!(
                        "`\\{escaped}` is not read alike by all brokers and clients: write a class such as [0-9] or [a-z_]"
                    ));
                }
                ('\\', _) => {
                    characters.next();
                }
                ('(', Some('?')) => return error("`(?` is not read alike by all brokers and clients: write a plain group".to_owned()),
                ('*' | '+' | '?' | '}', Some('?')) => {
                    return error("a lazy repetition is not read alike by all brokers and clients".to_owned());
                }
                _ => {}
            }
        }
        if let Err(wrong) = regex::Regex::new(regex) {
            return error(wrong.to_string());
        }
        Ok(vec![format!("^({regex})$")])
    }
}

/// A consumer group's member.
#[derive(Debug, Clone)]
pub struct GroupSettings {
    /// The cluster.
    pub cluster: ClusterSettings,
    /// The group's name.
    pub group_id: String,
    /// The topics.
    pub topics: Topics,
    /// Where a partition without a committed offset starts. See [`super::start_group`] for partitions that appear later.
    pub start: StartAt,
    /// The memory that records fetched but not taken may use, in bytes: this member's share of `worker.memory`.
    pub prefetch_bytes: u64,
    /// The most partitions this member may be given; `None` asks the brokers for the topics' partitions when the member starts.
    pub partitions_max: Option<u32>,
    /// How long the commit at a revocation may take.
    pub revoke_commit_timeout: Duration,
}

impl GroupSettings {
    /// A connector's member of its group.
    pub fn of(fleet: &FleetConfig, connector: &ConnectorConfig, prefetch_bytes: u64) -> Self {
        Self {
            cluster: ClusterSettings::of(fleet, connector),
            group_id: connector.group_id(),
            topics: Topics::of(connector),
            start: connector.start,
            prefetch_bytes,
            partitions_max: None,
            revoke_commit_timeout: Duration::from_secs(3),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_regex_is_anchored_and_must_mean_the_same_everywhere() {
        let subscription = |regex: &str| Topics::Regex(regex.to_owned()).subscription();
        assert_eq!(subscription("sms_.*").unwrap(), ["^(sms_.*)$"]);
        assert_eq!(subscription(r"a\.b-[0-9]+|c").unwrap(), [r"^(a\.b-[0-9]+|c)$"]);
        for bad in [r"sms_\d+", "(?i)sms", "sms.*?", "sms("] {
            assert!(subscription(bad).is_err_and(|e| e.to_string().contains("topics_regex")), "{bad}");
        }
        assert_eq!(Topics::List(vec!["a".to_owned()]).subscription().unwrap(), ["a"]);
    }
}
