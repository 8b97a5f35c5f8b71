//! Apache Kafka: one node that is broker and controller, from what `tests/live/install` put into the cache.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use millrace::embedded::ports::free_ports;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::kafka_node::{CLUSTER_ID, common_properties, java_arguments, library};
use super::load::LOAD;
use super::process::{Process, wait_for};

/// Bytes a second that no client here reaches.
const UNLIMITED: u64 = 1 << 40;

pub struct Kafka {
    process: Process,
    bootstrap: String,
    /// Its files.
    folder: PathBuf,
}

impl Kafka {
    pub fn start(folder: &Path) -> Result<Self> {
        let lib = library()?;
        let [port, controller] = free_ports()?;
        let own = folder.join("kafka");
        std::fs::create_dir_all(&own)?;
        let properties = own.join("server.properties");
        std::fs::write(
            &properties,
            format!(
                "node.id=1\nprocess.roles=broker,controller\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
                 listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\nadvertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
                 listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\nlog.dirs={}\n{}",
                own.join("data").display(),
                common_properties(1),
            ),
        )?;
        let java = |class: &str, more: &[&str]| -> Result<Vec<String>> {
            let mut arguments = java_arguments(&lib, &own, &JAVA_OPTIONS, class)?;
            arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
            Ok(arguments)
        };
        let path = properties.display().to_string();
        let format = java("kafka.tools.StorageTool", &["format", "-t", CLUSTER_ID, "-c", &path])?;
        Process::start(Path::new("java"), &format, &own.join("format.log"))?.wait(Duration::from_secs(60))?;
        let process = Process::start(Path::new("java"), &java("kafka.Kafka", &[&path])?, &own.join("broker.log"))?;
        let mut kafka = Self { process, bootstrap: format!("127.0.0.1:{port}"), folder: own };
        let consumer: BaseConsumer = kafka.client().create()?;
        wait_for("a broker that answers", Duration::from_secs(60), || {
            kafka.process.check_running()?;
            Ok(consumer.fetch_metadata(None, Duration::from_secs(1)).ok().filter(|m| !m.brokers().is_empty()).map(drop))
        })?;
        Ok(kafka)
    }

    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// The broker itself, to be stopped for a while and the like.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// From now on each client but the load may produce so many bytes a second (Kafka's quota `producer_byte_rate`); `None` lifts it.
    pub fn limit_producers(&self, bytes_per_s: Option<u64>) -> Result<()> {
        self.alter_quota(&["--entity-name", LOAD], Some(UNLIMITED))?;
        self.alter_quota(&["--entity-default"], bytes_per_s)
    }

    fn alter_quota(&self, clients: &[&str], bytes_per_s: Option<u64>) -> Result<()> {
        let change = match bytes_per_s {
            Some(rate) => ["--add-config".to_owned(), format!("producer_byte_rate={rate}")],
            None => ["--delete-config".to_owned(), "producer_byte_rate".to_owned()],
        };
        let mut arguments = java_arguments(&library()?, &self.folder, &["-Xmx128m", "-XX:+UseSerialGC"], "kafka.admin.ConfigCommand")?;
        let fixed = ["--bootstrap-server", &self.bootstrap, "--alter", "--entity-type", "clients"];
        arguments.extend(fixed.iter().chain(clients).map(|argument| (*argument).to_owned()).chain(change));
        Process::start(Path::new("java"), &arguments, &self.folder.join("configs.log"))?.wait(Duration::from_secs(60))
    }

    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap).set("log_level", "2");
        config
    }

    pub fn create_topics(&self, names: &[String], partitions: i32) -> Result<()> {
        let admin: AdminClient<DefaultClientContext> = self.client().create()?;
        let topics: Vec<NewTopic<'_>> = names.iter().map(|name| NewTopic::new(name, partitions, TopicReplication::Fixed(1))).collect();
        for made in futures::executor::block_on(admin.create_topics(&topics, &AdminOptions::new()))? {
            made.map_err(|(topic, code)| anyhow::anyhow!("cannot create {topic}: {code}"))?;
        }
        let consumer: BaseConsumer = self.client().create()?;
        wait_for("leaders of all partitions", Duration::from_secs(60), || {
            let metadata = consumer.fetch_metadata(None, Duration::from_secs(5))?;
            let led = metadata.topics().iter().filter(|t| names.iter().any(|n| n == t.name())).flat_map(|t| t.partitions());
            Ok((led.filter(|p| p.leader() >= 0).count() == names.len() * usize::try_from(partitions)?).then_some(()))
        })
    }

    /// The sum of all end offsets of a topic: the number of records of one that nothing was deleted from.
    pub fn records(&self, topic: &str, partitions: i32) -> Result<u64> {
        let consumer: BaseConsumer = self.client().create()?;
        (0..partitions).try_fold(0, |sum, p| Ok(sum + u64::try_from(consumer.fetch_watermarks(topic, p, Duration::from_secs(10))?.1)?))
    }

    /// State and member ids of every group whose name begins with `prefix`, as the broker sees them.
    pub fn groups(&self, prefix: &str) -> Result<Vec<(String, String, Vec<String>)>> {
        let consumer: BaseConsumer = self.client().create()?;
        let list = consumer.fetch_group_list(None, Duration::from_secs(10))?;
        let mut groups: Vec<_> = (list.groups().iter().filter(|g| g.name().starts_with(prefix)))
            .map(|g| (g.name().to_owned(), g.state().to_owned(), g.members().iter().map(|m| m.id().to_owned()).collect()))
            .collect();
        groups.sort();
        Ok(groups)
    }
}

const JAVA_OPTIONS: [&str; 4] = ["-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-Xss512k"];
