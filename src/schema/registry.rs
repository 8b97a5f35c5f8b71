//! Schemas of a registry, by id or guid, with what they refer to.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use schema_registry_converter::schema_registry_common::{RawRegisteredSchema, RegisteredReference};

use super::cache::SchemaCache;
use super::limits::TEXT_BYTES_MAX;
use super::parse::{SchemaText, parse};
use super::registry_client::{Question, RegistryClient, RegistrySetupError};
use super::{SchemaError, SchemaSource};
use crate::config::RegistryConfig;
use crate::decode::{AvroSchema, SchemaKey};
use crate::flow::{Clock, SystemClock};

/// The most schemas that one schema may refer to, directly or through others.
const REFERENCES_MAX: usize = 256;
/// The whole of a fetch, references included, takes at most this many times the limit of one request.
const REQUESTS_TIME_FACTOR: u32 = 3;

type Outcome = Result<Arc<AvroSchema>, SchemaError>;
type Flight = Shared<BoxFuture<'static, Outcome>>;

/// Schemas of a registry with Confluent's REST API.
///
/// **Promise**: a schema is [`SchemaError::Unknown`] only when the registry says so in its own form (error codes 40401 to 40403): silence,
/// refused credentials, 5xx, a proxy's page and anything else that is no answer are [`SchemaError::Unavailable`] and are forgotten at once.
/// Schemas are kept; a refusal is kept for 30 s. Callers that ask for the same key at the same time share one fetch.
#[derive(Clone)]
pub struct RegistrySource {
    inner: Arc<Inner>,
}

struct Inner {
    client: RegistryClient,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    cache: SchemaCache,
    flights: HashMap<SchemaKey, Flight>,
}

impl RegistrySource {
    /// A source for this configuration; `ca_file` adds to the system's certificate authorities. Asks nothing yet.
    ///
    /// # Errors
    /// Files that cannot be read or parsed, addresses that are none.
    pub fn new(config: &RegistryConfig, ca_file: Option<&Path>) -> Result<Self, RegistrySetupError> {
        Self::with_clock(config, ca_file, Arc::new(SystemClock::new()))
    }

    /// The same with a clock of the caller's.
    ///
    /// # Errors
    /// As [`RegistrySource::new`].
    pub fn with_clock(config: &RegistryConfig, ca_file: Option<&Path>, clock: Arc<dyn Clock>) -> Result<Self, RegistrySetupError> {
        let client = RegistryClient::new(config, ca_file)?;
        Ok(Self { inner: Arc::new(Inner { client, clock, state: Mutex::default() }) })
    }

    /// Tries every address with the credentials: for `millrace check`.
    ///
    /// # Errors
    /// [`SchemaError::Unavailable`] with what is wrong.
    pub async fn probe(&self) -> Result<(), SchemaError> {
        self.inner.client.probe().await
    }

    /// The names of the registry's subjects: for `millrace check`.
    ///
    /// # Errors
    /// [`SchemaError::Unavailable`].
    pub async fn subjects(&self) -> Result<Vec<String>, SchemaError> {
        self.inner.client.subjects().await
    }

    /// A subject's newest version: for `millrace check`. Nothing is kept.
    ///
    /// # Errors
    /// [`SchemaError::Unknown`] when the registry has no such subject, else as [`SchemaSource::fetch`].
    pub async fn newest(&self, subject: &str) -> Result<NewestVersion, SchemaError> {
        let client = &self.inner.client;
        let answer = client.ask(Question::Newest { subject }).await?;
        let version = answer.version;
        let id = answer.id.map_or_else(|| "without an id".to_owned(), |id| id.to_string());
        let (schema, _) = resolved(client, answer, id, format!("subject `{subject}`")).await?;
        Ok(NewestVersion { version, schema })
    }
}

/// What [`RegistrySource::newest`] found.
#[derive(Debug, Clone)]
pub struct NewestVersion {
    /// Its number, from 1; `None` where the registry does not say.
    pub version: Option<u32>,
    /// The schema, with what it refers to.
    pub schema: Arc<AvroSchema>,
}

#[async_trait]
impl SchemaSource for RegistrySource {
    async fn fetch(&self, key: &SchemaKey) -> Outcome {
        let flight = {
            let mut state = self.inner.state.lock();
            if let Some(known) = state.cache.get(key, self.inner.clock.now_monotonic()) {
                return known;
            }
            match state.flights.get(key) {
                Some(flight) => flight.clone(),
                None => {
                    let flight = launch(Arc::clone(&self.inner), key.clone());
                    state.flights.insert(key.clone(), flight.clone());
                    flight
                }
            }
        };
        flight.await
    }
}

/// Takes a flight out of the list when it ends, by a panic too: its words would be everyone's answer for ever.
struct Landing {
    inner: Arc<Inner>,
    key: SchemaKey,
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.inner.state.lock().flights.remove(&self.key);
    }
}

/// A fetch in a task of its own, so that it ends even when everyone who asked has gone.
fn launch(inner: Arc<Inner>, key: SchemaKey) -> Flight {
    let (asked, of) = (Arc::clone(&inner), key.clone());
    fly(inner, key, async move {
        let limit = asked.client.timeout() * REQUESTS_TIME_FACTOR;
        tokio::time::timeout(limit, fetch_and_parse(&asked.client, &of)).await.unwrap_or_else(|_| {
            Err(SchemaError::Unavailable(format!("{of} and what it refers to did not come within {} s", limit.as_secs_f32())))
        })
    })
}

