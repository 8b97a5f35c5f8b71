//! What of a connector does not move: gauges, set at every look at its partitions.

use metrics::Label;

use super::catalog as names;
use super::metrics::Gauge;

/// One connector's gauges of standing still.
pub struct StandingGauges {
    stalled: Gauge,
    stalled_seconds: Gauge,
    resting: Gauge,
    paused: Gauge,
}

impl StandingGauges {
    /// The gauges of this connector.
    pub fn new(connector: &str) -> Self {
        let gauge = |name| Gauge::new(name, vec![Label::new("connector", connector.to_owned())]);
        Self {
            stalled: gauge(names::CONNECTOR_STALLED),
            stalled_seconds: gauge(names::CONNECTOR_STALLED_SECONDS),
            resting: gauge(names::RESTING_PARTITIONS),
            paused: gauge(names::PAUSED_PARTITIONS),
        }
    }

    /// For how long it has been stalled, if it is.
    pub fn stalled(&self, for_ms: Option<i64>) {
        self.stalled.set(if for_ms.is_some() { 1.0 } else { 0.0 });
        self.stalled_seconds.set(for_ms.unwrap_or(0).max(0) as f64 / 1000.0);
    }

    /// How many partitions rest, and how many hold.
    pub fn paused(&self, resting: usize, held: usize) {
        self.resting.set(resting as f64);
        self.paused.set((resting + held) as f64);
    }
}
