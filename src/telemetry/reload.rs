//! What following the connector files counts.

use metrics::Label;

use super::catalog as names;
use super::metrics::{Gauge, counter};

/// What became of a changed file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReloadOutcome {
    /// New: its connector started.
    Started,
    /// Changed: its connector drained and started anew.
    Restarted,
    /// Gone: its connector drained and left.
    Stopped,
    /// A mistake: nothing changed.
    Refused,
}

impl ReloadOutcome {
    /// The label's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Restarted => "restarted",
            Self::Stopped => "stopped",
            Self::Refused => "refused",
        }
    }
}

/// Handles of the process.
#[derive(Debug, Clone)]
pub struct ReloadMetrics {
    /// [`names::CONNECTORS_FOLDER_READABLE`]: 1 or 0. At every tick.
    pub folder_readable: Gauge,
    /// [`names::RESTART_NEEDED`]: 1 or 0. At every tick.
    pub restart_needed: Gauge,
}

impl ReloadMetrics {
    /// The handles. One for the process.
    pub fn new() -> Self {
        Self {
            folder_readable: Gauge::new(names::CONNECTORS_FOLDER_READABLE, Vec::new()),
            restart_needed: Gauge::new(names::RESTART_NEEDED, Vec::new()),
        }
    }

    /// [`names::CONNECTOR_FILE_REFUSED`] is 1: at every tick while it is so; it vanishes afterwards.
    pub fn refused(&self, connector: &str) {
        Gauge::new(names::CONNECTOR_FILE_REFUSED, vec![Label::new("connector", connector.to_owned())]).set(1.0);
    }

    /// One more change: [`names::CONNECTOR_RELOADS`].
    pub fn count(&self, connector: &str, outcome: ReloadOutcome) {
        let labels = vec![Label::new("connector", connector.to_owned()), Label::new("outcome", outcome.as_str())];
        counter(names::CONNECTOR_RELOADS, labels).increment(1);
    }
}

impl Default for ReloadMetrics {
    fn default() -> Self {
        Self::new()
    }
}
