//! A fleet on Kubernetes through everything that the platform does to it, held against the producer's journal at its end.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::disturbances;
use crate::harness::api_gate::ApiGate;
use crate::harness::avro::{Stock, framed, stock_schema};
use crate::harness::installation::{avro_connector, patient};
use crate::harness::journal::{Producer, Stream, reconcile};
use crate::harness::plane::Plane;
use crate::harness::registry::get_again;
use crate::harness::release::Release;
use crate::harness::servers::Servers;

const NAME: &str = "fleet";
const TEST: &str = "kubernetes::a_fleet_sizes_itself";
const PARTITIONS: i32 = 12;
/// What one worker can do here, records a second.
const CAPACITY: u32 = 60;
const LITTLE: u32 = 40;
const MUCH: u32 = 260;
/// Workers that the leader must ask for under much load.
pub const MANY: u64 = 4;
/// Workers that there always are.
pub const MIN: u64 = 2;
/// How long the leader may take to see a need, and to say so to Kubernetes.
pub const SEEN_WITHIN: Duration = Duration::from_secs(150);
/// A fleet shrinks to what its last minutes needed.
const SHRUNK_WITHIN: Duration = Duration::from_secs(420);

/// The fleet of this test, and everything around it.
pub struct Life<'a> {
    /// Kubernetes.
    pub plane: &'a Plane,
    /// The fleet.
    pub release: Release<'a>,
    /// What the workers see of the API server.
    pub gate: ApiGate,
    stream: Stream,
    started: Instant,
}

impl Life<'_> {
    /// One part of the life, named when it fails.
    fn step(&self, name: &str, step: impl FnOnce(&Self) -> anyhow::Result<()>) -> anyhow::Result<()> {
        step(self).with_context(|| format!("{name}, {:?} after the beginning", self.started.elapsed()))?;
        eprintln!("      {:5.0} s: {name}", self.started.elapsed().as_secs_f64());
        Ok(())
    }

    /// The process of each pod, by name: its id and when the pod was made.
    fn pods(&self) -> anyhow::Result<Vec<(String, String)>> {
        let pods = self.plane.get(&["pods", "-l", &format!("app.kubernetes.io/instance={NAME}")])?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let pods = pods["items"].as_array().context("a list of pods")?;
        Ok(pods.iter().map(|pod| (text(&pod["metadata"]["name"]), text(&pod["metadata"]["uid"]))).collect())
    }
}

