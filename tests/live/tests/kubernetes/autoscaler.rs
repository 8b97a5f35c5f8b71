//! The HPA of `deploy/autoscaler`, followed by the real controller: what it makes of `millrace_workers_desired`, and of no value.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::harness::avro::{Stock, framed, stock_schema};
use crate::harness::external_metrics::{Answer, ExternalMetrics};
use crate::harness::installation::{avro_connector, patient};
use crate::harness::journal::{Producer, Stream, reconcile};
use crate::harness::manifests::{deployed, objects};
use crate::harness::plane::Plane;
use crate::harness::process::wait_for;
use crate::harness::registry::get;
use crate::harness::release::Release;
use crate::harness::servers::Servers;

const GAUGE: &str = "millrace_workers_desired";
/// The plane's HPA controller looks once a second.
const SOON: Duration = Duration::from_secs(60);
/// Looks of the HPA after which it would have acted.
const LOOKS: u64 = 4;
/// What the stand-in answers instead of a number.
const NOTHING: u64 = u64::MAX;
const FAILURE: u64 = u64::MAX - 1;

/// The HPA as it is shipped, on the chart's StatefulSet: up and down to what it is told, within its limits; without a value nothing.
pub fn an_hpa_follows_the_number_that_it_is_told(servers: &Servers) -> anyhow::Result<()> {
    let plane = servers.plane()?;
    plane.apply("namespace", &[json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "millrace"}})])?;
    let chart = deployed("chart").display().to_string();
    plane.helm(&["install", "millrace", &chart, "--namespace", "millrace", "--set", "millrace.scaling.mode=observe"])?;
    let told = Arc::new(AtomicU64::new(NOTHING));
    let says = Arc::clone(&told);
    let metrics = ExternalMetrics::start(plane, servers.certificates()?, move |metric| match says.load(Ordering::SeqCst) {
        _ if metric != GAUGE => Answer::Failure,
        NOTHING => Answer::Nothing,
        FAILURE => Answer::Failure,
        wanted => Answer::Of(u32::try_from(wanted).unwrap_or(u32::MAX)),
    })?;
    plane.apply("hpa", &objects(&deployed("autoscaler/hpa.yaml"))?)?;
    let hpa = Hpa { plane, namespace: "millrace", name: "millrace" };
    let say = |value| told.store(value, Ordering::SeqCst);
    let stays = |what: &str| {
        let before = hpa.replicas()?;
        metrics.wait_for_answers(LOOKS)?;
        let after = hpa.replicas()?;
        ensure!(before == after, "{what}: {before} workers became {after}");
        anyhow::Ok(())
    };

    hpa.wait_for_condition("ScalingActive", "False", "FailedGetExternalMetric")?;
    stays("nothing is said yet")?;
    say(4);
    hpa.wait_for_replicas(4)?;
    hpa.wait_for_condition("ScalingActive", "True", "ValidMetricFound")?;
    for silence in [NOTHING, FAILURE] {
        say(silence);
        hpa.wait_for_condition("ScalingActive", "False", "FailedGetExternalMetric")?;
        stays("nobody leads")?;
    }
    say(12);
    hpa.wait_for_replicas(10)?; // maxReplicas
    // One less of ten is within an HPA's usual tolerance, and `tolerance: "0"` follows it.
    say(9);
    hpa.wait_for_replicas(9)?;
    say(1);
    hpa.wait_for_replicas(1)?; // at once: nothing is stabilized for five minutes
    // Without: what the comment in hpa.yaml says of a Kubernetes that does not take it.
    for direction in ["scaleUp", "scaleDown"] {
        let patch = json!([{"op": "remove", "path": format!("/spec/behavior/{direction}/tolerance")}]);
        plane.kubectl(&["patch", "hpa", "millrace", "--namespace", "millrace", "--type", "json", "--patch", &patch.to_string()])?;
    }
    say(10);
    hpa.wait_for_replicas(10)?;
    say(9);
    stays("10 % less, without a tolerance of 0")?;
    say(8);
    hpa.wait_for_replicas(8)?;
    say(9);
    hpa.wait_for_replicas(9)?;
    plane.kubectl(&["delete", "hpa", "millrace", "--namespace", "millrace"])?;
    plane.helm(&["uninstall", "millrace", "--namespace", "millrace"]).map(drop)
}

