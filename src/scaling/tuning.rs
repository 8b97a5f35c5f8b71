//! The constants of the decision. They were chosen by `millrace simulate` on some seeds and reported on others (docs/scaling.md).

/// Constants of [`decide_with`](super::decide_with). Loads are in workers: 1 is all that one worker can do.
#[derive(Debug, Clone, PartialEq)]
pub struct Tuning {
    /// How much of a worker's capacity is counted on while it is asked whether the fleet as it is will do.
    pub trust: f64,
    /// How much of it is counted on when a larger number is chosen.
    pub target: f64,
    /// How much of it is counted on when a smaller number is chosen.
    pub target_down: f64,
    /// How far ahead a trend is extended, seconds.
    pub ahead_s: f64,
    /// Workers that are asked for now are expected at work after this time, seconds.
    pub startup_s: f64,
    /// How much longer than a start-up is looked ahead to see whether to grow, seconds.
    pub look_s: f64,
    /// Expected lag from which on the fleet grows, as a share of the freshness target.
    pub lag_trigger: f64,
    /// Lag that a larger fleet is to come down to, as a share of the freshness target.
    pub lag_allowed: f64,
    /// It is to come down to it within this share of the recovery target when records are late already.
    pub drain_late: f64,
    /// And within this share of it otherwise.
    pub drain: f64,
    /// Where every rebalance stops all, and each worker joins when it has started.
    pub apart: Stopping,
    /// Where every rebalance stops all, and workers wait for each other to join together.
    pub together: Stopping,
    /// Where workers wait for each other: an opening is as good as the best when it costs no more than this many times as much. The earliest of those is
    /// taken: who waits for what may come waits long.
    pub open_soon: f64,
    /// Lag that joins may cost at no price where a rebalance stops only what moves, but nearly all moves, as a share of the freshness target.
    pub moving_price: f64,
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
    /// Resizes an hour from which on shrinking takes longer, and short trends must be larger.
    pub resizes_per_hour: f64,
    /// A trend of less than a minute then counts when it changes the load by this share.
    pub often_floor: f64,
    /// Resizes within an hour from which on the fleet shrinks by `large_step` or not at all.
    pub many_resizes: f64,
    /// See `many_resizes`: a share of the fleet.
    pub large_step: f64,
    /// Resizes within an hour from which on it shrinks by `largest_step` or not at all. Growing has no limit: late records are worse than a
    /// worker too many.
    pub most_resizes: f64,
    /// See `most_resizes`: a share of the fleet.
    pub largest_step: f64,
}

/// Constants for groups whose every rebalance stops all (eager).
#[derive(Debug, Clone, PartialEq)]
pub struct Stopping {
    /// How much less of a worker is counted on.
    pub reserve: f64,
    /// How much further a trend is extended: each growth is to last.
    pub ahead: f64,
    /// A trend of less than a minute counts when it changes the load by this share: a stop for nothing is dear.
    pub floor: f64,
    /// How many times as far beyond a start-up it is looked ahead: what is asked for early comes while there is room for its stops.
    pub look: f64,
    /// Expected lag from which on the fleet grows, as a share of the freshness target; and while workers are on their way.
    pub trigger: f64,
    /// See `trigger`.
    pub again: f64,
    /// Lag that a rebalance may cause at no price, as a share of the freshness target.
    pub price: f64,
    /// For how long after the forecast lag goes on as it did at its end when a growth is priced, seconds.
    pub tail_s: f64,
    /// The least number is taken whose price is this many times the lowest.
    pub near: f64,
    /// A fleet that is further behind does not shrink, as a share of the freshness target.
    pub lag: f64,
    /// Not smaller within this time after the last change, seconds.
    pub rest_s: f64,
    /// The fleet shrinks by this share at least.
    pub step: f64,
    /// How many times as long as others it looks back before it shrinks.
    pub hold: f64,
}

impl Tuning {
    /// For a fleet that shrinks to what the last `window_s` seconds needed: the rest after a resize keeps its proportion to it.
    pub fn shrinking_within(window_s: f64) -> Self {
        let usual = Self::default();
        let part = window_s / usual.hold_s;
        let rests = |of: Stopping| Stopping { rest_s: of.rest_s * part, ..of };
        let (apart, together) = (rests(usual.apart.clone()), rests(usual.together.clone()));
        Self { rest_s: usual.rest_s * part, apart, together, hold_s: window_s, ..usual }
    }
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            trust: 0.98,
            target: 0.95,
            target_down: 0.95,
            ahead_s: 40.0,
            startup_s: 35.0,
            look_s: 20.0,
            lag_trigger: 0.4,
            lag_allowed: 0.2,
            drain_late: 0.1,
            drain: 0.2,
            apart: Stopping {
                reserve: 0.05,
                ahead: 1.5,
                floor: 0.5,
                look: 4.0,
                trigger: 0.24,
                again: 1.0,
                price: 0.9,
                tail_s: 600.0,
                near: 1.3,
                lag: 0.15,
                rest_s: 90.0,
                step: 0.15,
                hold: 3.4,
            },
            together: Stopping {
                reserve: 0.02,
                ahead: 1.5,
                floor: 0.5,
                look: 2.0,
                trigger: 0.4,
                again: 1.0,
                price: 0.8,
                tail_s: 600.0,
                near: 1.3,
                lag: 0.15,
                rest_s: 90.0,
                step: 0.15,
                hold: 1.7,
            },
            open_soon: 1.08,
            moving_price: 0.4,
            spare: 0.1,
            hold_s: 90.0,
            replay_lag: 0.3,
            rest_s: 45.0,
            least_step: 0.08,
            resizes_per_hour: 15.0,
            often_floor: 0.15,
            many_resizes: 20.0,
            large_step: 0.25,
            most_resizes: 23.0,
            largest_step: 0.6,
        }
    }
}
