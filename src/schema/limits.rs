//! What a schema may cost: checked on its text before it is parsed, and on the parsed schema before a plan is made of it.

use std::collections::HashMap;

use apache_avro::Schema;

/// The longest schema text, bytes: 1 MiB, the default limit of a message in the registry's own topic (Kafka's `max.message.bytes`).
pub const TEXT_BYTES_MAX: usize = 1024 * 1024;

/// The deepest nesting of types. BigQuery takes STRUCTs 15 deep; each of these may be the item of an array, the value of a map and a
/// branch of a union in Avro.
pub const TYPE_DEPTH_MAX: usize = 64;

/// The deepest nesting of JSON, below the 128 at which serde_json gives up (and far below what a thread's stack takes).
const JSON_DEPTH_MAX: usize = 120;

/// The most fields after every named type was put where it is used: a table has at most 10,000 columns
/// (BigQuery quotas, "Maximum columns in a table").
const EXPANDED_FIELDS_MAX: u64 = 10_000;

/// The longest full name of a type, and the longest name of a field, bytes: every use of a type carries its full name.
pub const NAME_BYTES_MAX: usize = 1024;

/// The most bytes of enums' symbols after every enum was put where it is used: each place keeps its own, as they lie on the wire.
/// A text of [`TEXT_BYTES_MAX`] that is nothing but one enum stays below.
const SYMBOL_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What a symbol takes beside its text.
const SYMBOL_OVERHEAD_BYTES: u64 = 40;

/// Whether a text may be parsed: its size and the nesting of its brackets. Linear in its length, allocates nothing.
///
/// # Errors
/// Which limit it exceeds, in words.
pub fn check_text(text: &str) -> Result<(), String> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(format!("the schema has {} bytes; at most {TEXT_BYTES_MAX} are taken", text.len()));
    }
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > JSON_DEPTH_MAX {
                    return Err(format!("the schema's JSON is nested more than {JSON_DEPTH_MAX} deep"));
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

/// Whether a plan can be made of a parsed schema in bounded time and memory: its depth, and its fields and symbols after every named type
/// was put where it is used (forty small records that each use the next one twice would be a million million fields).
///
/// # Errors
/// Which limit it exceeds, in words.
pub fn check_parsed(root: &Schema, references: &[Schema]) -> Result<(), String> {
    let mut walk = Walk { named: HashMap::new(), measured: HashMap::new() };
    for schema in references.iter().chain(std::iter::once(root)) {
        walk.collect(schema);
    }
    let size = walk.measure(root, 0)?;
    if size.fields > EXPANDED_FIELDS_MAX {
        return Err(format!("the schema has more than {EXPANDED_FIELDS_MAX} fields when every named type is put where it is used"));
    }
    if size.symbol_bytes > SYMBOL_BYTES_MAX {
        return Err(format!(
            "the schema's enums have more than {SYMBOL_BYTES_MAX} bytes of symbols when every enum is put where it is used"
        ));
    }
    if size.depth > TYPE_DEPTH_MAX {
        return Err(too_deep());
    }
    Ok(())
}

fn too_deep() -> String {
    format!("the schema's types are nested more than {TYPE_DEPTH_MAX} deep")
}

#[derive(Clone, Copy, Default)]
struct Size {
    fields: u64,
    symbol_bytes: u64,
    depth: usize,
}

impl Size {
    /// A type that holds no others.
    fn of_leaf(schema: &Schema) -> Self {
        let symbols = if let Schema::Enum(found) = schema { found.symbols.as_slice() } else { &[] };
        Self { fields: 1, symbol_bytes: symbols.iter().map(|s| s.len() as u64 + SYMBOL_OVERHEAD_BYTES).sum(), depth: 1 }
    }
}

struct Walk<'s> {
    named: HashMap<String, &'s Schema>,
    /// `None` while the type is being measured: a use inside itself is recursion and counts as one field.
    measured: HashMap<String, Option<Size>>,
}

impl<'s> Walk<'s> {
    fn collect(&mut self, schema: &'s Schema) {
        match schema {
            Schema::Record(record) => {
                self.named.entry(record.name.fullname(None)).or_insert(schema);
                record.fields.iter().for_each(|field| self.collect(&field.schema));
            }
            Schema::Array(array) => self.collect(&array.items),
            Schema::Map(map) => self.collect(&map.types),
            Schema::Union(union) => union.variants().iter().for_each(|variant| self.collect(variant)),
            Schema::Enum(found) => {
                self.named.entry(found.name.fullname(None)).or_insert(schema);
            }
            _ => {}
        }
    }