const NAME: &str = "observed";
const TEST: &str = "kubernetes::an_hpa_follows_a_fleet";
const PARTITIONS: i32 = 8;
const CAPACITY: u32 = 60;
const LITTLE: u32 = 30;
const MUCH: u32 = 180;
const SEEN_WITHIN: Duration = Duration::from_secs(150);
const SHRUNK_WITHIN: Duration = Duration::from_secs(420);

/// A fleet of real workers that observes: its leader's gauge, scraped from `/metrics`, is all that the HPA is told.
pub fn an_hpa_follows_a_fleet(servers: &Servers) -> anyhow::Result<()> {
    let (kafka, reader, plane) = (servers.kafka()?, servers.emulator()?.reader(), servers.plane()?);
    kafka.create_topic(NAME, PARTITIONS, &[])?;
    kafka.create_topic("observed.dead", 1, &[])?;
    reader.create_dataset(NAME)?;
    let id = servers.registry()?.register("observed-value", &stock_schema()?, &[])?;
    let stock = Stock::new()?;
    let value = move |n| (Stock::reference(n), framed(id, &stock.encode(n).expect("a stock update encodes")));
    let stream = Stream::start(Producer::new(kafka.client(), NAME)?, PARTITIONS, LITTLE, value);
    let scaling = json!({
        "mode": "observe", "min": 1, "max": 6, "freshness_target": "10s", "recovery_target": "30s", "scale_down_window": "30s",
        "startup_deadline": "15s", "report_interval": "1s", "decide_interval": "1s",
        "report_topic": "observed.reports", "state_topic": "observed.state",
    });
    let connector = patient(&avro_connector(NAME, "observed.rows", "observed.dead"));
    let worker = json!({"max_records_per_s": CAPACITY});
    let release = Release::install(servers, plane, &plane.url(), (TEST, NAME), worker, scaling, &connector)?;
    let pods = release.kubelet.state().to_owned();
    let _metrics = ExternalMetrics::start(plane, servers.certificates()?, move |_| scraped(&pods))?;
    let mut shipped = objects(&deployed("autoscaler/hpa.yaml"))?;
    shipped.retain(|object| object["kind"] == "HorizontalPodAutoscaler");
    let hpa = shipped.first_mut().context("an HPA")?;
    hpa["metadata"] = json!({"name": NAME, "namespace": "default"});
    hpa["spec"]["scaleTargetRef"]["name"] = json!(NAME);
    plane.apply("hpa-observed", &shipped)?;
    let hpa = Hpa { plane, namespace: "default", name: NAME };
    let begun = Instant::now();
    let say = |what: &str| eprintln!("      {:5.0} s: {what}", begun.elapsed().as_secs_f64());

    hpa.wait_for_condition_within("ScalingActive", "True", "ValidMetricFound", SEEN_WITHIN)?;
    say("a leader says how many, and the HPA hears it");
    stream.set_rate(MUCH);
    let many = release.wait_for_replicas("more workers", SEEN_WITHIN, |n| n >= 3)?;
    release.wait_until_ready(SEEN_WITHIN)?;
    say(&format!("load rose, and the HPA made {many} workers"));

    // Nobody can lead: the leader is stopped and does not let go of the Lease; until another leads there is no number.
    let leader = release.leader()?.context("somebody leads")?;
    let before = release.replicas()?;
    release.kubelet.signal(leader.pod(), "STOP")?;
    hpa.wait_for_condition_within("ScalingActive", "False", "FailedGetExternalMetric", Duration::from_secs(60))?;
    let looks = hpa.does_nothing_until_it_is_told(before)?;
    release.wait_for_another_leader(&leader, Duration::from_secs(60))?;
    release.kubelet.signal(leader.pod(), "CONT")?;
    say(&format!("nobody led, and the HPA did nothing ({looks} looks); another leads"));
    stream.set_rate(LITTLE);
    release.wait_for_replicas("one worker for little", SHRUNK_WITHIN, |n| n == 1)?;
    say("load ended, and the HPA took the workers away");
    let journal = stream.stop()?;
    let duplicates = reconcile(reader, "observed.rows", "reference", &journal, Duration::from_secs(300))?;
    eprintln!("      {} records, none missing, {duplicates} duplicates", journal.len());
    plane.kubectl(&["delete", "hpa", NAME])?;
    release.uninstall()
}

