//! Holds a file against its JSON Schema: unknown keys, missing keys, wrong kinds of value, all at once.
//!
//! Knows the keywords that schemars writes for our types, and no others (a test holds every keyword of both schemas against that list).

use serde_json::{Map, Value};

use super::document::{Document, Item, Node, Step, show_path};
use super::errors::ConfigError;
use super::values::{parse_bytes, parse_duration};

/// What is left of a file after its mistakes were taken out: enough to look for impossible combinations in the rest.
pub(super) struct Shaped {
    /// The file's values as JSON. Wrong ones are left out, or replaced by a placeholder where the type needs one.
    pub value: Value,
    /// Where something was wrong: nothing may be concluded from what stands there.
    pub wrong: Vec<Vec<Step>>,
}

/// Holds the document against the schema.
pub(super) fn shape(document: &Document, schema: &Value, errors: &mut Vec<ConfigError>) -> Shaped {
    let mut walk = Walk { document, schema, errors, wrong: Vec::new(), path: Vec::new() };
    let value = walk.node(&document.root, schema).unwrap_or_else(|| placeholder(schema, schema));
    Shaped { value, wrong: walk.wrong }
}

struct Walk<'a> {
    document: &'a Document,
    schema: &'a Value,
    errors: &'a mut Vec<ConfigError>,
    wrong: Vec<Vec<Step>>,
    path: Vec<Step>,
}

fn resolve<'s>(root: &'s Value, schema: &'s Value) -> &'s Value {
    match schema.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix('#')) {
        Some(pointer) => root.pointer(pointer).map_or(schema, |target| resolve(root, target)),
        None => schema,
    }
}

/// The choices of an enumeration, if the schema is one.
fn choices(schema: &Value) -> Option<Vec<&str>> {
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        return Some(values.iter().filter_map(Value::as_str).collect());
    }
    let branches = schema.get("oneOf").and_then(Value::as_array)?;
    branches.iter().map(|branch| branch.get("const").and_then(Value::as_str)).collect()
}

/// The least value that the type takes, for a required key that is missing or wrong.
fn placeholder(root: &Value, schema: &Value) -> Value {
    let schema = resolve(root, schema);
    if let Some(first) = choices(schema).and_then(|c| c.first().map(|s| Value::from(*s))) {
        return first;
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("object") => {
            let mut object = Map::new();
            for key in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
                object.insert(key.to_owned(), placeholder(root, &schema["properties"][key]));
            }
            Value::Object(object)
        }
        Some("array") => Value::Array(Vec::new()),
        Some("integer" | "number") => Value::from(0),
        Some("boolean") => Value::from(false),
        _ => Value::from(""),
    }
}

