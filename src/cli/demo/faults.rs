//! The demo's fault profiles: fixed rates for each part, printed at the start.

use std::collections::BTreeMap;

use clap::ValueEnum;

use crate::embedded::bigquery::{FaultClass, Faults};
use crate::embedded::broker::{BrokerFault, BrokerFaultRates};
use crate::embedded::registry::{RegistryFault, RegistryFaultRates};

/// How much goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Profile {
    /// Nothing.
    None,
    /// As on a bad day.
    Some,
    /// Five times that.
    Heavy,
}

impl Profile {
    const fn factor(self) -> f64 {
        match self {
            Self::None => 0.0,
            Self::Some => 1.0,
            Self::Heavy => 5.0,
        }
    }

    /// Shares of the broker's requests.
    pub(in crate::cli) fn broker(self) -> BrokerFaultRates {
        let shares = [
            (BrokerFault::ProduceError, 0.002),
            (BrokerFault::FetchError, 0.002),
            (BrokerFault::CommitError, 0.05),
            (BrokerFault::CommitAnswerLost, 0.02),
            (BrokerFault::ConnectionCut, 0.0005),
            (BrokerFault::SlowFetch, 0.004),
        ];
        shares.into_iter().fold(BrokerFaultRates::none(), |rates, (fault, share)| rates.with(fault, share * self.factor()))
    }

    /// The registry is asked a few times only: its first requests are struck, then a share.
    pub(in crate::cli) fn registry(self) -> RegistryFaultRates {
        if self == Self::None {
            return RegistryFaultRates::none();
        }
        let shares = RegistryFault::ALL.into_iter().fold(RegistryFaultRates::none(), |r, fault| r.with(fault, 0.02 * self.factor()));
        shares.first(vec![RegistryFault::Down, RegistryFault::Rubbish, RegistryFault::Slow])
    }

    /// BigQuery's own presets; for exactly once, the calls that make and end streams fail too.
    pub(in crate::cli) fn bigquery(self, exact: bool) -> Faults {
        let mut faults = match self {
            Self::None => Faults::none(),
            Self::Some => Faults::some(),
            Self::Heavy => Faults::heavy(),
        };
        if exact && self != Self::None {
            let classes = [FaultClass::UnaryUnavailable, FaultClass::UnaryAborted, FaultClass::UnaryInternal, FaultClass::UnaryLostAnswer];
            faults.rates.extend(classes.map(|class| (class, 0.01 * self.factor())));
        }
        faults
    }

    /// All rates in words, one a line; empty without faults.
    pub(in crate::cli) fn describe(self, exact: bool) -> Vec<String> {
        let percent = |share: f64| format!("{:.2}%", share * 100.0);
        let mut lines: Vec<String> = self
            .broker()
            .iter()
            .map(|(f, share)| format!("{} of its requests, and one of the first ones: {}", percent(share), f.as_str()))
            .collect();
        if self != Self::None {
            lines.push("the first three requests, then as below: registry_down, registry_rubbish, registry_slow".to_owned());
        }
        let registry = 0.02 * self.factor();
        lines.extend(
            RegistryFault::ALL.iter().filter(|_| registry > 0.0).map(|f| format!("{} of the requests: {}", percent(registry), f.as_str())),
        );
        let rates = self.bigquery(exact).rates;
        lines.extend(
            rates.iter().map(|(class, rate)| format!("{} of its calls, and its first one: {}", percent(*rate), bigquery_name(*class))),
        );
        lines
    }
}

/// A class of BigQuery's faults in reports.
pub(super) fn bigquery_name(class: FaultClass) -> String {
    let name = serde_json::to_value(class).ok().and_then(|v| v.as_str().map(str::to_owned));
    format!("bigquery_{}", name.unwrap_or_else(|| format!("{class:?}")))
}

/// Counts of all parts under one roof: every class with a rate, 0 where it has not fired.
pub(super) fn fired(
    profile: Profile,
    exact: bool,
    broker: BTreeMap<&'static str, u64>,
    registry: BTreeMap<&'static str, u64>,
    bigquery: &BTreeMap<FaultClass, u64>,
) -> BTreeMap<String, u64> {
    let mut all: BTreeMap<String, u64> = profile.bigquery(exact).rates.keys().map(|class| (bigquery_name(*class), 0)).collect();
    all.extend(bigquery.iter().map(|(class, count)| (bigquery_name(*class), *count)));
    all.extend(broker.into_iter().chain(registry).map(|(name, count)| (name.to_owned(), count)));
    all
}
