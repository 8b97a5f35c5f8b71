//! Connector files that are judged each on its own: for a worker that runs, where a mistake in one of them must cost nothing else.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::connector::ConnectorConfig;
use super::errors::{ConfigError, ConfigErrors};
use super::fleet::FleetConfig;
use super::fleet_rules::memory_shortage;
use super::load::{Loaded, connector_files, group_conflict, read_connector, read_fleet};

/// A folder's connector files.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ConnectorFolder {
    /// Those without a mistake of their own, by connector. Whether they can run side by side is not looked at: [`group_conflict`],
    /// [`memory_shortage`].
    pub good: BTreeMap<String, ConnectorConfig>,
    /// What is wrong with the others, by connector.
    pub refused: BTreeMap<String, ConfigErrors>,
}

/// Reads every `*.toml` of the folder (hidden files are left out). One that cannot be read is refused, like one with a mistake.
///
/// # Errors
/// The folder cannot be read.
pub fn load_folder(folder: &Path, fleet: &FleetConfig) -> Result<ConnectorFolder, ConfigErrors> {
    let mut errors = Vec::new();
    let files = connector_files(folder, &mut errors);
    if !errors.is_empty() {
        return Err(ConfigErrors::sorted(errors));
    }
    let schema = super::connector_schema();
    let mut read = ConnectorFolder::default();
    for file in files {
        let mut errors = Vec::new();
        let connector = read_connector(&file, &schema, Some(fleet), &mut errors);
        match connector {
            Some(connector) if errors.is_empty() => {
                read.good.insert(connector.config.name.clone(), connector.config);
            }
            _ => {
                let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                read.refused.insert(name, ConfigErrors::sorted(errors));
            }
        }
    }
    Ok(read)
}

/// What a worker can begin with where [`load`](super::load) finds mistakes: `millrace.toml` without any, and the connectors that are good.
/// A fleet that grows, or whose workers move to other machines, must not stand still for a mistake in one connector's file.
///
/// `None`: a mistake in `millrace.toml`, a folder that cannot be read, connectors that cannot run side by side in this memory, or files of
/// which not one is good. A folder without files can be begun with: they may come.
pub fn load_usable(config: &Path, connectors: &Path) -> Option<Loaded> {
    let mut errors = Vec::new();
    let fleet = read_fleet(config, &mut errors)?.config;
    if !errors.is_empty() {
        return None;
    }
    let mut folder = load_folder(connectors, &fleet).ok()?;
    let mut usable: Vec<ConnectorConfig> = Vec::new();
    for (name, connector) in folder.good {
        match usable.iter().find_map(|other| group_conflict(&connector, other)) {
            None => usable.push(connector),
            Some(message) => {
                folder.refused.insert(name, ConfigErrors(vec![ConfigError::whole(&connector.file, format!("group: {message}"))]));
            }
        }
    }
    let batches: Vec<u64> = usable.iter().map(|connector| connector.delivery.batch_bytes.bytes()).collect();
    if memory_shortage(&fleet.worker, &batches).is_some() || (usable.is_empty() && !folder.refused.is_empty()) {
        return None;
    }
    Some(Loaded {
        fleet,
        connectors: usable,
        refused: folder.refused,
        config_file: config.to_owned(),
        connectors_folder: connectors.to_owned(),
    })
}

/// The files' contents at one moment, by their digests; links are followed, so that a swapped `..data` of a mounted ConfigMap shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// `millrace.toml`; `None` when it cannot be read.
    pub fleet: Option<[u8; 32]>,
    /// The connector files; `None` for one that cannot be read. An error in words when the folder cannot be read.
    pub connectors: Result<BTreeMap<PathBuf, Option<[u8; 32]>>, String>,
}

