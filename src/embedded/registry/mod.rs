//! A schema registry in this process: Confluent's REST API for Avro.
//!
//! Subjects and versions, ids shared by equal schemas, references, compatibility (checked for real, all seven levels), modes, soft and hard
//! deletes, Confluent's error codes. Faults: down, slow, rubbish. Credentials by choice, to try clients. Not there: JSON Schema and
//! Protobuf, contexts, rules, metadata, exporters.

mod access;
mod compatibility;
mod error;
mod routes;
mod routes_settings;
mod schema;
mod store;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::net::TcpListener;

use super::EmbeddedError;
pub use access::{Credentials, RegistryFault, RegistryFaultRates};
use access::{FaultDice, Gate};
pub use compatibility::Level;
pub use schema::Reference;
use store::Store;

/// How a registry is started.
#[derive(Debug, Clone, Default)]
pub struct RegistrySettings {
    /// The port on loopback; 0 takes a free one.
    pub port: u16,
    /// Whom it lets in.
    pub credentials: Credentials,
    /// The same seed draws the same faults for the same sequence of requests.
    pub seed: u64,
    /// What goes wrong, and how often.
    pub faults: RegistryFaultRates,
}

/// A running registry; dropping it ends it.
pub struct EmbeddedRegistry {
    url: String,
    store: Arc<Mutex<Store>>,
    dice: Arc<FaultDice>,
    server: tokio::task::JoinHandle<()>,
}

impl EmbeddedRegistry {
    /// Starts it. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the port is taken.
    pub async fn start(settings: RegistrySettings) -> Result<Self, EmbeddedError> {
        let address = format!("127.0.0.1:{}", settings.port);
        let listening = |source| EmbeddedError::Listen { address: address.clone(), source };
        let listener = TcpListener::bind(&address).await.map_err(listening)?;
        let url = format!("http://{}", listener.local_addr().map_err(listening)?);
        let store = Arc::new(Mutex::new(Store::default()));
        let dice = Arc::new(FaultDice::new(settings.seed, settings.faults));
        let gate = Arc::new(Gate { credentials: settings.credentials, dice: dice.clone() });
        let router = routes::router(store.clone())
            .merge(routes_settings::router(store.clone()))
            .fallback(error::no_such_path)
            .method_not_allowed_fallback(error::no_such_method)
            .layer(axum::middleware::from_fn_with_state(gate, access::admit));
        let server = tokio::spawn(async move {
            // `serve` never returns an error (axum's documentation); it ends when the task is aborted.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { url, store, dice, server })
    }

    /// Its address: `http://127.0.0.1:port`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Registers an Avro schema without a request; gives its id.
    ///
    /// # Errors
    /// As the REST call: an invalid schema, an unknown reference, an incompatible one.
    pub fn register(&self, subject: &str, schema: &str, references: Vec<Reference>) -> Result<u32, EmbeddedError> {
        self.store
            .lock()
            .register(subject, schema, references)
            .map_err(|e| EmbeddedError::Registry(format!("subject `{subject}`: {} ({})", e.message, e.code)))
    }

    /// Changes what goes wrong from now on.
    pub fn set_faults(&self, rates: RegistryFaultRates) {
        self.dice.set(rates);
    }

    /// How often each class of fault with a rate above zero has fired.
    pub fn fired(&self) -> BTreeMap<&'static str, u64> {
        self.dice.fired()
    }
}

impl Drop for EmbeddedRegistry {
    fn drop(&mut self) {
        self.server.abort();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests;
