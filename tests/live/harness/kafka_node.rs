//! How one Apache Kafka node is run from what `tests/live/install` put into the cache. `benches/rig` uses it too.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// The cluster's id, in the form that Kafka gives ids.
pub const CLUSTER_ID: &str = "MkU3OEVBNTcwNTJENDM2Qg";

/// The folder that holds the servers.
pub fn parts() -> anyhow::Result<PathBuf> {
    let cache = match (std::env::var_os("MILLRACE_CACHE"), std::env::var_os("HOME")) {
        (Some(cache), _) => PathBuf::from(cache),
        (None, Some(home)) => PathBuf::from(home).join(".cache/millrace"),
        (None, None) => bail!("neither MILLRACE_CACHE nor HOME is set"),
    };
    Ok(cache.join("parts"))
}

/// Kafka's jars.
pub fn library() -> anyhow::Result<PathBuf> {
    let lib = parts()?.join("kafka/lib");
    if lib.is_dir() { Ok(lib) } else { bail!("no Kafka at {}: run tests/live/install first", lib.display()) }
}

/// The arguments of `java` for a class of Kafka's: `options` are the JVM's own; `folder` gets the settings of its log.
pub fn java_arguments(lib: &Path, folder: &Path, options: &[&str], class: &str) -> anyhow::Result<Vec<String>> {
    let log4j = folder.join("log4j2.properties");
    std::fs::write(&log4j, LOG4J).with_context(|| format!("cannot write {}", log4j.display()))?;
    let mut arguments: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
    arguments.push(format!("-Dlog4j2.configurationFile={}", log4j.display()));
    arguments.extend(["-cp".to_owned(), lib.join("*").display().to_string(), class.to_owned()]);
    Ok(arguments)
}

/// What every node of tests and benchmarks has in its `server.properties`: few threads, quick groups, no surprise topics. A topic of the
/// brokers' own is kept `replicas` times.
pub fn common_properties(replicas: u8) -> String {
    let in_sync = replicas.min(2);
    format!(
        "\
controller.listener.names=CONTROLLER
num.network.threads=2
num.io.threads=2
background.threads=2
auto.create.topics.enable=false
offsets.topic.num.partitions=4
offsets.topic.replication.factor={replicas}
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={in_sync}
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor={replicas}
share.coordinator.state.topic.min.isr={in_sync}
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
log.cleaner.dedupe.buffer.size=4194304
log.segment.bytes=134217728
"
    )
}

const LOG4J: &str = "\
status=error
rootLogger.level=warn
rootLogger.appenderRef.console.ref=console
logger.groups.name=org.apache.kafka.coordinator.group
logger.groups.level=info
appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=%d{HH:mm:ss.SSS} %p %c{1} %m%n
";
