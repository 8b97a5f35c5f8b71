//! Reads `millrace.toml` and a folder of connectors, and reports every mistake of all of them at once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::connector::ConnectorConfig;
use super::connector_rules::{check_connector, topics_regex};
use super::document::{Document, Step};
use super::errors::{ConfigError, ConfigErrors};
use super::fleet::FleetConfig;
use super::fleet_rules::{check_fleet, check_memory, check_session};
use super::rules::{Complaints, at};
use super::shape::shape;

/// Everything a worker is told.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// `millrace.toml`.
    pub fleet: FleetConfig,
    /// The connectors, by name.
    pub connectors: Vec<ConnectorConfig>,
}

/// A file whose shape is right, or mended so that its rules can be looked at.
struct Read<T> {
    config: T,
    document: Document,
    wrong: Vec<Vec<Step>>,
}

/// Reads `config` and every `*.toml` of the folder `connectors` (hidden files are left out).
///
/// Paths inside a file are relative to it; they come back joined to its folder. (`[kafka]` properties are librdkafka's and stay as they are.)
///
/// # Errors
/// Every mistake of all files: syntax, unknown and missing keys, wrong values, `${env:}` and `${file:}` that are not there, impossible
/// combinations. Never a value that was substituted.
pub fn load(config: &Path, connectors: &Path) -> Result<Loaded, ConfigErrors> {
    let mut errors = Vec::new();
    let mut fleet = read::<FleetConfig>(config, &super::fleet_schema(), &mut errors);
    if let Some(read) = &mut fleet {
        resolve_fleet_paths(&mut read.config, config);
        let mut complaints = Complaints { document: &read.document, wrong: &read.wrong, errors: &mut errors };
        check_fleet(&read.config, &mut complaints);
        check_session(&read.config, &mut complaints);
    }
    let files = connector_files(connectors, &mut errors);
    let schema = super::connector_schema();
    let mut read_connectors = Vec::new();
    for file in files {
        let Some(name) = connector_name(&file, &mut errors) else { continue };
        let Some(mut connector) = read::<ConnectorConfig>(&file, &schema, &mut errors) else { continue };
        connector.config.name = name;
        connector.config.file.clone_from(&file);
        connector.config.value.schemas = connector.config.value.schemas.map(|folder| beside(&file, &folder));
        let mut complaints = Complaints { document: &connector.document, wrong: &connector.wrong, errors: &mut errors };
        check_connector(&connector.config, fleet.as_ref().map(|fleet| &fleet.config), &mut complaints);
        read_connectors.push(connector);
    }
    check_groups(&read_connectors, &mut errors);
    if let Some(read) = &fleet {
        let batches: Vec<u64> = read_connectors.iter().map(|connector| connector.config.delivery.batch_bytes.bytes()).collect();
        check_memory(&read.config.worker, &batches, &mut Complaints { document: &read.document, wrong: &read.wrong, errors: &mut errors });
    }
    match fleet {
        Some(fleet) if errors.is_empty() => {
            Ok(Loaded { fleet: fleet.config, connectors: read_connectors.into_iter().map(|connector| connector.config).collect() })
        }
        _ => Err(ConfigErrors::sorted(errors)),
    }
}

fn read<T: DeserializeOwned>(file: &Path, schema: &schemars::Schema, errors: &mut Vec<ConfigError>) -> Option<Read<T>> {
    let document = Document::read(file, errors)?;
    let mut found = Vec::new();
    let shaped = shape(&document, schema.as_value(), &mut found);
    if let Some(first) = document.broken_lines.iter().min() {
        // The parser guesses on after a mistake. What stands clear of the mistakes is still worth saying; what is missing is not.
        found.retain(|error| {
            let clear = if document.unclosed { error.line < *first } else { !document.broken_lines.contains(&error.line) };
            clear && !error.message.starts_with("missing")
        });
        errors.append(&mut found);
        return None;
    }
    errors.append(&mut found);
    // serde's messages may quote values, and the shape was checked: a failure here is a mistake of ours or follows from a reported one.
    match serde_json::from_value(shaped.value) {
        Ok(config) => Some(Read { config, document, wrong: shaped.wrong }),
        Err(_) if !shaped.wrong.is_empty() => None,
        Err(error) => {
            let message = format!("has a value that its schema allows and its type does not ({:?}): please report this", error.classify());
            errors.push(ConfigError::whole(file, message));
            None
        }
    }
}

