//! A fleet that observes, and an HPA that follows its leader's gauge, however that reaches the HPA: by a stand-in, by prometheus-adapter, by
//! KEDA.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::json;

use super::autoscaler::Hpa;
use crate::harness::autoscalers::{Autoscaler, keda, program, prometheus_adapter};
use crate::harness::avro::{Stock, framed, stock_schema};
use crate::harness::external_metrics::{Answer, ExternalMetrics};
use crate::harness::installation::{avro_connector, patient};
use crate::harness::journal::{Producer, Stream, reconcile};
use crate::harness::manifests::{deployed, objects};
use crate::harness::process::Process;
use crate::harness::prometheus::Prometheus;
use crate::harness::registry::get;
use crate::harness::release::Release;
use crate::harness::servers::Servers;

const GAUGE: &str = "millrace_workers_desired";
const NAMESPACE: &str = "default";
const PARTITIONS: i32 = 8;
const CAPACITY: u32 = 60;
const LITTLE: u32 = 30;
const MUCH: u32 = 180;
const SEEN_WITHIN: Duration = Duration::from_secs(150);
const SHRUNK_WITHIN: Duration = Duration::from_secs(420);
/// How long nobody leads once the HPA has noticed, and how long the load stays as it is.
const NOBODY_LEADS_FOR: Duration = Duration::from_secs(10);
const STEADY_FOR: Duration = Duration::from_secs(45);

/// How the gauge reaches the HPA.
#[derive(Clone, Copy, PartialEq)]
enum By {
    StandIn,
    PrometheusAdapter,
    Keda,
}

/// A stand-in for Prometheus and its adapter, which reads the pods' `/metrics`.
pub fn an_hpa_follows_a_fleet(servers: &Servers) -> anyhow::Result<()> {
    is_followed(servers, By::StandIn, "kubernetes::an_hpa_follows_a_fleet", "observed")
}

/// The real prometheus-adapter, with the rule that is shipped, and a real Prometheus.
pub fn prometheus_adapter_follows_a_fleet(servers: &Servers) -> anyhow::Result<()> {
    is_followed(servers, By::PrometheusAdapter, "kubernetes::prometheus_adapter_follows_a_fleet", "adapted")
}

/// The real KEDA, with the ScaledObject that is shipped, and a real Prometheus.
pub fn keda_follows_a_fleet(servers: &Servers) -> anyhow::Result<()> {
    is_followed(servers, By::Keda, "kubernetes::keda_follows_a_fleet", "driven")
}

/// Real workers, whose leader's gauge is all that the HPA is told.
fn is_followed(servers: &Servers, by: By, test: &str, name: &str) -> anyhow::Result<()> {
    let (kafka, reader, plane) = (servers.kafka()?, servers.emulator()?.reader(), servers.plane()?);
    let (table, dead_letters) = (format!("{name}.rows"), format!("{name}.dead"));
    kafka.create_topic(name, PARTITIONS, &[])?;
    kafka.create_topic(&dead_letters, 1, &[])?;
    reader.create_dataset(name)?;
    let id = servers.registry()?.register(&format!("{name}-value"), &stock_schema()?, &[])?;
    let stock = Stock::new()?;
    let value = move |n| (Stock::reference(n), framed(id, &stock.encode(n).expect("a stock update encodes")));
    let stream = Stream::start(Producer::new(kafka.client(), name)?, PARTITIONS, LITTLE, value);
    let scaling = json!({
        "mode": "observe", "min": 1, "max": 6, "freshness_target": "10s", "recovery_target": "30s", "scale_down_window": "30s",
        "startup_deadline": "15s", "report_interval": "1s", "decide_interval": "1s",
        "report_topic": format!("{name}.reports"), "state_topic": format!("{name}.state"),
    });
    let connector = patient(&avro_connector(name, &table, &dead_letters));
    let worker = json!({"max_records_per_s": CAPACITY});
    let release = Release::install(servers, plane, &plane.url(), (test, name), worker, scaling, &connector)?;
    let folder = servers.folder(test)?;
    let seen = Replicas::watch(&release, &folder)?;
    let source = Source::start(servers, by, &folder, &release, name)?;
    let hpa_name = if by == By::Keda { format!("keda-hpa-{name}") } else { name.to_owned() };
    let hpa = Hpa { plane, namespace: NAMESPACE, name: &hpa_name, set: name };
    let begun = Instant::now();
    let say = |what: &str| eprintln!("      {:5.0} s: {what}", begun.elapsed().as_secs_f64());

    if by == By::Keda {
        plane.kubectl(&["wait", "--for=condition=Ready", "--timeout=60s", "scaledobject", name])?; // it makes the HPA
    }
    hpa.wait_for_condition_within("ScalingActive", "True", "ValidMetricFound", SEEN_WITHIN)?;
    say("a leader says how many, and the HPA hears it");
    stream.set_rate(MUCH);
    let many = release.wait_for_replicas("more workers", SEEN_WITHIN, |n| n >= 3)?;
    release.wait_until_ready(SEEN_WITHIN)?;
    say(&format!("load rose, and the HPA made {many} workers"));
    std::thread::sleep(STEADY_FOR);

    // Nobody leads: all stand still, and what they said is too old after a while.
    let before = release.replicas()?;
    let pods: Vec<String> = (0..before).map(|ordinal| format!("{name}-{ordinal}")).collect();
    pods.iter().try_for_each(|pod| release.kubelet.signal(pod, "STOP"))?;
    hpa.wait_for_condition_within("ScalingActive", "False", "FailedGetExternalMetric", Duration::from_secs(90))?;
    std::thread::sleep(NOBODY_LEADS_FOR);
    ensure!(hpa.replicas()? == before, "nobody leads, and {before} workers became {}", hpa.replicas()?);
    pods.iter().try_for_each(|pod| release.kubelet.signal(pod, "CONT"))?;
    let looks = hpa.does_nothing_until_it_is_told(before)?;
    say(&format!("nobody led, and the HPA did nothing ({looks} more looks until it was told again)"));
    stream.set_rate(LITTLE);
    release.wait_for_replicas("one worker for little", SHRUNK_WITHIN, |n| n == 1)?;
    say("load ended, and the HPA took the workers away");
    let journal = stream.stop()?;
    let duplicates = reconcile(reader, &table, "reference", &journal, Duration::from_secs(300))?;
    eprintln!("      {} records, none missing, {duplicates} duplicates", journal.len());
    let made = seen.so_far()?;
    if let Some(prometheus) = &source.prometheus {
        let wanted = prometheus.values_of(&format!("max({GAUGE}{{namespace=\"{NAMESPACE}\"}})"))?;
        eprintln!("      wanted: {wanted:?}, made: {made:?}");
        // Each number was wanted, in this order, and none twice: the HPA adds no step of its own. The first is the StatefulSet's.
        let mut rest = wanted.iter();
        ensure!(made.iter().skip(1).all(|number| rest.any(|wanted| wanted == number)), "wanted: {wanted:?}, and made: {made:?}");
    }
    let kind = if by == By::Keda { "scaledobject" } else { "hpa" };
    plane.kubectl(&["delete", kind, name])?; // while KEDA is there to let go of it
    release.uninstall()
}

