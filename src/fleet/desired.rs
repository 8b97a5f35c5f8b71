//! What connectors are wished to do by the people who run the fleet: it stands in the state topic, and every worker follows it.

use serde::{Deserialize, Serialize};

use super::report::VERSION;

/// What a connector may be told, by a command or over HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// It takes nothing more, on every worker. It stays a member of its group and keeps its partitions: no rebalance, and it goes on at once.
    Pause,
    /// It runs: after a pause where it stood, after a stop by joining its group again.
    Resume,
    /// It drains and starts anew, once on every worker.
    Restart,
    /// It drains and leaves its group on every worker: its offsets may be set, its partitions are nobody's.
    Stop,
}

impl Verb {
    /// Every verb.
    pub const ALL: [Self; 4] = [Self::Pause, Self::Resume, Self::Restart, Self::Stop];

    /// The word on the command line and in the path.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Restart => "restart",
            Self::Stop => "stop",
        }
    }

    /// The verb of this word.
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verb| verb.as_str() == word)
    }
}

/// What a connector is to do all the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DesiredState {
    /// As its file says.
    #[default]
    Running,
    /// A member of its group that takes nothing.
    Paused,
    /// No member of its group.
    Stopped,
}

impl DesiredState {
    /// The word in the topic and in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// What a connector is wished to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredConnector {
    /// The shapes' version.
    pub v: u32,
    /// `running`, `paused` or `stopped`; a later version may say more.
    pub state: String,
    /// When it was wished, by the clock of whoever was asked, milliseconds since the epoch.
    pub at_ms: i64,
    /// Another number than before: it is to restart. 0 before the first time. Written as [`RestartNote`].
    #[serde(default)]
    pub restart: u64,
}

/// A connector is to restart, whatever its state: a note beside the state's, so that neither takes the other back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartNote {
    /// The shapes' version.
    pub v: u32,
    /// [`DesiredConnector::restart`].
    pub number: u64,
    /// As [`DesiredConnector::at_ms`].
    pub at_ms: i64,
}

impl DesiredConnector {
    /// What is wished after `verb`, when `before` was. `number` differs from verb to verb.
    ///
    /// # Errors
    /// In words: what is stopped has nothing that could restart.
    pub fn after(before: Option<&Self>, verb: Verb, now_ms: i64, number: u64) -> Result<Self, String> {
        let restart = before.map_or(0, |before| before.restart);
        let present = before.map(Self::desired).unwrap_or_default();
        let (state, restart) = match verb {
            Verb::Pause => (DesiredState::Paused, restart),
            Verb::Resume => (DesiredState::Running, restart),
            Verb::Stop => (DesiredState::Stopped, restart),
            Verb::Restart if present == DesiredState::Stopped => return Err("it is stopped: resume it instead".to_owned()),
            // 0 is "never": the next number will do.
            Verb::Restart => (present, number.max(1)),
        };
        Ok(Self { v: VERSION, state: state.as_str().to_owned(), at_ms: now_ms, restart })
    }

    /// The state, understood. What a later version may say runs here: records move unless somebody said otherwise.
    pub fn desired(&self) -> DesiredState {
        match self.state.as_str() {
            "paused" => DesiredState::Paused,
            "stopped" => DesiredState::Stopped,
            _ => DesiredState::Running,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn verbs_change_the_state_and_only_a_restart_changes_the_number() {
        let paused = DesiredConnector::after(None, Verb::Pause, 5, 77).unwrap();
        assert_eq!((paused.desired(), paused.restart, paused.at_ms), (DesiredState::Paused, 0, 5));
        let restarted = DesiredConnector::after(Some(&paused), Verb::Restart, 6, 77).unwrap();
        assert_eq!((restarted.desired(), restarted.restart), (DesiredState::Paused, 77), "it stays paused");
        let running = DesiredConnector::after(Some(&restarted), Verb::Resume, 7, 78).unwrap();
        assert_eq!((running.desired(), running.restart), (DesiredState::Running, 77));
        let stopped = DesiredConnector::after(Some(&running), Verb::Stop, 8, 79).unwrap();
        assert_eq!((stopped.desired(), stopped.restart), (DesiredState::Stopped, 77));
        assert!(DesiredConnector::after(Some(&stopped), Verb::Restart, 9, 80).unwrap_err().contains("resume"));
        assert_eq!(Verb::ALL.map(|verb| Verb::of(verb.as_str())), Verb::ALL.map(Some));
    }

    #[test]
    fn what_is_not_understood_runs_and_an_older_note_has_no_restart() {
        let older: DesiredConnector = serde_json::from_str(r#"{"v":1,"state":"paused","at_ms":5}"#).unwrap();
        assert_eq!((older.desired(), older.restart), (DesiredState::Paused, 0));
        let later: DesiredConnector = serde_json::from_str(r#"{"v":2,"state":"dreaming","at_ms":5}"#).unwrap();
        assert_eq!(later.desired(), DesiredState::Running);
    }
}
