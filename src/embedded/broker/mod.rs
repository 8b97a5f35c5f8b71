//! A Kafka broker in this process: librdkafka's mock cluster behind a relay.
//!
//! The mock cluster speaks the protocol (produce, fetch, groups of both protocols, commits). It chooses its own ports, so a relay listens
//! on the ports that were asked for and rewrites the broker addresses in answers. As every request passes the relay, faults are drawn
//! there, and what fired is known exactly. What the mock cluster cannot do: CreateTopics (use [`EmbeddedBroker::create_topic`]),
//! transactions' aborts (records of an aborted one are visible), sequence numbers of idempotent producers (a batch behind a refused one is
//! stored, and librdkafka takes that as a yes to both: `max.in.flight.requests.per.connection` of 1 where batches are refused), and more
//! than 5 MiB or 100,000 records a partition ([`RETAINED_BYTES`], [`RETAINED_RECORDS`]): older ones are deleted, read or not. Classic
//! groups: the first join takes 3 s and drops members whose session is shorter, so session.timeout.ms must be above that; every later
//! rebalance takes session.timeout.ms less a second, and refuses commits meanwhile. Groups of the new protocol (KIP-848) have neither wait:
//! [`GroupTimes`] says how soon a dead member is noticed there.

mod cluster;
mod faults;
mod frame;
mod relay;
mod sessions;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use tokio::net::TcpListener;

use super::EmbeddedError;
use cluster::Cluster;
use faults::FaultDice;
pub use faults::{BrokerFault, BrokerFaultRates};
pub use sessions::GroupTimes;
use sessions::Sessions;

/// Bytes that the mock cluster keeps for each partition (`rdkafka_mock.c`: `max_size`).
pub const RETAINED_BYTES: u64 = 5 * 1024 * 1024;
/// Records that the mock cluster keeps for each partition (`rdkafka_mock.c`: `max_cnt`).
pub const RETAINED_RECORDS: u64 = 100_000;

/// How a broker is started.
#[derive(Debug, Clone)]
pub struct BrokerSettings {
    /// How many brokers the cluster has, 1 to 16.
    pub brokers: u16,
    /// The first broker's port on loopback, the others' follow it; 0 takes free ones.
    pub port: u16,
    /// The same seed draws the same faults for the same sequence of requests.
    pub seed: u64,
    /// What goes wrong, and how often.
    pub faults: BrokerFaultRates,
    /// Groups of the new protocol (`group.protocol=consumer`); `None` leaves the mock cluster's 30 s and 5 s.
    pub group_times: Option<GroupTimes>,
}

impl Default for BrokerSettings {
    fn default() -> Self {
        Self { brokers: 1, port: 0, seed: 0, faults: BrokerFaultRates::none(), group_times: None }
    }
}

/// A running broker; dropping it ends it and closes every connection.
pub struct EmbeddedBroker {
    cluster: Arc<Cluster>,
    dice: Arc<FaultDice>,
    addresses: Vec<SocketAddr>,
    relays: Vec<tokio::task::JoinHandle<()>>,
}

impl EmbeddedBroker {
    /// Starts the cluster and its relay. Needs a tokio runtime.
    ///
    /// # Errors
    /// When a port is taken, or librdkafka cannot start its mock cluster.
    pub async fn start(settings: BrokerSettings) -> Result<Self, EmbeddedError> {
        if settings.brokers == 0 || settings.brokers > 16 {
            return Err(EmbeddedError::Settings(format!("{} brokers: 1 to 16 are possible", settings.brokers)));
        }
        let mut listeners = Vec::new();
        for index in 0..settings.brokers {
            let port = if settings.port == 0 { 0 } else { settings.port.saturating_add(index) };
            let listener = TcpListener::bind(("127.0.0.1", port))
                .await
                .map_err(|e| EmbeddedError::Listen { address: format!("127.0.0.1:{port}"), source: e })?;
            listeners.push(listener);
        }
        let cluster = Arc::new(Cluster::start(settings.brokers).await?);
        let mut addresses = Vec::new();
        for listener in &listeners {
            addresses.push(listener.local_addr().map_err(|e| EmbeddedError::Listen { address: "127.0.0.1".to_owned(), source: e })?);
        }
        let rewrites = Arc::new(frame::PortRewrites::new(cluster.ports(), &addresses));
        let dice = Arc::new(FaultDice::new(settings.seed, settings.faults));
        let sessions = settings.group_times.map(|times| Arc::new(Sessions::new(times)));
        let shared = relay::Shared { rewrites, dice: dice.clone(), cluster: cluster.clone(), sessions: sessions.clone() };
        let relays = listeners
            .into_iter()
            .zip(cluster.ports())
            .map(|(listener, &port)| tokio::spawn(relay::serve(listener, port, shared.clone())))
            .chain(sessions.map(|sessions| tokio::spawn(sessions.watch())))
            .collect();
        Ok(Self { cluster, dice, addresses, relays })
    }

    /// `host:port` of every broker, as `bootstrap.servers` takes it.
    pub fn bootstrap_servers(&self) -> String {
        self.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }

    /// Creates a topic.
    ///
    /// # Errors
    /// When it exists already or the number of partitions is not acceptable.
    pub async fn create_topic(&self, topic: &str, partitions: i32) -> Result<(), EmbeddedError> {
        self.cluster.create_topic(topic, partitions).await
    }

