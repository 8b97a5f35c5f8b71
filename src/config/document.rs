//! A TOML file as a tree that remembers where everything stood; `${env:NAME}` and `${file:PATH}` are put in here.

use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::errors::ConfigError;

/// One step from a table or an array to what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// A key of a table.
    Key(String),
    /// An element of an array.
    Index(usize),
}

/// A value and where it stood. No `Debug`: it may hold secrets.
pub(super) struct Node {
    /// Bytes of the source.
    pub span: Range<usize>,
    /// It came from `${env:}` or `${file:}`, at least in part: it is never shown.
    pub substituted: bool,
    /// The value.
    pub item: Item,
}

/// What a node holds.
pub(super) enum Item {
    /// Text, after substitution.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A number with a fraction.
    Float(f64),
    /// `true` or `false`.
    Bool(bool),
    /// A date or time.
    Datetime,
    /// An array.
    Array(Vec<Node>),
    /// A table: keys with their own places, in alphabetical order.
    Table(Vec<(String, Range<usize>, Node)>),
    /// Something whose mistake is reported already.
    Broken,
}

impl Item {
    /// The kind in words, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Integer(_) => "a whole number",
            Self::Float(_) => "a number with a fraction",
            Self::Bool(_) => "true or false",
            Self::Datetime => "a date or time",
            Self::Array(_) => "an array",
            Self::Table(_) => "a table",
            Self::Broken => "nothing",
        }
    }
}

/// A file that was read.
pub(super) struct Document {
    /// Where it lies.
    pub file: PathBuf,
    source: String,
    /// The whole file.
    pub root: Node,
    /// Lines with mistakes of syntax: what was made of the rest is a guess.
    pub broken_lines: Vec<usize>,
    /// Something was not closed, so that everything behind the first broken line may mean something else.
    pub unclosed: bool,
}

impl Document {
    /// Reads and parses a file; mistakes of syntax and of substitution go to `errors`. `None` when nothing of it can be used.
    pub(super) fn read(file: &Path, errors: &mut Vec<ConfigError>) -> Option<Self> {
        match std::fs::read_to_string(file) {
            Ok(source) => Some(Self::parse(file, source, errors)),
            Err(error) => {
                errors.push(ConfigError::whole(file, format!("cannot be read: {error}")));
                None
            }
        }
    }

    /// Parses a file's text. What could not be parsed is left out, and `errors` says so.
    pub(super) fn parse(file: &Path, source: String, errors: &mut Vec<ConfigError>) -> Self {
        let root = Node { span: 0..0, substituted: false, item: Item::Broken };
        let mut document = Self { file: file.to_owned(), source: source.clone(), root, broken_lines: Vec::new(), unclosed: false };
        let (table, syntax) = DeTable::parse_recoverable(&source);
        document.unclosed = syntax.iter().any(|error| error.message().starts_with("unclosed"));
        for error in syntax {
            // Only the parser's own words: its Display would quote the line, which may hold a password.
            let message = format!("not valid TOML: {}", error.message());
            let error = document.error(error.span().unwrap_or(0..0), String::new(), message);
            // One a line; what follows something that is not closed follows from it.
            let first = document.broken_lines.is_empty();
            if (first || !document.unclosed) && !document.broken_lines.contains(&error.line) {
                document.broken_lines.push(error.line);
                errors.push(error);
            }
        }
        let mut path = Vec::new();
        let span = table.span();
        let item = document.table(table.into_inner(), &mut path, errors);
        document.root = Node { span, substituted: false, item };
        document
    }

    fn table(&self, table: DeTable<'_>, path: &mut Vec<Step>, errors: &mut Vec<ConfigError>) -> Item {
        let mut entries = Vec::with_capacity(table.len());
        for (key, value) in table {
            let key_span = key.span();
            let name = key.into_inner().into_owned();
            path.push(Step::Key(name.clone()));
            let node = self.node(value, path, errors);
            path.pop();
            entries.push((name, key_span, node));
        }
        Item::Table(entries)
    }