/// Load, people, kills, a late write, an API server that is away, a rotated token, a pod that never starts: the fleet finds its size again
/// each time, and no record is lost.
pub fn a_fleet_sizes_itself(servers: &Servers) -> anyhow::Result<()> {
    let (kafka, reader, plane) = (servers.kafka()?, servers.emulator()?.reader(), servers.plane()?);
    kafka.create_topic(NAME, PARTITIONS, &[])?;
    kafka.create_topic("fleet.dead", 1, &[])?;
    reader.create_dataset("fleet")?;
    let id = servers.registry()?.register("fleet-value", &stock_schema()?, &[])?;
    let stock = Stock::new()?;
    let value = move |n| (Stock::reference(n), framed(id, &stock.encode(n).expect("a stock update encodes")));
    let stream = Stream::start(Producer::new(kafka.client(), NAME)?, PARTITIONS, LITTLE, value);

    let gate = ApiGate::start(&plane.url(), plane.ca())?;
    let scaling = json!({
        "min": MIN, "max": 6, "freshness_target": "10s", "recovery_target": "30s", "scale_down_window": "60s", "startup_deadline": "15s",
        "report_interval": "1s", "decide_interval": "1s", "report_topic": "fleet.reports", "state_topic": "fleet.state",
    });
    let connector = patient(&avro_connector(NAME, "fleet.rows", "fleet.dead"));
    let worker = json!({"max_records_per_s": CAPACITY});
    let release = Release::install(servers, plane, gate.url(), (TEST, NAME), worker, scaling, &connector)?;
    let life = Life { plane, release, gate, stream, started: Instant::now() };

    life.step("the leader raises one worker to min", raised_to_min)?;
    life.step("load rises and the fleet grows", grows)?;
    life.step("helm upgrade under high load changes a connector and neither the replicas nor the pods", |life| upgrade(life, &connector))?;
    life.step("somebody resizes by hand", |life| by_hand(life, 2, MANY))?;
    life.step("the leader is stopped between recheck and write", disturbances::stopped_before_its_write)?;
    life.step("the leader is killed", disturbances::leader_is_killed)?;
    life.step("pods that never start", disturbances::pods_that_never_start)?;
    life.stream.set_rate(LITTLE);
    let little_since = Instant::now();
    life.step("the API server is away for a minute, and the tokens are rotated", disturbances::api_server_is_away)?;
    life.step("somebody resizes by hand below min", |life| by_hand(life, 1, MIN))?;
    life.step("load ended and the fleet shrinks", |life| {
        let left = SHRUNK_WITHIN.saturating_sub(little_since.elapsed());
        life.release.wait_for_replicas("as few workers as min", left, |n| n == MIN).map(drop)
    })?;

    let journal = life.stream.stop()?;
    let duplicates = reconcile(reader, "fleet.rows", "reference", &journal, Duration::from_secs(300))?;
    let resizes = life.release.stateful_set()?["metadata"]["generation"].as_u64().context("no generation")? - 1;
    eprintln!("      {} records, none missing, {duplicates} duplicates after kills, {resizes} resizes", journal.len());
    ensure!(resizes >= 10, "only {resizes} resizes");
    life.release.uninstall()
}

fn raised_to_min(life: &Life<'_>) -> anyhow::Result<()> {
    life.release.wait_for_replicas("min", SEEN_WITHIN, |n| n >= MIN)?;
    life.release.wait_until_ready(SEEN_WITHIN).map(drop)
}

fn grows(life: &Life<'_>) -> anyhow::Result<()> {
    life.stream.set_rate(MUCH);
    life.release.wait_for_replicas("more workers", SEEN_WITHIN, |n| n >= MANY)?;
    life.release.wait_until_ready(SEEN_WITHIN).map(drop)
}

/// The StatefulSet has no replicas in the chart, so an upgrade leaves them alone; a connector's file is followed in place.
fn upgrade(life: &Life<'_>, connector: &str) -> anyhow::Result<()> {
    let (replicas, pods) = (life.release.replicas()?, life.pods()?);
    life.release.upgrade("/connectors/fleet", connector.replace("linger = \"1s\"", "linger = \"900ms\"").into())?;
    let now = life.release.replicas()?;
    ensure!(now == replicas, "helm upgrade made {now} of {replicas} replicas");
    for (pod, _) in &pods {
        let url = life.release.kubelet.url(pod)?;
        let taken = || {
            Ok(get_again(&format!("{url}/metrics"))?
                .1
                .lines()
                .any(|line| line.starts_with("millrace_connector_reloads_total{") && !line.ends_with(" 0"))
                .then_some(()))
        };
        crate::harness::process::wait_for(&format!("{pod} takes the changed file"), Duration::from_secs(30), taken)?;
    }
    let after = life.pods()?;
    ensure!(pods.iter().all(|pod| after.contains(pod)), "an upgrade of a connector rolled the pods: {pods:?}, then {after:?}");
    Ok(())
}

/// A person's number is repaired by the next decision.
pub fn by_hand(life: &Life<'_>, to: u64, least: u64) -> anyhow::Result<()> {
    life.release.scale_by_hand(to)?;
    life.release.wait_for_replicas("the leader to repair it", SEEN_WITHIN, |n| n >= least)?;
    life.release.wait_until_ready(SEEN_WITHIN).map(drop)
}
