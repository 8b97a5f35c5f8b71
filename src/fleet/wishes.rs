//! What connectors are wished to do, as the view of the fleet knows it.

use tokio::sync::watch;

use super::desired::DesiredConnector;
use super::known::Heard;
use super::view::FleetView;

/// What is known of the wishes about connectors; a change of it is worth a look at [`FleetView::desired`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wishes {
    /// The state topic has been read to its end at least once.
    pub known: bool,
    /// Counts changes.
    pub changes: u64,
}

impl FleetView {
    /// The state topic is read from its beginning, once more perhaps: wishes stay what they were until [`FleetView::state_read`].
    pub fn state_begins(&self) {
        self.inner.lock().known.state_begins();
    }

    /// The state topic has been read to where it ended: the wishes are known.
    pub fn state_read(&self) {
        let changed = self.inner.lock().known.state_read();
        self.wishes.send_if_modified(|wishes| {
            let news = changed || !wishes.known;
            wishes.changes += u64::from(news);
            wishes.known = true;
            news
        });
    }

    /// Tells about changes of what connectors are wished to do.
    pub fn wishes(&self) -> watch::Receiver<Wishes> {
        self.wishes.subscribe()
    }

    /// What a connector is wished to do, where somebody wished something.
    pub fn desired(&self, connector: &str) -> Option<DesiredConnector> {
        self.inner.lock().known.desired.of(connector)
    }

    /// Whether a worker that is there has such a connector, or somebody wished something of it.
    pub fn knows(&self, connector: &str) -> bool {
        let inner = self.inner.lock();
        let reported = |heard: &Heard| heard.report.connectors.iter().any(|report| report.connector == connector);
        inner.known.desired.of(connector).is_some() || inner.known.workers.values().any(reported)
    }

    /// The wished state of a connector, where somebody wished one.
    pub fn desired_state(&self, connector: &str) -> Option<String> {
        self.desired(connector).map(|desired| desired.state)
    }
}
