//! The fleet's two topics for a command: read once to their end, written with every replica's acknowledgement. Workers use `exchange.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::desired::DesiredConnector;
use super::order::Order;
use super::report::{Note, WorkerReport};
use super::state::StateNote;
use super::told::Told;
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
        let mut told = Told::default();
        for (key, value) in self.values()? {
            // What is beyond the limit is not followed by workers either.
            let _taken = match StateNote::read(key.as_bytes(), Some(&value)) {
                Some(StateNote::Connector(name, note)) => told.hear_state(name, note),
                Some(StateNote::Restart(name, note)) => told.hear_restart(name, note),
                _ => false,
            };
        }
        Ok(told.all())
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

    /// Writes an order. Whether it holds is known after [`StateTopic::wishes`] was asked once more.
    ///
    /// # Errors
    /// As [`StateTopic::write`].
    pub async fn order(&self, order: &Order) -> Result<(), KafkaError> {
        let (key, value) = order
            .record()
            .map_err(|error| KafkaError::Refused { what: format!("an order for {}", order.connector()), message: error.to_string() })?;
        self.write(&key, Some(&value)).await
    }

    /// Writes a note of the state topic and returns when the in-sync replicas have it; `None` deletes it.
    ///
    /// # Errors
    /// No acknowledgement in time (it may have been written all the same), or a refusal.
    pub async fn write(&self, key: &str, value: Option<&[u8]>) -> Result<(), KafkaError> {
        self.writer.write(&self.state, key, value).await
    }
}
