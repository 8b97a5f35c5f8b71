//! What the fleet's leader decided, as the demo shows and reports it.

use serde::Serialize;

/// A decision to resize.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct DecisionLine {
    /// Seconds since production began.
    pub(super) at_s: f64,
    /// Workers before.
    pub(super) from: u32,
    /// Workers wanted from then on.
    pub(super) to: u32,
    /// Who decided: the worker, and its term, which grows with every new leader.
    pub(super) leader: String,
    /// See `leader`.
    pub(super) term: u64,
    /// Why, in the leader's words.
    pub(super) reason: String,
}

impl std::fmt::Display for DecisionLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The reason names both numbers.
        write!(f, "{:>5.1}s {}", self.at_s, self.reason)
    }
}
