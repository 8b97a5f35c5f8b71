//! What stands around a connector, and questions about it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use millrace::bigquery;
use millrace::config::{ConnectorConfig, FleetConfig};
use millrace::embedded::bigquery::{Cell, EmbeddedBigQuery, Settings};
use millrace::embedded::registry::{EmbeddedRegistry, RegistrySettings};
use millrace::flow::Budget;
use millrace::pipeline::{Connector, ConnectorParts, ConnectorState, ConnectorStatus, ConnectorWorld, HoldStatus, WorkerShared};
use millrace::schema::{FolderSource, RegistrySource, SchemaSource};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders, OwnedMessage};
use rdkafka::mocking::{MockCluster, MockCoordinator};
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::machine::Watch;

/// The tests' turn: two cores do not carry several workers.
static TURN: Mutex<()> = Mutex::new(());
static METRICS: OnceLock<PrometheusHandle> = OnceLock::new();

pub const SOON: Duration = Duration::from_secs(30);

pub struct Rig {
    pub mock: MockCluster<'static, DefaultProducerContext>,
    pub bigquery: EmbeddedBigQuery,
    pub registry: EmbeddedRegistry,
    pub runtime: tokio::runtime::Runtime,
    producer: BaseProducer,
    fleet: serde_json::Value,
    _turn: MutexGuard<'static, ()>,
}

impl Rig {
    pub fn new(brokers: i32, settings: Settings) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        METRICS.get_or_init(|| millrace::telemetry::metrics::install().unwrap());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let bigquery = runtime.block_on(EmbeddedBigQuery::start(settings)).unwrap();
        bigquery.create_dataset("p", "d").unwrap();
        let registry = runtime.block_on(EmbeddedRegistry::start(RegistrySettings::default())).unwrap();
        let mock = MockCluster::new(brokers).unwrap();
        let servers = mock.bootstrap_servers();
        let producer = ClientConfig::new()
            .set("bootstrap.servers", &servers)
            .set("linger.ms", "1")
            .set("message.max.bytes", "20000000")
            .create()
            .unwrap();
        let fleet = serde_json::json!({
            "kafka": { "bootstrap.servers": servers, "group.protocol": "consumer" },
            "registry": { "urls": [registry.url()] },
            "bigquery": {
                "project": "p", "credentials": "none", "rest_endpoint": bigquery.rest_url(), "grpc_endpoint": bigquery.grpc_url(),
                "append_timeout": "10s", "visibility_delay": "1s"
            },
        });
        Self { mock, bigquery, registry, runtime, producer, fleet, _turn: turn }
    }

    /// A further setting of `millrace.toml`.
    pub fn set(&mut self, section: &str, key: &str, value: impl Into<serde_json::Value>) {
        self.fleet[section][key] = value.into();
    }

    /// A topic whose partitions all have this leader.
    pub fn topic(&self, name: &str, partitions: i32, leader: i32) {
        self.mock.create_topic(name, partitions, 1).unwrap();
        for partition in 0..partitions {
            self.mock.partition_leader(name, partition, Some(leader)).unwrap();
        }
    }

    /// Keeps a group's coordinator on this broker.
    pub fn coordinator(&self, group: &str, broker: i32) {
        self.mock.coordinator(MockCoordinator::Group(group.to_owned()), broker).unwrap();
    }

    /// Starts a connector; it is stopped when it is dropped.
    pub fn start(&self, name: &str, toml: &str) -> Running<'_> {
        let fleet: Arc<FleetConfig> = Arc::new(serde_json::from_value(self.fleet.clone()).unwrap());
        let mut config: ConnectorConfig = toml::from_str(toml).unwrap();
        config.name = name.to_owned();
        let client = self.runtime.block_on(bigquery::connect(&fleet.bigquery, None)).unwrap();
        let schemas: Arc<dyn SchemaSource> = match &config.value.schemas {
            Some(folder) => Arc::new(FolderSource::new(folder.clone())),
            None => Arc::new(RegistrySource::new(fleet.registry.as_ref().unwrap(), None).unwrap()),
        };
        let worker = Arc::new(WorkerShared::new(Budget::new(256 << 20), self.runtime.handle().clone(), false));
        let parts = ConnectorParts {
            world: ConnectorWorld {
                config: Arc::new(config),
                fleet,
                schemas: Some(schemas),
                tables: client.tables(),
                appender: client.appender(),
                streams: client.streams(),
                worker,
            },
            prefetch_bytes: 32 << 20,
            paused: false,
        };
        let _inside = self.runtime.enter();
        Running { rig: self, connector: Some(Connector::start(parts).unwrap()) }
    }

    /// Produces a record and waits until the broker has it.
    pub fn produce(&self, topic: &str, partition: i32, key: &str, value: &[u8], headers: &[(&str, &str)]) {
        let headers = headers.iter().fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: Some(*value) }));
        self.producer.send(BaseRecord::to(topic).partition(partition).key(key).payload(value).headers(headers)).map_err(|e| e.0).unwrap();
        self.producer.flush(SOON).unwrap();
    }

    /// Produces `{"id": n}` for each of the ids, and waits until the broker has them.
    pub fn produce_ids(&self, topic: &str, partition: i32, ids: std::ops::Range<i64>) {
        self.send_ids(topic, partition, ids);
        self.producer.flush(SOON).unwrap();
    }

    /// As [`Self::produce_ids`], without waiting.
    pub fn send_ids(&self, topic: &str, partition: i32, ids: std::ops::Range<i64>) {
        for id in ids {
            let value = format!("{{\"id\": {id}}}");
            self.producer.send(BaseRecord::<str, str>::to(topic).partition(partition).payload(&value)).map_err(|e| e.0).unwrap();
        }
    }

    /// How often each `id` is in a table of dataset `d`.
    pub fn ids(&self, table: &str) -> BTreeMap<i64, u32> {
        let mut ids = BTreeMap::new();
        // A table that is not there yet has no rows.
        let _missing = self.bigquery.books().read("p", "d", table, &["id"], |cells| {
            if let Cell::Int(id) = &cells[0] {
                *ids.entry(*id).or_default() += 1;
            }
            true
        });
        ids
    }

    /// Waits until a table has every one of these ids.
    pub fn wait_for_ids(&self, table: &str, ids: std::ops::Range<i64>) {
        wait_until(&format!("ids {ids:?} in {table}"), SOON, || ids.clone().all(|id| self.ids(table).contains_key(&id)));
    }

    /// All records of a topic's partitions so far: waits for `count`, and a moment for more.
    pub fn read_topic(&self, topic: &str, partitions: i32, count: usize) -> Vec<OwnedMessage> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.mock.bootstrap_servers())
            .set("group.id", "reader")
            .set("fetch.message.max.bytes", "20000000")
            .set("receive.message.max.bytes", "50000000")
            .set("fetch.max.bytes", "40000000")
            .create()
            .unwrap();
        let mut from = TopicPartitionList::new();
        for partition in 0..partitions {
            from.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
        }
        consumer.assign(&from).unwrap();
        let mut found = Vec::new();
        let begun = Watch::start();
        while found.len() < count && begun.elapsed() < SOON {
            found.extend(consumer.poll(Duration::from_millis(200)).and_then(Result::ok).map(|message| message.detach()));
        }
        while let Some(more) = consumer.poll(Duration::from_millis(700)) {
            found.extend(more.ok().map(|message| message.detach()));
        }
        found
    }
}