impl Walk<'_> {
    /// The cleaned value; `None` when it is wrong, which is reported then.
    fn node(&mut self, node: &Node, schema: &Value) -> Option<Value> {
        let root = self.schema;
        let schema = resolve(root, schema);
        if let Item::Broken = node.item {
            return self.bad();
        }
        if let Some(known) = choices(schema) {
            return self.choice(node, &known);
        }
        if let Some(branches) = schema.get("anyOf").and_then(Value::as_array) {
            let branches: Vec<&Value> = branches.iter().map(|b| resolve(root, b)).filter(|b| b["type"] != "null").collect();
            return match branches.iter().find(|b| kind_fits(b, &node.item)).or(branches.first().filter(|_| branches.len() == 1)) {
                Some(branch) => self.node(node, branch),
                None => self.wrong_kind(node, "text, a whole number, true or false"),
            };
        }
        if !kind_fits(schema, &node.item) {
            return self.wrong_kind(node, expected(schema));
        }
        match &node.item {
            Item::Text(text) => self.text(node, text, schema),
            Item::Integer(number) => self.integer(node, *number, schema),
            Item::Bool(value) => Some(Value::from(*value)),
            Item::Array(nodes) => {
                let items = &schema["items"];
                let mut values = Vec::with_capacity(nodes.len());
                for (i, node) in nodes.iter().enumerate() {
                    self.path.push(Step::Index(i));
                    // A placeholder keeps the others' indices.
                    values.push(self.node(node, items).unwrap_or_else(|| placeholder(root, items)));
                    self.path.pop();
                }
                Some(Value::Array(values))
            }
            Item::Table(entries) => Some(self.table(node, entries, schema)),
            Item::Float(number) => match serde_json::Number::from_f64(*number) {
                Some(number) => Some(Value::Number(number)),
                None => self.wrong_kind(node, expected(schema)),
            },
            Item::Datetime | Item::Broken => self.bad(),
        }
    }

    fn table(&mut self, node: &Node, entries: &[(String, std::ops::Range<usize>, Node)], schema: &Value) -> Value {
        let root = self.schema;
        let mut object = Map::new();
        let empty = Map::new();
        let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&empty);
        let rest = schema.get("additionalProperties").filter(|rest| rest.is_object());
        let names = schema.get("propertyNames").map(|names| resolve(root, names)).and_then(choices);
        for (key, key_span, below) in entries {
            let property = properties.get(key).or(rest).filter(|_| names.as_ref().is_none_or(|names| names.contains(&key.as_str())));
            self.path.push(Step::Key(key.clone()));
            if let Some(property) = property {
                if let Some(value) = self.node(below, property) {
                    object.insert(key.clone(), value);
                }
            } else {
                let known: Vec<&str> = names.clone().unwrap_or_else(|| properties.keys().map(String::as_str).collect());
                let hint = self.hint(key, &known);
                let message = format!("unknown key{hint}");
                self.errors.push(self.document.error(key_span.clone(), show_path(&self.path), message));
                self.wrong.push(self.path.clone());
            }
            self.path.pop();
        }
        for key in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
            if object.contains_key(key) {
                continue;
            }
            self.path.push(Step::Key(key.to_owned()));
            // A key that is there but wrong, or misspelt, is reported already.
            if !self.wrong.iter().any(|wrong| wrong == &self.path) {
                let message = format!("missing: expected {}", self.describe(&properties[key]));
                self.errors.push(self.document.error(node.span.clone(), show_path(&self.path), message));
                self.wrong.push(self.path.clone());
            }
            self.path.pop();
            object.insert(key.to_owned(), placeholder(root, &properties[key]));
        }
        Value::Object(object)
    }

    /// What a misspelt or misplaced key may have meant. What was meant counts as given, so that it is not said to be missing too.
    fn hint(&mut self, key: &str, known: &[&str]) -> String {
        if let Some(near) = nearest(key, known) {
            let mut meant = self.path.clone();
            meant.pop();
            meant.push(Step::Key(near.to_owned()));
            self.wrong.push(meant);
            return format!("; did you mean `{near}`?");
        }
        let tables = self.schema.get("properties").and_then(Value::as_object);
        let elsewhere = tables.into_iter().flatten().find(|(table, schema)| {
            let inside = resolve(self.schema, schema).get("properties").and_then(|p| p.get(key)).is_some();
            inside && self.path.first() != Some(&Step::Key((*table).clone()))
        });
        if let Some((table, _)) = elsewhere {
            return format!("; it belongs to [{table}]");
        }
        if tables.is_some_and(|tables| tables.contains_key(key)) {
            self.wrong.push(vec![Step::Key(key.to_owned())]);
            return "; it belongs to the top of the file, before the first [table]".to_owned();
        }
        format!("; known here: {}", known.join(", "))
    }

    fn describe(&self, schema: &Value) -> String {
        let schema = resolve(self.schema, schema);
        match choices(schema) {
            Some(known) => one_of(&known),
            None => expected(schema).to_owned(),
        }
    }

    fn choice(&mut self, node: &Node, known: &[&str]) -> Option<Value> {
        let Item::Text(text) = &node.item else {
            return self.wrong_kind(node, &one_of(known));
        };
        if known.contains(&text.as_str()) {
            return Some(Value::from(text.as_str()));
        }
        let shown = if node.substituted { "the substituted value".to_owned() } else { format!("`{text}`") };
        let near = if node.substituted { None } else { nearest(text, known) };
        let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        self.report(node, format!("{shown} is not {}{hint}", one_of(known)))
    }

    fn text(&mut self, node: &Node, text: &str, schema: &Value) -> Option<Value> {
        let parsed = match schema.get("format").and_then(Value::as_str) {
            Some("human-duration") => parse_duration(text).map(|_| ()),
            Some("human-bytes") => parse_bytes(text).map(|_| ()),
            _ => Ok(()),
        };
        match parsed {
            Ok(()) => Some(Value::from(text)),
            Err(_) if node.substituted => self.report(node, format!("the substituted value is not {}", expected(schema))),
            Err(why) => self.report(node, format!("`{text}` is not {} ({why})", expected(schema))),
        }
    }

    fn integer(&mut self, node: &Node, number: i64, schema: &Value) -> Option<Value> {
        let format = schema.get("format").and_then(Value::as_str);
        let (min, max) = if format == Some("uint32") { (0, i64::from(u32::MAX)) } else { (i64::MIN, i64::MAX) };
        if (min..=max).contains(&number) {
            return Some(Value::from(number));
        }
        self.report(node, format!("{number} is out of range: expected {min} to {max}"))
    }

    fn wrong_kind(&mut self, node: &Node, expected: &str) -> Option<Value> {
        self.report(node, format!("expected {expected}, found {}", node.item.kind()))
    }

    fn report(&mut self, node: &Node, message: String) -> Option<Value> {
        self.errors.push(self.document.error(node.span.clone(), show_path(&self.path), message));
        self.bad()
    }

    fn bad(&mut self) -> Option<Value> {
        self.wrong.push(self.path.clone());
        None
    }
}

fn one_of(known: &[&str]) -> String {
    match known {
        [only] => format!("`{only}`"),
        _ => format!("one of {}", known.iter().map(|k| format!("`{k}`")).collect::<Vec<_>>().join(", ")),
    }
}

fn types(schema: &Value) -> Vec<&str> {
    match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn kind_fits(schema: &Value, item: &Item) -> bool {
    let wanted = match item {
        Item::Text(_) => "string",
        Item::Integer(_) => "integer",
        Item::Bool(_) => "boolean",
        Item::Array(_) => "array",
        Item::Table(_) => "object",
        Item::Float(_) => "number",
        Item::Datetime | Item::Broken => return false,
    };
    // Every whole number is a number.
    types(schema).contains(&wanted) || (wanted == "integer" && types(schema).contains(&"number"))
}

fn expected(schema: &Value) -> &'static str {
    match schema.get("format").and_then(Value::as_str) {
        Some("human-duration") => "a length of time such as \"200ms\", \"10s\", \"2m\"",
        Some("human-bytes") => "a number of bytes such as \"256 MiB\", \"1 MB\"",
        _ => match types(schema).first() {
            Some(&"string") => "text",
            Some(&"integer") => "a whole number",
            Some(&"number") => "a number such as 0.12",
            Some(&"boolean") => "true or false",
            Some(&"array") => "an array",
            _ => "a table",
        },
    }
}

/// The known name that differs least, when it differs little.
pub(super) fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let (distance, near) = known.iter().map(|k| (strsim::damerau_levenshtein(name, k), *k)).min()?;
    (distance <= (name.len() / 3).max(1) || strsim::jaro_winkler(name, near) > 0.9).then_some(near)
}
