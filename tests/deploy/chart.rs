//! The chart's objects: what a worker relies on, and the rights that it gets.

use std::collections::BTreeMap;

use millrace::supervisor::CLOSE_MARGIN;
use serde_json::{Value, json};

use super::{helm, read, rendered};

/// The documents of a YAML stream, as JSON.
pub fn documents(text: &str) -> Vec<Value> {
    let parsed = serde_yaml_ng::Deserializer::from_str(text).map(|document| serde::Deserialize::deserialize(document).unwrap());
    parsed.filter(|document: &Value| !document.is_null()).collect()
}

/// The one document of this kind.
pub fn object<'a>(documents: &'a [Value], kind: &str) -> &'a Value {
    let mut found = documents.iter().filter(|document| document["kind"] == kind);
    let object = found.next().unwrap_or_else(|| panic!("no {kind}"));
    assert!(found.next().is_none(), "more than one {kind}");
    object
}

#[test]
fn the_rendered_manifest_is_the_charts() {
    let manifest = read("deploy/millrace.yaml");
    let body: String = manifest.lines().skip_while(|line| line.starts_with('#')).map(|line| format!("{line}\n")).collect();
    assert_eq!(body.trim(), rendered(&[]).trim(), "deploy/millrace.yaml is old: run deploy/render");
    let linted = helm(&["lint", "--strict", "deploy/chart"]);
    assert!(linted.status.success(), "{}", String::from_utf8_lossy(&linted.stdout));
}

#[test]
fn the_leader_has_its_own_scale_and_its_own_lease_and_no_other_right() {
    let documents = documents(&rendered(&[]));
    let set = object(&documents, "StatefulSet");
    // Rendered replicas or a rendered holder would undo at the next upgrade what the fleet has decided.
    assert!(set["spec"].get("replicas").is_none() && set["spec"]["podManagementPolicy"] == "Parallel");
    assert!(object(&documents, "Lease").get("spec").is_none());
    let rules = json!([
        { "apiGroups": ["apps"], "resources": ["statefulsets/scale"], "resourceNames": ["millrace"], "verbs": ["get", "update"] },
        { "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": ["millrace-leader"], "verbs": ["get", "update"] },
    ]);
    assert_eq!(object(&documents, "Role")["rules"], rules);
    assert!(!documents.iter().any(|document| document["kind"].as_str().unwrap().starts_with("Cluster")));
    let container = &set["spec"]["template"]["spec"]["containers"][0];
    let env: BTreeMap<&str, &Value> =
        container["env"].as_array().unwrap().iter().map(|variable| (variable["name"].as_str().unwrap(), variable)).collect();
    assert_eq!(env["MILLRACE_STATEFULSET"]["value"], set["metadata"]["name"]);
    assert_eq!(env["MILLRACE_LEASE"]["value"], object(&documents, "Lease")["metadata"]["name"]);
    for (name, field) in [("POD_NAME", "metadata.name"), ("POD_NAMESPACE", "metadata.namespace")] {
        assert_eq!(env[name]["valueFrom"]["fieldRef"]["fieldPath"], field);
    }
    let service_account = object(&documents, "ServiceAccount")["metadata"]["name"].clone();
    assert_eq!(object(&documents, "RoleBinding")["subjects"][0]["name"], service_account);
    assert_eq!(set["spec"]["template"]["spec"]["serviceAccountName"], service_account);
    assert_eq!(set["spec"]["serviceName"], object(&documents, "Service")["metadata"]["name"]);
    assert_eq!(object(&documents, "Service")["spec"]["clusterIP"], "None");
}

#[test]
fn without_a_leader_there_is_no_right_and_no_token() {
    let documents = documents(&rendered(&["--set", "millrace.scaling.mode=off"]));
    let kinds: Vec<&str> = documents.iter().map(|document| document["kind"].as_str().unwrap()).collect();
    assert!(!kinds.iter().any(|kind| ["Role", "RoleBinding", "Lease"].contains(kind)), "{kinds:?}");
    assert_eq!(object(&documents, "StatefulSet")["spec"]["template"]["spec"]["automountServiceAccountToken"], false);
}

