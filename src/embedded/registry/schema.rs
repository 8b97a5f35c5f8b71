//! A schema's text, parsed together with what it refers to.

use apache_avro::Schema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::error::ApiError;

/// A named type that lives under another subject.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Reference {
    /// The full name of the type.
    pub name: String,
    /// The subject that defines it.
    pub subject: String,
    /// The version of that subject; -1 for the latest.
    pub version: i64,
}

/// A registered schema.
#[derive(Debug, Clone)]
pub(super) struct StoredSchema {
    /// As it was registered.
    pub(super) text: String,
    pub(super) references: Vec<Reference>,
    /// With all references put in, for compatibility checks.
    pub(super) whole: Schema,
    pub(super) guid: String,
}

/// Deeper nesting than this is refused before the parser sees it.
const MAX_DEPTH: usize = 64;
/// A longer text is refused (Confluent's store takes messages of 1 MB).
const MAX_TEXT_BYTES: usize = 1024 * 1024;

impl StoredSchema {
    /// Parses `text`; `referred` holds the texts of everything it refers to, transitively.
    pub(super) fn parse(text: &str, references: Vec<Reference>, referred: &[String]) -> Result<Self, ApiError> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(ApiError::invalid_schema(format!("{} bytes are more than {MAX_TEXT_BYTES}", text.len())));
        }
        let nested = text.bytes().scan(0usize, |depth, b| {
            match b {
                b'{' | b'[' => *depth += 1,
                b'}' | b']' => *depth = depth.saturating_sub(1),
                _ => {}
            }
            Some(*depth)
        });
        if nested.max().unwrap_or(0) > MAX_DEPTH {
            return Err(ApiError::invalid_schema(format!("nested more than {MAX_DEPTH} deep")));
        }
        let (root, others) = Schema::parse_str_with_list(text, referred).map_err(ApiError::invalid_schema)?;
        let mut whole = root;
        whole.denormalize(&others).map_err(ApiError::invalid_schema)?;
        let guid = guid(&same_text(text), &references);
        Ok(Self { text: text.to_owned(), references, whole, guid })
    }

    /// Equal schemas share an id: the same JSON, whatever its white space, with the same references.
    pub(super) fn identity(&self) -> (String, Vec<Reference>) {
        (same_text(&self.text), self.references.clone())
    }
}

/// The text without insignificant white space.
fn same_text(text: &str) -> String {
    serde_json::from_str::<serde_json::Value>(text).map_or_else(|_| text.to_owned(), |v| v.to_string())
}

fn guid(text: &str, references: &[Reference]) -> String {
    let mut hash = Sha256::new();
    hash.update(text);
    for reference in references {
        hash.update(format!("\0{}\0{}\0{}", reference.name, reference.subject, reference.version));
    }
    let digest = hash.finalize();
    let mut bytes = [0u8; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
}
