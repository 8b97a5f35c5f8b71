//! The constants of the decision. They were chosen by `millrace simulate` on some seeds and reported on others (docs/scaling.md).

/// Constants of [`decide_with`](super::decide_with). Loads are in workers: 1 is all that one worker can do.
#[derive(Debug, Clone, PartialEq)]
pub struct Tuning {
    /// The fleet grows when the worst worker is expected to carry more than this.
    pub trigger: f64,
    /// As long as workers are still starting, it grows further only beyond this.
    pub trigger_starting: f64,
    /// After growing, the worst worker is to carry no more than this.
    pub target: f64,
    /// After shrinking, the worst worker is to carry no more than this.
    pub target_down: f64,
    /// How far ahead the trend is extended, seconds: until workers that are asked for now are at work.
    pub ahead_s: f64,
    /// Lag that needs no extra workers, as a share of the freshness target.
    pub lag_allowed: f64,
    /// A backlog that makes records late is to be gone within this share of the recovery target.
    pub drain_late: f64,
    /// Any other within this share of it.
    pub drain: f64,
    /// Of several workers asked for at once some start late: this share more is asked for.
    pub spare: f64,
    /// The fleet shrinks only to what it would have needed in this time, seconds.
    pub hold_s: f64,
    /// The lag that a smaller fleet might have had in that time, as a share of the freshness target.
    pub replay_lag: f64,
    /// Not smaller within this time after growing, or after shrinking, seconds.
    pub rest_s: f64,
    /// The fleet shrinks by this share at least, or not at all.
    pub least_step: f64,
    /// Resizes an hour from which on shrinking takes longer.
    pub resizes_per_hour: f64,
}

impl Tuning {
    /// For a fleet that shrinks to what the last `window_s` seconds needed: the rest after a resize keeps its proportion to it.
    pub fn shrinking_within(window_s: f64) -> Self {
        let usual = Self::default();
        Self { rest_s: usual.rest_s * window_s / usual.hold_s, hold_s: window_s, ..usual }
    }
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            trigger: 1.0,
            trigger_starting: 1.15,
            target: 0.88,
            target_down: 0.86,
            ahead_s: 40.0,
            lag_allowed: 0.2,
            drain_late: 0.15,
            drain: 0.4,
            spare: 0.15,
            hold_s: 240.0,
            replay_lag: 0.3,
            rest_s: 90.0,
            least_step: 0.08,
            resizes_per_hour: 15.0,
        }
    }
}
