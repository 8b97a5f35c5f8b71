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
