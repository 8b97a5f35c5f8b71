//! What is known of the files that are not what runs.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::config::ConfigErrors;
use crate::http::{ConfigurationStatus, FileMistake};

/// Mistakes in connector files and changes that wait for a restart, for `/status`, health and metrics.
#[derive(Debug, Default)]
pub(super) struct Configuration {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By connector: since when, and what.
    refused: BTreeMap<String, (i64, String)>,
    folder: Option<(i64, String)>,
    restart_needed: Option<String>,
}

impl Configuration {
    /// What was found at the start.
    pub(super) fn new(refused: &BTreeMap<String, ConfigErrors>, now_ms: i64) -> Self {
        let configuration = Self::default();
        for (connector, mistakes) in
            configuration.refuse(refused.iter().map(|(n, errors)| (n.clone(), errors.to_string())).collect(), now_ms)
        {
            tracing::error!(connector, mistakes, "connector file refused: it is not started");
        }
        configuration
    }

    /// The files that are refused now; gives those that were not, or not for this reason.
    pub(super) fn refuse(&self, refused: BTreeMap<String, String>, now_ms: i64) -> Vec<(String, String)> {
        let mut state = self.state.lock();
        let before = std::mem::take(&mut state.refused);
        let mut news = Vec::new();
        for (connector, message) in refused {
            let since_ms = before.get(&connector).map_or(now_ms, |(since_ms, _)| *since_ms);
            if before.get(&connector).is_none_or(|(_, earlier)| *earlier != message) {
                news.push((connector.clone(), message.clone()));
            }
            state.refused.insert(connector, (since_ms, message));
        }
        news
    }

    /// Whether the folder can be read; true when that is news.
    pub(super) fn set_folder(&self, error: Option<&str>, now_ms: i64) -> bool {
        let mut state = self.state.lock();
        let news = state.folder.as_ref().map(|(_, message)| message.as_str()) != error;
        if news {
            state.folder = error.map(|message| (now_ms, message.to_owned()));
        }
        news
    }

    /// Why a restart is needed, if one is; true when that is news.
    pub(super) fn set_restart_needed(&self, why: Option<String>) -> bool {
        let mut state = self.state.lock();
        let news = state.restart_needed != why;
        state.restart_needed = why;
        news
    }

    /// What is shown.
    pub(super) fn status(&self) -> ConfigurationStatus {
        let state = self.state.lock();
        let folder = state.folder.iter().map(|(since_ms, message)| (None, *since_ms, message));
        let files = state.refused.iter().map(|(connector, (since_ms, message))| (Some(connector.clone()), *since_ms, message));
        let mistakes =
            folder.chain(files).map(|(connector, since_ms, message)| FileMistake { connector, since_ms, message: message.clone() });
        ConfigurationStatus { mistakes: mistakes.collect(), restart_needed: state.restart_needed.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_news_once_and_keeps_its_time() {
        let configuration = Configuration::default();
        let refused = |message: &str| BTreeMap::from([("a".to_owned(), message.to_owned())]);
        assert_eq!(configuration.refuse(refused("no topics"), 1).len(), 1);
        assert_eq!(configuration.refuse(refused("no topics"), 2).len(), 0);
        assert_eq!(configuration.refuse(refused("no table"), 3).len(), 1);
        let shown = FileMistake { connector: Some("a".to_owned()), since_ms: 1, message: "no table".to_owned() };
        assert_eq!(configuration.status().mistakes, [shown]);
        configuration.refuse(BTreeMap::new(), 4);
        assert!(configuration.set_folder(Some("gone"), 5) && !configuration.set_folder(Some("gone"), 6));
        assert_eq!(configuration.status().mistakes.len(), 1);
        assert!(configuration.set_folder(None, 7) && configuration.set_restart_needed(Some("changed".to_owned())));
        let status = configuration.status();
        assert!(status.mistakes.is_empty() && status.restart_needed.is_some());
    }
}
