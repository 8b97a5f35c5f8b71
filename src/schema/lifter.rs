//! A walk over a schema's JSON: collects the types that it defines and the names that it uses, writes every name out in full, and, for a
//! text that others take types from, lifts each definition to a schema of its own.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use serde_json::{Map, Value};

use super::form::form_of;
use super::limits::NAME_BYTES_MAX;
use super::names::{absolute, full, is_named, is_primitive, name_of};

/// A definition of a named type, the first of its name.
pub(super) struct Definition {
    /// The schema, with the names of the types that were defined within it; null when it was left where it stands.
    pub json: Value,
    /// The names that it uses, when it was lifted.
    pub uses: HashSet<String>,
    /// How its data is read.
    pub form: String,
    /// Where it is, in words.
    pub place: Rc<str>,
    /// Where the same name is defined in another way.
    pub clash: Option<Rc<str>>,
}

/// What a walk finds. `others` are the names that other texts define: a name without a namespace means the type of its own namespace,
/// or else one without any (as Java's parser has it, and as its schemas are written).
pub(super) struct Lifter<'l> {
    lift: bool,
    others: &'l HashSet<String>,
    /// Definitions that are left out: another text has the same.
    left_out: HashSet<String>,
    begun: HashSet<String>,
    /// Every definition by its type's full name.
    pub definitions: HashMap<String, Definition>,
    /// Full names that are used outside of lifted definitions.
    pub uses: HashSet<String>,
    repeats: Vec<Repeat>,
    /// Where the walk is, in words.
    place: Rc<str>,
    /// What is said of the text's places.
    text_place: String,
    /// The beginning of a name beyond the limit.
    long_name: Option<String>,
}

struct Repeat {
    name: String,
    form: String,
    place: Rc<str>,
}

impl<'l> Lifter<'l> {
    /// For a text whose types stay where they are.
    pub fn staying(others: &'l HashSet<String>, left_out: HashSet<String>) -> Self {
        Self {
            lift: false,
            others,
            left_out,
            begun: HashSet::new(),
            definitions: HashMap::new(),
            uses: HashSet::new(),
            repeats: Vec::new(),
            place: Rc::from("the schema's outermost type"),
            text_place: String::new(),
            long_name: None,
        }
    }

    /// For texts that others take types from; [`Self::enter`] says which one follows.
    pub fn lifting(others: &'l HashSet<String>) -> Self {
        Self { lift: true, ..Self::staying(others, HashSet::new()) }
    }

    /// The text that is walked next is that of `place`.
    pub fn enter(&mut self, place: &str) {
        self.place = Rc::from(place);
        self.text_place = format!(" in {place}");
    }

    /// To be called after the last walk: notes which names are defined in two ways.
    ///
    /// # Errors
    /// A name is too long.
    pub fn finish(&mut self) -> Result<(), String> {
        if let Some(start) = &self.long_name {
            return Err(format!("the schema has a name of more than {NAME_BYTES_MAX} bytes, which begins with `{start}`"));
        }
        for repeat in self.repeats.drain(..) {
            if let Some(first) = self.definitions.get_mut(&repeat.name)
                && first.form != repeat.form
            {
                first.clash.get_or_insert(repeat.place);
            }
        }
        Ok(())
    }

