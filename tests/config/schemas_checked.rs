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
        let connector = connector.to_owned();
        tokio::task::spawn_blocking(move || checked(&fleet, &connector, &[])).await.unwrap()
    }
}

/// The lines of `millrace check` over these files; `schemas` are those of the folder beside the connector.
fn checked(fleet: &str, connector: &str, schemas: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    write_all(folder.path(), fleet, &[("sales.toml", connector)]);
    let beside = folder.path().join("connectors/schemas");
    std::fs::create_dir(&beside).unwrap();
    for (name, text) in schemas {
        std::fs::write(beside.join(name), text).unwrap();
    }
    let output = run(folder.path());
    let out = String::from_utf8(output.stdout).unwrap();
    println!("{out}{}", String::from_utf8_lossy(&output.stderr));
    out
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

/// Nothing listens on port 1.
const NOBODY: &str = "[kafka]\n\"bootstrap.servers\" = \"127.0.0.1:1\"\n[bigquery]\nproject = \"p\"\ncredentials = \"none\"\n\
                      rest_endpoint = \"http://127.0.0.1:1\"\ngrpc_endpoint = \"http://127.0.0.1:1\"\n";

fn from_folder(table: &str) -> String {
    format!(
        "topics = [\"sales\"]\n[value]\nformat = \"avro\"\nschemas = \"schemas\"\nschema_header = \"schema\"\n\
         [table]\nname = \"shop.sales\"\ncreate = true\n{table}\n"
    )
}

const SALE: &str = r#"{"type":"record","name":"Sale","fields":[{"name":"id","type":"double"},{"name":"timestamp","type":"long"},
    {"name":"day","type":{"type":"int","logicalType":"date"}}]}"#;

#[test]
fn a_wrong_partition_or_cluster_column_is_found_when_bigquery_cannot_be_asked() {
    let nobody = NOBODY.to_owned();
    let unusable = nobody.replace("none", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
    let table = "table p.shop.sales, should it be created:";
    for fleet in [&nobody, &unusable] {
        let check = |settings: &str| checked(fleet, &from_folder(settings), &[("sale.avsc", SALE)]);
        let out = check("partition = { by = \"timestmp\" }\ncluster = [\"id\"]");
        assert_said(
            &out,
            &[
                &format!("· {table} would get id FLOAT64, timestamp INT64, day DATE"),
                &format!("✗ {table} partition column `timestmp` is not among the table's columns: `by` of `partition`"),
                &format!("✗ {table} column `id` is FLOAT64 Nullable: it cannot cluster the table"),
            ],
        );
        let out = check("partition = { by = \"day\", every = \"hour\" }\ncluster = [\"ids\"]");
        assert_said(
            &out,
            &[
                &format!("✗ {table} column `day` is DATE: it cannot partition the table by the hour"),
                &format!("✗ {table} cluster column `ids` is not among the table's columns: `cluster` under [table]"),
            ],
        );
        let out = check("partition = { by = \"Timestamp\" }\n[table.columns]\ntimestamp = { type = \"TIMESTAMP\", unit = \"ms\" }");
        assert!(out.contains(&format!("· {table} would get")) && !out.contains(&format!("✗ {table}")), "{out}");
    }
}

#[test]
fn what_is_stated_for_a_field_that_no_schema_has_is_said() {
    let columns = "[table.columns]\ntimestmp = { type = \"TIMESTAMP\", unit = \"ms\" }\nid = { name = \"key\" }\n\"lines.price\" = { type = \"NUMERIC\" }";
    let lines = r#"{"type":"record","name":"Lines","fields":[{"name":"lines","type":{"type":"array","items":
        {"type":"record","name":"Line","fields":[{"name":"price","type":"int"}]}}}]}"#;
    let out = checked(NOBODY, &from_folder(columns), &[("sale.avsc", SALE), ("lines.avsc", lines)]);
    assert_said(&out, &["· [table.columns] timestmp: none of the schemas above has such a field"]);
    assert_eq!(out.matches("none of the schemas above").count(), 1, "{out}");
}

#[test]
fn a_name_that_is_defined_in_two_ways_is_said_with_its_file_and_both_places() {
    let twice = SALE.replace("\"double\"", r#"{"type":"enum","name":"E","symbols":["A"]}"#);
    let twice = twice.replace("\"long\"", r#"{"type":"enum","name":"E","symbols":["B"]}"#);
    let out = checked(NOBODY, &from_folder(""), &[("twice.avsc", &twice)]);
    assert_said(&out, &["schemas/twice.avsc: `E` is defined in two ways, at field `id` of `Sale` and at field `timestamp` of `Sale`: "]);
    assert!(out.contains("✗ schemas in "), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_columns_of_json_are_those_of_the_table_and_those_that_are_stated() {
    let parts = Parts::start().await;
    let json = |columns: &str| {
        let table = format!("name = \"shop.sales\"\n[table.columns]\n{columns}");
        connector("topics = [\"sales\"]", &table).replace("avro", "json").replace("create = true\n", "")
    };
    let stated = "id = { type = \"INT64\" }\nat = { type = \"TIMESTAMP\", unit = \"ms\" }";
    parts.table("sales", json!([{ "name": "id", "type": "STRING" }, { "name": "n", "type": "INTEGER" }])).await;
    let out = parts.check(&json("\"a!\" = { type = \"INT64\" }")).await;
    assert_said(&out, &["✗ table p.shop.sales: [table.columns] a!: column name `a!` holds `!`"]);
    let out = parts.check(&json(stated)).await;
    assert_said(&out, &["✗ table p.shop.sales: column `id` is STRING and [table.columns] id states INT64"]);
    let out = parts.check(&json(&stated.replace("INT64", "STRING"))).await;
    assert_said(
        &out,
        &[
            "✓ table p.shop.sales for [table.columns]: fits after the changes below",
            "· table p.shop.sales for [table.columns]: column `at` TIMESTAMP would be added",
        ],
    );
}