fn connector_files(folder: &Path, errors: &mut Vec<ConfigError>) -> Vec<PathBuf> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => {
            errors.push(ConfigError::whole(folder, format!("cannot be read: {error}: expected a folder of connector files")));
            return Vec::new();
        }
    };
    let mut files = Vec::new();
    for entry in entries {
        match entry {
            Ok(entry) => {
                let path = entry.path();
                let hidden = entry.file_name().to_string_lossy().starts_with('.');
                if !hidden && path.extension().is_some_and(|extension| extension == "toml") && path.is_file() {
                    files.push(path);
                }
            }
            Err(error) => errors.push(ConfigError::whole(folder, format!("cannot be read: {error}"))),
        }
    }
    if files.is_empty() && errors.iter().all(|error| error.file != folder) {
        errors.push(ConfigError::whole(folder, "holds no connector: expected files such as physical-stock.toml"));
    }
    files.sort();
    files
}

/// A connector's name becomes a group's, a topic's and a metric's label.
fn connector_name(file: &Path, errors: &mut Vec<ConfigError>) -> Option<String> {
    let name = file.file_stem()?.to_string_lossy().into_owned();
    let legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if name.len() > 200 || !name.chars().all(legal) {
        let message = "the file's name is the connector's: expected at most 200 letters, digits, `.`, `_`, `-`";
        errors.push(ConfigError::whole(file, message));
        return None;
    }
    Some(name)
}

fn resolve_fleet_paths(fleet: &mut FleetConfig, file: &Path) {
    fleet.worker.ca_file = fleet.worker.ca_file.take().map(|path| beside(file, &path));
    if let Some(registry) = &mut fleet.registry {
        registry.client_cert_file = registry.client_cert_file.take().map(|path| beside(file, &path));
        registry.client_key_file = registry.client_key_file.take().map(|path| beside(file, &path));
    }
    fleet.scaling.lock_file = fleet.scaling.lock_file.take().map(|path| beside(file, &path));
    fleet.scaling.replicas_file = fleet.scaling.replicas_file.take().map(|path| beside(file, &path));
    if !matches!(fleet.bigquery.credentials.as_str(), "application-default" | "none" | "") {
        fleet.bigquery.credentials = beside(file, Path::new(&fleet.bigquery.credentials)).to_string_lossy().into_owned();
    }
}

fn beside(file: &Path, path: &Path) -> PathBuf {
    file.parent().map_or_else(|| path.to_owned(), |folder| folder.join(path))
}

/// Two connectors in one group take each other's partitions where their topics meet.
fn check_groups(connectors: &[Read<ConnectorConfig>], errors: &mut Vec<ConfigError>) {
    let mut by_group: BTreeMap<String, Vec<&Read<ConnectorConfig>>> = BTreeMap::new();
    for connector in connectors {
        let others = by_group.entry(connector.config.group_id()).or_default();
        for other in others.iter() {
            if let Some(shared) = shared_topics(&other.config, &connector.config) {
                let message =
                    format!("the consumer group is also that of {}, and {shared}: each would miss records", other.document.file.display());
                Complaints { document: &connector.document, wrong: &connector.wrong, errors }.add(&at("group"), message);
            }
        }
        others.push(connector);
    }
}

fn shared_topics(a: &ConnectorConfig, b: &ConnectorConfig) -> Option<String> {
    match (topics_regex(a).and_then(Result::ok), topics_regex(b).and_then(Result::ok)) {
        (Some(_), Some(_)) => Some("two regular expressions may match the same topic".to_owned()),
        (Some(regex), None) => b.topics.iter().find(|topic| regex.is_match(topic)).map(|topic| format!("both take the topic `{topic}`")),
        (None, Some(regex)) => a.topics.iter().find(|topic| regex.is_match(topic)).map(|topic| format!("both take the topic `{topic}`")),
        (None, None) => a.topics.iter().find(|topic| b.topics.contains(topic)).map(|topic| format!("both take the topic `{topic}`")),
    }
}
