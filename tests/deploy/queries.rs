//! Alerts and dashboard ask for metrics that exist, and Prometheus can read what they ask.

use std::collections::BTreeSet;
use std::process::Command;

use millrace::telemetry::catalog::{Kind, METRICS};
use serde_json::Value;

use super::chart::documents;
use super::read;

fn alert_rules() -> Value {
    let [rules]: [Value; 1] = documents(&read("deploy/alerts.yaml")).try_into().unwrap();
    assert_eq!(rules["kind"], "PrometheusRule");
    rules["spec"].clone()
}

fn alert_queries() -> Vec<String> {
    let rules = alert_rules();
    let groups = rules["groups"].as_array().unwrap();
    groups.iter().flat_map(|group| group["rules"].as_array().unwrap()).map(|rule| rule["expr"].as_str().unwrap().to_owned()).collect()
}

fn dashboard_queries() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&read("deploy/dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    targets.map(|target| target["expr"].as_str().unwrap().replace("$connector", ".*")).collect()
}

/// The names that Prometheus knows of a metric.
fn series(metric: &millrace::telemetry::catalog::Metric) -> Vec<String> {
    match metric.kind {
        Kind::Histogram => ["_bucket", "_sum", "_count"].iter().map(|end| format!("{}{end}", metric.name)).collect(),
        Kind::Counter | Kind::Gauge => vec![metric.name.to_owned()],
    }
}

#[test]
fn every_metric_and_label_asked_for_exists() {
    let known: BTreeSet<String> = METRICS.iter().flat_map(series).collect();
    let labels: BTreeSet<&str> = METRICS.iter().flat_map(|metric| metric.labels.iter().copied()).chain(["le", "pod"]).collect();
    let name = regex::Regex::new(r"millrace_[a-z_]+").unwrap();
    let by = regex::Regex::new(r"(?:by|without) \(([^)]*)\)").unwrap();
    let mut asked = BTreeSet::new();
    for query in alert_queries().into_iter().chain(dashboard_queries()) {
        for found in name.find_iter(&query) {
            assert!(known.contains(found.as_str()), "no metric {} for: {query}", found.as_str());
            asked.insert(found.as_str().to_owned());
        }
        for list in by.captures_iter(&query) {
            for label in list[1].split(',') {
                assert!(labels.contains(label.trim()), "no label {label} for: {query}");
            }
        }
    }
    assert!(asked.len() > 20, "only {asked:?}");
}

/// promtool, where it is installed (`tests/deploy/install` puts it beside helm).
#[test]
fn prometheus_reads_the_rules_and_the_dashboards_queries() {
    let installed = Command::new(super::root().join("tests/deploy/install")).output().unwrap();
    let folder = String::from_utf8(installed.stdout).unwrap().lines().last().unwrap().to_owned();
    let place = tempfile::tempdir().unwrap();
    let mut rules = alert_rules();
    // A dashboard's queries as rules: the parser is the same.
    let recorded: Vec<Value> = dashboard_queries()
        .iter()
        .enumerate()
        .map(|(i, query)| serde_json::json!({ "record": format!("dashboard:query:{i}"), "expr": query }))
        .collect();
    rules["groups"].as_array_mut().unwrap().push(serde_json::json!({ "name": "dashboard", "rules": recorded }));
    let file = place.path().join("rules.yaml");
    std::fs::write(&file, rules.to_string()).unwrap();
    let checked = Command::new(std::path::Path::new(&folder).join("promtool")).args(["check", "rules"]).arg(&file).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&checked.stdout), String::from_utf8_lossy(&checked.stderr));
    assert!(checked.status.success(), "{said}");
    assert!(said.contains("SUCCESS"), "{said}");
}
