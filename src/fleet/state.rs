//! What stands in the state topic, one record a key: what connectors are wished to do, the leader's last decisions, and how long workers
//! wait to join.

use serde::{Deserialize, Serialize};

use super::desired::{DesiredConnector, RestartNote};
use super::joins::JoinHold;

/// Decisions that stand in the topic: the keys go round.
pub(super) const DECISIONS_KEPT: u64 = 32;

const DECISION: &str = "decision/";
const CONNECTOR: &str = "connector/";
const RESTART: &str = "restart/";
/// The keys of [`super::Replayed`].
pub(super) const REPLAYED: &str = "replayed/";
/// The key of [`LeaderMemory`].
pub(super) const MEMORY: &str = "leader/memory";
/// The key of [`JoinHold`].
pub const JOINS: &str = "leader/joins";

/// The key of a decision: its number, going round after 32, so that compaction keeps the last ones.
pub fn decision_key(number: u64) -> String {
    format!("{DECISION}{:02}", number % DECISIONS_KEPT)
}

/// The key of a connector's wish.
pub fn connector_key(name: &str) -> String {
    format!("{CONNECTOR}{name}")
}

/// The key of a connector's restarts.
pub fn restart_key(name: &str) -> String {
    format!("{RESTART}{name}")
}

/// A decision that changed something: the number of workers, or what is said about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PublishedDecision {
    /// The shapes' version.
    pub v: u32,
    /// The fleet's name; empty in an older version's.
    #[serde(default)]
    pub fleet: String,
    /// The leader's term: of two decisions that of the higher term counts. Higher than that of every decision that the leader found, also
    /// where the lease or the lock file was made anew and counts from 1 again.
    pub term: u64,
    /// Counts the fleet's published decisions, over terms.
    pub number: u64,
    /// The leader's clock, milliseconds since the epoch. For people.
    pub at_ms: i64,
    /// The leader's name.
    pub leader: String,
    /// Workers that were asked for before.
    pub replicas_before: u32,
    /// Workers that are to be there.
    pub replicas: u32,
    /// Why, in words.
    pub reason: String,
    /// The whole decision with the numbers behind it, as `millrace decide` prints it.
    #[serde(default)]
    pub decision: serde_json::Value,
}

/// What a leader that comes next needs to go on where this one was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LeaderMemory {
    /// The shapes' version.
    pub v: u32,
    /// The fleet's name; empty in an older version's.
    #[serde(default)]
    pub fleet: String,
    /// The term of the leader that wrote it.
    pub term: u64,
    /// The time of its last snapshot: decisions count time on from there, whatever the next leader's clock says.
    pub now_ms: i64,
    /// The writer's clock, milliseconds since the epoch: how old the memory is to a worker that was not there when it was written.
    #[serde(default)]
    pub at_ms: Option<i64>,
    /// [`crate::scaling::Memory`], without the offsets of single partitions, which are soon learnt again.
    pub memory: serde_json::Value,
}

/// A record of the state topic, understood.
#[derive(Debug, Clone, PartialEq)]
pub enum StateNote {
    /// A decision.
    Decision(Box<PublishedDecision>),
    /// A leader's memory.
    Memory(Box<LeaderMemory>),
    /// How long workers that have started wait before they join.
    Joins(Box<JoinHold>),
    /// Which dead letters were replayed: nothing to a worker.
    Replayed,
    /// A connector's wished state; `None` when the wish was taken back (it runs).
    Connector(String, Option<DesiredConnector>),
    /// A connector is to restart; `None` when that was taken back.
    Restart(String, Option<RestartNote>),
}

impl StateNote {
    /// Reads a record. `None` for a key or a value that this version does not know.
    pub fn read(key: &[u8], value: Option<&[u8]>) -> Option<Self> {
        let key = std::str::from_utf8(key).ok()?;
        if let Some(name) = key.strip_prefix(CONNECTOR) {
            return Some(Self::Connector(name.to_owned(), read(value)?));
        }
        if let Some(name) = key.strip_prefix(RESTART) {
            return Some(Self::Restart(name.to_owned(), read(value)?));
        }
        if key == MEMORY {
            return Some(Self::Memory(Box::new(serde_json::from_slice(value?).ok()?)));
        }
        if key == JOINS {
            return Some(Self::Joins(Box::new(serde_json::from_slice(value?).ok()?)));
        }
        if key.starts_with(REPLAYED) {
            return Some(Self::Replayed);
        }
        key.strip_prefix(DECISION)?;
        Some(Self::Decision(Box::new(serde_json::from_slice(value?).ok()?)))
    }
}

/// A value that may be a deletion; `None` when it cannot be read.
fn read<T: serde::de::DeserializeOwned>(value: Option<&[u8]>) -> Option<Option<T>> {
    match value {
        None => Some(None),
        Some(value) => serde_json::from_slice(value).ok().map(Some),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn keys_go_round_and_unknown_ones_are_passed_over() {
        assert_eq!((decision_key(3), decision_key(35)), ("decision/03".to_owned(), "decision/03".to_owned()));
        let wish = br#"{"v":1,"state":"paused","at_ms":5,"by":"someone"}"#;
        let read = StateNote::read(b"connector/stock", Some(wish)).unwrap();
        assert_eq!(
            read,
            StateNote::Connector("stock".to_owned(), Some(DesiredConnector { v: 1, state: "paused".to_owned(), at_ms: 5, restart: 0 }))
        );
        assert_eq!(StateNote::read(b"connector/stock", None), Some(StateNote::Connector("stock".to_owned(), None)));
        let restart = StateNote::read(b"restart/stock", Some(br#"{"v":1,"number":7,"at_ms":5}"#));
        assert_eq!(restart, Some(StateNote::Restart("stock".to_owned(), Some(RestartNote { v: 1, number: 7, at_ms: 5 }))));
        assert_eq!(StateNote::read(b"restart/stock", Some(b"7")), None);
        assert_eq!(StateNote::read(b"weather/today", Some(b"{}")), None);
        assert_eq!(StateNote::read(b"decision/01", Some(b"{}")), None);
        let hold = br#"{"v":1,"term":2,"leader":"w-0","at_ms":5,"until_ms":9,"later":1}"#;
        assert!(
            matches!(StateNote::read(b"leader/joins", Some(hold)), Some(StateNote::Joins(hold)) if hold.until_ms == 9 && hold.from_ordinal == 0)
        );
        assert_eq!(StateNote::read(b"leader/joins", None), None);
        let decided = br#"{"v":1,"term":2,"number":9,"at_ms":1,"leader":"w-0","replicas_before":1,"replicas":3,"reason":"more","later":1}"#;
        assert!(matches!(StateNote::read(b"decision/09", Some(decided)), Some(StateNote::Decision(d)) if d.replicas == 3 && d.term == 2));
    }
}
