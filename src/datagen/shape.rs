//! How a load rises and falls over a run.

use std::time::Duration;

use clap::ValueEnum;

/// A load's shape. Pure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LoadShape {
    /// The whole rate, all the time.
    Steady,
    /// A tenth of the rate, then all of it within three seconds, then a tenth again.
    Flash,
    /// A day pressed into the run: a tenth of the rate at its ends, all of it at noon, a sine between.
    Day,
    /// A fifth of the rate, then all of it at once, then a fifth again.
    Step,
}

/// When the high time of a flash and of a step begins and ends: shares of the run. What is left is for a fleet to shrink in.
const HIGH_FROM: f64 = 0.15;
const HIGH_UNTIL: f64 = 0.5;
/// How long a flash takes to rise.
const FLASH_RISE_S: f64 = 3.0;

impl LoadShape {
    /// The share of the rate that is asked `elapsed` after the start of a run of this `length`: above 0, at most 1.
    pub fn share(self, elapsed: Duration, length: Duration) -> f64 {
        let (at, length) = (elapsed.as_secs_f64(), length.as_secs_f64().max(f64::MIN_POSITIVE));
        let (from, until) = (HIGH_FROM * length, HIGH_UNTIL * length);
        let high = (from..until).contains(&at);
        match self {
            Self::Steady => 1.0,
            Self::Flash if high => 0.1 + 0.9 * ((at - from) / FLASH_RISE_S).min(1.0),
            Self::Flash => 0.1,
            Self::Day => 0.55 - 0.45 * (std::f64::consts::TAU * at / length).cos(),
            Self::Step if high => 1.0,
            Self::Step => 0.2,
        }
    }

    /// The name on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Flash => "flash",
            Self::Day => "day",
            Self::Step => "step",
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    fn shares(shape: LoadShape) -> Vec<f64> {
        (0..=100).map(|s| shape.share(Duration::from_secs(s), Duration::from_secs(100))).collect()
    }

    #[test]
    fn every_shape_reaches_the_rate_and_none_exceeds_it() {
        for shape in LoadShape::value_variants() {
            let shares = shares(*shape);
            assert!(shares.iter().all(|s| (0.0999..=1.0).contains(s)), "{shape:?}: {shares:?}");
            assert!(shares.iter().any(|s| *s > 0.999), "{shape:?}");
            assert_eq!(shape.to_possible_value().unwrap().get_name(), shape.as_str());
        }
    }

    #[test]
    fn a_flash_is_tenfold_within_seconds_and_back_at_once() {
        let shares = shares(LoadShape::Flash);
        assert_eq!((shares[14], shares[19], shares[49], shares[51]), (0.1, 1.0, 1.0, 0.1));
        let (step, day) = (self::shares(LoadShape::Step), self::shares(LoadShape::Day));
        assert_eq!((step[14], step[16], step[51]), (0.2, 1.0, 0.2));
        assert!((day[0] - 0.1).abs() < 1e-9 && (day[25] - 0.55).abs() < 1e-9 && (day[100] - 0.1).abs() < 1e-9);
        assert!(LoadShape::Flash.share(Duration::ZERO, Duration::ZERO) > 0.0, "a run of no length");
    }
}