#[test]
fn a_leader_that_only_says_is_elected_and_may_not_resize() {
    let documents = documents(&rendered(&["--set", "millrace.scaling.mode=observe"]));
    let lease = &object(&documents, "Lease")["metadata"]["name"];
    let rules = json!([
        { "apiGroups": ["apps"], "resources": ["statefulsets/scale"], "resourceNames": ["millrace"], "verbs": ["get"] },
        { "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": [lease], "verbs": ["get", "update"] },
    ]);
    assert_eq!(object(&documents, "Role")["rules"], rules);
    assert_eq!(object(&documents, "RoleBinding")["roleRef"]["name"], object(&documents, "Role")["metadata"]["name"]);
    let pod = &object(&documents, "StatefulSet")["spec"]["template"]["spec"];
    assert_eq!(pod["automountServiceAccountToken"], true);
    let env = pod["containers"][0]["env"].as_array().unwrap();
    assert!(env.iter().any(|variable| variable["name"] == "MILLRACE_LEASE" && variable["value"] == *lease));
}

/// Two releases on one Kafka must not take each other's workers for their own.
#[test]
fn the_fleets_topics_are_called_by_the_release() {
    let toml = |values: &[&str]| {
        let documents = documents(&rendered(values));
        let config = documents.iter().find(|d| d["kind"] == "ConfigMap" && d["metadata"]["name"].as_str().unwrap().ends_with("-fleet"));
        config.unwrap()["data"]["millrace.toml"].as_str().unwrap().parse::<toml::Table>().unwrap()
    };
    let scaling = |values: &[&str]| toml(values)["scaling"].clone().try_into::<millrace::config::ScalingConfig>().unwrap();
    assert_eq!(scaling(&[]).report_topic_name(), "millrace.reports");
    let other = scaling(&["--set", "fullnameOverride=orders"]);
    assert_eq!((other.report_topic_name().as_str(), other.state_topic_name().as_str()), ("orders.reports", "orders.state"));
    assert_eq!(scaling(&["--set", "millrace.scaling.fleet_id=mine,fullnameOverride=orders"]).report_topic_name(), "mine.reports");
}

/// What follows the gauge follows the gauge that exists, one number whoever leads, within the limits of the chart.
#[test]
fn autoscalers_follow_the_leaders_gauge() {
    let wanted = "max(millrace_workers_desired{";
    let [keda]: [Value; 1] = documents(&read("deploy/autoscaler/keda.yaml")).try_into().unwrap();
    let trigger = &keda["spec"]["triggers"][0];
    assert_eq!((&trigger["metricType"], &trigger["metadata"]["threshold"]), (&json!("AverageValue"), &json!("1")));
    assert!(trigger["metadata"]["query"].as_str().unwrap().starts_with(wanted));
    let [hpa, rule]: [Value; 2] = documents(&read("deploy/autoscaler/hpa.yaml")).try_into().unwrap();
    let metric = &hpa["spec"]["metrics"][0]["external"];
    assert_eq!(metric["target"], json!({ "type": "AverageValue", "averageValue": "1" }));
    assert_eq!(metric["metric"]["name"], millrace::telemetry::catalog::WORKERS_DESIRED);
    assert!(rule["data"]["rule.yaml"].as_str().unwrap().contains(wanted));
    let chart = documents(&rendered(&["--set", "millrace.scaling.mode=observe"]));
    let set = object(&chart, "StatefulSet");
    let limits = millrace::config::ScalingConfig::default();
    for (target, least, most) in [
        (&keda["spec"]["scaleTargetRef"], &keda["spec"]["minReplicaCount"], &keda["spec"]["maxReplicaCount"]),
        (&hpa["spec"]["scaleTargetRef"], &hpa["spec"]["minReplicas"], &hpa["spec"]["maxReplicas"]),
    ] {
        assert_eq!((&target["kind"], &target["name"]), (&set["kind"], &set["metadata"]["name"]));
        assert_eq!((least, most), (&json!(limits.min), &json!(limits.max)));
    }
}

