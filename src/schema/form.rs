//! How data of a named type is read, as text: what tells one definition from another.

use serde_json::{Map, Value};

use super::names::is_named;

/// What changes how a type's bytes are read, beside the type itself. `connect.name`: Debezium's times.
const ATTRIBUTES: [&str; 4] = ["logicalType", "precision", "scale", "connect.name"];

/// The form of a definition whose names are all full ones: equal for two that read the same bytes as the same values. What is said for
/// people or for readers that translate (`doc`, `order`, `default`, aliases) does not count. Types within it count by their names.
pub(super) fn form_of(definition: &Map<String, Value>) -> String {
    let mut out = String::new();
    for key in ["type", "size", "symbols", "logicalType", "precision", "scale"] {
        put_attribute(definition, key, &mut out);
    }
    for field in definition.get("fields").and_then(Value::as_array).into_iter().flatten() {
        out.push(';');
        put(field.get("name").unwrap_or(&Value::Null), &mut out);
        out.push(':');
        put(field.get("type").unwrap_or(&Value::Null), &mut out);
    }
    out
}

fn put_attribute(object: &Map<String, Value>, key: &str, out: &mut String) {
    if let Some(value) = object.get(key) {
        out.push_str(&format!("@{key}={value}"));
    }
}

fn put(schema: &Value, out: &mut String) {
    match schema {
        Value::String(name) => out.push_str(&format!("{:?}", name.strip_prefix('.').unwrap_or(name))),
        Value::Array(branches) => {
            out.push('[');
            for branch in branches {
                put(branch, out);
                out.push(',');
            }
            out.push(']');
        }
        Value::Object(object) if is_named(object) => put(object.get("name").unwrap_or(&Value::Null), out),
        Value::Object(object) => {
            for part in ["type", "items", "values"] {
                if let Some(inner) = object.get(part) {
                    put(inner, out);
                }
            }
            ATTRIBUTES.iter().for_each(|key| put_attribute(object, key, out));
        }
        other => out.push_str(&other.to_string()),
    }
}
