//! Apache Kafka: one node that is broker and controller, from what `tests/live/install` put into the cache.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::process::{Process, free_port, wait_for};

pub struct Kafka {
    process: Process,
    bootstrap: String,
}

impl Kafka {
    pub fn start(folder: &Path) -> Result<Self> {
        let lib = library()?;
        let (port, controller) = (free_port()?, free_port()?);
        let own = folder.join("kafka");
        std::fs::create_dir_all(&own)?;
        let log4j = own.join("log4j2.properties");
        std::fs::write(&log4j, LOG4J)?;
        let properties = own.join("server.properties");
        std::fs::write(
            &properties,
            format!(
                "node.id=1\nprocess.roles=broker,controller\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
                 listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\nadvertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
                 log.dirs={}\n{PROPERTIES}",
                own.join("data").display()
            ),
        )?;
        let java = |class: &str, more: &[&str]| {
            let mut arguments: Vec<String> = JAVA_OPTIONS.iter().map(|o| (*o).to_owned()).collect();
            arguments.push(format!("-Dlog4j2.configurationFile={}", log4j.display()));
            arguments.extend(["-cp".to_owned(), format!("{}/*", lib.display()), class.to_owned()]);
            arguments.extend(more.iter().map(|m| (*m).to_owned()));
            arguments
        };
        let path = properties.display().to_string();
        let format = java("kafka.tools.StorageTool", &["format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c", &path]);
        Process::start(Path::new("java"), &format, &own.join("format.log"))?.wait(Duration::from_secs(60))?;
        let process = Process::start(Path::new("java"), &java("kafka.Kafka", &[&path]), &own.join("broker.log"))?;
        let mut kafka = Self { process, bootstrap: format!("127.0.0.1:{port}") };
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

fn library() -> Result<PathBuf> {
    let cache = match std::env::var_os("MILLRACE_CACHE") {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(std::env::var_os("HOME").context("neither MILLRACE_CACHE nor HOME is set")?).join(".cache/millrace"),
    };
    let lib = cache.join("parts/kafka/lib");
    if lib.is_dir() { Ok(lib) } else { bail!("no Kafka at {}: run tests/live/install", lib.display()) }
}

const JAVA_OPTIONS: [&str; 4] = ["-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-Xss512k"];

const PROPERTIES: &str = "\
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
num.network.threads=2
num.io.threads=2
background.threads=2
auto.create.topics.enable=false
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
log.cleaner.dedupe.buffer.size=4194304
log.segment.bytes=134217728
";

const LOG4J: &str = "\
status=error
rootLogger.level=warn
rootLogger.appenderRef.console.ref=console
appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=%d{HH:mm:ss.SSS} %p %c{1} %m%n
";
