//! `millrace check`, a connector's schemas: which ones its records may be written with, and the columns that each needs.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use apache_avro::Schema;
use regex::Regex;

use super::check::{Report, within};
use crate::config::{ConnectorConfig, FleetConfig, ValueFormat};
use crate::decode::{AvroSchema, DecodeOptions, SchemaKey, avro_columns, stated_in_vain};
use crate::kafka::Topics;
use crate::schema::{FolderSource, RegistrySource, SchemaError, SchemaSource};
use crate::table::{Column, ColumnType, Mode};

/// What the name of a subject adds to its topic's (Confluent's TopicNameStrategy, the producers' default).
const VALUE_SUFFIX: &str = "-value";
/// The most subjects that are looked at for one connector.
const SUBJECTS_MAX: usize = 100;

/// A schema and the columns that its records need.
pub(super) struct Mapped {
    /// What it is called in messages: "schema x".
    pub(super) name: String,
    /// The topic whose records are written with it; `None` for any of the connector's.
    pub(super) topic: Option<String>,
    /// Its columns, metadata columns included.
    pub(super) columns: Vec<Column>,
    /// Paths under `[table.columns]` that it has no field for.
    pub(super) stated_in_vain: BTreeSet<String>,
}

/// Where a connector's schemas can be looked up.
pub(super) enum Source<'a> {
    /// A folder, and the names in it that can be used.
    Folder(FolderSource, Vec<String>),
    /// The registry, which answers.
    Registry(&'a RegistrySource),
    /// Nowhere: the connector needs no schemas, or its source does not answer.
    Nowhere,
}

/// Maps every schema of the folder, or the newest of each of the connector's subjects in the registry, to columns, and says how.
pub(super) async fn mapped(
    connector: &ConnectorConfig,
    fleet: &FleetConfig,
    source: Source<'_>,
    timeout: Duration,
    report: &mut Report,
) -> Vec<Mapped> {
    let options = match DecodeOptions::new(connector, fleet.bigquery.text_literals) {
        Ok(options) => options,
        Err(message) => {
            report.bad("columns", message);
            return Vec::new();
        }
    };
    let mut mapped = Vec::new();
    match source {
        Source::Folder(folder, names) => {
            for name in names {
                let what = format!("schema {name}");
                match folder.fetch(&SchemaKey::Name(Arc::from(name.as_str()))).await {
                    Ok(schema) => {
                        mapped.extend(map(&schema, &options, &what, report).map(|mapped| Mapped { name: what.clone(), ..mapped }))
                    }
                    Err(error) => report.bad(&what, error.to_string()),
                }
            }
        }
        Source::Registry(registry) if connector.value.format == ValueFormat::Avro => {
            for topic in topics_in(connector, registry, timeout, report).await {
                mapped.extend(newest(registry, topic, &options, timeout, report).await);
            }
        }
        Source::Registry(_) | Source::Nowhere => {}
    }
    // A slip of the pen, or a field that is still to come.
    let in_vain = mapped.iter().map(|schema| schema.stated_in_vain.clone()).reduce(|all, one| &all & &one);
    for path in in_vain.unwrap_or_default() {
        report
            .note(&format!("[table.columns] {path}"), "none of the schemas above has such a field: what is stated for it changes nothing");
    }
    mapped
}

/// The topics whose subjects are asked for: those of the list, or those of the registry's subjects that the expression matches.
async fn topics_in(connector: &ConnectorConfig, registry: &RegistrySource, timeout: Duration, report: &mut Report) -> Vec<String> {
    let topics = Topics::of(connector);
    let whole = match (&topics, topics.subscription()) {
        (Topics::List(names), _) => return names.clone(),
        (Topics::Regex(_), Ok(whole)) => whole.concat(),
        // Said by what is tried of Kafka.
        (Topics::Regex(_), Err(_)) => return Vec::new(),
    };
    let what = format!("subjects that match `topics_regex` and end in {VALUE_SUFFIX}");
    let (listed, regex) = match (within(timeout, registry.subjects()).await, Regex::new(&whole)) {
        (Ok(listed), Ok(regex)) => (listed, regex),
        (Err(error), _) => {
            report.bad(&what, error);
            return Vec::new();
        }
        (_, Err(error)) => {
            report.bad(&what, error.to_string());
            return Vec::new();
        }
    };
    let topics = listed.iter().filter_map(|subject| subject.strip_suffix(VALUE_SUFFIX)).filter(|topic| regex.is_match(topic));
    let mut found: Vec<String> = topics.map(str::to_owned).collect();
    found.sort();
    match found.len() {
        0 => report.note(&what, format!("none; {UNKNOWABLE}")),
        more if more > SUBJECTS_MAX => {
            report.note(&what, format!("{more}, of which the first {SUBJECTS_MAX} are looked at"));
            found.truncate(SUBJECTS_MAX);
        }
        few => report.good(&what, few.to_string()),
    }
    found
}

