//! What the fleet was told about a connector.

use metrics::Label;

use super::catalog as names;
use super::metrics::Gauge;

/// [`names::CONNECTOR_ASKED_TO_REST`] of a connector: 1 or 0, at every tick.
pub fn asked_to_rest(connector: &str, rests: bool) {
    let labels = vec![Label::new("connector", connector.to_owned())];
    Gauge::new(names::CONNECTOR_ASKED_TO_REST, labels).set(if rests { 1.0 } else { 0.0 });
}