impl Look {
    /// Looks now. Blocks: it reads all of the files.
    pub fn now(config: &Path, folder: &Path) -> Self {
        let digest = |file: &Path| std::fs::read(file).ok().map(|bytes| Sha256::digest(bytes).into());
        let mut errors = Vec::new();
        let files = connector_files(folder, &mut errors);
        let connectors = match errors.first() {
            Some(error) => Err(error.to_string()),
            None => Ok(files.into_iter().map(|file| (file.clone(), digest(&file))).collect()),
        };
        Self { fleet: digest(config), connectors }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    const FLEET: &str = "[kafka]\n\"bootstrap.servers\" = \"127.0.0.1:9092\"\n[bigquery]\nproject = \"p\"\ncredentials = \"none\"\n";

    fn connector(topic: &str) -> String {
        format!("topics = [\"{topic}\"]\ngroup = \"g\"\n[value]\nformat = \"json\"\n[table]\nname = \"d.t\"\n")
    }

    fn folder(files: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let (config, connectors) = (folder.path().join("millrace.toml"), folder.path().join("connectors"));
        std::fs::write(&config, FLEET).unwrap();
        std::fs::create_dir(&connectors).unwrap();
        for (name, text) in files {
            std::fs::write(connectors.join(name), text).unwrap();
        }
        (folder, config, connectors)
    }

    #[test]
    fn a_mistake_costs_its_own_file_only() {
        let (_kept, config, connectors) =
            folder(&[("a.toml", &connector("a")), ("b.toml", "topcs = []"), ("c.toml", &connector("a")), ("d.toml", &connector("d"))]);
        let loaded = load_usable(&config, &connectors).unwrap();
        assert_eq!(loaded.connectors.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["a", "d"]);
        assert_eq!(loaded.refused.keys().collect::<Vec<_>>(), ["b", "c"]);
        assert!(loaded.refused["b"].to_string().contains("did you mean `topics`"), "{}", loaded.refused["b"]);
        assert!(loaded.refused["c"].to_string().contains("both take the topic `a`"), "{}", loaded.refused["c"]);
    }

    #[test]
    fn nothing_is_begun_without_millrace_toml_or_without_one_good_file() {
        let (_kept, config, connectors) = folder(&[("a.toml", &connector("a"))]);
        std::fs::write(&config, FLEET.replace("project", "projekt")).unwrap();
        assert!(load_usable(&config, &connectors).is_none());
        let (_kept, config, connectors) = folder(&[("b.toml", "topcs = []")]);
        assert!(load_usable(&config, &connectors).is_none());
        let (_kept, config, connectors) = folder(&[]);
        assert!(load_usable(&config, &connectors).unwrap().connectors.is_empty());
        assert!(load_usable(&config, &connectors.join("gone")).is_none());
    }

    #[test]
    fn a_file_that_cannot_be_looked_at_is_refused_and_not_gone() {
        let (_kept, config, connectors) = folder(&[("a.toml", &connector("a"))]);
        std::fs::create_dir(connectors.join("d.toml")).unwrap();
        std::os::unix::fs::symlink("nowhere.toml", connectors.join("b.toml")).unwrap();
        std::os::unix::fs::symlink("c.toml", connectors.join("c.toml")).unwrap();
        let loaded = load_usable(&config, &connectors).unwrap();
        assert_eq!(loaded.connectors.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["a"]);
        assert_eq!(loaded.refused.keys().collect::<Vec<_>>(), ["b", "c"]);
        assert!(loaded.refused["b"].to_string().contains("b.toml"), "{}", loaded.refused["b"]);
        let look = Look::now(&config, &connectors).connectors.unwrap();
        assert_eq!(look.values().map(Option::is_some).collect::<Vec<_>>(), [true, false, false]);
    }

    #[test]
    fn a_look_follows_the_link_of_a_mounted_config_map() {
        let (_kept, config, connectors) = folder(&[]);
        for (version, text) in [("..1", "one"), ("..2", "two")] {
            std::fs::create_dir(connectors.join(version)).unwrap();
            std::fs::write(connectors.join(version).join("a.toml"), text).unwrap();
        }
        std::os::unix::fs::symlink("..1", connectors.join("..data")).unwrap();
        std::os::unix::fs::symlink("..data/a.toml", connectors.join("a.toml")).unwrap();
        let before = Look::now(&config, &connectors);
        assert_eq!(before.connectors.as_ref().unwrap().len(), 1);
        assert_eq!(Look::now(&config, &connectors), before);
        std::os::unix::fs::symlink("..2", connectors.join("..data_tmp")).unwrap();
        std::fs::rename(connectors.join("..data_tmp"), connectors.join("..data")).unwrap();
        let after = Look::now(&config, &connectors);
        assert!(after.connectors != before.connectors && after.fleet == before.fleet);
        assert!(Look::now(&config, &connectors.join("gone")).connectors.is_err());
    }
}
