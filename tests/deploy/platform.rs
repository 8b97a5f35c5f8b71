//! What a platform team sets beside the worker itself: labels, network, monitoring, containers and objects of its own.

use serde_json::{Value, json};

use super::chart::{documents, object};
use super::{read, refusal, rendered};

fn of_json(values: Value) -> Vec<Value> {
    let mut arguments = Vec::new();
    for (name, value) in values.as_object().unwrap() {
        arguments.extend(["--set-json".to_owned(), format!("{name}={value}")]);
    }
    documents(&rendered(&arguments.iter().map(String::as_str).collect::<Vec<_>>()))
}

#[test]
fn common_labels_are_on_every_object_and_on_pods_and_in_no_selector() {
    let monitored = json!({"commonLabels": {"cost-centre": "42"}, "podMonitor": {"enabled": true}, "networkPolicy": {"enabled": true}});
    let documents = of_json(monitored);
    assert!(documents.len() > 9);
    for document in &documents {
        assert_eq!(document["metadata"]["labels"]["cost-centre"], "42", "{}", document["kind"]);
    }
    let spec = &object(&documents, "StatefulSet")["spec"];
    assert_eq!(spec["template"]["metadata"]["labels"]["cost-centre"], "42");
    // A StatefulSet's selector can never be changed again.
    for selector in [&spec["selector"]["matchLabels"], &object(&documents, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"]] {
        assert_eq!(selector, &json!({"app.kubernetes.io/name": "millrace", "app.kubernetes.io/instance": "millrace"}));
    }
}

#[test]
fn a_network_policy_leaves_egress_alone_unless_it_is_said() {
    let policy = |values: Value| object(&of_json(json!({ "networkPolicy": values })), "NetworkPolicy")["spec"].clone();
    let open = policy(json!({"enabled": true}));
    assert_eq!((&open["policyTypes"], &open["egress"]), (&json!(["Ingress"]), &Value::Null));
    assert_eq!(open["ingress"], json!([{"ports": [{"port": "http", "protocol": "TCP"}]}]));
    let scraper = json!([{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]);
    let closed = policy(json!({"enabled": true, "ingressFrom": scraper, "egress": []}));
    assert_eq!((&closed["policyTypes"], &closed["egress"]), (&json!(["Ingress", "Egress"]), &json!([])));
    assert_eq!(closed["ingress"][0]["from"], scraper);
}

#[test]
fn pods_are_scraped_by_either_operator() {
    let monitor = |values: Value, kind| {
        let found = object(&of_json(json!({ "podMonitor": values })), kind).clone();
        (found["apiVersion"].as_str().unwrap().to_owned(), found["spec"].clone())
    };
    let drop = json!([{"action": "drop", "sourceLabels": ["__name__"], "regex": "millrace_flow_.*"}]);
    let (version, spec) = monitor(json!({"enabled": true, "endpoint": {"metricRelabelings": drop}}), "PodMonitor");
    assert_eq!(version, "monitoring.coreos.com/v1");
    let endpoint = json!({"port": "http", "path": "/metrics", "interval": "15s", "metricRelabelings": drop});
    assert_eq!(spec["podMetricsEndpoints"], json!([endpoint]));
    let (version, spec) = monitor(json!({"enabled": true, "kind": "PodMonitoring", "interval": "30s"}), "PodMonitoring");
    assert_eq!(version, "monitoring.googleapis.com/v1");
    assert_eq!(spec["endpoints"], json!([{"port": "http", "path": "/metrics", "interval": "30s"}]));
    assert!(spec["selector"]["matchLabels"].is_object() && spec.get("podMetricsEndpoints").is_none());
    let said = refusal(&["--set", "podMonitor.kind=ServiceMonitor"]);
    assert!(said.contains("PodMonitoring"), "{said}");
}

#[test]
fn pods_take_containers_environment_and_names_of_ones_own() {
    let set = json!({
        "existingSecret": "kafka",
        "envFrom": [{"configMapRef": {"name": "proxies"}}],
        "initContainers": [{"name": "wait", "image": "wait:1"}],
        "extraContainers": [{"name": "tls", "image": "proxy:1"}],
        "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["broker-0"]}],
        "dnsConfig": {"options": [{"name": "ndots", "value": "1"}]},
        "runtimeClassName": "gvisor",
    });
    let documents = of_json(set.clone());
    let pod = &object(&documents, "StatefulSet")["spec"]["template"]["spec"];
    for name in ["initContainers", "hostAliases", "dnsConfig", "runtimeClassName"] {
        assert_eq!(pod[name], set[name], "{name}");
    }
    let containers = pod["containers"].as_array().unwrap();
    assert_eq!((&containers[0]["name"], &containers[1]), (&json!("millrace"), &set["extraContainers"][0]));
    assert_eq!(containers[0]["envFrom"], json!([{"secretRef": {"name": "kafka"}}, {"configMapRef": {"name": "proxies"}}]));
}

/// The alerts' own templates (`{{ $labels }}`) must reach Prometheus as they are.
#[test]
fn further_objects_come_with_the_release() {
    let named = r#"extraObjects[0]={"apiVersion":"v1","kind":"Secret","metadata":{"name":"{{ include \"millrace.fullname\" . }}-more"}}"#;
    let documents = documents(&rendered(&["--set-json", named, "--set-file", "extraObjects[1]=deploy/alerts.yaml"]));
    assert_eq!(object(&documents, "Secret")["metadata"]["name"], "millrace-more");
    let [alerts]: [Value; 1] = super::chart::documents(&read("deploy/alerts.yaml")).try_into().unwrap();
    assert_eq!(object(&documents, "PrometheusRule"), &alerts);
}
