//! Levels that rise and fall where things happen, and are shown at every tick.
//!
//! A gauge that was registered once and is changed now and then would be lost: the exporter drops what does not change for
//! [`super::metrics::GAUGE_IDLE`], and whoever kept the handle goes on writing into nothing.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::catalog as names;
use super::metrics::Gauge;

/// [`names::APPEND_CONNECTIONS`].
pub static APPEND_CONNECTIONS: Level = Level(AtomicUsize::new(0));
/// [`names::APPEND_IN_FLIGHT_BYTES`].
pub static APPEND_IN_FLIGHT_BYTES: Level = Level(AtomicUsize::new(0));

/// A level of this process: one atomic operation to change it.
#[derive(Debug)]
pub struct Level(AtomicUsize);

impl Level {
    /// It rises.
    pub fn rise(&self, by: usize) {
        self.0.fetch_add(by, Relaxed);
    }

    /// It falls.
    pub fn fall(&self, by: usize) {
        self.0.fetch_sub(by, Relaxed);
    }

    fn show(&self, name: &'static str) {
        Gauge::new(name, Vec::new()).set(self.0.load(Relaxed) as f64);
    }
}

/// Sets the gauges: at every tick.
pub fn show() {
    APPEND_CONNECTIONS.show(names::APPEND_CONNECTIONS);
    APPEND_IN_FLIGHT_BYTES.show(names::APPEND_IN_FLIGHT_BYTES);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use metrics_exporter_prometheus::PrometheusBuilder;
    use metrics_util::MetricKindMask;

    use super::*;

    #[test]
    fn a_level_that_did_not_change_for_long_is_shown_at_the_next_tick() {
        const IDLE: Duration = Duration::from_millis(50);
        let recorder = PrometheusBuilder::new().idle_timeout(MetricKindMask::GAUGE, Some(IDLE)).build_recorder();
        let page = recorder.handle();
        let level = Level(AtomicUsize::new(0));
        let shown = |line: &str| page.render().lines().any(|shown| shown == line);
        metrics::with_local_recorder(&recorder, || {
            level.rise(3);
            level.fall(1);
            level.show(names::APPEND_CONNECTIONS);
            assert!(shown("millrace_append_connections 2"));
            std::thread::sleep(IDLE * 2);
            assert!(!page.render().contains("millrace_append_connections"), "else this shows nothing");
            level.show(names::APPEND_CONNECTIONS);
            assert!(shown("millrace_append_connections 2"));
        });
    }
}
