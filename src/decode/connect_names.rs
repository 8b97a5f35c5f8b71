//! `connect.name` on primitive types: Kafka Connect's way to say what a number means. The Avro parser keeps attributes of records only.

use std::collections::BTreeMap;

use serde_json::Value;

/// `connect.name` of primitive field types, by record and field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnectNames {
    /// (record's full name, field) to (primitive type, name); the first of each primitive inside the field's type, records excluded.
    names: BTreeMap<(String, String), Vec<(String, String)>>,
}

/// A schema nested deeper than this is left unread: its parser refuses it anyway.
const MAX_DEPTH: usize = 64;

impl ConnectNames {
    /// Collects the names from schema texts (the root's and those of its references). A text that is no JSON adds nothing: its parser
    /// reports it.
    pub fn from_texts<'t>(texts: impl IntoIterator<Item = &'t str>) -> Self {
        let mut found = Self::default();
        for text in texts {
            // Most schemas have none: spare their parsing.
            if text.contains("connect.name")
                && let Ok(schema) = serde_json::from_str::<Value>(text)
            {
                found.walk(&schema, None, None, 0);
            }
        }
        found
    }

    /// The name of the primitive type (`int`, `long`, `string`, `bytes`, ...) within this field of this record.
    pub fn get(&self, record: &str, field: &str, primitive: &str) -> Option<&str> {
        let names = self.names.get(&(record.to_owned(), field.to_owned()))?;
        names.iter().find(|(p, _)| p == primitive).map(|(_, name)| name.as_str())
    }

    fn walk(&mut self, schema: &Value, namespace: Option<&str>, place: Option<(&str, &str)>, depth: usize) {
        if depth > MAX_DEPTH {
            return;
        }
        match schema {
            Value::Array(branches) => branches.iter().for_each(|b| self.walk(b, namespace, place, depth + 1)),
            Value::Object(object) => {
                let text = |key: &str| object.get(key).and_then(Value::as_str);
                match object.get("type") {
                    Some(Value::String(ty)) if ty == "record" || ty == "error" => {
                        let name = text("name").unwrap_or_default();
                        let (namespace, full) = match (name.rsplit_once('.'), text("namespace").or(namespace)) {
                            (Some((namespace, _)), _) => (Some(namespace), name.to_owned()),
                            (None, Some(namespace)) if !namespace.is_empty() => (Some(namespace), format!("{namespace}.{name}")),
                            (None, _) => (None, name.to_owned()),
                        };
                        for field in object.get("fields").and_then(Value::as_array).into_iter().flatten() {
                            if let (Some(name), Some(ty)) = (field.get("name").and_then(Value::as_str), field.get("type")) {
                                self.walk(ty, namespace, Some((&full, name)), depth + 1);
                            }
                        }
                    }
                    Some(Value::String(ty)) if ty == "array" => {
                        object.get("items").into_iter().for_each(|i| self.walk(i, namespace, place, depth + 1));
                    }
                    Some(Value::String(ty)) if ty == "map" => {
                        object.get("values").into_iter().for_each(|v| self.walk(v, namespace, place, depth + 1));
                    }
                    Some(Value::String(ty)) => {
                        if let (Some((record, field)), Some(name)) = (place, text("connect.name")) {
                            let names = self.names.entry((record.to_owned(), field.to_owned())).or_default();
                            names.push((ty.clone(), name.to_owned()));
                        }
                    }
                    Some(inner) => self.walk(inner, namespace, place, depth + 1),
                    None => {}
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_unions_arrays_and_nested_records() {
        let text = r#"{"type":"record","name":"Envelope","namespace":"shop","fields":[
            {"name":"after","type":["null",{"type":"record","name":"Value","fields":[
                {"name":"day","type":["null",{"type":"int","connect.version":1,"connect.name":"io.debezium.time.Date"}]},
                {"name":"plain","type":"int"},
                {"name":"times","type":{"type":"array","items":{"type":"long","connect.name":"io.debezium.time.MicroTime"}}}]}]}]}"#;
        let names = ConnectNames::from_texts([text, "no json: connect.name"]);
        assert_eq!(names.get("shop.Value", "day", "int"), Some("io.debezium.time.Date"));
        assert_eq!(names.get("shop.Value", "times", "long"), Some("io.debezium.time.MicroTime"));
        assert_eq!(names.get("shop.Value", "plain", "int"), None);
        assert_eq!(names.get("shop.Value", "day", "long"), None);
    }
}