/// What Prometheus and an adapter would make of the pods' `/metrics`: the largest, if there is one.
fn scraped(pods: &Path) -> Answer {
    let Ok(entries) = std::fs::read_dir(pods) else { return Answer::Failure };
    let ports = entries.flatten().filter_map(|pod| std::fs::read_to_string(pod.path().join("port")).ok());
    let pages = ports.filter_map(|port| get(&format!("http://127.0.0.1:{}/metrics", port.trim())).ok());
    let shown = pages.filter_map(|(_, page)| page.lines().find_map(|line| line.strip_prefix(GAUGE)?.trim().parse::<u32>().ok()));
    shown.max().map_or(Answer::Nothing, Answer::Of)
}

/// An HPA and the StatefulSet of the same name.
struct Hpa<'a> {
    plane: &'a Plane,
    namespace: &'a str,
    name: &'a str,
}

impl Hpa<'_> {
    fn get(&self, kind: &str) -> anyhow::Result<Value> {
        self.plane.get(&[kind, self.name, "--namespace", self.namespace])
    }

    /// For messages.
    fn status(&self) -> String {
        format!("the HPA: {}", self.get("hpa").map_or_else(|error| error.to_string(), |hpa| hpa["status"].to_string()))
    }

    fn replicas(&self) -> anyhow::Result<u64> {
        self.get("statefulset")?["spec"]["replicas"].as_u64().context("no replicas")
    }

    fn wait_for_replicas(&self, wanted: u64) -> anyhow::Result<()> {
        let reached = wait_for(&format!("{wanted} workers"), SOON, || {
            let (set, asked) = (self.get("statefulset")?, self.replicas()?);
            // And the pods are made: an HPA counts from those.
            Ok((asked == wanted && set["status"]["replicas"].as_u64() == Some(wanted)).then_some(()))
        });
        reached.with_context(|| self.status())
    }

    /// Waits until there is a value again; as long as there is none, `replicas` stay as they are. How often that was looked at.
    fn does_nothing_until_it_is_told(&self, replicas: u64) -> anyhow::Result<u32> {
        let mut looks = 0;
        wait_for("a value again", Duration::from_secs(120), || {
            let now = self.replicas()?; // before the condition: both change in one turn of the HPA
            if self.has_condition("ScalingActive", "True", "ValidMetricFound")? {
                return Ok(Some(()));
            }
            looks += 1;
            ensure!(now == replicas, "without a value {replicas} workers became {now}");
            Ok(None)
        })?;
        Ok(looks)
    }

    fn has_condition(&self, kind: &str, status: &str, reason: &str) -> anyhow::Result<bool> {
        let conditions = self.get("hpa")?["status"]["conditions"].as_array().cloned().unwrap_or_default();
        Ok(conditions.iter().any(|of| of["type"] == kind && of["status"] == status && of["reason"] == reason))
    }

    fn wait_for_condition(&self, kind: &str, status: &str, reason: &str) -> anyhow::Result<()> {
        self.wait_for_condition_within(kind, status, reason, SOON)
    }

    fn wait_for_condition_within(&self, kind: &str, status: &str, reason: &str, within: Duration) -> anyhow::Result<()> {
        let reached =
            wait_for(&format!("{kind} is {status} for {reason}"), within, || Ok(self.has_condition(kind, status, reason)?.then_some(())));
        reached.with_context(|| self.status())
    }
}