/// What answers the HPA, with the object that makes it ask.
struct Source<'a> {
    _stand_in: Option<ExternalMetrics<'a>>,
    _autoscaler: Option<Autoscaler<'a>>,
    prometheus: Option<Prometheus>,
}

impl<'a> Source<'a> {
    fn start(servers: &Servers, by: By, folder: &Path, release: &Release<'a>, name: &str) -> anyhow::Result<Self> {
        let plane = release.plane;
        let pods = release.kubelet.state().to_owned();
        let shipped = objects(&deployed(if by == By::Keda { "autoscaler/keda.yaml" } else { "autoscaler/hpa.yaml" }))?;
        let of = |kind: &str| shipped.iter().find(|object| object["kind"] == kind).cloned().with_context(|| format!("no {kind}"));
        let mut object = of(if by == By::Keda { "ScaledObject" } else { "HorizontalPodAutoscaler" })?;
        object["metadata"] = json!({"name": name, "namespace": NAMESPACE});
        object["spec"]["scaleTargetRef"]["name"] = json!(name);
        let mut source = Self { _stand_in: None, _autoscaler: None, prometheus: None };
        if by == By::StandIn {
            source._stand_in = Some(ExternalMetrics::start(plane, servers.certificates()?, move |_| scraped(&pods))?);
        } else {
            let prometheus = Prometheus::start(&program("prometheus")?, folder, &pods, NAMESPACE)?;
            source._autoscaler = Some(if by == By::Keda {
                let trigger = &mut object["spec"]["triggers"][0]["metadata"];
                trigger["serverAddress"] = json!(prometheus.url());
                let query = trigger["query"].as_str().context("no query")?;
                ensure!(query.contains("namespace=\"millrace\""), "the query is not of the namespace: {query}");
                trigger["query"] = json!(query.replace("\"millrace\"", &format!("\"{NAMESPACE}\"")));
                keda(servers, plane, folder)?
            } else {
                let rule = of("ConfigMap")?["data"]["rule.yaml"].as_str().context("no rule")?.to_owned();
                prometheus_adapter(servers, plane, folder, &prometheus.url(), &rule)?
            });
            source.prometheus = Some(prometheus);
        }
        plane.apply(&format!("hpa-{name}"), &[object])?;
        Ok(source)
    }
}

/// What Prometheus and an adapter would make of the pods' `/metrics`: the largest, if there is one.
fn scraped(pods: &Path) -> Answer {
    let Ok(entries) = std::fs::read_dir(pods) else { return Answer::Failure };
    let ports = entries.flatten().filter_map(|pod| std::fs::read_to_string(pod.path().join("port")).ok());
    let pages = ports.filter_map(|port| get(&format!("http://127.0.0.1:{}/metrics", port.trim())).ok());
    let shown = pages.filter_map(|(_, page)| page.lines().find_map(|line| line.strip_prefix(GAUGE)?.trim().parse::<u32>().ok()));
    shown.max().map_or(Answer::Nothing, Answer::Of)
}

/// Every number of workers that a StatefulSet was set to, in turn.
struct Replicas {
    log: std::path::PathBuf,
    _watch: Process,
}

impl Replicas {
    fn watch(release: &Release, folder: &Path) -> anyhow::Result<Self> {
        let log = folder.join("replicas.txt");
        let _watch = release.plane.watch_replicas(release.name(), &log)?;
        Ok(Self { log, _watch })
    }

    fn so_far(&self) -> anyhow::Result<Vec<u64>> {
        let text = std::fs::read_to_string(&self.log)?;
        let mut numbers = text.lines().map(str::parse).collect::<Result<Vec<u64>, _>>().with_context(|| text.clone())?;
        numbers.dedup();
        Ok(numbers)
    }
}
