//! What stands in the state topic about connectors, put together: for each its state and its restarts, which are notes of their own.
//!
//! Two notes, because two workers may be told at the same moment, each without having seen what the other writes: a state note says the whole state, so
//! the later one in the topic holds on every worker; a restart note changes no state, and a state note takes no restart back. So nothing is
//! written that was only read, and compaction, which keeps the last note of each key, loses nothing either.

use std::collections::BTreeMap;

use super::desired::{DesiredConnector, DesiredState, RestartNote};
use super::report::VERSION;

/// Connectors that are remembered at most, for each kind of note.
const CONNECTORS_MAX: usize = 10_000;

/// What connectors are told to do.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Told {
    states: BTreeMap<String, DesiredConnector>,
    restarts: BTreeMap<String, RestartNote>,
}

impl Told {
    /// A state note came; `None` takes it back. `false`: there are too many, and it is passed over.
    pub fn hear_state(&mut self, name: String, note: Option<DesiredConnector>) -> bool {
        hear(&mut self.states, name, note)
    }

    /// A restart note came, as [`Told::hear_state`].
    pub fn hear_restart(&mut self, name: String, note: Option<RestartNote>) -> bool {
        hear(&mut self.restarts, name, note)
    }

    /// What a connector is told to do, where somebody told it something. The restart that counts is the restart note's; one that stands in the state note
    /// is of an older version, which had no other place for it.
    pub fn of(&self, name: &str) -> Option<DesiredConnector> {
        let (state, restart) = (self.states.get(name), self.restarts.get(name));
        if state.is_none() && restart.is_none() {
            return None;
        }
        let running = || DesiredConnector { v: VERSION, state: DesiredState::Running.as_str().to_owned(), at_ms: i64::MIN, restart: 0 };
        let mut told = state.cloned().unwrap_or_else(running);
        if let Some(restart) = restart {
            told.restart = restart.number;
            told.at_ms = told.at_ms.max(restart.at_ms);
        }
        Some(told)
    }

    /// All connectors that were told something.
    pub fn all(&self) -> BTreeMap<String, DesiredConnector> {
        let names = self.states.keys().chain(self.restarts.keys());
        names.filter_map(|name| Some((name.clone(), self.of(name)?))).collect()
    }
}

fn hear<T>(notes: &mut BTreeMap<String, T>, name: String, note: Option<T>) -> bool {
    match note {
        Some(note) if notes.len() < CONNECTORS_MAX || notes.contains_key(&name) => {
            notes.insert(name, note);
        }
        Some(_) => return false,
        None => {
            notes.remove(&name);
        }
    }
    true
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::desired::Verb;
    use super::super::order::Order;
    use super::super::state::StateNote;
    use super::*;

    type Log = Vec<(String, Vec<u8>)>;

    /// What a reader of this topic knows.
    fn read(log: &[(String, Vec<u8>)]) -> Told {
        let mut told = Told::default();
        for (key, value) in log {
            match StateNote::read(key.as_bytes(), Some(value)).unwrap() {
                StateNote::Connector(name, note) => assert!(told.hear_state(name, note)),
                StateNote::Restart(name, note) => assert!(told.hear_restart(name, note)),
                other => unreachable!("{other:?}"),
            }
        }
        told
    }

    /// The topic after compaction: the last record of each key.
    fn compacted(log: &Log) -> Log {
        let last = |at: usize, key: &String| !log[at + 1..].iter().any(|(later, _)| later == key);
        log.iter().enumerate().filter(|(at, (key, _))| last(*at, key)).map(|(_, record)| record.clone()).collect()
    }

    /// Every verb against every other, from every state, each written without having seen the other.
    #[test]
    fn of_two_orders_of_the_same_moment_nothing_is_lost_that_was_told() {
        for before in Verb::ALL {
            let start: Log = vec![Order::new("c", before, None, 1, 1).unwrap().record().unwrap()];
            let seen = read(&start).of("c");
            for (first, second) in Verb::ALL.into_iter().flat_map(|first| Verb::ALL.map(|second| (first, second))) {
                // A stopped connector is told nothing by a restart.
                let orders = [(first, 7), (second, 8)].map(|(verb, number)| Order::new("c", verb, seen.as_ref(), 2, number).ok());
                let mut log = start.clone();
                log.extend(orders.iter().flatten().map(|order| order.record().unwrap()));
                let now = read(&log).of("c");
                assert_eq!(read(&compacted(&log)).of("c"), now, "a worker that starts later");
                let [first_told, second_told] = orders.each_ref().map(|order| order.as_ref().map(|order| order.held(now.clone())));
                for (verb, told) in [(first, &first_told), (second, &second_told)] {
                    match (told, verb) {
                        (Some(Ok(wish)), _) => assert_eq!(Some(wish), now.as_ref(), "the caller hears what holds"),
                        (Some(Err(overtaken)), Verb::Restart) => {
                            assert!(overtaken.to_string().contains("stopped"), "{overtaken}");
                        }
                        (Some(Err(overtaken)), _) => assert!(overtaken.to_string().contains(&now.as_ref().unwrap().state), "{overtaken}"),
                        (None, _) => assert_eq!((before, verb), (Verb::Stop, Verb::Restart)),
                    }
                }
                let restarts = [first, second].contains(&Verb::Restart) && before != Verb::Stop;
                assert_eq!(restarts, seen.as_ref().unwrap().restart != now.unwrap().restart, "{before:?}: {first:?} {second:?}");
                assert!(
                    [first_told, second_told].into_iter().flatten().any(|told| told.is_ok())
                        || (before, first, second) == (Verb::Stop, Verb::Restart, Verb::Restart)
                );
            }
        }
    }

    #[test]
    fn an_older_versions_restart_counts_until_there_is_a_note_of_its_own() {
        let mut told = Told::default();
        let older = serde_json::from_str(r#"{"v":1,"state":"paused","at_ms":5,"restart":77}"#).unwrap();
        assert!(told.hear_state("c".to_owned(), Some(older)));
        assert_eq!(told.of("c").unwrap().restart, 77);
        let next = Order::new("c", Verb::Resume, told.of("c").as_ref(), 6, 78).unwrap().record().unwrap();
        assert_eq!(read(&[next]).of("c").unwrap().restart, 77, "or everyone would restart");
        assert!(told.hear_restart("c".to_owned(), Some(RestartNote { v: 1, number: 79, at_ms: 9 })));
        let now = told.of("c").unwrap();
        assert_eq!((now.restart, now.desired(), now.at_ms), (79, DesiredState::Paused, 9));
        assert!(told.hear_state("c".to_owned(), None));
        assert_eq!((told.of("c").unwrap().state.as_str(), told.all().len()), ("running", 1));
        assert!(told.hear_restart("c".to_owned(), None));
        assert_eq!((told.of("c"), told.all().len()), (None, 0));
    }

    #[test]
    fn memory_is_bounded() {
        let mut told = Told::default();
        let note = || Some(RestartNote { v: 1, number: 1, at_ms: 1 });
        assert!((0..CONNECTORS_MAX).all(|n| told.hear_restart(format!("c{n}"), note())));
        assert!(!told.hear_restart("one more".to_owned(), note()) && told.hear_restart("c5".to_owned(), note()));
    }
}
