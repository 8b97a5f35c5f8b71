//! Apache Kafka: a controller of its own and three brokers, replication 3, min.insync.replicas 2, on loopback.
//!
//! Each broker has four listeners: plaintext, SASL_SSL (SCRAM-SHA-512, PLAIN, OAUTHBEARER), TLS that wants a client's certificate, and
//! plaintext that is advertised at another port, where a test may put a [`Wire`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, bail};
use millrace::embedded::ports::free_ports;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::certificates::Certificates;
use super::kafka_node::{CLUSTER_ID, common_properties, java_arguments};
use super::process::{Process, STARTS_WITHIN, wait_for};
use super::registry::block;
use super::tokens::{AUDIENCE, ISSUER};
use super::wire::Wire;

/// The user that SCRAM knows.
pub const SCRAM_USER: &str = "warehouse";
/// Its password.
pub const SCRAM_PASSWORD: &str = "pass word & more";

/// The user that PLAIN knows.
pub const PLAIN_USER: &str = "shelf";
/// Its password.
pub const PLAIN_PASSWORD: &str = "plain word & more";

/// Ports of a broker: its four listeners, and where the last one is advertised.
const PORTS: usize = 5;
const CONTROLLER: usize = 9;
const JAVA_OPTIONS: [&str; 6] =
    ["-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:MaxMetaspaceSize=160m", "-XX:ReservedCodeCacheSize=64m", "-Xss512k"];

/// A running cluster.
pub struct Cluster {
    lib: PathBuf,
    folder: PathBuf,
    keys: PathBuf,
    ports: [u16; 3 * PORTS],
    brokers: Mutex<[Option<Process>; 3]>,
    _controller: Process,
}

impl Cluster {
    /// Formats, starts, and waits until every broker leads something.
    ///
    /// `keys` is the file with the public keys of whoever signs tokens.
    pub fn start(lib: &Path, folder: &Path, certificates: &Certificates, keys: &Path) -> anyhow::Result<Self> {
        let ports: [u16; 3 * PORTS + 1] = free_ports()?;
        let [controller_port, broker_ports @ ..] = ports;
        let mut formats = Vec::new();
        for node in [CONTROLLER, 1, 2, 3] {
            let own = folder.join(node.to_string());
            std::fs::create_dir_all(&own)?;
            std::fs::write(own.join("server.properties"), properties(node, controller_port, &broker_ports, &own, certificates, keys))?;
            formats.push(java(lib, folder, keys, node, "kafka.tools.StorageTool", |command| {
                command.args(["format", "-t", CLUSTER_ID, "-c"]).arg(own.join("server.properties"));
                let user = format!("SCRAM-SHA-512=[name=\"{SCRAM_USER}\",password=\"{SCRAM_PASSWORD}\"]");
                command.args(["--add-scram", &user]);
            })?);
        }
        for mut format in formats {
            if !format.wait(STARTS_WITHIN)?.success() {
                bail!("cannot format the storage: {}", format.log_end());
            }
        }
        let node = |node| server(lib, folder, keys, node);
        let controller = node(CONTROLLER)?;
        let brokers = [node(1)?, node(2)?, node(3)?].map(Some);
        let cluster = Self {
            lib: lib.to_owned(),
            folder: folder.to_owned(),
            keys: keys.to_owned(),
            ports: broker_ports,
            brokers: Mutex::new(brokers),
            _controller: controller,
        };
        cluster.wait_for_brokers()?;
        Ok(cluster)
    }

    /// `bootstrap.servers` of the plaintext listeners.
    pub fn bootstrap(&self) -> String {
        self.listeners(0)
    }

    /// `bootstrap.servers` of the listeners that want SASL over TLS.
    pub fn bootstrap_sasl(&self) -> String {
        self.listeners(1)
    }

    /// `bootstrap.servers` of the listeners that want a client's certificate.
    pub fn bootstrap_mutual_tls(&self) -> String {
        self.listeners(2)
    }

    /// A wire in front of the brokers, and the `bootstrap.servers` of clients that are to reach them through it.
    pub fn wire(&self) -> anyhow::Result<(Wire, String)> {
        let ways: Vec<(u16, u16)> = self.ports.chunks(PORTS).map(|ports| (ports[4], ports[3])).collect();
        Ok((Wire::open(&ways)?, self.listeners(4)))
    }

    fn listeners(&self, kind: usize) -> String {
        self.ports.chunks(PORTS).map(|ports| format!("127.0.0.1:{}", ports[kind])).collect::<Vec<_>>().join(",")
    }

    /// SIGKILL to broker 1, 2 or 3.
    pub fn kill_broker(&self, broker: usize) -> anyhow::Result<()> {
        match self.lock()?[broker - 1].take() {
            Some(mut process) => process.kill(),
            None => bail!("broker {broker} does not run"),
        }
    }

