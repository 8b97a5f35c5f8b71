//! What a changed folder of connector files means for the connectors that run: pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::{ConnectorConfig, ConnectorFolder, WorkerConfig, group_conflict, memory_shortage};

/// What is to be done, in this order. All other connectors go on untouched.
#[derive(Debug, Default, PartialEq)]
pub(super) struct ReloadPlan {
    /// Their files are gone: they drain and leave.
    pub(super) remove: Vec<String>,
    /// They run, and their files say something else now: they drain and start anew.
    pub(super) restart: Vec<ConnectorConfig>,
    /// Their files are new.
    pub(super) start: Vec<ConnectorConfig>,
    /// Files that cannot be taken, by connector, and why; what they said before goes on.
    pub(super) refused: BTreeMap<String, String>,
}

/// Compares the folder with what runs.
///
/// A file whose meaning did not change (comments, order of keys) restarts nothing. A file that is good by itself but cannot run beside the
/// others, or for whose connector the memory does not suffice, is refused like one with a mistake; of two files that collide, the one that
/// runs already goes on, else the first by name.
pub(super) fn plan(running: &BTreeMap<String, Arc<ConnectorConfig>>, folder: ConnectorFolder, worker: &WorkerConfig) -> ReloadPlan {
    let ConnectorFolder { good, refused } = folder;
    let mut refused: BTreeMap<String, String> = refused.into_iter().map(|(name, errors)| (name, errors.to_string())).collect();
    let remove = running.keys().filter(|name| !good.contains_key(*name) && !refused.contains_key(*name)).cloned().collect();
    let is_new = |name: &String| !running.contains_key(name);
    let mut wanted: Vec<(&String, &ConnectorConfig)> =
        good.iter().filter(|(name, now)| running.get(*name).is_none_or(|old| **old != **now)).collect();
    // Those that run come first: they have the older right to their group and to the memory.
    wanted.sort_by_key(|(name, _)| is_new(name));
    // A refused change leaves the old one running, which may collide with what was found good before: so begin again after each refusal.
    while let Some((name, why)) = first_refusal(running, &good, &wanted, &refused, worker) {
        refused.insert(name, why);
    }
    let (restart, start) =
        wanted.into_iter().filter(|(name, _)| !refused.contains_key(*name)).partition::<Vec<_>, _>(|(name, _)| !is_new(name));
    let configs = |files: Vec<(&String, &ConnectorConfig)>| files.into_iter().map(|(_, config)| config.clone()).collect();
    ReloadPlan { remove, restart: configs(restart), start: configs(start), refused }
}

