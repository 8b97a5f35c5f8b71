//! What a named type is called, wherever it stands (Avro specification, "Names"), as Java's parser reads it: registries take what that
//! parser takes.

use std::borrow::Cow;

use serde_json::{Map, Value};

/// Whether a schema's JSON object defines a named type. An `error` is a record (of Avro's protocols).
pub(super) fn is_named(object: &Map<String, Value>) -> bool {
    matches!(object.get("type").and_then(Value::as_str), Some("record" | "error" | "enum" | "fixed"))
}

/// Whether this names a type of Avro's own.
pub(super) fn is_primitive(name: &str) -> bool {
    matches!(name, "null" | "boolean" | "int" | "long" | "float" | "double" | "bytes" | "string")
}

/// The name that a definition gives its type: namespace and name as they are written.
pub(super) fn written_name(object: &Map<String, Value>, enclosing: Option<&str>) -> Option<String> {
    let name = object.get("name")?.as_str()?;
    let (namespace, name) = parts(name, object.get("namespace").and_then(Value::as_str).or(enclosing));
    Some(joined(namespace, name))
}

/// The full name of a definition's type.
pub(super) fn name_of(object: &Map<String, Value>, enclosing: Option<&str>) -> Option<String> {
    let name = object.get("name")?.as_str()?;
    Some(full(name, object.get("namespace").and_then(Value::as_str).or(enclosing)))
}

/// The full name that `name` is within a namespace. Namespaces are made of letters, digits and underscores: nobody but apache-avro
/// checks them, so that registries hold ones such as `my-connector.inventory`.
pub(super) fn full(name: &str, namespace: Option<&str>) -> String {
    let (namespace, name) = parts(name, namespace);
    joined(namespace.map(plain).as_deref(), name)
}

/// A full name as it can be written within any namespace.
pub(super) fn absolute(full: &str) -> String {
    if full.contains('.') { full.to_owned() } else { format!(".{full}") }
}

fn parts<'n>(name: &'n str, enclosing: Option<&'n str>) -> (Option<&'n str>, &'n str) {
    let (namespace, name) = match name.rsplit_once('.') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (enclosing, name),
    };
    (namespace.filter(|namespace| !namespace.is_empty()), name)
}

fn joined(namespace: Option<&str>, name: &str) -> String {
    namespace.map_or_else(|| name.to_owned(), |namespace| format!("{namespace}.{name}"))
}

/// A namespace that apache-avro takes.
fn plain(namespace: &str) -> Cow<'_, str> {
    let starts = |part: &str| part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if namespace.split('.').all(|part| starts(part) && part.chars().all(fits)) {
        return Cow::Borrowed(namespace);
    }
    let mended = namespace.split('.').map(|part| {
        let before = if starts(part) { "" } else { "_" };
        before.chars().chain(part.chars().map(|c| if fits(c) { c } else { '_' })).collect::<String>()
    });
    Cow::Owned(mended.collect::<Vec<_>>().join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_resolved_as_java_does() {
        let cases = [
            ("R", None, "R"),
            ("R", Some(""), "R"),
            ("R", Some("a.b"), "a.b.R"),
            ("x.R", Some("a.b"), "x.R"),
            (".R", Some("a.b"), "R"),
            ("R", Some("my-connector.inventory"), "my_connector.inventory.R"),
            ("2024.a-b.R", None, "_2024.a_b.R"),
        ];
        for (name, namespace, expected) in cases {
            assert_eq!(full(name, namespace), expected);
        }
        assert_eq!((absolute("R").as_str(), absolute("a.R").as_str()), (".R", "a.R"));
    }
}
