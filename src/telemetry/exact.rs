//! What exactly-once connectors count.

use metrics::{Counter, Label};

use super::catalog as names;
use super::metrics::counter;

/// One connector's streams, takeovers and what they found.
pub struct ExactMetrics {
    /// [`names::STREAMS_CREATED`].
    pub streams_created: Counter,
    /// [`names::LANDED_APPENDS_FOUND`].
    pub landed_appends_found: Counter,
    /// [`names::STREAMS_LOST`].
    pub streams_lost: Counter,
    /// [`names::REPLAYED_ROWS`].
    pub replayed_rows: Counter,
    /// [`names::STREAM_TAKEOVERS`] by how much of the window had landed: none, some, all.
    takeovers: [Counter; 3],
    /// [`names::STREAMS_ENDED`].
    pub streams_ended: Counter,
}

impl ExactMetrics {
    /// The counters of this connector.
    pub fn new(connector: &str) -> Self {
        let label = || Label::new("connector", connector.to_owned());
        let takeovers = |landed: &'static str| counter(names::STREAM_TAKEOVERS, vec![label(), Label::new("landed", landed)]);
        Self {
            streams_created: counter(names::STREAMS_CREATED, vec![label()]),
            landed_appends_found: counter(names::LANDED_APPENDS_FOUND, vec![label()]),
            streams_lost: counter(names::STREAMS_LOST, vec![label()]),
            replayed_rows: counter(names::REPLAYED_ROWS, vec![label()]),
            takeovers: [takeovers("none"), takeovers("some"), takeovers("all")],
            streams_ended: counter(names::STREAMS_ENDED, vec![label()]),
        }
    }

    /// A takeover found so many appends of a window landed.
    pub fn took_over(&self, landed: usize, of: usize) {
        let [none, some, all] = &self.takeovers;
        let found = match landed {
            0 => none,
            landed if landed < of => some,
            _ => all,
        };
        found.increment(1);
        self.landed_appends_found.increment(landed as u64);
    }
}
