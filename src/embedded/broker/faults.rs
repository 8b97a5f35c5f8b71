//! Which of the broker's faults happen: drawn for each request from a seeded generator, and counted.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

const PRODUCE: i16 = 0;
const FETCH: i16 = 1;
const OFFSET_COMMIT: i16 = 8;

/// A class of fault of the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum BrokerFault {
    /// A Produce request is refused with NOT_LEADER_OR_FOLLOWER; nothing of it is stored.
    ProduceError,
    /// A Fetch request is refused with KAFKA_STORAGE_ERROR.
    FetchError,
    /// An OffsetCommit is refused with REBALANCE_IN_PROGRESS. (Not with NOT_COORDINATOR: the client would leave its connection, and the
    /// mock cluster ends the whole process when a member does so while it joins.)
    CommitError,
    /// An OffsetCommit is done, but the connection breaks before its answer.
    CommitAnswerLost,
    /// The connection breaks in place of a Fetch.
    ConnectionCut,
    /// A Fetch is answered 100 to 500 ms late.
    SlowFetch,
}

impl BrokerFault {
    /// All classes.
    pub const ALL: [Self; 6] =
        [Self::ProduceError, Self::FetchError, Self::CommitError, Self::CommitAnswerLost, Self::ConnectionCut, Self::SlowFetch];

    /// Its name in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ProduceError => "broker_produce_error",
            Self::FetchError => "broker_fetch_error",
            Self::CommitError => "broker_commit_error",
            Self::CommitAnswerLost => "broker_commit_answer_lost",
            Self::ConnectionCut => "broker_connection_cut",
            Self::SlowFetch => "broker_slow_fetch",
        }
    }

    /// The request of its kind at which a class with a share strikes at the latest: short runs meet the rare ones too. Commits are few.
    const fn first_strike(self) -> u64 {
        match self {
            Self::CommitError | Self::CommitAnswerLost => 3,
            Self::ProduceError | Self::FetchError | Self::ConnectionCut | Self::SlowFetch => 10,
        }
    }

    const fn cuts(self) -> bool {
        matches!(self, Self::CommitAnswerLost | Self::ConnectionCut)
    }

    const fn api(self) -> i16 {
        match self {
            Self::ProduceError => PRODUCE,
            Self::FetchError | Self::ConnectionCut | Self::SlowFetch => FETCH,
            Self::CommitError | Self::CommitAnswerLost => OFFSET_COMMIT,
        }
    }
}

/// The share of requests of its kind that each class of fault strikes, 0 to 1.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BrokerFaultRates(BTreeMap<BrokerFault, f64>);

impl BrokerFaultRates {
    /// Nothing goes wrong.
    pub fn none() -> Self {
        Self::default()
    }
    /// This class strikes this share of its requests.
    #[must_use]
    pub fn with(mut self, fault: BrokerFault, share: f64) -> Self {
        self.0.insert(fault, share.clamp(0.0, 1.0));
        self
    }
    /// Classes with a share above zero.
    pub fn iter(&self) -> impl Iterator<Item = (BrokerFault, f64)> {
        self.0.iter().map(|(f, s)| (*f, *s)).filter(|(_, s)| *s > 0.0)
    }
}

/// What happens to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strike {
    Refuse(RDKafkaApiKey, RDKafkaRespErr),
    CutBefore,
    CutAfter,
    Delay(Duration),
}

/// Draws and counts.
pub(super) struct FaultDice {
    state: Mutex<State>,
}

struct State {
    rng: ChaCha8Rng,
    rates: BrokerFaultRates,
    fired: BTreeMap<BrokerFault, u64>,
    /// Requests that each class could have struck.
    chances: BTreeMap<BrokerFault, u64>,
}

impl FaultDice {
    pub(super) fn new(seed: u64, rates: BrokerFaultRates) -> Self {
        Self { state: Mutex::new(State { rng: ChaCha8Rng::seed_from_u64(seed), rates, fired: BTreeMap::new(), chances: BTreeMap::new() }) }
    }

    pub(super) fn set(&self, rates: BrokerFaultRates) {
        self.state.lock().rates = rates;
    }

    /// What happens to a request of this kind; nothing that cuts the connection unless `may_cut`.
    pub(super) fn draw(&self, api: i16, may_cut: bool) -> Option<Strike> {
        let mut state = self.state.lock();
        let State { rng, rates, fired, chances } = &mut *state;
        let strikes = |(fault, share): &(BrokerFault, f64)| {
            let chance = chances.entry(*fault).or_default();
            *chance += 1;
            rng.random_bool(*share) || (*chance >= fault.first_strike() && fired.get(fault).is_none_or(|n| *n == 0))
        };
        let hit = rates.iter().filter(|(f, _)| f.api() == api && (may_cut || !f.cuts())).find(strikes).map(|(f, _)| f)?;
        *fired.entry(hit).or_default() += 1;
        Some(match hit {
            BrokerFault::ProduceError => Strike::Refuse(RDKafkaApiKey::Produce, RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION),
            BrokerFault::FetchError => Strike::Refuse(RDKafkaApiKey::Fetch, RDKafkaRespErr::RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR),
            BrokerFault::CommitError => {
                Strike::Refuse(RDKafkaApiKey::OffsetCommit, RDKafkaRespErr::RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS)
            }
            BrokerFault::CommitAnswerLost => Strike::CutAfter,
            BrokerFault::ConnectionCut => Strike::CutBefore,
            BrokerFault::SlowFetch => Strike::Delay(Duration::from_millis(rng.random_range(100..=500))),
        })
    }

    /// A lost answer to a commit that was drawn did not come about.
    pub(super) fn spared_commit_answer(&self) {
        if let Some(count) = self.state.lock().fired.get_mut(&BrokerFault::CommitAnswerLost) {
            *count = count.saturating_sub(1);
        }
    }

    pub(super) fn fired(&self) -> BTreeMap<&'static str, u64> {
        let state = self.state.lock();
        let mut all: BTreeMap<&'static str, u64> = state.rates.iter().map(|(f, _)| (f.as_str(), 0)).collect();
        all.extend(state.fired.iter().map(|(f, n)| (f.as_str(), *n)));
        all
    }
}