    /// The same schema with full names; a type that was defined before, and every one when lifting, is replaced by its name. `namespace`
    /// is the enclosing one.
    pub fn walk(&mut self, value: Value, namespace: Option<&str>) -> Value {
        match value {
            Value::String(name) => {
                if is_primitive(&name) || self.is_long(&name, namespace) {
                    return Value::String(name);
                }
                let (found, known) = self.meant(&name, namespace);
                let written = if known { absolute(&found) } else { name };
                self.uses.insert(found);
                Value::String(written)
            }
            Value::Array(variants) => Value::Array(variants.into_iter().map(|variant| self.walk(variant, namespace)).collect()),
            Value::Object(mut object) => {
                if is_named(&object)
                    && let Some(name) = name_of(&object, namespace)
                {
                    return self.walk_named(object, name);
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

    /// The full name that a name means here, and whether something defines it.
    fn meant(&self, name: &str, namespace: Option<&str>) -> (String, bool) {
        let known = |name: &str| self.begun.contains(name) || self.others.contains(name);
        let near = full(name, namespace);
        if known(&near) {
            return (near, true);
        }
        let far = full(name, None);
        if known(&far) { (far, true) } else { (near, false) }
    }

    /// Whether a name, its namespace included, is too long: then it is noted, and nothing is made of it.
    fn is_long(&mut self, name: &str, namespace: Option<&str>) -> bool {
        let long = name.len() + namespace.map_or(0, str::len) > NAME_BYTES_MAX;
        if long {
            self.long_name.get_or_insert_with(|| namespace.unwrap_or(name).chars().take(40).collect());
        }
        long
    }

    fn walk_named(&mut self, mut object: Map<String, Value>, name: String) -> Value {
        // apache-avro keeps a copy of the whole type for each alias: a schema of 1 MiB took all memory. Aliases and defaults only matter to
        // readers that translate from one schema to another, which we do not; and apache-avro takes fewer defaults than Java does.
        object.remove("aliases");
        object.remove("default");
        if self.is_long(&name, None) {
            return Value::Object(object);
        }
        let by_name = Value::String(absolute(&name));
        if self.left_out.contains(&name) {
            self.uses.insert(name);
            return by_name;
        }
        let first = self.begun.insert(name.clone());
        let place = Rc::clone(&self.place);
        let outer_uses = std::mem::take(&mut self.uses);
        self.walk_fields(&mut object, &name);
        self.place = Rc::clone(&place);
        if object.get("type").is_some_and(|ty| ty == "error") {
            object.insert("type".to_owned(), "record".into());
        }
        object.insert("name".to_owned(), name.clone().into());
        match name.contains('.') {
            true => object.remove("namespace"),
            false => object.insert("namespace".to_owned(), "".into()),
        };
        let uses = std::mem::replace(&mut self.uses, outer_uses);
        let form = form_of(&object);
        if !first {
            self.uses.insert(name.clone());
            self.repeats.push(Repeat { name, form, place });
            return by_name;
        }
        if self.lift {
            self.uses.insert(name.clone());
            self.definitions.insert(name, Definition { json: Value::Object(object), uses, form, place, clash: None });
            return by_name;
        }
        self.uses.extend(uses);
        self.definitions.insert(name, Definition { json: Value::Null, uses: HashSet::new(), form, place, clash: None });
        Value::Object(object)
    }

    fn walk_fields(&mut self, object: &mut Map<String, Value>, record: &str) {
        let namespace = record.rsplit_once('.').map(|(namespace, _)| namespace);
        for field in object.get_mut("fields").and_then(Value::as_array_mut).into_iter().flatten() {
            let Value::Object(field) = field else { continue };
            field.remove("default");
            let name = field.get("name").and_then(Value::as_str).unwrap_or_default();
            if self.is_long(name, None) {
                break;
            }
            self.place = Rc::from(format!("field `{name}` of `{record}`{}", self.text_place));
            if let Some(ty) = field.get_mut("type") {
                *ty = self.walk(ty.take(), namespace);
            }
        }
    }
}

/// The full names of all types that are defined in a schema.
pub(super) fn defined_names(schema: &Value, namespace: Option<&str>, found: &mut HashSet<String>) {
    match schema {
        Value::Array(variants) => variants.iter().for_each(|variant| defined_names(variant, namespace, found)),
        Value::Object(object) => match name_of(object, namespace).filter(|_| is_named(object)) {
            Some(name) if name.len() > NAME_BYTES_MAX => {}
            Some(name) => {
                let inner = name.rsplit_once('.').map(|(namespace, _)| namespace);
                let fields = object.get("fields").and_then(Value::as_array).into_iter().flatten();
                fields.filter_map(|field| field.get("type")).for_each(|ty| defined_names(ty, inner, found));
                found.insert(name);
            }
            None => {
                ["type", "items", "values"].iter().filter_map(|part| object.get(*part)).for_each(|s| defined_names(s, namespace, found));
            }
        },
        _ => {}
    }
}
