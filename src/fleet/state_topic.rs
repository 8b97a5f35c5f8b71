//! The fleet's two topics for a command: read once to their end, written with every replica's acknowledgement. Workers use `exchange.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::desired::{DesiredConnector, Verb};
use super::report::{Note, WorkerReport};
use super::state::{StateNote, connector_key};
use crate::config::ScalingConfig;
use crate::kafka::{ClusterSettings, KafkaError, Kept, LogReader, LogStart, LogTopic, LogWriter, ensure_log_topics};

/// One question to the brokers, or one note to be acknowledged.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// Reports that are read from before the end.
const REPORTS_BACK: i64 = 500;

/// The state topic, and the report topic beside it. All but [`StateTopic::write`] blocks.
pub struct StateTopic {
    cluster: ClusterSettings,
    report: String,
    state: String,
    writer: LogWriter,
}

impl StateTopic {
    /// Opens the topics; makes those that are missing.
    ///
    /// # Errors
    /// Brokers that do not answer, missing rights (named in the message), properties that librdkafka refuses.
    pub fn open(cluster: &ClusterSettings, scaling: &ScalingConfig) -> Result<Self, KafkaError> {
        let topics = [
            LogTopic { name: scaling.report_topic_name(), kept: Kept::Hour },
            LogTopic { name: scaling.state_topic_name(), kept: Kept::Compacted },
        ];
        ensure_log_topics(cluster, &topics, ASK_TIMEOUT)?;
        Ok(Self {
            cluster: cluster.clone(),
            report: scaling.report_topic_name(),
            state: scaling.state_topic_name(),
            writer: LogWriter::new(cluster, ASK_TIMEOUT)?,
        })
    }

    /// What stands in the state topic, by key: the last value of each.
    ///
    /// # Errors
    /// Brokers that do not answer, a topic that may not be read.
    pub fn values(&self) -> Result<BTreeMap<String, Vec<u8>>, KafkaError> {
        let reader = LogReader::open(&self.cluster, &[(self.state.clone(), LogStart::Beginning)], ASK_TIMEOUT)?;
        let mut values = BTreeMap::new();
        for record in reader.read_to_end(ASK_TIMEOUT)? {
            let Some(key) = record.key.and_then(|key| String::from_utf8(key).ok()) else { continue };
            match record.value {
                Some(value) => values.insert(key, value),
                None => values.remove(&key),
            };
        }
        Ok(values)
    }

    /// What connectors are wished to do, where somebody wished something.
    ///
    /// # Errors
    /// As [`StateTopic::values`].
    pub fn wishes(&self) -> Result<BTreeMap<String, DesiredConnector>, KafkaError> {
        let notes = self.values()?.into_iter().filter_map(|(key, value)| StateNote::read(key.as_bytes(), Some(&value)));
        Ok(notes
            .filter_map(|note| match note {
                StateNote::Connector(name, Some(wish)) => Some((name, wish)),
                _ => None,
            })
            .collect())
    }

    /// The last report of every worker that reported of late and did not say that it leaves, by name.
    ///
    /// # Errors
    /// As [`StateTopic::values`].
    pub fn reports(&self) -> Result<BTreeMap<String, WorkerReport>, KafkaError> {
        let reader = LogReader::open(&self.cluster, &[(self.report.clone(), LogStart::Last(REPORTS_BACK))], ASK_TIMEOUT)?;
        let mut reports = BTreeMap::new();
        for record in reader.read_to_end(ASK_TIMEOUT)? {
            if let Ok(Note::Worker(report)) = serde_json::from_slice(&record.value.unwrap_or_default()) {
                reports.insert(report.worker.clone(), report);
            }
        }
        reports.retain(|_, report| !report.leaving);
        Ok(reports)
    }

    /// Tells a connector something; gives what is wished now. `before` is what was, `number` differs from call to call.
    ///
    /// # Errors
    /// Words for people: what cannot be wished, or why Kafka did not take it.
    pub async fn tell(
        &self,
        connector: &str,
        verb: Verb,
        before: Option<&DesiredConnector>,
        now_ms: i64,
        number: u64,
    ) -> Result<DesiredConnector, String> {
        let wish = DesiredConnector::after(before, verb, now_ms, number)?;
        let value = serde_json::to_vec(&wish).map_err(|error| error.to_string())?;
        self.write(&connector_key(connector), Some(&value)).await.map_err(|error| error.to_string())?;
        Ok(wish)
    }

    /// Writes a note of the state topic and returns when the in-sync replicas have it; `None` deletes it.
    ///
    /// # Errors
    /// No acknowledgement in time (it may have been written all the same), or a refusal.
    pub async fn write(&self, key: &str, value: Option<&[u8]>) -> Result<(), KafkaError> {
        self.writer.write(&self.state, key, value).await
    }
}