/// A header of a message as text.
pub fn header(message: &OwnedMessage, name: &str) -> String {
    let headers = message.headers().unwrap();
    let value = headers.iter().find(|header| header.key == name).and_then(|header| header.value).unwrap_or_default();
    String::from_utf8_lossy(value).into_owned()
}

pub struct Running<'a> {
    rig: &'a Rig,
    connector: Option<Connector>,
}

impl Running<'_> {
    pub fn status(&self) -> ConnectorStatus {
        self.connector.as_ref().unwrap().status()
    }

    pub fn wait_for_state(&self, state: ConnectorState, within: Duration) -> ConnectorStatus {
        let mut last = self.status();
        let begun = Watch::start();
        while last.state != state {
            assert!(begun.elapsed() < within, "not {} within {within:?}: {last:#?}", state.as_str());
            std::thread::sleep(Duration::from_millis(20));
            last = self.status();
        }
        last
    }

    /// Waits until a partition of this topic holds for this cause: before, it may hold for its plan.
    pub fn wait_for_hold(&self, topic: &str, cause: &str) -> HoldStatus {
        let begun = Watch::start();
        loop {
            let status = self.status();
            let holds =
                status.partitions.iter().filter(|partition| partition.topic == topic).filter_map(|partition| partition.hold.as_ref());
            if let Some(hold) = holds.into_iter().find(|hold| hold.cause == cause) {
                return hold.clone();
            }
            assert!(begun.elapsed() < SOON, "no hold of {topic} for {cause} within {SOON:?}: {status:#?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Leaves the group as at SIGTERM.
    pub fn stop(mut self) {
        let connector = self.connector.take().unwrap();
        self.rig.runtime.block_on(connector.stop(Duration::from_secs(10))).unwrap();
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let Some(connector) = self.connector.take() {
            // A test that fails says so by itself.
            let _late = self.rig.runtime.block_on(connector.stop(Duration::from_secs(10)));
        }
    }
}

/// The sum of a metric's series with these labels; 0 without any.
pub fn metric(name: &str, labels: &[(&str, &str)]) -> f64 {
    let page = METRICS.get().unwrap().render();
    let carries = |line: &str| labels.iter().all(|(key, value)| line.contains(&format!("{key}=\"{value}\"")));
    let lines = page.lines().filter(|line| line.split(['{', ' ']).next() == Some(name) && carries(line));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

pub fn wait_until(what: &str, within: Duration, mut done: impl FnMut() -> bool) {
    let begun = Watch::start();
    while !done() {
        assert!(begun.elapsed() < within, "not within {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A connector of JSON records `{"id": n}` to table `d.<table>`.
pub fn json_connector(topics: &str, table: &str, dead: &str) -> String {
    format!(
        r#"
        topics = [{topics}]
        [value]
        format = "json"
        [table]
        name = "d.{table}"
        create = true
        evolve = "add"
        [table.columns]
        id = {{ type = "INT64" }}
        [delivery]
        linger = "10ms"
        [errors]
        dead_letter_topic = "{dead}"
        "#
    )
}