    /// Starts a killed broker again and waits until all three are in the cluster.
    pub fn restart_broker(&self, broker: usize) -> anyhow::Result<()> {
        self.lock()?[broker - 1] = Some(server(&self.lib, &self.folder, &self.keys, broker)?);
        self.wait_for_brokers()
    }

    fn lock(&self) -> anyhow::Result<std::sync::MutexGuard<'_, [Option<Process>; 3]>> {
        self.brokers.lock().map_err(|_| anyhow::anyhow!("a test panicked while it held the brokers"))
    }

    fn wait_for_brokers(&self) -> anyhow::Result<()> {
        let consumer: BaseConsumer = self.client().create()?;
        wait_for("three brokers in the cluster", STARTS_WITHIN, || {
            for broker in self.lock()?.iter_mut().flatten() {
                broker.check_running()?;
            }
            let metadata = consumer.fetch_metadata(None, Duration::from_secs(2)).ok();
            Ok(metadata.filter(|m| m.brokers().len() == 3).map(drop))
        })
    }

    /// A client's configuration for the plaintext listeners.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.bootstrap()).set("log_level", "2");
        config
    }

    fn admin(&self) -> anyhow::Result<AdminClient<DefaultClientContext>> {
        Ok(self.client().create()?)
    }

    /// Creates a topic and waits until all its partitions have leaders.
    pub fn create_topic(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) -> anyhow::Result<()> {
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(3));
        for (key, value) in settings {
            topic = topic.set(key, value);
        }
        let admin = self.admin()?;
        let made = block(async { Ok(admin.create_topics([&topic], &AdminOptions::new()).await?) })?;
        for one in made {
            one.map_err(|(topic, code)| anyhow::anyhow!("cannot create {topic}: {code}"))?;
        }
        self.wait_for_leaders(name, usize::try_from(partitions)?)
    }

    /// Gives a topic more partitions: `partitions` in all.
    pub fn grow_topic(&self, name: &str, partitions: usize) -> anyhow::Result<()> {
        let admin = self.admin()?;
        let made = block(async { Ok(admin.create_partitions([&NewPartitions::new(name, partitions)], &AdminOptions::new()).await?) })?;
        for one in made {
            one.map_err(|(topic, code)| anyhow::anyhow!("cannot grow {topic}: {code}"))?;
        }
        self.wait_for_leaders(name, partitions)
    }

    fn wait_for_leaders(&self, topic: &str, partitions: usize) -> anyhow::Result<()> {
        let consumer: BaseConsumer = self.client().create()?;
        wait_for(&format!("leaders of {topic}"), Duration::from_secs(120), || {
            let Ok(metadata) = consumer.fetch_metadata(Some(topic), Duration::from_secs(5)) else { return Ok(None) };
            let ready =
                metadata.topics().iter().any(|t| t.partitions().len() == partitions && t.partitions().iter().all(|p| p.leader() >= 0));
            Ok(ready.then_some(()))
        })
    }

    /// The broker that leads a partition.
    pub fn leader(&self, topic: &str, partition: i32) -> anyhow::Result<usize> {
        let consumer: BaseConsumer = self.client().create()?;
        let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(60))?;
        let found = metadata.topics().iter().flat_map(|t| t.partitions()).find(|p| p.id() == partition);
        Ok(usize::try_from(found.with_context(|| format!("{topic} has no partition {partition}"))?.leader())?)
    }

    /// Deletes all records of a partition below `offset`, as retention would.
    pub fn delete_records(&self, topic: &str, partition: i32, offset: i64) -> anyhow::Result<()> {
        let mut below = TopicPartitionList::new();
        below.add_partition_offset(topic, partition, Offset::Offset(offset))?;
        let admin = self.admin()?;
        let done = block(async { Ok(admin.delete_records(&below, &AdminOptions::new()).await?) })?;
        done.elements().iter().try_for_each(|e| e.error().map_err(anyhow::Error::from))
    }

    /// The offset a group has committed for a partition.
    pub fn committed(&self, group: &str, topic: &str, partition: i32) -> anyhow::Result<Option<i64>> {
        let consumer: BaseConsumer = self.client().set("group.id", group).create()?;
        let mut asked = TopicPartitionList::new();
        asked.add_partition(topic, partition);
        let found = consumer.committed_offsets(asked, Duration::from_secs(60))?;
        Ok(found.elements().first().and_then(|e| e.offset().to_raw()).filter(|offset| *offset >= 0))
    }

    /// The generations of a classic group that its members took up so far, by the brokers' logs: number, and how many members. One follows
    /// another by a rebalance.
    pub fn generations(&self, group: &str) -> anyhow::Result<BTreeMap<u32, u32>> {
        let begin = format!("Stabilized group {group} generation ");
        let mut found = BTreeMap::new();
        for broker in 1..=3 {
            let log = std::fs::read_to_string(self.folder.join(broker.to_string()).join("out.log"))?;
            for said in log.lines().filter_map(|line| line.split_once(&begin)).map(|(_, said)| said) {
                let numbers = said.strip_suffix(" members.").and_then(|said| said.split_once(" with "));
                let (number, members) = numbers.with_context(|| format!("no generation in: {said}"))?;
                found.insert(number.parse()?, members.parse()?);
            }
        }
        Ok(found)
    }
}