/// To be called with the state's lock held until the flight is in its list: the end takes it out.
fn fly(
    inner: Arc<Inner>,
    key: SchemaKey,
    fetch: impl Future<Output = Result<(Arc<AvroSchema>, usize), SchemaError>> + Send + 'static,
) -> Flight {
    let task = tokio::spawn(async move {
        let landing = Landing { inner, key };
        let fetched = fetch.await;
        let (inner, key) = (&landing.inner, landing.key.clone());
        // Known before it lands: nobody asks once more in between.
        let mut state = inner.state.lock();
        match fetched {
            Ok((schema, text_bytes)) => {
                state.cache.keep(key, Arc::clone(&schema), text_bytes);
                Ok(schema)
            }
            Err(error) => {
                state.cache.refuse(key, &error, inner.clock.now_monotonic());
                Err(error)
            }
        }
    });
    async move { task.await.unwrap_or_else(|e| Err(SchemaError::Unavailable(format!("the fetch of a schema ended early: {e}")))) }
        .boxed()
        .shared()
}

async fn fetch_and_parse(client: &RegistryClient, key: &SchemaKey) -> Result<(Arc<AvroSchema>, usize), SchemaError> {
    let question = match key {
        // The registry's ids are signed 32-bit numbers; it answers others like an unknown path, which proves nothing.
        SchemaKey::Id(id) if i32::try_from(*id).is_err() => {
            return Err(SchemaError::Unknown(format!("schema id {id} is none: a registry's ids end at {}", i32::MAX)));
        }
        SchemaKey::Id(id) => Question::Id(*id),
        SchemaKey::Guid(guid) => Question::Guid(uuid::Uuid::from_bytes(*guid)),
        SchemaKey::Name(_) | SchemaKey::Columns => {
            return Err(SchemaError::Unusable(format!("{key} is no question to a schema registry")));
        }
    };
    let answer = client.ask(question).await?;
    resolved(client, answer, shown_id(key), key.to_string()).await
}

/// The schema of an answer, with what it refers to, and how many bytes of text that is. `what` names it in messages.
async fn resolved(
    client: &RegistryClient,
    answer: RawRegisteredSchema,
    id: String,
    what: String,
) -> Result<(Arc<AvroSchema>, usize), SchemaError> {
    let root = avro_text(&answer, &what)?;
    let references = fetch_references(client, answer.references.unwrap_or_default(), root.len()).await?;
    let text_bytes = root.len() + references.iter().map(|(_, text)| text.len()).sum::<usize>();
    // A large schema takes a while: not on a thread that has other tasks.
    let parsed = tokio::task::spawn_blocking(move || {
        let library: Vec<SchemaText<'_>> = references.iter().map(|(place, text)| SchemaText { place, text }).collect();
        parse(id, &root, &library)
    });
    match parsed.await {
        Ok(Ok(schema)) => Ok((Arc::new(schema), text_bytes)),
        Ok(Err(why)) => Err(SchemaError::Unusable(format!("{what} of the registry cannot be used: {why}"))),
        Err(e) => Err(SchemaError::Unusable(format!("{what} of the registry cannot be parsed: {e}"))),
    }
}

/// Everything that a schema refers to: what it is called, and its text. A reference name that comes again is not followed again: the first one counts
/// (Confluent's `AbstractSchemaProvider.resolveReferences`).
async fn fetch_references(
    client: &RegistryClient,
    first: Vec<RegisteredReference>,
    root_bytes: usize,
) -> Result<Vec<(String, String)>, SchemaError> {
    let (mut seen, mut texts, mut bytes) = (HashSet::new(), Vec::new(), root_bytes);
    let mut waiting: Vec<RegisteredReference> = first.into_iter().rev().collect();
    while let Some(reference) = waiting.pop() {
        if !seen.insert(reference.name.clone()) {
            continue;
        }
        let what = format!("subject `{}` version {}", reference.subject, reference.version);
        if seen.len() > REFERENCES_MAX {
            return Err(SchemaError::Unusable(format!("the schema refers to more than {REFERENCES_MAX} others (the last one was {what})")));
        }
        let answer = client.ask(Question::Version { subject: &reference.subject, version: reference.version }).await?;
        let text = avro_text(&answer, &what)?;
        bytes += text.len();
        if bytes > TEXT_BYTES_MAX {
            return Err(SchemaError::Unusable(format!("the schema and what it refers to have more than {TEXT_BYTES_MAX} bytes")));
        }
        texts.push((what, text));
        waiting.extend(answer.references.unwrap_or_default().into_iter().rev());
    }
    Ok(texts)
}

fn avro_text(answer: &RawRegisteredSchema, what: &str) -> Result<String, SchemaError> {
    match answer.schema_type.as_deref() {
        // Registries leave the type out for Avro.
        None | Some("AVRO") => {}
        Some(other) => {
            let other: String = other.chars().take(40).collect();
            return Err(SchemaError::Unusable(format!("{what} is a {other} schema; millrace decodes Avro")));
        }
    }
    answer.schema.clone().ok_or_else(|| SchemaError::Unavailable(format!("the registry's answer for {what} holds no schema")))
}

fn shown_id(key: &SchemaKey) -> String {
    match key {
        SchemaKey::Id(id) => id.to_string(),
        SchemaKey::Guid(guid) => uuid::Uuid::from_bytes(*guid).to_string(),
        other => other.to_string(),
    }
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
