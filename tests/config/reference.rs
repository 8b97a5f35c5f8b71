//! The example files against the types, the JSON Schema and librdkafka.

use millrace::config;
use serde_json::Value;

use super::{CONNECTOR, FLEET};

fn json(text: &str) -> Value {
    serde_json::to_value(toml::from_str::<toml::Table>(text).unwrap()).unwrap()
}

fn schemas() -> [(&'static str, Value); 2] {
    [("fleet", config::fleet_schema().to_value()), ("connector", config::connector_schema().to_value())]
}

#[test]
fn the_json_schema_takes_good_files_and_refuses_mistakes() {
    let [(_, fleet), (_, connector)] = schemas();
    let (fleet, connector) = (jsonschema::validator_for(&fleet).unwrap(), jsonschema::validator_for(&connector).unwrap());
    assert!(fleet.is_valid(&json(FLEET)));
    assert!(connector.is_valid(&json(CONNECTOR)));
    for (from, to) in [("project", "projekt"), ("urls = [", "urls = [1, ")] {
        assert!(!fleet.is_valid(&json(&FLEET.replace(from, to))), "{to}");
    }
    for (from, to) in [
        ("topics", "topcs"),
        ("\"avro\"", "\"avr\""),
        ("name", "create = \"yes\"\nname"),
        ("name", "metadata_names = { offest = \"x\" }\nname"),
    ] {
        assert!(!connector.is_valid(&json(&CONNECTOR.replace(from, to))), "{to}");
    }
}

/// The loader reads the schema itself, and knows these keywords only.
#[test]
fn the_loader_knows_every_keyword_of_the_schemas() {
    const KNOWN: &[&str] = &[
        "$schema",
        "$ref",
        "$defs",
        "title",
        "description",
        "type",
        "properties",
        "required",
        "additionalProperties",
        "propertyNames",
        "items",
        "enum",
        "oneOf",
        "anyOf",
        "const",
        "default",
        "format",
        "minimum",
        "writeOnly",
    ];
    fn walk(schema: &Value, seen: &mut usize) {
        let Some(object) = schema.as_object() else { return };
        for (keyword, value) in object {
            assert!(KNOWN.contains(&keyword.as_str()), "`{keyword}` is not known to src/config/shape.rs");
            *seen += 1;
            match keyword.as_str() {
                "properties" | "$defs" => value.as_object().unwrap().values().for_each(|below| walk(below, seen)),
                "oneOf" | "anyOf" => value.as_array().unwrap().iter().for_each(|below| walk(below, seen)),
                "items" | "additionalProperties" | "propertyNames" => walk(value, seen),
                "minimum" => assert_eq!(value, 0, "another minimum than 0"),
                _ => {}
            }
        }
    }
    for (name, schema) in schemas() {
        let mut seen = 0;
        walk(&schema, &mut seen);
        assert!(seen > 50, "{name}: only {seen} keywords");
    }
}

/// Every property in our list is one that the library knows.
#[test]
fn kafka_properties_are_those_of_librdkafka() {
    let known = |property: &str| {
        let error = rdkafka::ClientConfig::new().set(property, "\u{1}no value of this kind").create_native_config().err();
        !error.is_some_and(|error| error.to_string().contains("No such configuration property"))
    };
    assert!(!known("no.such.property"), "the library does not say what it does not know");
    for property in config::KAFKA_PROPERTIES {
        assert!(known(property), "{property}");
    }
    assert!(config::KAFKA_PROPERTIES.len() > 150);
}

/// The commented example files load, hold every key of their schemas (as a line or behind `#`), and show the real defaults.
#[test]
fn the_example_files_are_complete_and_true() {
    let deploy = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    let texts = ["millrace.example.toml", "connector.example.toml"].map(|name| std::fs::read_to_string(deploy.join(name)).unwrap());
    let (_folder, loaded) = super::load(&texts[0], &[("orders.toml", &texts[1])]);
    loaded.unwrap();
    for ((name, schema), text) in schemas().iter().zip(&texts) {
        let example = json(text);
        jsonschema::validator_for(schema).unwrap().validate(&example).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut keys = 0;
        for (pointer, table) in tables_of(schema) {
            for (key, property) in table["properties"].as_object().unwrap() {
                keys += 1;
                assert!(regex::Regex::new(&format!(r#"(?m)(^|[\s{{\[#."]){key}"?( = |\])"#)).unwrap().is_match(text), "{name}: no {key}");
                let (shown, default) =
                    (example.pointer(&format!("{pointer}/{key}")), property.get("default").filter(|default| !default.is_null()));
                let chosen =
                    ["create", "cluster", "metadata", "metadata_names", "by_topic", "columns", "partition", "topics", "dead_letter_topic"];
                if let (Some(shown), Some(default)) = (shown, default)
                    && !shown.is_object()
                    && !chosen.contains(&key.as_str())
                {
                    let length = |v: &Value| v.as_str().and_then(|text| humantime::parse_duration(text).ok());
                    assert!(
                        shown == default || (length(shown).is_some() && length(shown) == length(default)),
                        "{name} {key}: {shown}, {default}"
                    );
                }
            }
        }
        assert!(keys > 20, "{name}: only {keys} keys");
    }
}

/// The root and the tables right below it, with their JSON pointers.
fn tables_of(schema: &Value) -> Vec<(String, &Value)> {
    let mut tables = vec![(String::new(), schema)];
    for (key, property) in schema["properties"].as_object().unwrap() {
        let references = [Some(property), property["anyOf"].get(0)];
        let target = references.into_iter().flatten().filter_map(|p| p["$ref"].as_str()).find_map(|r| schema.pointer(r.strip_prefix('#')?));
        if let Some(table) = target.filter(|target| target["properties"].is_object()) {
            tables.push((format!("/{key}"), table));
        }
    }
    tables
}