#[test]
fn pods_have_no_privilege_and_time_to_drain() {
    let documents = documents(&rendered(&[]));
    let pod = &object(&documents, "StatefulSet")["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    let expected = json!({ "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] } });
    assert_eq!(container["securityContext"], expected);
    for (probe, path) in [("startupProbe", "/health/live"), ("livenessProbe", "/health/live"), ("readinessProbe", "/health/ready")] {
        assert_eq!(container[probe]["httpGet"]["path"], path);
    }
    let grace = |values: &[&str]| {
        let documents = self::documents(&rendered(values));
        object(&documents, "StatefulSet")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap()
    };
    // The longest stop: a connector that still starts is waited for, then stopped with the whole deadline, and closes.
    let default = millrace::config::WorkerConfig::default().shutdown_deadline.get().as_secs();
    assert!(grace(&[]) > 2 * default + CLOSE_MARGIN.as_secs(), "{}", grace(&[]));
    for (deadline, seconds) in [("45s", 110), ("1m 30s", 200), ("2min", 260), ("1500ms", 24)] {
        assert_eq!(grace(&["--set", &format!("millrace.worker.shutdown_deadline={deadline}")]), seconds, "{deadline}");
    }
    assert_eq!(grace(&["--set", "terminationGracePeriodSeconds=300"]), 300);
    let memory = millrace::config::WorkerConfig::default().memory.bytes();
    let limit = container["resources"]["limits"]["memory"].as_str().unwrap().strip_suffix("Mi").unwrap().parse::<u64>().unwrap() << 20;
    assert!(limit * 2 >= memory * 3, "the limit of {limit} bytes is below 1.5 times [worker] memory");
}

#[test]
fn only_millrace_toml_rolls_the_pods() {
    let pods = |values: &[&str]| object(&documents(&rendered(values)), "StatefulSet")["spec"]["template"].clone();
    let first_pod = |values: &[&str]| pods(values)["spec"].clone();
    let first = ["--set", "connectors.a=one"];
    assert_eq!(pods(&first), pods(&["--set", "connectors.a=two"]));
    assert_eq!(pods(&first), pods(&["--set", "connectors.a=two", "--set", "connectors.b=three"]));
    assert_ne!(pods(&first), pods(&["--set", "connectors.a=one", "--set", "millrace.scaling.max=11"]));
    // A file mounted by its own path would never be updated.
    let mounts = first_pod(&["--set", "connectors.a=one"])["containers"][0]["volumeMounts"].clone();
    assert!(mounts.as_array().unwrap().iter().all(|mount| mount.get("subPath").is_none()), "{mounts}");
}

#[test]
fn every_switch_renders() {
    let text = rendered(&[
        "--set",
        "podMonitor.enabled=true,podMonitor.labels.team=stock,existingSecret=kafka,existingConnectorsConfigMap=mine",
        "--set",
        "existingSchemasConfigMap=avro,fullnameOverride=stock,serviceAccount.create=false,serviceAccount.name=sa",
        "--set",
        "topologySpreadConstraints=null,priorityClassName=high,nodeSelector.disk=ssd,podLabels.team=stock,podAnnotations.a=b",
        "--set",
        "image.digest=sha256:0000000000000000000000000000000000000000000000000000000000000000,imagePullSecrets[0].name=pull",
        "--set",
        "extraVolumes[0].name=ca,extraVolumes[0].secret.secretName=ca",
        "--set",
        "extraVolumeMounts[0].name=ca,extraVolumeMounts[0].mountPath=/etc/ca,env[0].name=A,env[0].value=b",
    ]);
    let documents = documents(&text);
    assert!(!documents.iter().any(|document| document["kind"] == "ServiceAccount"));
    assert_eq!(object(&documents, "PodMonitor")["metadata"]["labels"]["team"], "stock");
    let pod = &object(&documents, "StatefulSet")["spec"]["template"]["spec"];
    assert_eq!(pod["serviceAccountName"], "sa");
    assert_eq!(pod["containers"][0]["envFrom"][0]["secretRef"]["name"], "kafka");
    assert!(pod["containers"][0]["image"].as_str().unwrap().contains("@sha256:"));
    let volumes: BTreeMap<&str, &Value> = pod["volumes"].as_array().unwrap().iter().map(|v| (v["name"].as_str().unwrap(), v)).collect();
    assert_eq!(volumes["connectors"]["configMap"]["name"], "mine");
    assert_eq!(volumes["schemas"]["configMap"]["name"], "avro");
    assert_eq!(volumes["ca"]["secret"]["secretName"], "ca");
    let mounts: Vec<&str> = pod["containers"][0]["volumeMounts"].as_array().unwrap().iter().map(|m| m["name"].as_str().unwrap()).collect();
    assert_eq!(mounts.len(), volumes.len());
    assert_eq!(object(&documents, "Role")["rules"][0]["resourceNames"][0], "stock");
}
