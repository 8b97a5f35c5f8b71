//! One REST call, with a token, over HTTP: the seam below which a simulation plays BigQuery.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, IF_MATCH};

use super::{RestAction, RestError, source_chain};
use crate::bigquery::auth::TokenSource;

/// One call of the REST API.
#[derive(Debug)]
pub struct RestCall<'a> {
    /// `GET`, `POST`, `PATCH`.
    pub method: Method,
    /// The path behind the endpoint's address.
    pub path: &'a str,
    /// The version that the thing must still have.
    pub if_match: Option<&'a str>,
    /// JSON.
    pub body: Option<Bytes>,
}

/// Why there is no answer.
#[derive(Debug, Clone)]
pub enum NoAnswer {
    /// No token can be had; whether that may pass by itself.
    Token {
        /// The token server's words.
        message: String,
        /// It may pass.
        transient: bool,
    },
    /// The network's words.
    Network(String),
}

/// Makes calls, once each.
#[async_trait]
pub trait RestTransport: Send + Sync + 'static {
    /// The HTTP status and the body of the answer, whatever it is.
    async fn send(&self, call: RestCall<'_>) -> Result<(u16, Bytes), NoAnswer>;
}

/// Calls over HTTP with tokens.
pub(crate) struct HttpTransport {
    http: reqwest::Client,
    base: String,
    tokens: Arc<TokenSource>,
}

impl HttpTransport {
    /// `base` is the address up to `/projects`.
    pub(crate) fn new(http: reqwest::Client, base: &str, tokens: Arc<TokenSource>) -> Self {
        Self { http, base: base.trim_end_matches('/').to_owned(), tokens }
    }
}

#[async_trait]
impl RestTransport for HttpTransport {
    async fn send(&self, call: RestCall<'_>) -> Result<(u16, Bytes), NoAnswer> {
        let auth = self.tokens.headers().await.map_err(|error| NoAnswer::Token { message: error.message, transient: error.transient })?;
        let mut request = self.http.request(call.method, format!("{}{}", self.base, call.path)).headers(auth.headers);
        if let Some(etag) = call.if_match {
            request = request.header(IF_MATCH, etag);
        }
        if let Some(body) = call.body {
            request = request.header(CONTENT_TYPE, "application/json").body(body);
        }
        let no_answer = |e: reqwest::Error| {
            let words = source_chain(&e.without_url());
            let advice = crate::bigquery::trust::advice(&words);
            NoAnswer::Network(format!("{words}{advice}"))
        };
        let response = request.send().await.map_err(no_answer)?;
        let status = response.status();
        let bytes = response.bytes().await.map_err(no_answer)?;
        if !status.is_success() && RestError::from_answer(status.as_u16(), &bytes).action() == RestAction::NewToken {
            self.tokens.invalidate(auth.generation);
        }
        Ok((status.as_u16(), bytes))
    }
}