    fn measure(&mut self, schema: &'s Schema, level: usize) -> Result<Size, String> {
        if level > TYPE_DEPTH_MAX {
            return Err(too_deep());
        }
        match schema {
            Schema::Record(record) => self.measure_named(record.name.fullname(None), schema, level),
            Schema::Ref { name } => match self.named.get(&name.fullname(None)).copied() {
                Some(target) => self.measure_named(name.fullname(None), target, level),
                None => Ok(Size::of_leaf(schema)),
            },
            Schema::Array(array) => self.within(std::iter::once(&*array.items), level),
            Schema::Map(map) => self.within(std::iter::once(&*map.types), level),
            Schema::Union(union) => self.within(union.variants().iter(), level),
            _ => Ok(Size::of_leaf(schema)),
        }
    }

    fn measure_named(&mut self, name: String, schema: &'s Schema, level: usize) -> Result<Size, String> {
        match self.measured.get(&name) {
            Some(Some(size)) => return Ok(*size),
            Some(None) => return Ok(Size::of_leaf(schema)),
            None => {}
        }
        self.measured.insert(name.clone(), None);
        let size = match schema {
            Schema::Record(record) => self.within(record.fields.iter().map(|field| &field.schema), level)?,
            _ => Size::of_leaf(schema),
        };
        self.measured.insert(name, Some(size));
        Ok(size)
    }

    fn within(&mut self, parts: impl Iterator<Item = &'s Schema>, level: usize) -> Result<Size, String> {
        let mut sum = Size { fields: 1, symbol_bytes: 0, depth: 0 };
        for part in parts {
            let size = self.measure(part, level + 1)?;
            sum.fields = sum.fields.saturating_add(size.fields);
            sum.symbol_bytes = sum.symbol_bytes.saturating_add(size.symbol_bytes);
            sum.depth = sum.depth.max(size.depth);
        }
        sum.depth += 1;
        Ok(sum)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn brackets_inside_strings_do_not_nest() {
        assert_eq!(check_text(&format!(r#"{{"doc":"{}\"[["}}"#, "[".repeat(500))), Ok(()));
        assert!(check_text(&"[".repeat(121)).unwrap_err().contains("120 deep"));
        assert!(check_text(&" ".repeat(TEXT_BYTES_MAX + 1)).unwrap_err().contains("1048577 bytes"));
    }

    #[test]
    fn arrays_in_arrays_end_at_64() {
        let nested = |n: usize| {
            let text = format!("{}\"int\"{}", r#"{"type":"array","items":"#.repeat(n), "}".repeat(n));
            check_parsed(&Schema::parse_str(&text).unwrap(), &[])
        };
        assert_eq!(nested(63), Ok(()));
        assert!(nested(64).unwrap_err().contains("64 deep"));
    }

    #[test]
    fn doubling_by_name_is_counted_not_walked() {
        let mut types = vec![r#"{"type":"record","name":"R0","fields":[{"name":"a","type":"int"}]}"#.to_owned()];
        for n in 1..40 {
            let (below, this) = (n - 1, n);
            types.push(format!(
                r#"{{"type":"record","name":"R{this}","fields":[{{"name":"a","type":"R{below}"}},{{"name":"b","type":"R{below}"}}]}}"#
            ));
        }
        let mut schemas = Schema::parse_list(&types).unwrap();
        let root = schemas.pop().unwrap();
        assert!(check_parsed(&root, &schemas).unwrap_err().contains("10000 fields"));
        assert_eq!(check_parsed(&schemas[8], &schemas[..8]), Ok(()));
    }

    #[test]
    fn an_enum_counts_where_it_is_used() {
        let symbols: Vec<String> = (0..10_000).map(|n| format!("\"S{n}\"")).collect();
        let uses = |n: usize| {
            let fields: Vec<String> = (1..n).map(|i| format!(r#"{{"name":"f{i}","type":"E"}}"#)).collect();
            let text = format!(
                r#"{{"type":"record","name":"R","fields":[{{"name":"e","type":{{"type":"enum","name":"E","symbols":[{}]}}}},{}]}}"#,
                symbols.join(","),
                fields.join(",")
            );
            check_parsed(&Schema::parse_str(&text).unwrap(), &[])
        };
        assert_eq!(uses(30), Ok(()));
        assert!(uses(50).unwrap_err().contains("16777216 bytes of symbols"));
    }

    #[test]
    fn recursion_is_no_depth() {
        let list = r#"{"type":"record","name":"L","fields":[{"name":"next","type":["null","L"]}]}"#;
        assert_eq!(check_parsed(&Schema::parse_str(list).unwrap(), &[]), Ok(()));
    }
}
