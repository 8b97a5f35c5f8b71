//! The HPA of `deploy/autoscaler`, followed by the real controller: what it makes of `millrace_workers_desired`, and of no value.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::harness::external_metrics::{Answer, ExternalMetrics};
use crate::harness::manifests::{deployed, objects};
use crate::harness::plane::Plane;
use crate::harness::process::wait_for;
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
    let hpa = Hpa { plane, namespace: "millrace", name: "millrace", set: "millrace" };
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

/// An HPA and the StatefulSet that it resizes.
pub(super) struct Hpa<'a> {
    pub(super) plane: &'a Plane,
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
    pub(super) set: &'a str,
}

impl Hpa<'_> {
    fn get(&self, kind: &str, name: &str) -> anyhow::Result<Value> {
        self.plane.get(&[kind, name, "--namespace", self.namespace])
    }

    /// For messages.
    fn status(&self) -> String {
        format!("the HPA: {}", self.get("hpa", self.name).map_or_else(|error| error.to_string(), |hpa| hpa["status"].to_string()))
    }

    pub(super) fn replicas(&self) -> anyhow::Result<u64> {
        self.get("statefulset", self.set)?["spec"]["replicas"].as_u64().context("no replicas")
    }

    fn wait_for_replicas(&self, wanted: u64) -> anyhow::Result<()> {
        let reached = wait_for(&format!("{wanted} workers"), SOON, || {
            let (set, asked) = (self.get("statefulset", self.set)?, self.replicas()?);
            // And the pods are made: an HPA counts from those.
            Ok((asked == wanted && set["status"]["replicas"].as_u64() == Some(wanted)).then_some(()))
        });
        reached.with_context(|| self.status())
    }

    /// Waits until there is a value again; as long as there is none, `replicas` stay as they are. How often that was looked at.
    pub(super) fn does_nothing_until_it_is_told(&self, replicas: u64) -> anyhow::Result<u32> {
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
        let conditions = self.get("hpa", self.name)?["status"]["conditions"].as_array().cloned().unwrap_or_default();
        Ok(conditions.iter().any(|of| of["type"] == kind && of["status"] == status && of["reason"] == reason))
    }

    fn wait_for_condition(&self, kind: &str, status: &str, reason: &str) -> anyhow::Result<()> {
        self.wait_for_condition_within(kind, status, reason, SOON)
    }

    pub(super) fn wait_for_condition_within(&self, kind: &str, status: &str, reason: &str, within: Duration) -> anyhow::Result<()> {
        let reached =
            wait_for(&format!("{kind} is {status} for {reason}"), within, || Ok(self.has_condition(kind, status, reason)?.then_some(())));
        reached.with_context(|| self.status())
    }
}
