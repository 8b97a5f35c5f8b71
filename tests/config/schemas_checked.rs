//! `millrace check` against an embedded registry and an embedded BigQuery: what it says of schemas before a record has come.

use std::path::Path;
use std::process::Output;

use millrace::embedded::bigquery::{EmbeddedBigQuery, Settings};
use millrace::embedded::registry::{EmbeddedRegistry, Reference, RegistrySettings};
use serde_json::json;

use super::write_all;

struct Parts {
    registry: EmbeddedRegistry,
    bigquery: EmbeddedBigQuery,
}

impl Parts {
    async fn start() -> Self {
        // This file's own REST client needs one; another test of this binary may have been faster.
        let _first = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let registry = EmbeddedRegistry::start(RegistrySettings::default()).await.unwrap();
        let bigquery = EmbeddedBigQuery::start(Settings::default()).await.unwrap();
        bigquery.create_dataset("p", "shop").unwrap();
        Self { registry, bigquery }
    }

    fn has(&self, subject: &str, fields: &[(&str, serde_json::Value)]) {
        let fields: Vec<_> = fields.iter().map(|(name, ty)| json!({ "name": name, "type": ty })).collect();
        let schema = json!({ "type": "record", "name": "Sale", "fields": fields }).to_string();
        self.registry.register(subject, &schema, Vec::new()).unwrap();
    }

    async fn table(&self, name: &str, fields: serde_json::Value) {
        let body = json!({ "tableReference": { "projectId": "p", "datasetId": "shop", "tableId": name }, "schema": { "fields": fields } });
        let url = format!("{}/bigquery/v2/projects/p/datasets/shop/tables", self.bigquery.rest_url());
        let answer = reqwest::Client::new().post(url).json(&body).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    }

    /// A subject whose versions may contradict each other.
    async fn registry_takes_anything(&self, subject: &str) {
        let url = format!("{}/config/{subject}", self.registry.url());
        let answer = reqwest::Client::new().put(url).json(&json!({ "compatibility": "NONE" })).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    }

    /// The lines of `millrace check` for one connector; nothing of Kafka answers.
    async fn check(&self, connector: &str) -> String {
        let fleet = format!(
            "[kafka]\n\"bootstrap.servers\" = \"127.0.0.1:1\"\n[registry]\nurls = [\"{}\"]\n[bigquery]\nproject = \"p\"\n\
             credentials = \"none\"\nrest_endpoint = \"{}/bigquery/v2\"\ngrpc_endpoint = \"{}\"\n",
            self.registry.url(),
            self.bigquery.rest_url(),
            self.bigquery.grpc_url(),
        );
        let folder = tempfile::tempdir().unwrap();
        write_all(folder.path(), &fleet, &[("sales.toml", connector)]);
        let path = folder.path().to_owned();
        let output = tokio::task::spawn_blocking(move || run(&path)).await.unwrap();
        let out = String::from_utf8(output.stdout).unwrap();
        println!("{out}{}", String::from_utf8_lossy(&output.stderr));
        out
    }
}

fn run(folder: &Path) -> Output {
    std::process::Command::new(env!("CARGO_BIN_EXE_millrace"))
        .args(["check", "--timeout", "1s", "--config"])
        .arg(folder.join("millrace.toml"))
        .arg("--connectors")
        .arg(folder.join("connectors"))
        .output()
        .unwrap()
}

fn connector(topics: &str, table: &str) -> String {
    format!("{topics}\n[value]\nformat = \"avro\"\n[table]\ncreate = true\n{table}\n[errors]\ndead_letter_topic = \"dead\"\n")
}

