//! Schema text to parsed schema, with the named types that it takes from other schemas.
//!
//! apache-avro resolves names between the schemas of a list, but only names of whole schemas, not of types that are defined inside them,
//! and which of the two it finds depends on the order of a hash map; of a name that is defined twice it takes either. Java's parser, by
//! which registry users go, knows every name and refuses a second definition. So every type that another schema defines is first lifted
//! to a schema of its own (`lifter`), and only the ones that are needed are kept.
//!
//! One name, one way to read its data: definitions that say the same are taken (people copy types from file to file, and newer
//! versions of Java's parser take equal ones), others are refused, wherever a name that is needed could mean either.

use std::collections::{BTreeMap, HashSet};

use apache_avro::Schema;
use serde_json::Value;

use super::lifter::{Definition, Lifter, defined_names};
use super::limits::{check_parsed, check_text};
use super::names::{is_named, written_name};
use crate::decode::{AvroSchema, ConnectNames};

/// A schema's text that others take types from.
#[derive(Debug, Clone, Copy)]
pub struct SchemaText<'t> {
    /// What it is called in messages: "subject `x` version 1", "the file `x.avsc`".
    pub place: &'t str,
    /// The text.
    pub text: &'t str,
}

/// Parses `text`, taking named types that it does not define from `library` (other schemas' texts, in any order).
///
/// # Errors
/// What is wrong with it, in words: a limit, JSON, Avro, a name that nobody defines; a name that the text defines in two ways, or that
/// something which it takes from the library could mean in two ways.
pub fn parse(id: String, text: &str, library: &[SchemaText<'_>]) -> Result<AvroSchema, String> {
    check_text(text)?;
    let json = || serde_json::from_str::<Value>(text).map_err(|e| format!("the schema is no JSON: {e}"));
    let mut root = json()?;
    let texts = library.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let mut names = HashSet::new();
    texts.iter().for_each(|(_, text)| defined_names(text, None, &mut names));
    let mut known = Lifter::lifting(&names);
    for (place, text) in texts {
        known.enter(place);
        known.walk(text, None);
    }
    known.finish()?;
    let mut own = Lifter::staying(&names, HashSet::new());
    root = own.walk(root, None);
    own.finish()?;
    let clashes = own.definitions.iter().filter_map(|(name, definition)| Some((name, definition, definition.clash.as_ref()?)));
    if let Some((name, definition, other)) = clashes.min_by_key(|(name, ..)| *name) {
        return Err(two_ways(name, definition, other));
    }
    let needed = needed(&own, &known)?;
    let both: HashSet<String> = needed.keys().filter(|name| own.definitions.contains_key(**name)).map(|name| (*name).clone()).collect();
    if !both.is_empty() {
        root = Lifter::staying(&names, both).walk(json()?, None);
    }
    let (needed, root): (Vec<String>, String) = (needed.into_values().collect(), root.to_string());
    let (schema, references) =
        Schema::parse_str_with_list(&root, &needed).map_err(|e| format!("the schema is no valid Avro schema: {}", shown(&e)))?;
    let schema = match schema {
        Schema::Ref { name } => references
            .iter()
            .find(|schema| schema.name() == Some(&name))
            .cloned()
            .ok_or_else(|| format!("the schema names `{name}`, which nothing defines"))?,
        schema => schema,
    };
    check_parsed(&schema, &references)?;
    let connect_names = ConnectNames::from_texts(needed.iter().map(String::as_str).chain([root.as_str()]));
    Ok(AvroSchema { id, root: schema, references, connect_names })
}

fn read<'t>(text: &SchemaText<'t>) -> Result<(&'t str, Value), String> {
    let outcome = check_text(text.text).and_then(|()| serde_json::from_str(text.text).map_err(|e| format!("the schema is no JSON: {e}")));
    outcome.map(|value| (text.place, value)).map_err(|why| format!("{}, which it refers to: {why}", text.place))
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
    is_named(&object).then(|| written_name(&object, None)).flatten()
}

/// The lifted texts of the library that `own` needs, directly or through others, by name. A text's own definitions go before the
/// library's in itself; where something of the library uses such a name too, both must say the same, and the library's is needed.
fn needed<'k>(own: &Lifter<'_>, known: &'k Lifter<'_>) -> Result<BTreeMap<&'k String, String>, String> {
    let mut taken = BTreeMap::new();
    let mut wanted: Vec<&String> = own.uses.iter().filter(|name| !own.definitions.contains_key(*name)).collect();
    while let Some(name) = wanted.pop() {
        let Some((name, definition)) = known.definitions.get_key_value(name).filter(|(name, _)| !taken.contains_key(name)) else {
            continue;
        };
        if let Some(here) = own.definitions.get(name).filter(|here| here.form != definition.form) {
            return Err(two_ways(name, here, &definition.place));
        }
        if let Some(other) = &definition.clash {
            return Err(two_ways(name, definition, other));
        }
        wanted.extend(&definition.uses);
        taken.insert(name, definition.json.to_string());
    }
    Ok(taken)
}

fn two_ways(name: &str, one: &Definition, other: &str) -> String {
    format!(
        "`{name}` is defined in two ways, at {} and at {other}: which one the data was written with cannot be told; give one of them another name",
        one.place
    )
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
