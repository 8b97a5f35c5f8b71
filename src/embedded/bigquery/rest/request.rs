//! A REST request, read: path without prefix, query, headers, body (gzip undone).

use std::collections::HashMap;
use std::io::Read;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::embedded::bigquery::error::{ApiError, ApiResult};
use crate::embedded::bigquery::limits::{REST_BODY_BYTES, REST_HEAD_BYTES};

/// A request.
#[derive(Debug)]
pub(crate) struct Call {
    pub method: http::Method,
    /// Without `bigquery/v2`; percent-decoded.
    pub path: Vec<String>,
    pub query: HashMap<String, String>,
    pub if_match: Option<String>,
    pub body: Bytes,
}

impl Call {
    pub(crate) async fn read(request: axum::extract::Request) -> ApiResult<Self> {
        let (parts, body) = request.into_parts();
        let head = parts.uri.to_string().len() + parts.headers.iter().map(|(k, v)| k.as_str().len() + v.len() + 4).sum::<usize>();
        if head > REST_HEAD_BYTES {
            return Err(ApiError::new(413, "requestTooLarge", "The request's URL and headers exceed 16 KiB."));
        }
        let body = axum::body::to_bytes(body, REST_BODY_BYTES);
        let mut body =
            body.await.map_err(|_| ApiError::new(413, "requestTooLarge", "Request payload size exceeds the limit: 67108864 bytes."))?;
        if parts.headers.get(http::header::CONTENT_ENCODING).is_some_and(|v| v == "gzip") {
            body = gunzip(&body)?;
        }
        let mut path: Vec<String> = parts.uri.path().split('/').filter(|p| !p.is_empty()).map(percent_decode).collect();
        if path.len() >= 2 && path[0] == "bigquery" && path[1] == "v2" {
            path.drain(..2);
        }
        let query = parts.uri.query().unwrap_or_default();
        let query = query.split('&').filter_map(|pair| pair.split_once('='));
        let query = query.map(|(k, v)| (percent_decode(k), percent_decode(&v.replace('+', " ")))).collect();
        let if_match = parts.headers.get(http::header::IF_MATCH).and_then(|v| v.to_str().ok()).map(str::to_owned);
        Ok(Self { method: parts.method, path, query, if_match, body })
    }

    /// The body as a JSON object; an empty one is an empty object.
    pub(crate) fn object(&self) -> ApiResult<Map<String, Value>> {
        if self.body.is_empty() {
            return Ok(Map::new());
        }
        self.json()
    }

    /// The body as JSON of a certain form.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> ApiResult<T> {
        serde_json::from_slice(&self.body).map_err(|e| ApiError::new(400, "parseError", format!("Parse Error: {e}")))
    }

    /// `project.dataset.table`, as far as the path names them: what faults are filtered by.
    pub(crate) fn dotted(&self) -> String {
        let named: Vec<&str> = self.path.iter().skip(1).step_by(2).take(3).map(String::as_str).collect();
        named.join(".")
    }

    /// Whether a query parameter is `true`.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.query.get(name).is_some_and(|v| v.eq_ignore_ascii_case("true"))
    }

    /// A query parameter as a number.
    pub(crate) fn number(&self, name: &str) -> ApiResult<Option<u64>> {
        let text = self.query.get(name).filter(|v| !v.is_empty());
        text.map(|v| v.parse().map_err(|_| ApiError::invalid(format!("Invalid value for {name}: {v}")))).transpose()
    }
}

fn gunzip(body: &[u8]) -> ApiResult<Bytes> {
    let mut plain = Vec::new();
    let mut reader = flate2::read::MultiGzDecoder::new(body).take(REST_BODY_BYTES as u64 + 1);
    reader.read_to_end(&mut plain).map_err(|_| ApiError::new(400, "badRequest", "The request's body is not valid gzip."))?;
    if plain.len() > REST_BODY_BYTES {
        return Err(ApiError::new(413, "requestTooLarge", "Request payload size exceeds the limit: 67108864 bytes."));
    }
    Ok(plain.into())
}

fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let hex = text.get(i + 1..i + 3).and_then(|h| u8::from_str_radix(h, 16).ok());
        match (bytes[i], hex) {
            (b'%', Some(byte)) => {
                out.push(byte);
                i += 3;
            }
            (byte, _) => {
                out.push(byte);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