/// Why there may be no subject of a topic although all is well.
const UNKNOWABLE: &str = "if the producers name subjects by the record's type (RecordNameStrategy, TopicRecordNameStrategy), only the ids in \
                          the records tell which schemas there are: they cannot be looked at before records come";

/// The newest version of a topic's subject, mapped; nothing when there is none that can be.
async fn newest(
    registry: &RegistrySource,
    topic: String,
    options: &DecodeOptions,
    timeout: Duration,
    report: &mut Report,
) -> Option<Mapped> {
    let subject = format!("{topic}{VALUE_SUFFIX}");
    let what = format!("subject {subject}");
    let found = match tokio::time::timeout(timeout, registry.newest(&subject)).await {
        Ok(Ok(found)) => found,
        // Nothing was produced yet, or the subject has another name.
        Ok(Err(SchemaError::Unknown(_))) => {
            report.note(&what, format!("the registry has none yet; {UNKNOWABLE}"));
            return None;
        }
        Ok(Err(error)) => {
            report.bad(&what, error.to_string());
            return None;
        }
        Err(_) => {
            report.bad(&what, format!("no answer within {}", humantime::format_duration(timeout)));
            return None;
        }
    };
    let version = found.version.map_or_else(String::new, |version| format!(", version {version}"));
    let name = format!("{subject}{version}");
    let mapped = map(&found.schema, options, &format!("subject {name} (schema id {})", found.schema.id), report)?;
    Some(Mapped { name: format!("schema {name}"), topic: Some(topic), ..mapped })
}

/// A schema's columns, for any topic.
fn map(schema: &AvroSchema, options: &DecodeOptions, what: &str, report: &mut Report) -> Option<Mapped> {
    match avro_columns(schema, options).and_then(|columns| Ok((columns, stated_in_vain(schema, options)?))) {
        Ok((columns, stated_in_vain)) => {
            report.good(what, columns.iter().map(describe).collect::<Vec<_>>().join(", "));
            for path in nanosecond_fields(&schema.root) {
                report.note(what, format!("`{path}` counts nanoseconds: a TIMESTAMP keeps microseconds, the rest is cut"));
            }
            Some(Mapped { name: what.to_owned(), topic: None, columns, stated_in_vain })
        }
        Err(unmappable) => {
            report.bad(what, format!("cannot be mapped, its records would be dead letters: {unmappable}"));
            None
        }
    }
}

/// A column in a few words.
pub(super) fn describe(column: &Column) -> String {
    let mode = match column.mode {
        Mode::Nullable => "",
        Mode::Required => " REQUIRED",
        Mode::Repeated => " REPEATED",
    };
    match &column.ty {
        ColumnType::Struct(inside) => {
            let inside = inside.iter().map(describe).collect::<Vec<_>>().join(", ");
            format!("{} RECORD<{inside}>{mode}", column.name)
        }
        ty => format!("{} {ty}{mode}", column.name),
    }
}

/// The paths of fields whose logical type counts nanoseconds.
fn nanosecond_fields(schema: &Schema) -> Vec<String> {
    fn walk(schema: &Schema, path: &mut Vec<String>, found: &mut Vec<String>) {
        match schema {
            Schema::TimestampNanos | Schema::LocalTimestampNanos => found.push(path.join(".")),
            Schema::Record(record) => {
                for field in &record.fields {
                    path.push(field.name.clone());
                    walk(&field.schema, path, found);
                    path.pop();
                }
            }
            Schema::Array(array) => walk(&array.items, path, found),
            Schema::Map(map) => walk(&map.types, path, found),
            Schema::Union(union) => union.variants().iter().for_each(|variant| walk(variant, path, found)),
            // A reference leads to a record that is walked where it is defined.
            _ => {}
        }
    }
    let mut found = Vec::new();
    walk(schema, &mut Vec::new(), &mut found);
    found
}