fn server(lib: &Path, folder: &Path, keys: &Path, node: usize) -> anyhow::Result<Process> {
    let file = folder.join(node.to_string()).join("server.properties");
    java(lib, folder, keys, node, "kafka.Kafka", |command| {
        command.arg(file);
    })
}

fn java(
    lib: &Path,
    folder: &Path,
    keys: &Path,
    node: usize,
    class: &str,
    prepare: impl FnOnce(&mut std::process::Command),
) -> anyhow::Result<Process> {
    let own = folder.join(node.to_string());
    // Since 4.0 a node reads keys only from where this allows it to.
    let allowed = format!("-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls=file://{}", keys.display());
    let arguments = java_arguments(lib, &own, &[&JAVA_OPTIONS[..], &[&allowed]].concat(), class)?;
    Process::start(&format!("Kafka node {node}"), "java", &own.join("out.log"), |command| {
        command.args(arguments);
        prepare(command);
    })
}

fn properties(
    node: usize,
    controller_port: u16,
    ports: &[u16; 3 * PORTS],
    folder: &Path,
    certificates: &Certificates,
    keys: &Path,
) -> String {
    let mut text = format!(
        "node.id={node}\ncontroller.quorum.voters={CONTROLLER}@127.0.0.1:{controller_port}\nlog.dirs={}\n{}{MORE_PROPERTIES}",
        folder.join("data").display(),
        common_properties(3),
    );
    if node == CONTROLLER {
        text += &format!("process.roles=controller\nlisteners=CONTROLLER://127.0.0.1:{controller_port}\n");
        text += "listener.security.protocol.map=CONTROLLER:PLAINTEXT\n";
    } else {
        let [plain, sasl, mutual, wired, wire] = [0, 1, 2, 3, 4].map(|kind| ports[(node - 1) * PORTS + kind]);
        let direct = format!("PLAIN://127.0.0.1:{plain},SASL://127.0.0.1:{sasl},MUTUAL://127.0.0.1:{mutual}");
        text += &format!("process.roles=broker\nlisteners={direct},WIRED://127.0.0.1:{wired}\n");
        text += &format!("advertised.listeners={direct},WIRED://127.0.0.1:{wire}\n");
        text += &format!("ssl.keystore.type=PEM\nssl.keystore.location={}\n", certificates.server_pem.display());
        text += &format!("ssl.truststore.type=PEM\nssl.truststore.location={}\n", certificates.ca.display());
        text += BROKER_PROPERTIES;
        let plain = "listener.name.sasl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required";
        text += &format!("{plain} user_{PLAIN_USER}=\"{PLAIN_PASSWORD}\";\n");
        let oauth = "listener.name.sasl.oauthbearer.sasl.oauthbearer";
        text += &format!("{oauth}.jwks.endpoint.url=file://{}\n", keys.display());
        text += &format!("{oauth}.expected.audience={AUDIENCE}\n{oauth}.expected.issuer={ISSUER}\n");
    }
    text
}

const BROKER_PROPERTIES: &str = "\
inter.broker.listener.name=PLAIN
listener.security.protocol.map=PLAIN:PLAINTEXT,SASL:SASL_SSL,MUTUAL:SSL,WIRED:PLAINTEXT,CONTROLLER:PLAINTEXT
listener.name.sasl.sasl.enabled.mechanisms=SCRAM-SHA-512,PLAIN,OAUTHBEARER
listener.name.sasl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl.oauthbearer.sasl.jaas.config=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;
listener.name.sasl.oauthbearer.sasl.server.callback.handler.class=\
org.apache.kafka.common.security.oauthbearer.OAuthBearerValidatorCallbackHandler
listener.name.mutual.ssl.client.auth=required
";

const MORE_PROPERTIES: &str = "\
num.recovery.threads.per.data.dir=1
default.replication.factor=3
min.insync.replicas=2
unclean.leader.election.enable=false
num.partitions=1
group.consumer.min.heartbeat.interval.ms=500
group.consumer.heartbeat.interval.ms=1000
group.consumer.min.session.timeout.ms=3000
group.consumer.session.timeout.ms=10000
log.cleaner.backoff.ms=200
log.segment.delete.delay.ms=1000
controlled.shutdown.enable=true
broker.session.timeout.ms=4000
broker.heartbeat.interval.ms=500
";
