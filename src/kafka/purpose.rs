//! What a Kafka client is for: the librdkafka properties that follow from it, and its name.

use rdkafka::ClientConfig;

use super::prefetch::Prefetch;

/// What a client is for.
#[derive(Clone, Copy)]
pub(super) enum Purpose<'a> {
    /// A member of a group, with its limits on fetching ahead.
    Member { group_id: &'a str, prefetch: Prefetch, topics_by_regex: bool },
    /// A consumer that carries the group's name, for its rights, and never joins it.
    Outsider { group_id: &'a str, errand: Errand },
    /// Writes dead letters, or what the fleet notes for itself.
    Producer { name: &'static str, buffer_bytes: u64, timeout_ms: u128 },
}

/// What an outsider does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Errand {
    /// Counts partitions and brokers before a member starts.
    Plan,
    /// Asks for a group's lag.
    Lag,
    /// Asks where topics end for those who write to them.
    HighWatermarks,
    /// Shows and sets a group's offsets.
    Offsets,
    /// Tries what `millrace check` tries.
    Check,
    /// Reads single records again.
    Reread,
    /// Looks at the last records of partitions.
    Sample,
    /// Reads a topic once, up to its end.
    Scan,
    /// Reads the fleet's own topics.
    FleetLog,
    /// Looks whether the fleet's own topics exist.
    FleetTopics,
}

impl Errand {
    /// What stands behind `millrace-<connector>-` in the client's `client.id`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plan => "plan",
            Self::Lag => "lag",
            Self::HighWatermarks => "lag-uncommitted",
            Self::Offsets => "offsets",
            Self::Check => "check",
            Self::Reread => "reread",
            Self::Sample => "sample",
            Self::Scan => "scan",
            Self::FleetLog => "fleet",
            Self::FleetTopics => "fleet-topics",
        }
    }

    /// Properties that the errand needs, whatever the user set.
    const fn needs(self) -> &'static [(&'static str, &'static str)] {
        match self {
            // It is done with a partition at its end, and must hear of that.
            Self::Reread | Self::Scan => &[("enable.partition.eof", "true")],
            // It reads up to the end and leaves: the broker's answer "nothing more" is what it waits for.
            Self::Sample => &[("enable.partition.eof", "true"), ("fetch.wait.max.ms", "50")],
            // The end for those who write lies behind open transactions. It reads no record.
            Self::HighWatermarks => &[("isolation.level", "read_uncommitted")],
            Self::Plan | Self::Lag | Self::Offsets | Self::Check | Self::FleetLog | Self::FleetTopics => &[],
        }
    }
}

/// Properties of group members, which librdkafka warns about in any other client.
const MEMBERS_ONLY: &[&str] =
    &["group.protocol", "group.remote.assignor", "session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy"];

impl Purpose<'_> {
    /// `client.id` of such a client of a connector (or of the fleet).
    pub fn client_id(&self, connector: &str) -> String {
        match self {
            Self::Member { .. } => format!("millrace-{connector}"),
            Self::Outsider { errand, .. } => format!("millrace-{connector}-{}", errand.name()),
            Self::Producer { name, .. } => format!("millrace-{connector}-{name}"),
        }
    }

    /// Sets what the user's properties may change. The group's own timing is left to [`Purpose::set_classic_group`].
    pub fn set_defaults(&self, config: &mut ClientConfig) {
        match self {
            Self::Member { group_id, prefetch, topics_by_regex } => {
                config.set("group.id", *group_id);
                for (name, value) in prefetch.properties() {
                    config.set(name, value);
                }
                // How soon a topic that matches a regular expression is found; a list needs to hear of new partitions only.
                config.set("topic.metadata.refresh.interval.ms", if *topics_by_regex { "10000" } else { "60000" });
            }
            Self::Outsider { group_id, .. } => {
                config.set("group.id", *group_id);
                // Read one record at a time: no need to fetch ahead.
                config.set("queued.max.messages.kbytes", "1024").set("queued.min.messages", "100");
                config.set("fetch.message.max.bytes", "262144").set("fetch.max.bytes", "1048576");
            }
            Self::Producer { buffer_bytes, timeout_ms, .. } => {
                config.set("linger.ms", "5").set("compression.type", "lz4");
                // The topic's own limit decides what is too large. A small batch, because a broker refuses a batch as a whole.
                config.set("message.max.bytes", "67108864").set("batch.size", "65536");
                config.set("queue.buffering.max.kbytes", (buffer_bytes / 1024).max(1024).to_string());
                config.set("queue.buffering.max.messages", "100000").set("message.timeout.ms", timeout_ms.to_string());
                config.set("topic.metadata.propagation.max.ms", "5000");
            }
        }
    }

    /// Sets the timing and the assignor of a member of a classic group. Under `group.protocol=consumer` the broker has them.
    pub fn set_classic_group(&self, config: &mut ClientConfig, session_timeout_ms: u64) {
        if let Self::Member { .. } = self {
            config.set("session.timeout.ms", session_timeout_ms.to_string());
            config.set("heartbeat.interval.ms", "500").set("partition.assignment.strategy", "cooperative-sticky");
        }
    }

    /// Sets, over the user's properties, what the purpose cannot do without; `promises` are those of consumers.
    pub fn set_needs(&self, config: &mut ClientConfig, promises: &[(&str, &str, &str)]) {
        if let Self::Producer { .. } = self {
            config.set("enable.idempotence", "true").set("acks", "all");
            for alias in ["request.required.acks", "retries", "message.send.max.retries"] {
                config.remove(alias);
            }
            return;
        }
        for (property, value, _why) in promises {
            config.set(*property, *value);
        }
        if let Self::Outsider { errand, .. } = self {
            for (property, value) in errand.needs() {
                config.set(*property, *value);
            }
            for property in MEMBERS_ONLY {
                config.remove(property);
            }
        }
    }
}