    fn node(&self, value: Spanned<DeValue<'_>>, path: &mut Vec<Step>, errors: &mut Vec<ConfigError>) -> Node {
        let span = value.span();
        let mut substituted = false;
        let item = match value.into_inner() {
            DeValue::String(text) if text.contains("${") => match substitute(&text, self.file.parent().unwrap_or(Path::new("."))) {
                Ok(substitution) => {
                    substituted = substitution.happened;
                    Item::Text(substitution.text)
                }
                Err(message) => {
                    errors.push(self.error(span.clone(), show_path(path), message));
                    Item::Broken
                }
            },
            DeValue::String(text) => Item::Text(text.into_owned()),
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => Item::Integer(number),
                Err(_) => {
                    errors.push(self.error(span.clone(), show_path(path), "does not fit 64 bits".to_owned()));
                    Item::Broken
                }
            },
            // What Rust cannot read of TOML's (`inf` it can, hexadecimal there is none of) is no number to anybody here.
            DeValue::Float(value) => Item::Float(value.as_str().replace('_', "").parse().unwrap_or(f64::NAN)),
            DeValue::Boolean(value) => Item::Bool(value),
            DeValue::Datetime(_) => Item::Datetime,
            DeValue::Array(values) => {
                let mut nodes = Vec::with_capacity(values.len());
                for (i, value) in values.into_iter().enumerate() {
                    path.push(Step::Index(i));
                    nodes.push(self.node(value, path, errors));
                    path.pop();
                }
                Item::Array(nodes)
            }
            DeValue::Table(table) => self.table(table, path, errors),
        };
        Node { span, substituted, item }
    }

    /// A mistake at these bytes.
    pub(super) fn error(&self, span: Range<usize>, key: String, message: String) -> ConfigError {
        let before = self.source.get(..span.start).unwrap_or(&self.source);
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        ConfigError {
            file: self.file.clone(),
            line: before.bytes().filter(|b| *b == b'\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            key,
            message,
        }
    }

    /// The node at this path, or the nearest one above it that is there.
    pub(super) fn nearest(&self, path: &[Step]) -> &Node {
        let mut node = &self.root;
        for step in path {
            let below = match (step, &node.item) {
                (Step::Key(key), Item::Table(entries)) => entries.iter().find(|(name, _, _)| name == key).map(|(_, _, node)| node),
                (Step::Index(i), Item::Array(nodes)) => nodes.get(*i),
                _ => None,
            };
            match below {
                Some(below) => node = below,
                None => break,
            }
        }
        node
    }
}

/// A path as people write it: `table.columns."a.b".unit`, `topics[2]`.
pub(super) fn show_path(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Index(i) => text.push_str(&format!("[{i}]")),
            Step::Key(key) => {
                if !text.is_empty() {
                    text.push('.');
                }
                if key.contains('.') || key.is_empty() {
                    text.push_str(&format!("\"{key}\""));
                } else {
                    text.push_str(key);
                }
            }
        }
    }
    text
}

struct Substitution {
    text: String,
    happened: bool,
}

/// Puts environment variables and files in. What they hold is taken as it is: `${` inside it means nothing.
fn substitute(text: &str, folder: &Path) -> Result<Substitution, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut happened = false;
    while let Some(start) = rest.find("${") {
        out.push_str(&rest[..start]);
        let inner = &rest[start + 2..];
        let end = inner.find('}').ok_or_else(|| "`${` without `}`".to_owned())?;
        let name = &inner[..end];
        if let Some(variable) = name.strip_prefix("env:") {
            let value = std::env::var(variable).map_err(|error| match error {
                std::env::VarError::NotPresent => format!("the environment variable `{variable}` is not set"),
                std::env::VarError::NotUnicode(_) => format!("the environment variable `{variable}` is not valid UTF-8"),
            })?;
            out.push_str(&value);
            happened = true;
        } else if let Some(path) = name.strip_prefix("file:") {
            let path = folder.join(path);
            let value = std::fs::read_to_string(&path).map_err(|error| format!("the file {} cannot be read: {error}", path.display()))?;
            let value = value.strip_suffix('\n').unwrap_or(&value);
            out.push_str(value.strip_suffix('\r').unwrap_or(value));
            happened = true;
        } else if name.contains(':') {
            return Err(format!("`${{{name}}}` is not known: expected `${{env:NAME}}` or `${{file:PATH}}`"));
        } else {
            out.push_str(&rest[start..start + 2 + end + 1]);
        }
        rest = &inner[end + 1..];
    }
    out.push_str(rest);
    Ok(Substitution { text: out, happened })
}
