//! Schema text to parsed schema, with the named types that it takes from other schemas.
//!
//! apache-avro resolves names between the schemas of a list, but only names of whole schemas, not of types that are defined inside them,
//! and which of the two it finds depends on the order of a hash map. Java's parser, by which registry users go, knows every name. So every
//! type that another schema defines is first lifted to a schema of its own; only the ones that are needed are kept.

use std::collections::{BTreeMap, HashMap, HashSet};

use apache_avro::Schema;
use serde_json::Value;

use super::limits::{NAME_BYTES_MAX, check_parsed, check_text};
use crate::decode::{AvroSchema, ConnectNames};

/// Parses `text`, taking named types that it does not define from `library` (other schemas' texts, in any order).
///
/// # Errors
/// What is wrong with it, in words: a limit, JSON, Avro, a name that nobody defines or that two texts of the library define differently.
pub fn parse(id: String, text: &str, library: &[&str]) -> Result<AvroSchema, String> {
    check_text(text)?;
    let root: Value = serde_json::from_str(text).map_err(|e| format!("the schema is no JSON: {e}"))?;
    let mut own = Lifter { lift: false, ..Lifter::default() };
    let root = own.walk(root, None);
    own.check_names()?;
    let needed = if library.is_empty() { Vec::new() } else { needed(&own, library)? };
    let (root, references) = Schema::parse_str_with_list(&root.to_string(), &needed)
        .map_err(|e| format!("the schema is no valid Avro schema: {}", shown(&e)))?;
    let root = match root {
        Schema::Ref { name } => references
            .iter()
            .find(|schema| schema.name() == Some(&name))
            .cloned()
            .ok_or_else(|| format!("the schema names `{name}`, which nothing defines"))?,
        root => root,
    };
    check_parsed(&root, &references)?;
    let connect_names = ConnectNames::from_texts(needed.iter().map(String::as_str).chain([text]));
    Ok(AvroSchema { id, root, references, connect_names })
}

