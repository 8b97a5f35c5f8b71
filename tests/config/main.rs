//! Configuration files as users get them wrong: every message, literally. And what must never be in a message.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod command;
mod mistakes;
mod reference;
mod schemas_checked;
mod secrets;

use std::path::Path;

use millrace::config::{self, ConfigErrors, Loaded};

/// A fleet's file without a mistake.
pub const FLEET: &str = r#"
[kafka]
"bootstrap.servers" = "127.0.0.1:9092"

[registry]
urls = ["http://127.0.0.1:8081"]

[bigquery]
project = "p"
"#;

/// A connector's file without a mistake.
pub const CONNECTOR: &str = r#"
topics = ["orders"]

[value]
format = "avro"

[table]
name = "shop.orders"
"#;

/// Writes the files into a folder of their own and loads them.
pub fn load(fleet: &str, connectors: &[(&str, &str)]) -> (tempfile::TempDir, Result<Loaded, ConfigErrors>) {
    let folder = tempfile::tempdir().unwrap();
    write_all(folder.path(), fleet, connectors);
    let loaded = config::load(&folder.path().join("millrace.toml"), &folder.path().join("connectors"));
    (folder, loaded)
}

/// Writes `millrace.toml` and `connectors/`.
pub fn write_all(folder: &Path, fleet: &str, connectors: &[(&str, &str)]) {
    std::fs::write(folder.join("millrace.toml"), fleet).unwrap();
    std::fs::create_dir(folder.join("connectors")).unwrap();
    for (name, text) in connectors {
        std::fs::write(folder.join("connectors").join(name), text).unwrap();
    }
}

/// The messages, with the folder's name cut.
pub fn complaints(fleet: &str, connectors: &[(&str, &str)]) -> String {
    let (folder, loaded) = load(fleet, connectors);
    let text = loaded.expect_err("nothing was complained about").to_string();
    text.replace(&format!("{}/", folder.path().display()), "")
}

/// The messages about one connector's file.
pub fn connector_complaints(text: &str) -> String {
    complaints(FLEET, &[("a.toml", text)]).replace("connectors/a.toml:", "")
}

#[test]
fn files_without_a_mistake_load_with_every_default() {
    let (folder, loaded) = load(FLEET, &[("a.toml", CONNECTOR), ("b.toml", &CONNECTOR.replace("orders", "returns"))]);
    let loaded = loaded.unwrap();
    let names: Vec<&str> = loaded.connectors.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    let a = &loaded.connectors[0];
    assert_eq!(a.file, folder.path().join("connectors/a.toml"));
    assert_eq!((a.group_id().as_str(), a.dead_letter_topic().as_str()), ("connect-a", "a.dead"));
    assert_eq!(a.delivery.batch_bytes.bytes(), 1 << 20);
    assert_eq!(a.delivery.linger.get(), std::time::Duration::from_millis(200));
    assert_eq!(loaded.fleet.worker.memory.bytes(), 512 << 20);
    assert_eq!(loaded.fleet.kafka["bootstrap.servers"].to_property(), "127.0.0.1:9092");
}

#[test]
fn a_cost_may_have_a_fraction() {
    let cost = |text: &str| load(&format!("{FLEET}\n[scaling]\nworker_cost_per_hour = {text}\n"), &[("a.toml", CONNECTOR)]).1;
    assert_eq!(cost("0.12").unwrap().fleet.scaling.worker_cost_per_hour, Some(0.12));
    assert_eq!(cost("1_0.5").unwrap().fleet.scaling.worker_cost_per_hour, Some(10.5));
    assert_eq!(cost("3").unwrap().fleet.scaling.worker_cost_per_hour, Some(3.0));
    for wrong in ["inf", "nan", "\"0.12\"", "true"] {
        let errors = cost(wrong).unwrap_err().to_string();
        assert!(errors.contains("scaling.worker_cost_per_hour: expected a number such as 0.12, found "), "{wrong}: {errors}");
    }
    assert!(cost("-0.5").unwrap_err().to_string().contains("is no cost"));
    // Elsewhere a fraction is still a mistake.
    let shards = load(&format!("{FLEET}\n[worker]\nshards = 1.5\n"), &[("a.toml", CONNECTOR)]).1.unwrap_err().to_string();
    assert!(shards.ends_with("worker.shards: expected a whole number, found a number with a fraction"), "{shards}");
}
