//! What is shipped for other operators (KEDA, Strimzi, Prometheus), held by the API server against those operators' own CRDs.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::harness::manifests::{deployed, objects, parsed};
use crate::harness::plane::Plane;
use crate::harness::process::wait_for;
use crate::harness::servers::{Servers, parts};

/// Where a field that nobody knows is put into an object of each kind: as deep as the file goes.
const DEEP: [(&str, &str); 7] = [
    ("ScaledObject", "/spec/advanced/horizontalPodAutoscalerConfig/behavior/scaleUp"),
    ("HorizontalPodAutoscaler", "/spec/metrics/0/external/target"),
    ("PodMonitor", "/spec/podMetricsEndpoints/0"),
    ("PrometheusRule", "/spec/groups/0/rules/0"),
    ("Kafka", "/spec/kafka/listeners/0/authentication"),
    ("KafkaNodePool", "/spec/storage/volumes/0"),
    ("KafkaUser", "/spec/authorization/acls/0/resource"),
];
const SHALLOW: &str = "/spec";

/// Every object is accepted with each field known; the same object with one field that nobody knows, or a value of a wrong type, is refused.
pub fn what_other_operators_read_is_accepted_to_the_last_field(servers: &Servers) -> anyhow::Result<()> {
    let plane = servers.plane()?;
    install_crds(plane)?;
    for namespace in ["millrace", "kafka"] {
        plane.apply("namespace", &[json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})])?;
    }
    let chart = deployed("chart").display().to_string();
    let values = "podMonitor.enabled=true,podMonitor.labels.release=prometheus,millrace.scaling.mode=observe";
    let chart = plane.helm(&["template", "millrace", &chart, "--namespace", "millrace", "--set", values])?;
    let mut all = [objects(&deployed("autoscaler"))?, objects(&deployed("alerts.yaml"))?, parsed(&chart)?].concat();
    let mut kafka = objects(&deployed("kafka"))?;
    kafka.iter_mut().for_each(|object| object["metadata"]["namespace"] = json!("kafka"));
    all.append(&mut kafka);

    let judged = plane.judge("manifests", &all)?;
    ensure!(judged.lines().count() == all.len(), "{} objects, and judged were: {judged}", all.len());
    for kind in ["scaledobject.keda.sh", "horizontalpodautoscaler.autoscaling", "podmonitor.monitoring", "prometheusrule.monitoring"] {
        ensure!(judged.contains(kind), "no {kind}: {judged}");
    }
    for kind in ["kafka.kafka", "kafkanodepool.kafka", "kafkatopic.kafka", "kafkauser.kafka"] {
        ensure!(judged.contains(&format!("{kind}.strimzi.io/")), "no {kind}: {judged}");
    }

    let of = |kind: &str| all.iter().find(|object| object["kind"] == kind).cloned().with_context(|| format!("no {kind}"));
    for (kind, place) in DEEP.into_iter().chain([("KafkaTopic", SHALLOW)]) {
        let mut wrong = of(kind)?;
        let at = wrong.pointer_mut(place).with_context(|| format!("no {place} in {kind}"))?;
        at["nobodyKnowsThis"] = json!(1);
        refused(plane, &wrong, "unknown field")?;
    }
    let mut wrong = of("ScaledObject")?;
    wrong["spec"]["pollingInterval"] = json!("15s");
    refused(plane, &wrong, "pollingInterval")?;
    let mut wrong = of("KafkaUser")?;
    wrong["spec"]["authorization"]["acls"][0]["operations"][0] = json!("Peruse");
    refused(plane, &wrong, "Peruse")
}

fn refused(plane: &Plane, wrong: &Value, word: &str) -> anyhow::Result<()> {
    match plane.judge("wrong", std::slice::from_ref(wrong)) {
        Ok(said) => anyhow::bail!("the API server takes {wrong}: {said}"),
        Err(error) => ensure!(error.to_string().contains(word), "refused for another reason: {error}"),
    }
    Ok(())
}

/// The CRDs that `tests/live/install` got, usable.
fn install_crds(plane: &Plane) -> anyhow::Result<()> {
    let folder = parts()?.join("crds");
    let crds = objects(&folder).context("tests/live/install gets the CRDs")?;
    let names: Vec<String> = crds.iter().filter_map(|crd| crd["metadata"]["name"].as_str()).map(str::to_owned).collect();
    // `apply` would keep a copy of each in an annotation, which has not room enough.
    plane.kubectl(&["create", "-f", folder.to_str().context("a path in UTF-8")?])?;
    for name in names {
        wait_for(&format!("{name} is served"), Duration::from_secs(30), || {
            let crd = plane.get(&["crd", &name])?;
            let conditions = crd["status"]["conditions"].as_array().cloned().unwrap_or_default();
            Ok(conditions.iter().any(|of| of["type"] == "Established" && of["status"] == "True").then_some(()))
        })?;
    }
    Ok(())
}
