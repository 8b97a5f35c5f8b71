//! `millrace.toml` of the demo's workers.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::DemoArgs;
use super::flows::PROJECT;
use super::stage::Stage;
use crate::embedded::broker::GroupTimes;
use crate::leader::local::ReplicasFile;

/// The fleet's own topics, made beforehand: the embedded broker makes none on demand.
pub(super) const REPORT_TOPIC: &str = "millrace.reports";
pub(super) const STATE_TOPIC: &str = "millrace.state";

/// Short, so that a killed worker's partitions move soon, but above the 3 s that librdkafka's mock cluster lets a group's first join take:
/// it drops members whose session ends meanwhile. Every later rebalance takes a second less than this there, without commits being
/// accepted.
const SESSION_TIMEOUT_MS: u64 = 4_000;

/// Exactly-once workers are members of groups of the new protocol (KIP-848): in the mock cluster's classic groups nothing could be
/// announced for the three seconds that each rebalance takes, and with a kill every three seconds nothing at all would move.
pub(super) const GROUP_TIMES: GroupTimes = GroupTimes { session: Duration::from_secs(2), heartbeat: Duration::from_millis(300) };

/// Where the leader writes how many workers it wants.
pub(super) fn replicas_file(folder: &Path) -> PathBuf {
    folder.join("replicas")
}

/// What is chosen in the file; the rest is the stage's addresses.
pub(super) struct FleetFile {
    capacity: Option<u64>,
    scaling: Option<Scaling>,
    exact: bool,
}

struct Scaling {
    min: u16,
    max: u16,
    folder: PathBuf,
}

impl FleetFile {
    /// As the arguments say. With `--scale on` the replicas file in `folder` is written too: it says how many workers are started.
    pub(super) fn of(args: &DemoArgs, folder: &Path) -> Result<Self> {
        let (min, max) = args.limits();
        let scaling = args.scales().then(|| Scaling { min, max, folder: folder.to_owned() });
        if scaling.is_some() {
            let file = replicas_file(folder);
            ReplicasFile::put(&file, u32::from(args.workers)).with_context(|| file.display().to_string())?;
        }
        Ok(Self { capacity: args.worker_capacity(), scaling, exact: args.is_exact() })
    }

    /// The file's text.
    pub(super) fn text(&self, stage: &Stage) -> String {
        let membership = if self.exact {
            "\"group.protocol\" = \"consumer\"".to_owned()
        } else {
            format!("\"session.timeout.ms\" = {SESSION_TIMEOUT_MS}")
        };
        let mut text = format!(
            r#"# Written by `millrace demo`.
[kafka]
"bootstrap.servers" = "{}"
{membership}
# The mock cluster checks no sequence numbers: it stores a batch behind a refused one, and librdkafka takes that as a yes to both. Kafka refuses both.
"max.in.flight.requests.per.connection" = 1

[registry]
urls = ["{}"]

[bigquery]
project = "{PROJECT}"
credentials = "none"
rest_endpoint = "{}"
grpc_endpoint = "{}"
append_timeout = "10s"

[worker]
memory = "256 MiB"
listen = "${{env:MILLRACE_DEMO_LISTEN}}"
"#,
            stage.broker.bootstrap_servers(),
            stage.registry.url(),
            stage.bigquery.rest_url(),
            stage.bigquery.grpc_url(),
        );
        // Writing into a String cannot fail.
        if let Some(capacity) = self.capacity {
            let _ = writeln!(text, "max_records_per_s = {capacity}");
        }
        if let Some(scaling) = &self.scaling {
            let _ = write!(text, "{}", scaling.text());
        }
        text
    }
}

impl Scaling {
    /// Everything in seconds that is in minutes elsewhere: growth and shrinking are to be seen. A start takes what the mock cluster's two
    /// rebalances of 3 s take, and some.
    fn text(&self) -> String {
        let Self { min, max, folder } = self;
        let (lock, replicas) = (folder.join("leader.lock"), replicas_file(folder));
        format!(
            r#"
[scaling]
mode = "local"
min = {min}
max = {max}
freshness_target = "10s"
recovery_target = "30s"
scale_down_window = "15s"
startup_deadline = "20s"
report_interval = "500ms"
decide_interval = "1s"
report_topic = "{REPORT_TOPIC}"
state_topic = "{STATE_TOPIC}"
lock_file = "{}"
replicas_file = "{}"
"#,
            lock.display(),
            replicas.display()
        )
    }
}
