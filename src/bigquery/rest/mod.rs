//! BigQuery's REST API on raw JSON: a patch replaces the array of fields, so unknown properties must survive reading and writing.

mod error;
mod pace;
mod transport;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use serde_json::Value;
use tokio::sync::Semaphore;

pub(crate) use error::{RestAction, RestError};
use pace::Pace;
pub(crate) use transport::HttpTransport;
pub use transport::{NoAnswer, RestCall, RestTransport};

use crate::flow::{Backoff, Tasks};
use crate::table::TableName;

/// How long one call goes on trying. Longer troubles are a hold, which is tried again by the pipeline and shown.
const CALL_DEADLINE: Duration = Duration::from_secs(30);
/// Calls at the same time (BigQuery allows 300 for a user).
const CONCURRENT_CALLS: usize = 16;

/// A client for the REST API with tokens, retries bounded in time, and BigQuery's rate limits.
pub(crate) struct RestClient {
    transport: Arc<dyn RestTransport>,
    tasks: Arc<dyn Tasks>,
    pace: Pace,
    concurrent: Semaphore,
}

impl RestClient {
    /// Over this transport, in this time.
    pub(crate) fn new(transport: Arc<dyn RestTransport>, tasks: Arc<dyn Tasks>) -> Self {
        Self { transport, pace: Pace::new(tasks.clone()), tasks, concurrent: Semaphore::new(CONCURRENT_CALLS) }
    }

    /// `tables.get`; `None` when it does not exist.
    pub(crate) async fn get_table(&self, table: &TableName) -> Result<Option<Value>, RestError> {
        match self.call(Method::GET, &table_path(table), None, None).await {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.action() == RestAction::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// `tables.insert`.
    pub(crate) async fn create_table(&self, table: &TableName, body: &Value) -> Result<Value, RestError> {
        self.pace.update(table).await;
        let path = format!("/projects/{}/datasets/{}/tables", encode(&table.project), encode(&table.dataset));
        self.call(Method::POST, &path, None, Some(body)).await
    }

    /// Waits until this process may update the table's metadata again: before the look that an update is made from, so that the look is
    /// fresh when the update goes out.
    pub(crate) async fn update_due(&self, table: &TableName) {
        self.pace.update_due(table).await;
    }

    /// `tables.patch`, only if the table's version is still `etag`. A refusal for the rate of updates is not tried again here: when the
    /// rate allows it, others have changed the table, and what is then refused for its `etag` uses up the rate as well.
    pub(crate) async fn patch_table(&self, table: &TableName, etag: &str, body: &Value) -> Result<Value, RestError> {
        self.pace.update(table).await;
        self.call_while(Method::PATCH, &table_path(table), Some(etag), Some(body), |error| !error.is_rate_limit()).await
    }

    /// One call, tried again while its failure is a passing one and [`CALL_DEADLINE`] is not over.
    pub(crate) async fn call(&self, method: Method, path: &str, if_match: Option<&str>, body: Option<&Value>) -> Result<Value, RestError> {
        self.call_while(method, path, if_match, body, |_| true).await
    }

    async fn call_while(
        &self,
        method: Method,
        path: &str,
        if_match: Option<&str>,
        body: Option<&Value>,
        again: impl Fn(&RestError) -> bool + Send,
    ) -> Result<Value, RestError> {
        let deadline = self.tasks.now() + CALL_DEADLINE;
        let mut backoff = Backoff::new(Duration::from_millis(250), 2.0, Duration::from_secs(8), self.tasks.random());
        let mut new_token = false;
        loop {
            let error = match self.once(method.clone(), path, if_match, body).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let wait = match error.action() {
                RestAction::Retry(least) if again(&error) => backoff.next_delay().max(least),
                RestAction::NewToken if !new_token => {
                    new_token = true;
                    Duration::ZERO
                }
                _ => return Err(error),
            };
            if self.tasks.now() + wait >= deadline {
                return Err(error);
            }
            tracing::debug!(%method, path, %error, wait_ms = wait.as_millis() as u64, "BigQuery call is tried again");
            self.tasks.sleep(wait).await;
        }
    }

    async fn once(&self, method: Method, path: &str, if_match: Option<&str>, body: Option<&Value>) -> Result<Value, RestError> {
        let _turn = self.concurrent.acquire().await.map_err(|e| RestError::no_answer(e.to_string()))?;
        self.pace.call().await;
        let bytes = |body: &Value| serde_json::to_vec(body).map(Bytes::from).map_err(|e| RestError::bad_answer(e.to_string()));
        let call = RestCall { method, path, if_match, body: body.map(bytes).transpose()? };
        let (status, bytes) = self.transport.send(call).await.map_err(|error| match error {
            NoAnswer::Token { message, transient } => RestError::no_token(message, transient),
            NoAnswer::Network(message) => RestError::no_answer(message),
        })?;
        if !(200..300).contains(&status) {
            return Err(RestError::from_answer(status, &bytes));
        }
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes).map_err(|e| RestError::bad_answer(format!("the answer is no JSON: {e}")))
    }
}

/// The path of a table behind the endpoint's address.
pub(crate) fn table_path(table: &TableName) -> String {
    format!("/projects/{}/datasets/{}/tables/{}", encode(&table.project), encode(&table.dataset), encode(&table.table))
}

/// Percent-encodes all but RFC 3986's unreserved characters: names of tables may hold spaces and any letter.
pub(crate) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => {
                out.push('%');
                out.push_str(&hex::encode_upper([byte]));
            }
        }
    }
    out
}

/// As [`encode`], for a resource's name: its slashes stay.
pub(crate) fn encode_path(name: &str) -> String {
    name.split('/').map(encode).collect::<Vec<_>>().join("/")
}

/// An error with the errors below it, which usually say more.
pub(crate) fn source_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(below) = source {
        let words = below.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        source = below.source();
    }
    text
}
