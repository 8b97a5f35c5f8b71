//! Alerts and dashboard ask for metrics that exist, and Prometheus can read what they ask.

use std::collections::BTreeSet;
use std::path::Path;
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

/// What promtool, which `tests/deploy/install` puts beside helm, says in this folder.
fn promtool(arguments: &[&str], folder: &Path) -> String {
    let installed = Command::new(super::root().join("tests/deploy/install")).output().unwrap();
    let programs = String::from_utf8(installed.stdout).unwrap().lines().last().unwrap().to_owned();
    let done = Command::new(Path::new(&programs).join("promtool")).args(arguments).current_dir(folder).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{said}");
    assert!(said.contains("SUCCESS"), "{said}");
    said
}

#[test]
fn prometheus_reads_the_rules_and_the_dashboards_queries() {
    let place = tempfile::tempdir().unwrap();
    let mut rules = alert_rules();
    // A dashboard's queries as rules: the parser is the same.
    let recorded: Vec<Value> = dashboard_queries()
        .iter()
        .enumerate()
        .map(|(i, query)| serde_json::json!({ "record": format!("dashboard:query:{i}"), "expr": query }))
        .collect();
    rules["groups"].as_array_mut().unwrap().push(serde_json::json!({ "name": "dashboard", "rules": recorded }));
    let count: usize = rules["groups"].as_array().unwrap().iter().map(|group| group["rules"].as_array().unwrap().len()).sum();
    std::fs::write(place.path().join("rules.yaml"), rules.to_string()).unwrap();
    let said = promtool(&["check", "rules", "rules.yaml"], place.path());
    assert!(said.contains(&format!("{count} rules found")), "{said}");
}

/// `alerts.test.yaml`: a healthy fleet is silent, and every alert fires for its trouble.
#[test]
fn each_alert_fires_for_its_trouble_and_no_other() {
    let place = tempfile::tempdir().unwrap();
    let rules = alert_rules();
    let scenarios = read("tests/deploy/alerts.test.yaml");
    for rule in rules["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap()) {
        let name = rule["alert"].as_str().unwrap();
        assert!(scenarios.contains(&format!("alertname=\"{name}\"")), "no scenario has {name} fire");
    }
    std::fs::write(place.path().join("rules.yaml"), rules.to_string()).unwrap();
    std::fs::write(place.path().join("alerts.test.yaml"), scenarios).unwrap();
    promtool(&["test", "rules", "alerts.test.yaml"], place.path());
}
