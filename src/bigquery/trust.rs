//! Whom TLS connections trust: the system's authorities, and those of `[worker] ca_file`.

use std::path::Path;
use std::time::Duration;

use tonic::transport::{Certificate, ClientTlsConfig};

use super::ConnectError;

/// How long a TCP and TLS handshake may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// How long one REST request may take; BigQuery answers table calls within a few seconds.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The authorities that REST and gRPC connections trust.
#[derive(Clone)]
pub(crate) struct Trust {
    pem: Option<Vec<u8>>,
}

impl Trust {
    /// Reads the PEM file. Errors when it cannot be read or holds no certificate.
    pub(crate) fn load(ca_file: Option<&Path>) -> Result<Self, ConnectError> {
        let Some(path) = ca_file else { return Ok(Self { pem: None }) };
        let wrong = |what: String| ConnectError::CaFile { path: path.to_owned(), what };
        let pem = std::fs::read(path).map_err(|e| wrong(e.to_string()))?;
        let count = rustls_pemfile::certs(&mut pem.as_slice()).collect::<Result<Vec<_>, _>>().map_err(|e| wrong(e.to_string()))?.len();
        if count == 0 {
            return Err(wrong("no PEM certificate in it".to_owned()));
        }
        Ok(Self { pem: Some(pem) })
    }

    /// A client for REST. Needs the process's default crypto provider (see [`super::connect`]).
    pub(crate) fn http_client(&self) -> Result<reqwest::Client, ConnectError> {
        let mut builder = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .pool_idle_timeout(Duration::from_secs(60));
        if let Some(pem) = &self.pem {
            for certificate in reqwest::Certificate::from_pem_bundle(pem).map_err(|e| ConnectError::Http(e.to_string()))? {
                builder = builder.add_root_certificate(certificate);
            }
        }
        builder.build().map_err(|e| ConnectError::Http(super::rest::source_chain(&e)))
    }

    /// The TLS settings of gRPC connections.
    pub(crate) fn grpc(&self) -> ClientTlsConfig {
        let tls = ClientTlsConfig::new().with_native_roots();
        match &self.pem {
            Some(pem) => tls.ca_certificate(Certificate::from_pem(pem)),
            None => tls,
        }
    }
}

/// What to do about a server whose certificate no known authority signed, to be put behind the words of the failure; else empty. By
/// rustls's words: the layers between keep no type.
pub(crate) fn advice(words: &str) -> &'static str {
    if words.contains("invalid peer certificate: UnknownIssuer") || words.contains("invalid peer certificate: BadSignature") {
        " (if the server is yours, name its authority's certificate in [worker] ca_file)"
    } else {
        ""
    }
}

/// What we call ourselves in REST and gRPC.
pub(crate) const USER_AGENT: &str = concat!("millrace/", env!("CARGO_PKG_VERSION"));
