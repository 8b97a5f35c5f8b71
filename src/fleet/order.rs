//! An order that somebody gives a connector: what is written for it, and what became of it when others gave orders in the same moment.
//!
//! Whoever gives one reads the state topic to its end, writes, and reads to the end once more: what stands there then is told to whoever asked. The topic's order
//! is the only one that counts, so all workers agree with it.

use super::desired::{DesiredConnector, DesiredState, RestartNote, Verb};
use super::state::{connector_key, restart_key};

/// One order, before and after it was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    connector: String,
    note: Note,
}

#[derive(Debug, Clone, PartialEq)]
enum Note {
    State(DesiredConnector),
    Restart(RestartNote),
}

/// An order that another one overtook: it was written, and something else holds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("overtaken by another order that was given in the same moment: {holds}")]
pub struct Overtaken {
    holds: String,
}

impl Order {
    /// The order that `verb` is when `before` holds. `number` differs from order to order.
    ///
    /// # Errors
    /// In words: what is stopped has nothing that could restart.
    pub fn new(connector: &str, verb: Verb, before: Option<&DesiredConnector>, now_ms: i64, number: u64) -> Result<Self, String> {
        let after = DesiredConnector::after(before, verb, now_ms, number)?;
        let note = match verb {
            Verb::Restart => Note::Restart(RestartNote { v: after.v, number: after.restart, at_ms: now_ms }),
            Verb::Pause | Verb::Resume | Verb::Stop => Note::State(after),
        };
        Ok(Self { connector: connector.to_owned(), note })
    }

    /// Whom it is given to.
    pub fn connector(&self) -> &str {
        &self.connector
    }

    /// What is written for it in the state topic: key and value.
    ///
    /// # Errors
    /// None that could happen: JSON of numbers and words.
    pub fn record(&self) -> Result<(String, Vec<u8>), serde_json::Error> {
        Ok(match &self.note {
            Note::State(note) => (connector_key(&self.connector), serde_json::to_vec(note)?),
            Note::Restart(note) => (restart_key(&self.connector), serde_json::to_vec(note)?),
        })
    }

    /// What the caller is to be told. `now`: what the connector is told to do, read after the order was written.
    ///
    /// # Errors
    /// Another order came after this one and says otherwise.
    pub fn held(&self, now: Option<DesiredConnector>) -> Result<DesiredConnector, Overtaken> {
        let Some(now) = now else { return Err(Overtaken { holds: "nothing stands in the state topic now".to_owned() }) };
        let state = now.desired();
        match &self.note {
            Note::State(note) if note.desired() != state => Err(Overtaken { holds: format!("it is told to be {} now", now.state) }),
            // A number that came after this one's lets it start anew after this order too.
            Note::Restart(_) if state == DesiredState::Stopped => {
                Err(Overtaken { holds: format!("it is told to be {} now, and starts when it is resumed", now.state) })
            }
            Note::State(_) | Note::Restart(_) => Ok(now),
        }
    }
}
