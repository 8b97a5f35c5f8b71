//! `values.schema.json`: it holds millrace.toml's own schema, and helm refuses by it what is wrong.

use super::{read, refusal, rendered};

#[test]
fn the_schema_of_millrace_toml_inside_is_the_programs() {
    let values: serde_json::Value = serde_json::from_str(&read("deploy/chart/values.schema.json")).unwrap();
    let mut fleet = millrace::config::fleet_schema().to_value();
    let own = fleet.as_object_mut().unwrap();
    own.remove("$schema");
    let types = own.remove("$defs").unwrap();
    for (name, schema) in types.as_object().unwrap() {
        assert_eq!(&values["$defs"][name], schema, "{name}: run deploy/render");
    }
    assert_eq!(values["$defs"]["FleetConfig"], fleet, "run deploy/render");
    let defined = values["$defs"].as_object().unwrap().keys().filter(|name| name.starts_with(char::is_uppercase)).count();
    assert_eq!(defined, types.as_object().unwrap().len() + 1, "types that the program no longer has: run deploy/render");
}

#[test]
fn wrong_values_are_refused_by_name() {
    for (value, named) in [
        ("millrace.worker.memroy=1 GiB", "memroy"),
        ("millrace.worker.shards=many", "shards"),
        ("millrace.scaling.mode=kubernets", "mode"),
        ("millrace.worker.listen=127.0.0.1:8080", "listen"),
        ("millrace.wroker.shards=2", "wroker"),
        ("millrace.bigquery.project=null", "project"),
        ("replicas=3", "replicas"),
        ("image.tagg=1", "tagg"),
        ("podDisruptionBudget.maxUnavailable=0", "maxUnavailable"),
        ("connectors.orders=", "orders"),
        (r"schemas.a\.json=x", "a.json"),
        (r"connectors.orders\.toml=x", "orders.toml"),
        ("terminationGracePeriodSeconds=long", "terminationGracePeriodSeconds"),
    ] {
        let said = refusal(&["--set", value]);
        assert!(said.contains(named) && said.contains("values don't meet the specifications of the schema"), "{value}: {said}");
    }
}

/// Whatever values.yaml can say comes out as a millrace.toml that the program takes.
#[test]
fn values_become_a_millrace_toml_that_loads() {
    let text = rendered(&[
        "--set-string",
        r"millrace.kafka.sasl\.password=${env:KAFKA_PASSWORD}",
        "--set",
        r"millrace.kafka.session\.timeout\.ms=30000",
        "--set",
        r"millrace.kafka.socket\.keepalive\.enable=true",
        "--set",
        "millrace.registry.urls={http://a:1,http://b:2}",
        "--set-json",
        "millrace.scaling.worker_cost_per_hour=0.12",
        "--set",
        "millrace.scaling.max=40",
        "--set",
        r"millrace.bigquery.credentials=none",
        "--set-file",
        "connectors.physical-stock=connectors/physical-stock.toml",
        "--set-file",
        "connectors.by-registry=connectors/stock-by-registry.toml",
        "--set-file",
        r"schemas.SMSPhysicalStockUpdates_values\.avsc=schemas/SMSPhysicalStockUpdates_values.avsc",
    ]);
    let folder = tempfile::tempdir().unwrap();
    let mut written = 0;
    for document in super::chart::documents(&text) {
        let Some(data) = document["data"].as_object().filter(|_| document["kind"] == "ConfigMap") else { continue };
        for (name, text) in data {
            let place = if name == "millrace.toml" {
                "fleet"
            } else if name.ends_with(".avsc") {
                "schemas"
            } else {
                "connectors"
            };
            std::fs::create_dir_all(folder.path().join(place)).unwrap();
            let text = text.as_str().unwrap().replace("${env:KAFKA_PASSWORD}", "secret");
            std::fs::write(folder.path().join(place).join(name), text).unwrap();
            written += 1;
        }
    }
    assert_eq!(written, 4);
    let loaded = millrace::config::load(&folder.path().join("fleet/millrace.toml"), &folder.path().join("connectors"));
    let loaded = loaded.unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(loaded.connectors.len(), 2);
    assert_eq!((loaded.fleet.scaling.max, loaded.fleet.scaling.worker_cost_per_hour), (40, Some(0.12)));
    assert_eq!(loaded.fleet.kafka["session.timeout.ms"].to_property(), "30000");
    assert_eq!(loaded.fleet.registry.unwrap().urls, ["http://a:1", "http://b:2"]);
    // As mounted: a connector's ../schemas is the folder beside it.
    let schemas = loaded.connectors.iter().find_map(|connector| connector.value.schemas.clone()).unwrap();
    assert!(schemas.join("SMSPhysicalStockUpdates_values.avsc").is_file(), "{}", schemas.display());
}