fn assert_said(out: &str, lines: &[&str]) {
    for line in lines {
        assert!(out.contains(line), "no `{line}` in\n{out}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subject_s_newest_version_is_held_against_the_table() {
    let parts = Parts::start().await;
    parts.has("sales-value", &[("id", json!("long")), ("amount", json!("int"))]);
    let fields = [
        ("id", json!("long")),
        ("amount", json!({ "type": "string" })),
        ("at", json!({ "type": "long", "logicalType": "timestamp-nanos" })),
        ("note", json!(["null", "string"])),
    ];
    parts.registry_takes_anything("sales-value").await;
    parts.has("sales-value", &fields);
    let columns = json!([{ "name": "id", "type": "INTEGER" }, { "name": "amount", "type": "INTEGER" }]);
    parts.table("sales", columns).await;
    let out = parts.check(&connector("topics = [\"sales\"]", "name = \"shop.sales\"")).await;
    assert_said(
        &out,
        &[
            "✓ subject sales-value, version 2 (schema id 2): id INT64, amount STRING, at TIMESTAMP, note STRING",
            "· subject sales-value, version 2 (schema id 2): `at` counts nanoseconds",
            "✗ table p.shop.sales for schema sales-value, version 2: column `amount` is INT64 and the schema gives STRING",
            "· table p.shop.sales for schema sales-value, version 2: column `at` TIMESTAMP would be added",
            "· table p.shop.sales for schema sales-value, version 2: column `note` STRING would be added",
        ],
    );
    assert!(!out.contains("column `id`"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_mapped_and_what_nobody_registered_are_told_apart() {
    let parts = Parts::start().await;
    let lists = json!({ "type": "array", "items": { "type": "array", "items": "int" } });
    parts.has("lists-value", &[("rows", lists)]);
    // A schema that refers to another one is resolved.
    let leaf = r#"{"type":"record","name":"n.Leaf","fields":[{"name":"size","type":"int"}]}"#;
    parts.registry.register("leaf", leaf, Vec::new()).unwrap();
    let root = r#"{"type":"record","name":"Root","fields":[{"name":"leaf","type":"n.Leaf"}]}"#;
    let to_leaf = Reference { name: "n.Leaf".into(), subject: "leaf".into(), version: 1 };
    parts.registry.register("trees-value", root, vec![to_leaf]).unwrap();
    let out = parts.check(&connector("topics = [\"lists\", \"trees\", \"nobody\"]", "name = \"shop.${topic}\"")).await;
    assert_said(
        &out,
        &[
            "✗ subject lists-value, version 1 (schema id 1): cannot be mapped, its records would be dead letters: ",
            "✓ subject trees-value, version 1 (schema id 3): leaf RECORD<size INT64>",
            "· subject nobody-value: the registry has none yet; if the producers name subjects by the record's type (RecordNameStrategy",
            "✓ table p.shop.trees: is not there, and is created when the first record comes",
            "· table p.shop.trees: would get leaf RECORD<size INT64>",
        ],
    );
    assert!(!out.contains("table p.shop.nobody: would get"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expression_s_topics_are_known_by_their_subjects() {
    let parts = Parts::start().await;
    parts.has("sales_eu-value", &[("id", json!("long")), ("at", json!("long"))]);
    parts.has("sales_us-value", &[("id", json!("string"))]);
    parts.has("sales_us-key", &[("id", json!("string"))]);
    parts.has("presales_eu-value", &[("id", json!("string"))]);
    let regex = "topics_regex = \"sales_.*\"";
    // A table for each, partitioned by what counts milliseconds, which nobody said.
    let out = parts.check(&connector(regex, "name = \"shop.${topic}\"\ncluster = [\"id\"]\npartition = { by = \"at\" }")).await;
    assert_said(
        &out,
        &[
            "✓ subjects that match `topics_regex` and end in -value: 2",
            "· table p.shop.sales_eu: would get id INT64, at INT64",
            "✗ table p.shop.sales_eu: column `at` is INT64: only DATE, DATETIME or TIMESTAMP partitions by time",
            "✗ table p.shop.sales_us: partition column `at` is not among the table's columns",
            "· tables of other topics: not tried",
        ],
    );
    assert!(!out.contains("presales") && !out.contains("sales_us-key"), "{out}");
    // One table for all: the second schema contradicts the first.
    let out = parts.check(&connector(regex, "name = \"shop.all\"")).await;
    assert_said(&out, &["✗ table p.shop.all for schema sales_us-value, version 1: after the schemas above: column `id` is INT64"]);
}
