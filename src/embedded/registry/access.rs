//! What a request meets first: faults, then credentials.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::error::ApiError;

/// Whom the registry lets in.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Credentials {
    /// Everybody.
    #[default]
    None,
    /// Basic authentication.
    Basic {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
    /// A bearer token.
    Bearer(String),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Basic { .. } => "basic ***",
            Self::Bearer(_) => "bearer ***",
        })
    }
}

impl Credentials {
    fn accept(&self, header: Option<&str>) -> bool {
        match self {
            Self::None => true,
            Self::Basic { user, password } => header == Some(&format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))),
            Self::Bearer(token) => header == Some(&format!("Bearer {token}")),
        }
    }
}

/// A class of fault of the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RegistryFault {
    /// 500 with Confluent's 50003.
    Down,
    /// The answer comes 300 to 1,500 ms late.
    Slow,
    /// 200 with a page of HTML, as a proxy in the way gives it.
    Rubbish,
}

impl RegistryFault {
    /// All classes.
    pub const ALL: [Self; 3] = [Self::Down, Self::Slow, Self::Rubbish];

    /// Its name in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Down => "registry_down",
            Self::Slow => "registry_slow",
            Self::Rubbish => "registry_rubbish",
        }
    }
}

/// The share of requests that each class of fault strikes, 0 to 1; or the first requests, all of them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RegistryFaultRates {
    shares: BTreeMap<RegistryFault, f64>,
    first: Vec<RegistryFault>,
}

impl RegistryFaultRates {
    /// Nothing goes wrong.
    pub fn none() -> Self {
        Self::default()
    }
    /// This class strikes this share of the requests.
    #[must_use]
    pub fn with(mut self, fault: RegistryFault, share: f64) -> Self {
        self.shares.insert(fault, share.clamp(0.0, 1.0));
        self
    }
    /// The very next requests are struck, one each: clients ask a registry a few times only, a share of those may well be none.
    #[must_use]
    pub fn first(mut self, faults: Vec<RegistryFault>) -> Self {
        self.first = faults;
        self
    }
    /// Classes that may fire, with the share (1 for those of the first requests).
    pub fn iter(&self) -> impl Iterator<Item = (RegistryFault, f64)> {
        RegistryFault::ALL.into_iter().filter_map(|f| {
            let share = if self.first.contains(&f) { 1.0 } else { self.shares.get(&f).copied().unwrap_or(0.0) };
            (share > 0.0).then_some((f, share))
        })
    }
}

/// Draws and counts.
pub(super) struct FaultDice(Mutex<Dice>);

struct Dice {
    rng: ChaCha8Rng,
    rates: RegistryFaultRates,
    requests: usize,
    fired: BTreeMap<RegistryFault, u64>,
}

impl FaultDice {
    pub(super) fn new(seed: u64, rates: RegistryFaultRates) -> Self {
        Self(Mutex::new(Dice { rng: ChaCha8Rng::seed_from_u64(seed), rates, requests: 0, fired: BTreeMap::new() }))
    }

    pub(super) fn set(&self, rates: RegistryFaultRates) {
        let mut dice = self.0.lock();
        dice.rates = rates;
        dice.requests = 0;
    }

    fn draw(&self) -> Option<(RegistryFault, Duration)> {
        let mut dice = self.0.lock();
        let Dice { rng, rates, requests, fired } = &mut *dice;
        let first = rates.first.get(*requests).copied();
        *requests += 1;
        let hit = first.or_else(|| rates.shares.iter().find(|(_, share)| rng.random_bool(**share)).map(|(f, _)| *f))?;
        *fired.entry(hit).or_default() += 1;
        Some((hit, Duration::from_millis(rng.random_range(300..=1500))))
    }

    pub(super) fn fired(&self) -> BTreeMap<&'static str, u64> {
        let dice = self.0.lock();
        let mut all: BTreeMap<&'static str, u64> = dice.rates.iter().map(|(f, _)| (f.as_str(), 0)).collect();
        all.extend(dice.fired.iter().map(|(f, n)| (f.as_str(), *n)));
        all
    }
}

/// What stands at the door.
pub(super) struct Gate {
    pub(super) credentials: Credentials,
    pub(super) dice: Arc<FaultDice>,
}

/// The middleware.
pub(super) async fn admit(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    match gate.dice.draw() {
        Some((RegistryFault::Down, _)) => return ApiError::down().into_response(),
        Some((RegistryFault::Rubbish, _)) => {
            return (StatusCode::OK, [(header::CONTENT_TYPE, "text/html")], "<html><body>Please sign in</body></html>").into_response();
        }
        Some((RegistryFault::Slow, delay)) => tokio::time::sleep(delay).await,
        None => {}
    }
    let header = request.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
    if !gate.credentials.accept(header) {
        return ApiError::unauthorized().into_response();
    }
    next.run(request).await
}
