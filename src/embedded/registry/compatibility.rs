//! Compatibility levels, and the check that each asks for.

use apache_avro::Schema;
use apache_avro::schema_compatibility::{Compatibility, SchemaCompatibility};
use serde::{Deserialize, Serialize};

/// What a new version of a subject must be able to read, or be read by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs, reason = "Confluent's names")]
pub enum Level {
    None,
    #[default]
    Backward,
    BackwardTransitive,
    Forward,
    ForwardTransitive,
    Full,
    FullTransitive,
}

impl Level {
    /// By Confluent's name, in either case.
    pub(super) fn parse(name: &str) -> Option<Self> {
        serde_json::from_value(serde_json::Value::String(name.to_ascii_uppercase())).ok()
    }

    const fn transitive(self) -> bool {
        matches!(self, Self::BackwardTransitive | Self::ForwardTransitive | Self::FullTransitive)
    }
    const fn backward(self) -> bool {
        matches!(self, Self::Backward | Self::BackwardTransitive | Self::Full | Self::FullTransitive)
    }
    const fn forward(self) -> bool {
        matches!(self, Self::Forward | Self::ForwardTransitive | Self::Full | Self::FullTransitive)
    }
}

/// Why `new` may not follow `earlier` (oldest first); empty when it may.
pub(super) fn complaints(level: Level, new: &Schema, earlier: &[&Schema]) -> Vec<String> {
    let from = if level.transitive() { 0 } else { earlier.len().saturating_sub(1) };
    let mut complaints = Vec::new();
    for old in &earlier[from..] {
        if level.backward() {
            complaints.extend(unreadable(old, new, "the new schema cannot read data written with an earlier one"));
        }
        if level.forward() {
            complaints.extend(unreadable(new, old, "an earlier schema cannot read data written with the new one"));
        }
    }
    complaints
}

/// The reason why some data of the writer cannot be read. "Some" counts: Confluent's check refuses what fails for some values only.
fn unreadable(writer: &Schema, reader: &Schema, what: &str) -> Option<String> {
    match SchemaCompatibility::can_read(writer, reader) {
        Ok(Compatibility::Full) => None,
        Ok(Compatibility::Partial) => Some(format!("{what}: not every value of a union or enum can be read")),
        Err(e) => Some(format!("{what}: {e}")),
    }
}
