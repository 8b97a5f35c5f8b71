//! Kafka clients beside the consumers: dead-letter producer, re-reader, lag queries. One set for all connectors that reach the cluster the
//! same way, each made when first needed: a client costs threads for every broker.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::kafka::{DeadLetterProducer, GroupSettings, KafkaError, LagClient, ProduceError};
use crate::record::{OwnedRecord, TopicPartition};

use super::dead_letters::{LetterBox, LetterError, Rereader};
use super::letter::Letter;

/// Bytes of dead letters that the producer may hold unacknowledged.
const LETTERS_BUFFER_BYTES: u64 = 8 * 1024 * 1024;
/// How long reading rejected rows' records again may take.
const REREAD_TIMEOUT: Duration = Duration::from_secs(20);

/// The clients for one way of reaching the cluster.
#[derive(Default)]
struct Made {
    producer: Option<Arc<DeadLetterProducer>>,
    rereader: Option<Arc<crate::kafka::Rereader>>,
    lag: Option<Arc<LagClient>>,
}

/// The worker's clients beside its consumers.
#[derive(Default)]
pub struct ClusterClients {
    made: Mutex<HashMap<BTreeMap<String, String>, Made>>,
}

impl ClusterClients {
    /// Clients for a connector; shared with others that override nothing, or the same.
    pub fn of(self: &Arc<Self>, settings: &GroupSettings) -> Arc<ConnectorClients> {
        Arc::new(ConnectorClients { all: self.clone(), settings: settings.clone() })
    }
}

/// A connector's view of the clients.
pub struct ConnectorClients {
    all: Arc<ClusterClients>,
    settings: GroupSettings,
}

impl ConnectorClients {
    fn with<T>(&self, make: impl FnOnce(&mut Made) -> Result<T, KafkaError>) -> Result<T, KafkaError> {
        let overrides = self.settings.cluster.overrides.iter().map(|(name, value)| (name.clone(), value.to_property())).collect();
        make(self.all.made.lock().entry(overrides).or_default())
    }

    fn producer(&self) -> Result<Arc<DeadLetterProducer>, KafkaError> {
        self.with(|made| match &made.producer {
            Some(producer) => Ok(producer.clone()),
            None => {
                let producer = Arc::new(DeadLetterProducer::new(&self.settings.cluster, LETTERS_BUFFER_BYTES, None)?);
                made.producer = Some(producer.clone());
                Ok(producer)
            }
        })
    }

    fn rereader(&self) -> Result<Arc<crate::kafka::Rereader>, KafkaError> {
        self.with(|made| match &made.rereader {
            Some(rereader) => Ok(rereader.clone()),
            None => {
                let rereader = Arc::new(crate::kafka::Rereader::new(&self.settings)?);
                made.rereader = Some(rereader.clone());
                Ok(rereader)
            }
        })
    }

    /// The client that asks for end offsets. Blocks when it is made.
    pub fn lag(&self) -> Result<Arc<LagClient>, KafkaError> {
        self.with(|made| match &made.lag {
            Some(lag) => Ok(lag.clone()),
            None => {
                let lag = Arc::new(LagClient::new(&self.settings)?);
                made.lag = Some(lag.clone());
                Ok(lag)
            }
        })
    }
}

#[async_trait]
impl LetterBox for ConnectorClients {
    async fn put(&self, topic: &str, letter: Letter) -> Result<(), LetterError> {
        let producer = self.producer().map_err(|error| LetterError::Refused(error.to_string()))?;
        let record = OwnedRecord {
            topic: Arc::from(topic),
            partition: 0,
            offset: 0,
            timestamp_ms: letter.timestamp_ms,
            key: letter.key,
            value: letter.value,
            headers: letter.headers,
        };
        producer.send(topic, &record).await.map_err(|error| match error {
            ProduceError::TooLarge { .. } => LetterError::TooLarge(error.to_string()),
            ProduceError::TopicMissing { .. }
            | ProduceError::NotAuthorized { .. }
            | ProduceError::TimedOut { .. }
            | ProduceError::Other { .. } => LetterError::Refused(error.to_string()),
        })
    }

    fn complaint(&self) -> Option<String> {
        self.producer().ok()?.complaint()
    }
}

#[async_trait]
impl Rereader for ConnectorClients {
    async fn reread(&self, partition: &TopicPartition, offsets: &[i64]) -> Result<Vec<Option<OwnedRecord>>, String> {
        let rereader = self.rereader().map_err(|error| error.to_string())?;
        let read = rereader.reread(&partition.topic, partition.partition, offsets, REREAD_TIMEOUT).await;
        read.map_err(|error| format!("records of {partition} that BigQuery rejected cannot be read again: {error}"))
    }
}