    /// Disconnects a broker's clients and refuses new ones (its partitions keep it as leader). Numbers begin at 1.
    ///
    /// # Errors
    /// When there is no such broker.
    pub async fn broker_down(&self, broker: i32) -> Result<(), EmbeddedError> {
        self.cluster.broker_down(broker).await
    }

    /// Takes connections again.
    ///
    /// # Errors
    /// When there is no such broker.
    pub async fn broker_up(&self, broker: i32) -> Result<(), EmbeddedError> {
        self.cluster.broker_up(broker).await
    }

    /// Delays every answer of a broker by this much from now on.
    ///
    /// # Errors
    /// When there is no such broker.
    pub async fn round_trip_time(&self, broker: i32, time: Duration) -> Result<(), EmbeddedError> {
        self.cluster.round_trip_time(broker, time).await
    }

    /// Answers the next requests of this kind with these errors, one each.
    ///
    /// # Errors
    /// When the cluster's thread has ended.
    pub async fn request_errors(&self, api: RDKafkaApiKey, errors: Vec<RDKafkaRespErr>) -> Result<(), EmbeddedError> {
        self.cluster.request_errors(api, errors).await
    }

    /// Changes what goes wrong from now on.
    pub fn set_faults(&self, rates: BrokerFaultRates) {
        self.dice.set(rates);
    }

    /// How often each class of fault with a rate above zero has fired.
    pub fn fired(&self) -> BTreeMap<&'static str, u64> {
        self.dice.fired()
    }
}

impl Drop for EmbeddedBroker {
    fn drop(&mut self) {
        for relay in &self.relays {
            relay.abort();
        }
        self.cluster.stop();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use rdkafka::ClientConfig;
    use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
    use rdkafka::message::Message;
    use rdkafka::producer::{FutureProducer, FutureRecord};
    use rdkafka::{Offset, TopicPartitionList};

    use super::*;

    async fn produce(broker: &EmbeddedBroker, topic: &str, count: usize) -> Vec<(i32, i64)> {
        let producer: FutureProducer =
            ClientConfig::new().set("bootstrap.servers", broker.bootstrap_servers()).set("enable.idempotence", "true").create().unwrap();
        let mut at = Vec::new();
        for n in 0..count {
            let payload = format!("value {n}");
            let record = FutureRecord::<(), _>::to(topic).payload(&payload).partition((n % 3) as i32);
            let delivery = producer.send(record, Duration::from_secs(20)).await.unwrap();
            at.push((delivery.partition, delivery.offset));
        }
        at
    }

    fn read_all(servers: &str, group: &str, topic: &str, count: usize) -> Vec<(i32, i64, String)> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", servers)
            .set("group.id", group)
            .set("session.timeout.ms", "30000")
            .set("auto.offset.reset", "earliest")
            .set("enable.auto.commit", "false")
            .create()
            .unwrap();
        consumer.subscribe(&[topic]).unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(120);
        let mut got = Vec::new();
        while got.len() < count && std::time::Instant::now() < deadline {
            if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
                got.push((message.partition(), message.offset(), String::from_utf8(message.payload().unwrap().to_vec()).unwrap()));
            }
        }
        let mut offsets = TopicPartitionList::new();
        for (partition, offset, _) in &got {
            offsets.add_partition_offset(topic, *partition, Offset::Offset(offset + 1)).ok();
        }
        if !got.is_empty() {
            consumer.commit(&offsets, CommitMode::Sync).ok();
        }
        got
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn records_pass_the_relay_of_three_brokers_on_the_ports_asked_for() {
        let [port, ..] = crate::embedded::ports::free_ports::<3>().unwrap();
        let broker = EmbeddedBroker::start(BrokerSettings { brokers: 3, port, ..BrokerSettings::default() }).await.unwrap();
        assert!(broker.bootstrap_servers().starts_with(&format!("127.0.0.1:{port},")), "{}", broker.bootstrap_servers());
        broker.create_topic("t", 3).await.unwrap();
        let produced = produce(&broker, "t", 30).await;
        let servers = broker.bootstrap_servers();
        let got = tokio::task::spawn_blocking(move || read_all(&servers, "g", "t", 30)).await.unwrap();
        let mut seen: Vec<(i32, i64)> = got.iter().map(|(p, o, _)| (*p, *o)).collect();
        let mut want = produced;
        seen.sort_unstable();
        want.sort_unstable();
        assert_eq!(seen, want);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn faults_fire_are_counted_and_lose_nothing() {
        let broker = EmbeddedBroker::start(BrokerSettings { seed: 7, ..BrokerSettings::default() }).await.unwrap();
        broker.create_topic("t", 3).await.unwrap();
        broker.set_faults(BrokerFaultRates::none().with(BrokerFault::ProduceError, 0.3).with(BrokerFault::FetchError, 0.3));
        let produced = produce(&broker, "t", 30).await;
        let servers = broker.bootstrap_servers();
        let got = tokio::task::spawn_blocking(move || read_all(&servers, "g", "t", 30)).await.unwrap();
        let mut seen: Vec<(i32, i64)> = got.iter().map(|(p, o, _)| (*p, *o)).collect();
        let mut want = produced;
        seen.sort_unstable();
        want.sort_unstable();
        assert_eq!(seen, want, "each record once: nobody went past the relay and lost an answer there");
        let fired = broker.fired();
        assert!(fired["broker_produce_error"] > 0 && fired["broker_fetch_error"] > 0, "{fired:?}");
    }
}
