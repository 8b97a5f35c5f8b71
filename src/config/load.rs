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
    /// What is wrong with files that were left out, by connector: only [`load_usable`](super::load_usable) leaves any out.
    pub refused: BTreeMap<String, ConfigErrors>,
    /// Where `millrace.toml` is.
    pub config_file: PathBuf,
    /// The folder of connectors.
    pub connectors_folder: PathBuf,
}

/// A file whose shape is right, or mended so that its rules can be looked at.
pub(super) struct Read<T> {
    pub(super) config: T,
    pub(super) document: Document,
    pub(super) wrong: Vec<Vec<Step>>,
}

/// What is said about a folder without connectors.
const NO_CONNECTOR: &str = "holds no connector: expected files such as physical-stock.toml";

/// Reads `config` and every `*.toml` of the folder `connectors` (hidden files are left out).
///
/// Paths inside a file are relative to it; they come back joined to its folder. (`[kafka]` properties are librdkafka's and stay as they
/// are.)
///
/// # Errors
/// Every mistake of all files: syntax, unknown and missing keys, wrong values, `${env:}` and `${file:}` that are not there, impossible
/// combinations. Never a value that was substituted.
pub fn load(config: &Path, connectors: &Path) -> Result<Loaded, ConfigErrors> {
    let mut errors = Vec::new();
    let fleet = read_fleet(config, &mut errors);
    let files = connector_files(connectors, &mut errors);
    if files.is_empty() && errors.iter().all(|error| error.file != connectors) {
        errors.push(ConfigError::whole(connectors, NO_CONNECTOR));
    }
    let schema = super::connector_schema();
    let settings = fleet.as_ref().map(|fleet| &fleet.config);
    let read_connectors: Vec<_> = files.iter().filter_map(|file| read_connector(file, &schema, settings, &mut errors)).collect();
    check_groups(&read_connectors, &mut errors);
    if let Some(read) = &fleet {
        let batches: Vec<u64> = read_connectors.iter().map(|connector| connector.config.delivery.batch_bytes.bytes()).collect();
        check_memory(&read.config.worker, &batches, &mut Complaints { document: &read.document, wrong: &read.wrong, errors: &mut errors });
    }
    match fleet {
        Some(fleet) if errors.is_empty() => {
            let connectors_read = read_connectors.into_iter().map(|connector| connector.config).collect();
            Ok(Loaded {
                fleet: fleet.config,
                connectors: connectors_read,
                refused: BTreeMap::new(),
                config_file: config.to_owned(),
                connectors_folder: connectors.to_owned(),
            })
        }
        _ => Err(ConfigErrors::sorted(errors)),
    }
}

/// Reads `millrace.toml`; `None` when nothing of it can be used.
pub(super) fn read_fleet(config: &Path, errors: &mut Vec<ConfigError>) -> Option<Read<FleetConfig>> {
    let mut fleet = read::<FleetConfig>(config, &super::fleet_schema(), errors)?;
    resolve_fleet_paths(&mut fleet.config, config);
    let mut complaints = Complaints { document: &fleet.document, wrong: &fleet.wrong, errors };
    check_fleet(&fleet.config, &mut complaints);
    check_session(&fleet.config, &mut complaints);
    Some(fleet)
}

/// Reads a connector's file; `None` when nothing of it can be used.
pub(super) fn read_connector(
    file: &Path,
    schema: &schemars::Schema,
    fleet: Option<&FleetConfig>,
    errors: &mut Vec<ConfigError>,
) -> Option<Read<ConnectorConfig>> {
    let name = connector_name(file, errors)?;
    let mut connector = read::<ConnectorConfig>(file, schema, errors)?;
    connector.config.name = name;
    file.clone_into(&mut connector.config.file);
    connector.config.value.schemas = connector.config.value.schemas.map(|folder| beside(file, &folder));
    let mut complaints = Complaints { document: &connector.document, wrong: &connector.wrong, errors };
    check_connector(&connector.config, fleet, &mut complaints);
    Some(connector)
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

/// The `*.toml` files of a folder that are not hidden, links followed.
pub(super) fn connector_files(folder: &Path, errors: &mut Vec<ConfigError>) -> Vec<PathBuf> {
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
                if !hidden && path.extension().is_some_and(|extension| extension == "toml") && may_be_file(&path) {
                    files.push(path);
                }
            }
            Err(error) => errors.push(ConfigError::whole(folder, format!("cannot be read: {error}"))),
        }
    }
    files.sort();
    files
}

/// Whether an entry of the folder is to be read. One that cannot be looked at (no right to, a link to nothing, a stale handle) is, so that
/// the reading says what is wrong: passed over, it would count as removed, and its connector would drain.
fn may_be_file(path: &Path) -> bool {
    match std::fs::metadata(path) {
        Ok(found) => found.is_file(),
        // Without the entry itself it was removed since the folder was listed.
        Err(_) => !matches!(std::fs::symlink_metadata(path), Err(error) if error.kind() == std::io::ErrorKind::NotFound),
    }
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
            if let Some(message) = group_conflict(&connector.config, &other.config) {
                Complaints { document: &connector.document, wrong: &connector.wrong, errors }.add(&at("group"), message);
            }
        }
        others.push(connector);
    }
}

/// Why `connector` cannot run beside `other`: they are members of one group and take the same topics.
pub fn group_conflict(connector: &ConnectorConfig, other: &ConnectorConfig) -> Option<String> {
    let shared = (connector.group_id() == other.group_id()).then(|| shared_topics(other, connector)).flatten()?;
    Some(format!("the consumer group is also that of {}, and {shared}: each would miss records", other.file.display()))
}

fn shared_topics(a: &ConnectorConfig, b: &ConnectorConfig) -> Option<String> {
    match (topics_regex(a).and_then(Result::ok), topics_regex(b).and_then(Result::ok)) {
        (Some(_), Some(_)) => Some("two regular expressions may match the same topic".to_owned()),
        (Some(regex), None) => b.topics.iter().find(|topic| regex.is_match(topic)).map(|topic| format!("both take the topic `{topic}`")),
        (None, Some(regex)) => a.topics.iter().find(|topic| regex.is_match(topic)).map(|topic| format!("both take the topic `{topic}`")),
        (None, None) => a.topics.iter().find(|topic| b.topics.contains(topic)).map(|topic| format!("both take the topic `{topic}`")),
    }
}