fn first_refusal(
    running: &BTreeMap<String, Arc<ConnectorConfig>>,
    good: &BTreeMap<String, ConnectorConfig>,
    wanted: &[(&String, &ConnectorConfig)],
    refused: &BTreeMap<String, String>,
    worker: &WorkerConfig,
) -> Option<(String, String)> {
    let unchanged = |name: &String, config: &ConnectorConfig| refused.contains_key(name) || good.get(name) == Some(config);
    let mut beside: Vec<&ConnectorConfig> =
        running.iter().filter(|(name, config)| unchanged(name, config)).map(|(_, config)| &**config).collect();
    for (name, config) in wanted.iter().filter(|(name, _)| !refused.contains_key(*name)) {
        let file = config.file.display();
        if let Some(message) = beside.iter().find_map(|other| group_conflict(config, other)) {
            return Some(((*name).clone(), format!("{file}: group: {message}")));
        }
        beside.push(config);
        let batches: Vec<u64> = beside.iter().map(|connector| connector.delivery.batch_bytes.bytes()).collect();
        if let Some(message) = memory_shortage(worker, &batches) {
            return Some(((*name).clone(), format!("{file}: [worker] memory: {message}")));
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;
    use crate::config::{FleetConfig, load_folder};

    /// A folder of these files (name, topic, group), as the loader gives it.
    fn folder(files: &[(&str, &str, &str)]) -> ConnectorFolder {
        let place = tempfile::tempdir().unwrap();
        for (name, topic, group) in files {
            let text = format!("topics = [\"{topic}\"]\ngroup = \"{group}\"\n[value]\nformat = \"json\"\n[table]\nname = \"d.t\"\n");
            std::fs::write(place.path().join(format!("{name}.toml")), if topic.is_empty() { "topcs = 1" } else { &text }).unwrap();
        }
        let fleet = "[kafka]\n\"bootstrap.servers\" = \"127.0.0.1:1\"\n[bigquery]\nproject = \"p\"\n";
        let mut read = load_folder(place.path(), &toml::from_str::<FleetConfig>(fleet).unwrap()).unwrap();
        read.good.values_mut().for_each(|config| config.file = format!("{}.toml", config.name).into());
        read
    }

    fn running(files: &[(&str, &str, &str)]) -> BTreeMap<String, Arc<ConnectorConfig>> {
        folder(files).good.into_iter().map(|(name, config)| (name, Arc::new(config))).collect()
    }

    /// What is done, in a line: `-removed ~restarted +started !refused`.
    fn done(now: &[(&str, &str, &str)], then: &[(&str, &str, &str)], memory: &str) -> String {
        let worker = toml::from_str(&format!("memory = \"{memory}\"")).unwrap();
        let plan = plan(&running(now), folder(then), &worker);
        let names = |sign: char, files: &[ConnectorConfig]| files.iter().map(|c| format!("{sign}{}", c.name)).collect::<Vec<_>>();
        let removed: Vec<String> = plan.remove.iter().map(|name| format!("-{name}")).collect();
        let refused: Vec<String> = plan.refused.keys().map(|name| format!("!{name}")).collect();
        [removed, names('~', &plan.restart), names('+', &plan.start), refused].concat().join(" ")
    }

    #[test]
    fn only_what_changed_is_touched() {
        let two = [("a", "x", "ga"), ("b", "y", "gb")];
        assert_eq!(done(&two, &two, "1 GiB"), "");
        assert_eq!(done(&two, &[("a", "x", "ga"), ("b", "z", "gb")], "1 GiB"), "~b");
        assert_eq!(done(&two, &[("a", "x", "ga")], "1 GiB"), "-b");
        assert_eq!(done(&two, &[("a", "x", "ga"), ("b", "y", "gb"), ("c", "z", "gc")], "1 GiB"), "+c");
        assert_eq!(done(&two, &[], "1 GiB"), "-a -b");
    }

    #[test]
    fn a_mistake_leaves_its_old_connector_running() {
        assert_eq!(done(&[("a", "x", "g")], &[("a", "", ""), ("b", "", ""), ("c", "z", "g")], "1 GiB"), "+c !a !b");
    }

    #[test]
    fn who_runs_keeps_its_group() {
        // `a` comes first by name, and would take records from `b`, which runs.
        assert_eq!(done(&[("b", "x", "g")], &[("a", "x", "g"), ("b", "x", "g")], "1 GiB"), "!a");
        // A renamed file is no collision, nor are two that swap their topics.
        assert_eq!(done(&[("b", "x", "g")], &[("a", "x", "g")], "1 GiB"), "-b +a");
        assert_eq!(done(&[("a", "x", "g"), ("b", "y", "g")], &[("a", "y", "g"), ("b", "x", "g")], "1 GiB"), "~a ~b");
        // `a` wants what `b` gives up; but `b` wants what `c` has, is refused, and goes on: so `a` cannot either.
        let now = [("a", "x", "g"), ("b", "y", "g"), ("c", "z", "g")];
        assert_eq!(done(&now, &[("a", "y", "g"), ("b", "z", "g"), ("c", "z", "g")], "1 GiB"), "!a !b");
        // A file with a mistake keeps its place too.
        assert_eq!(done(&[("b", "x", "g")], &[("a", "x", "g"), ("b", "", "")], "1 GiB"), "!a !b");
    }

    #[test]
    fn memory_is_for_those_who_have_it() {
        // 6 MiB a connector with the default batches: five in 32 MiB.
        let files = ["a", "b", "c", "d", "e", "f"].map(|name| (name, name, name));
        assert_eq!(done(&files[1..], &files, "32 MiB"), "!a");
        assert_eq!(done(&files[1..], &files, "64 MiB"), "+a");
    }
}