/// The parser's words may quote the whole schema.
fn shown(error: &apache_avro::Error) -> String {
    let text = error.to_string();
    match text.char_indices().nth(ERROR_CHARS_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// The most that is shown of the parser's words.
const ERROR_CHARS_MAX: usize = 500;

/// The name under which a text's outermost type can be found: namespace and name. `None` when it is no named type or no JSON.
pub fn full_name(text: &str) -> Option<String> {
    check_text(text).ok()?;
    let Value::Object(object) = serde_json::from_str(text).ok()? else { return None };
    is_named(&object).then(|| name_of(&object, None)).flatten()
}

/// The lifted texts of the library that `own` needs, directly or through others.
fn needed(own: &Lifter, library: &[&str]) -> Result<Vec<String>, String> {
    let mut known = Lifter { lift: true, ..Lifter::default() };
    for text in library {
        check_text(text)?;
        known.walk(serde_json::from_str(text).map_err(|e| format!("a schema that it refers to is no JSON: {e}"))?, None);
    }
    known.check_names()?;
    let mut wanted: Vec<&String> = own.uses.iter().collect();
    let mut taken = BTreeMap::new();
    while let Some(name) = wanted.pop() {
        if own.defined.contains(name) || taken.contains_key(name) {
            continue;
        }
        let Some(definition) = known.lifted.get(name) else { continue };
        if definition.conflict {
            return Err(format!("`{name}` is defined in two ways by the schemas that it refers to"));
        }
        wanted.extend(&definition.uses);
        taken.insert(name, definition.json.to_string());
    }
    Ok(taken.into_values().collect())
}

struct Definition {
    json: Value,
    uses: HashSet<String>,
    conflict: bool,
}

/// Walks a schema's JSON; collects the names that it defines and uses, and lifts definitions out of it.
#[derive(Default)]
struct Lifter {
    lift: bool,
    defined: HashSet<String>,
    uses: HashSet<String>,
    lifted: HashMap<String, Definition>,
    /// The beginning of a name beyond the limit.
    long_name: Option<String>,
}

impl Lifter {
    fn check_names(&self) -> Result<(), String> {
        match &self.long_name {
            Some(start) => Err(format!("the schema has a name of more than {NAME_BYTES_MAX} bytes, which begins with `{start}`")),
            None => Ok(()),
        }
    }

    /// Whether a name, its namespace included, is too long: then it is noted, and nothing is made of it.
    fn is_long(&mut self, name: &str, namespace: Option<&str>) -> bool {
        let long = name.len() + namespace.map_or(0, str::len) > NAME_BYTES_MAX;
        if long {
            self.long_name.get_or_insert_with(|| namespace.unwrap_or(name).chars().take(40).collect());
        }
        long
    }

    /// The same schema with its named types replaced by their names (when lifting). `namespace` is the enclosing one.
    fn walk(&mut self, value: Value, namespace: Option<&str>) -> Value {
        match value {
            Value::String(name) => {
                if !is_primitive(&name) && !self.is_long(&name, namespace) {
                    self.uses.insert(resolve(&name, namespace));
                }
                Value::String(name)
            }
            Value::Array(variants) => Value::Array(variants.into_iter().map(|variant| self.walk(variant, namespace)).collect()),
            Value::Object(mut object) => {
                if is_named(&object)
                    && let Some(name) = name_of(&object, namespace)
                {
                    return self.walk_named(object, name, namespace);
                }
                for part in ["type", "items", "values"] {
                    match object.get_mut(part) {
                        // "array" and "map" under "type" are no names; the rest is walked as what it is.
                        Some(Value::String(keyword)) if part == "type" && matches!(keyword.as_str(), "array" | "map") => {}
                        Some(inner) => *inner = self.walk(inner.take(), namespace),
                        None => {}
                    }
                }
                Value::Object(object)
            }
            other => other,
        }
    }

    fn walk_named(&mut self, mut object: serde_json::Map<String, Value>, name: String, enclosing: Option<&str>) -> Value {
        // apache-avro keeps a copy of the whole type for each alias: a schema of 1 MiB took all memory. Aliases only matter to readers that
        // translate from one schema to another, which we do not.
        object.remove("aliases");
        if self.is_long(&name, None) {
            return Value::Object(object);
        }
        self.defined.insert(name.clone());
        let namespace = name.rsplit_once('.').map(|(namespace, _)| namespace.to_owned());
        let outer_uses = if self.lift { std::mem::take(&mut self.uses) } else { HashSet::new() };
        if let Some(Value::Array(fields)) = object.get_mut("fields") {
            for field in fields {
                if field.get("name").and_then(Value::as_str).is_some_and(|name| self.is_long(name, None)) {
                    break;
                }
                if let Some(ty) = field.get_mut("type") {
                    *ty = self.walk(ty.take(), namespace.as_deref());
                }
            }
        }
        // A name without a namespace cannot be referred to from within one: such a type stays where it is.
        if !self.lift || (namespace.is_none() && enclosing.is_some()) {
            self.uses.extend(outer_uses);
            return Value::Object(object);
        }
        object.insert("name".to_owned(), Value::String(name.clone()));
        object.remove("namespace");
        let uses = std::mem::replace(&mut self.uses, outer_uses);
        let json = Value::Object(object);
        match self.lifted.get_mut(&name) {
            Some(earlier) => earlier.conflict |= earlier.json != json,
            None => {
                self.lifted.insert(name.clone(), Definition { json, uses, conflict: false });
            }
        }
        self.uses.insert(name.clone());
        Value::String(name)
    }
}

fn is_named(object: &serde_json::Map<String, Value>) -> bool {
    matches!(object.get("type").and_then(Value::as_str), Some("record" | "error" | "enum" | "fixed"))
}

/// The full name of a named type (Avro specification, "Names").
fn name_of(object: &serde_json::Map<String, Value>, enclosing: Option<&str>) -> Option<String> {
    let name = object.get("name")?.as_str()?;
    let namespace = object.get("namespace").and_then(Value::as_str).or(enclosing);
    Some(resolve(name, namespace))
}

fn resolve(name: &str, namespace: Option<&str>) -> String {
    match namespace {
        Some(namespace) if !namespace.is_empty() && !name.contains('.') => format!("{namespace}.{name}"),
        _ => name.to_owned(),
    }
}

fn is_primitive(name: &str) -> bool {
    matches!(name, "null" | "boolean" | "int" | "long" | "float" | "double" | "bytes" | "string")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn names(schema: &AvroSchema) -> Vec<String> {
        schema.references.iter().map(|s| s.name().unwrap().fullname(None)).collect()
    }

    const COLOUR: &str = r#"{"type":"record","name":"Paint","namespace":"a.b","fields":[
        {"name":"colour","type":{"type":"enum","name":"Colour","symbols":["RED"]}},
        {"name":"tin","type":["null",{"type":"array","items":{"type":"fixed","name":"Code","namespace":"x","size":4}}]}]}"#;

    #[test]
    fn a_type_inside_a_reference_is_found() {
        // Many times: apache-avro alone fails in some of the orders.
        for _ in 0..50 {
            let root = r#"{"type":"record","name":"Wall","namespace":"a.b","fields":[
                {"name":"p","type":"Paint"},{"name":"c","type":"a.b.Colour"},{"name":"k","type":"x.Code"}]}"#;
            let schema = parse("1".into(), root, &[COLOUR]).unwrap();
            assert_eq!(names(&schema), ["a.b.Colour", "a.b.Paint", "x.Code"]);
        }
    }

    #[test]
    fn connect_names_are_kept_also_those_of_references() {
        let date =
            r#"{"type":"record","name":"d.Day","fields":[{"name":"d","type":{"type":"int","connect.name":"io.debezium.time.Date"}}]}"#;
        let root =
            r#"{"type":"record","name":"W","fields":[{"name":"t","type":{"type":"long","connect.name":"T"}},{"name":"d","type":"d.Day"}]}"#;
        let schema = parse("1".into(), root, &[date]).unwrap();
        assert_eq!(schema.connect_names.get("W", "t", "long"), Some("T"));
        assert_eq!(schema.connect_names.get("d.Day", "d", "int"), Some("io.debezium.time.Date"));
    }

    #[test]
    fn only_what_is_needed_is_kept_and_own_definitions_win() {
        let root = r#"{"type":"record","name":"Wall","fields":[{"name":"c","type":"a.b.Colour"}]}"#;
        assert_eq!(names(&parse("1".into(), root, &[COLOUR]).unwrap()), ["a.b.Colour"]);
        let own = r#"{"type":"record","name":"W","fields":[{"name":"c","type":{"type":"enum","name":"a.b.Colour","symbols":["BLUE"]}}]}"#;
        assert_eq!(names(&parse("1".into(), own, &[COLOUR]).unwrap()), Vec::<String>::new());
    }

    #[test]
    fn a_root_that_is_only_a_name_is_what_it_names() {
        let schema = parse("1".into(), r#""a.b.Paint""#, &[COLOUR]).unwrap();
        assert!(matches!(&schema.root, Schema::Record(record) if record.name.fullname(None) == "a.b.Paint"));
        let union = parse("1".into(), r#"["a.b.Paint","x.Code"]"#, &[COLOUR]).unwrap();
        assert!(matches!(&union.root, Schema::Union(_)));
    }

    #[test]
    fn two_definitions_of_one_name_matter_when_it_is_used() {
        let other = r#"{"type":"enum","name":"Colour","namespace":"a.b","symbols":["GREEN"]}"#;
        let root = r#"{"type":"record","name":"W","fields":[{"name":"c","type":"a.b.Colour"}]}"#;
        assert!(parse("1".into(), root, &[COLOUR, other]).unwrap_err().contains("two ways"));
        assert!(parse("1".into(), r#""x.Code""#, &[COLOUR, other]).is_ok());
        assert!(parse("1".into(), root, &[COLOUR, COLOUR]).is_ok());
    }

    #[test]
    fn what_is_no_schema_is_said() {
        assert!(parse("1".into(), "{", &[]).unwrap_err().contains("no JSON"));
        assert!(parse("1".into(), r#"{"type":"recrod"}"#, &[]).unwrap_err().contains("no valid Avro"));
        assert!(parse("1".into(), r#"{"type":"record","name":"W","fields":[{"name":"c","type":"Nowhere"}]}"#, &[]).is_err());
        assert!(parse("1".into(), r#""Nowhere""#, &[COLOUR]).is_err());
        assert_eq!((full_name(COLOUR).as_deref(), full_name("[]"), full_name("{")), (Some("a.b.Paint"), None, None));
    }

    #[test]
    fn long_names_are_refused_before_anything_is_made_of_them() {
        let long = "n".repeat(NAME_BYTES_MAX + 1);
        let space = format!(r#"{{"type":"record","name":"R","namespace":"{long}","fields":[]}}"#);
        let field = format!(r#"{{"type":"record","name":"R","fields":[{{"name":"{long}","type":"int"}}]}}"#);
        let used = format!(r#"{{"type":"record","name":"R","fields":[{{"name":"a","type":"{long}"}}]}}"#);
        for text in [space, field, used] {
            let error = parse("1".into(), &text, &[]).map(|_| ()).unwrap_err();
            assert!(error.contains("more than 1024 bytes, which begins with `nnn") && error.len() < 200, "{error}");
            assert!(parse("1".into(), r#""R""#, &[&text]).is_err());
        }
        let quoted = parse("1".into(), &format!(r#"{{"type":"{}"}}"#, "x".repeat(100_000)), &[]).map(|_| ()).unwrap_err();
        assert!(quoted.len() < 700, "{}", quoted.len());
    }

    #[test]
    fn hostile_schemas_take_little_time() {
        let big = |head: &str, item: &dyn Fn(usize) -> String, tail: &str| {
            let mut text = head.to_owned();
            let mut n = 0;
            while text.len() < 1_000_000 {
                if n > 0 {
                    text.push(',');
                }
                text.push_str(&item(n));
                n += 1;
            }
            text + tail
        };
        let field = |n: usize| format!(r#"{{"name":"f{n}","type":"int"}}"#);
        let hostile = [
            big(r#"{"type":"record","name":"R","fields":["#, &field, "]}"),
            big(r#"{"type":"enum","name":"E","symbols":["#, &|n| format!("\"s{n}\""), "]}"),
            big("[", &|n| format!(r#"{{"type":"fixed","name":"f{n}","size":1}}"#), "]"),
            big("[", &|_| "\"int\"".to_owned(), "]"),
            big(r#"{"type":"record","name":"R","aliases":["#, &|n| format!("\"a{n}\""), r#"],"fields":[]}"#),
            big(
                r#"{"type":"record","name":"R","fields":["#,
                &|n| format!(r#"{{"name":"f{n}","type":{{"type":"record","name":"N{n}","fields":[]}}}}"#),
                "]}",
            ),
            format!("{}1{}", "[".repeat(500_000), "]".repeat(500_000)),
            format!(r#"{}{{"type":"int"}}{}"#, r#"{"type":"#.repeat(118), "}".repeat(118)),
        ];
        for text in hostile {
            let start = Instant::now();
            let outcome = parse("1".into(), &text, &[]).map(|_| ());
            assert!(start.elapsed() < Duration::from_secs(5), "{:?} for {}", start.elapsed(), &text[..60]);
            assert!(outcome.is_err() || text.starts_with(r#"{"type":"enum""#) || text.contains("aliases") || text.contains(r#"{"type":{"#));
        }
    }
}
