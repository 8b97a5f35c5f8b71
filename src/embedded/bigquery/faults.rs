//! Faults on demand: every documented error by class, at a rate or as the next one.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::fault_class::{FaultClass, Point};

/// Rates of faults, as a user states them. `{"rates": {"lost_ack": 0.001}}`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Faults {
    /// Probability of each class at each opportunity (an append, a REST call, ...), 0 to 1.
    #[serde(default)]
    pub rates: BTreeMap<FaultClass, f64>,
    /// How long [`FaultClass::SlowResponse`] and [`FaultClass::RestSlow`] wait, milliseconds.
    #[serde(default = "default_slow_ms")]
    pub slow_ms: u64,
}

fn default_slow_ms() -> u64 {
    500
}

impl Faults {
    /// No faults.
    pub fn none() -> Self {
        Self { rates: BTreeMap::new(), slow_ms: default_slow_ms() }
    }

    /// The preset `some`: about one append in 200 fails, one REST call in 50.
    pub fn some() -> Self {
        Self::preset(1.0)
    }

    /// The preset `heavy`: five times `some`.
    pub fn heavy() -> Self {
        Self::preset(5.0)
    }

    /// A preset by its name: `none`, `some`, `heavy`.
    pub fn by_name(name: &str) -> Option<Self> {
        match name {
            "none" => Some(Self::none()),
            "some" => Some(Self::some()),
            "heavy" => Some(Self::heavy()),
            _ => None,
        }
    }

    fn preset(factor: f64) -> Self {
        use FaultClass as C;
        let rates = [
            (C::Unavailable, 0.001),
            (C::ConnectionDrain, 0.0005),
            (C::Aborted, 0.0005),
            (C::Internal, 0.0005),
            (C::LostAck, 0.001),
            (C::SlowResponse, 0.002),
            (C::ResourceExhausted, 0.0005),
            (C::RestInternal500, 0.005),
            (C::RestBadGateway502, 0.005),
            (C::RestUnavailable503, 0.005),
            (C::RestRateLimitExceeded, 0.005),
        ];
        Self { rates: rates.into_iter().map(|(class, rate)| (class, rate * factor)).collect(), slow_ms: default_slow_ms() }
    }
}

/// A fault that is to happen now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    pub class: FaultClass,
    pub slow_ms: u64,
}

/// The faults of a running BigQuery: rates, what was asked for next, what fired.
#[derive(Debug)]
pub struct FaultControl {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    faults: Faults,
    rng: ChaCha8Rng,
    next: Vec<(FaultClass, Option<String>)>,
    fired: BTreeMap<FaultClass, u64>,
}

impl FaultControl {
    pub(crate) fn new(faults: Faults, seed: u64) -> Self {
        let inner = Inner { faults, rng: ChaCha8Rng::seed_from_u64(seed ^ 0xFA17), next: Vec::new(), fired: BTreeMap::new() };
        Self { inner: Mutex::new(inner) }
    }

    /// Replaces the rates.
    pub fn set(&self, faults: Faults) {
        self.inner.lock().faults = faults;
    }

    /// The rates as they are.
    pub fn get(&self) -> Faults {
        self.inner.lock().faults.clone()
    }

    /// Makes the next opportunity of the class fire, for a table whose `project.dataset.table` (or stream name) contains `table` in whole
    /// words: `d.stock` is not meant by `d.stock_updates`. Calls add up.
    pub fn fire_next(&self, class: FaultClass, table: Option<&str>) {
        self.inner.lock().next.push((class, table.map(str::to_owned)));
    }

    /// How often each class fired.
    pub fn fired(&self) -> BTreeMap<FaultClass, u64> {
        self.inner.lock().fired.clone()
    }

    /// Whether a fault is to happen at this point for this table (`project.dataset.table`, or any other text that names the target).
    pub(crate) fn draw(&self, point: Point, table: &str) -> Option<Fault> {
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        if inner.next.is_empty() && inner.faults.rates.is_empty() {
            return None;
        }
        let asked =
            inner.next.iter().position(|(class, filter)| class.point() == point && filter.as_deref().is_none_or(|part| names(table, part)));
        let class = match asked {
            Some(index) => Some(inner.next.remove(index).0),
            None => {
                let Inner { faults, rng, .. } = inner;
                faults
                    .rates
                    .iter()
                    .filter(|(class, _)| class.point() == point)
                    .find(|(_, rate)| rng.random::<f64>() < **rate)
                    .map(|(c, _)| *c)
            }
        }?;
        *inner.fired.entry(class).or_default() += 1;
        Some(Fault { class, slow_ms: inner.faults.slow_ms })
    }
}

/// Whether `part` stands in `target` with nothing before or behind it that could belong to a longer name.
fn names(target: &str, part: &str) -> bool {
    let of_a_name = |neighbour: Option<char>| neighbour.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '-');
    target
        .match_indices(part)
        .any(|(at, found)| !of_a_name(target[..at].chars().next_back()) && !of_a_name(target[at + found.len()..].chars().next()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_next_one_fires_once_and_only_for_its_table() {
        let control = FaultControl::new(Faults::none(), 1);
        control.fire_next(FaultClass::LostAck, Some("d.t"));
        assert_eq!(control.draw(Point::Append, "p.d.other"), None);
        assert_eq!((control.draw(Point::Append, "p.d.t_two"), control.draw(Point::Append, "p.bad.t")), (None, None));
        assert_eq!(control.draw(Point::Rest, "p.d.t"), None);
        assert_eq!(control.draw(Point::Append, "p.d.t").map(|f| f.class), Some(FaultClass::LostAck));
        assert_eq!(control.draw(Point::Append, "p.d.t"), None);
        assert_eq!(control.fired(), BTreeMap::from([(FaultClass::LostAck, 1)]));
    }

    #[test]
    fn rates_and_seed() {
        let run = |seed| {
            let control = FaultControl::new(Faults::heavy(), seed);
            (0..10_000).filter(|_| control.draw(Point::Append, "t").is_some()).count()
        };
        assert_eq!(run(1), run(1));
        let expected: f64 = Faults::heavy().rates.iter().filter(|(c, _)| c.point() == Point::Append).map(|(_, r)| r).sum();
        let got = run(1) as f64 / 10_000.0;
        assert!((got / expected - 1.0).abs() < 0.3, "{got} of {expected}");
    }

    #[test]
    fn faults_come_from_json_by_their_names() {
        let faults: Faults = serde_json::from_str(r#"{"rates": {"lost_ack": 0.5, "rest_bad_gateway502": 1}}"#).unwrap();
        assert_eq!(faults.rates[&FaultClass::LostAck], 0.5);
        assert!(serde_json::from_str::<Faults>(r#"{"rates": {"nosuch": 1}}"#).is_err());
    }
}
