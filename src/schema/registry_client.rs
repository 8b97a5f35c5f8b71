//! One question to a schema registry (Confluent's REST API), and what its answer means.
//!
//! Shapes of answers and errors are those of `schema_registry_converter`. Its own calls are not used, because with them an answer cannot be
//! told right: they read a body of any size into memory, keep the HTTP status only inside a text, take a proxy's HTML 404 for a registry's
//! answer (error code 0), ask for references without `deleted=true`, and their client is of another reqwest than the one that `ca_file`
//! reaches.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::{Certificate, Client, Identity, RequestBuilder, StatusCode, Url};
use schema_registry_converter::schema_registry_common::{RawError, RawRegisteredSchema};

use super::SchemaError;
use crate::config::{RegistryConfig, Secret};

/// The longest answer that is read, bytes: a schema of 1 MiB with every character escaped, its references and metadata fit.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How much of a registry's own words is repeated in a message, characters.
const WORDS_MAX: usize = 200;

/// A registry cannot be used as configured: a file that cannot be read, an address that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("[registry] {0}")]
pub struct RegistrySetupError(String);

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub enum Question<'a> {
    /// `GET /schemas/ids/{id}`
    Id(u32),
    /// `GET /schemas/guids/{guid}`, of registries since Confluent Platform 8.0.
    Guid(uuid::Uuid),
    /// `GET /subjects/{subject}/versions/{version}`: what a reference names.
    Version {
        /// The subject.
        subject: &'a str,
        /// Its version, from 1.
        version: u32,
    },
    /// `GET /subjects/{subject}/versions/latest`: what producers write by now.
    Newest {
        /// The subject.
        subject: &'a str,
    },
}

/// Asks the addresses of one registry in turn.
pub struct RegistryClient {
    http: Client,
    urls: Vec<Url>,
    username: Option<String>,
    password: Option<Secret>,
    bearer_token: Option<Secret>,
    timeout: Duration,
    last_good: AtomicUsize,
}

impl RegistryClient {
    /// A client for this configuration that trusts the system's certificate authorities and those of `ca_file`.
    ///
    /// # Errors
    /// A certificate or key file that cannot be read or parsed, an address that is no http or https URL.
    pub fn new(config: &RegistryConfig, ca_file: Option<&Path>) -> Result<Self, RegistrySetupError> {
        // reqwest takes the process's provider; whoever came first has set it, and that is as good.
        let _already_set = rustls::crypto::aws_lc_rs::default_provider().install_default();
        // HTTP/1.1, as Confluent's own clients speak it: over HTTP/2 Apicurio 3.3.3 compresses its answers twice.
        let mut builder =
            Client::builder().use_rustls_tls().http1_only().timeout(config.timeout.get()).connect_timeout(config.timeout.get());
        if let Some(path) = ca_file {
            for certificate in Certificate::from_pem_bundle(&read(path)?).map_err(|e| bad_pem(path, &e))? {
                builder = builder.add_root_certificate(certificate);
            }
        }
        match (&config.client_cert_file, &config.client_key_file) {
            (Some(cert), Some(key)) => {
                let pem = [read(cert)?, read(key)?].join(&b'\n');
                builder = builder.identity(Identity::from_pem(&pem).map_err(|e| bad_pem(cert, &e))?);
            }
            (None, None) => {}
            _ => return Err(RegistrySetupError("client_cert_file and client_key_file go together: set both or none".to_owned())),
        }
        let urls = config.urls.iter().map(|url| base_url(url)).collect::<Result<Vec<_>, _>>()?;
        if urls.is_empty() {
            return Err(RegistrySetupError("urls is empty: give the registry's address".to_owned()));
        }
        Ok(Self {
            http: builder.build().map_err(|e| RegistrySetupError(format!("no HTTP client could be made: {}", chain(&e))))?,
            urls,
            username: config.username.clone(),
            password: config.password.clone(),
            bearer_token: config.bearer_token.clone(),
            timeout: config.timeout.get(),
            last_good: AtomicUsize::new(0),
        })
    }

    /// How long one request may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The answer of the first address that has one, beginning with the one that answered last. One that does not know the schema is
    /// believed only after the others were asked: nodes of one registry follow each other with a delay.
    ///
    /// # Errors
    /// `Unknown` when an address said so for certain and none had it; `Unavailable` otherwise.
    pub async fn ask(&self, question: Question<'_>) -> Result<RawRegisteredSchema, SchemaError> {
        let first = self.last_good.load(Ordering::Relaxed);
        let (mut unknown, mut troubles) = (None, Vec::new());
        for n in 0..self.urls.len() {
            let at = (first + n) % self.urls.len();
            match self.ask_one(&self.urls[at], question).await {
                Ok(schema) => {
                    self.last_good.store(at, Ordering::Relaxed);
                    return Ok(schema);
                }
                Err(error @ SchemaError::Unknown(_)) => unknown = Some(error),
                Err(error) => troubles.push(error.to_string()),
            }
        }
        Err(unknown.unwrap_or_else(|| SchemaError::Unavailable(troubles.join("; "))))
    }

    /// Asks every address for the schema types that it takes: shows that it is reachable and accepts the credentials.
    ///
    /// # Errors
    /// `Unavailable` with what the address answered, for the first that does not answer well.
    pub async fn probe(&self) -> Result<(), SchemaError> {
        for base in &self.urls {
            let (status, body) = self.get(base, &["schemas", "types"], false).await?;
            if !status.is_success() {
                return Err(refusal(base, "its schema types", status, &body));
            }
            serde_json::from_slice::<Vec<String>>(&body).map_err(|_| rubbish(base, "its schema types", status, &body))?;
        }
        Ok(())
    }

    /// The names of all subjects that are not deleted, of the first address that answers.
    ///
    /// # Errors
    /// `Unavailable` with what each address answered.
    pub async fn subjects(&self) -> Result<Vec<String>, SchemaError> {
        let mut troubles = Vec::new();
        for base in &self.urls {
            let listed = match self.get(base, &["subjects"], false).await {
                Ok((status, body)) if status.is_success() => {
                    serde_json::from_slice::<Vec<String>>(&body).map_err(|_| rubbish(base, "its subjects", status, &body))
                }
                Ok((status, body)) => Err(refusal(base, "its subjects", status, &body)),
                Err(error) => Err(error),
            };
            match listed {
                Ok(names) => return Ok(names),
                Err(error) => troubles.push(error.to_string()),
            }
        }
        Err(SchemaError::Unavailable(troubles.join("; ")))
    }

    async fn ask_one(&self, base: &Url, question: Question<'_>) -> Result<RawRegisteredSchema, SchemaError> {
        let (number, what);
        let path: &[&str] = match question {
            Question::Id(id) => {
                (number, what) = (id.to_string(), format!("schema id {id}"));
                &["schemas", "ids", &number]
            }
            Question::Guid(guid) => {
                (number, what) = (guid.to_string(), format!("schema guid {guid}"));
                &["schemas", "guids", &number]
            }
            Question::Version { subject, version } => {
                (number, what) = (version.to_string(), format!("subject `{subject}` version {version}"));
                &["subjects", subject, "versions", &number]
            }
            Question::Newest { subject } => {
                what = format!("subject `{subject}`");
                &["subjects", subject, "versions", "latest"]
            }
        };
        // Records outlive the soft deletion of their schema; a subject's newest version is one that is not deleted.
        let (status, body) = self.get(base, path, !matches!(question, Question::Newest { .. })).await?;
        if status.is_success() {
            return match serde_json::from_slice::<RawRegisteredSchema>(&body) {
                Ok(answer) if answer.schema.is_some() => Ok(answer),
                _ => Err(rubbish(base, &what, status, &body)),
            };
        }
        let error = serde_json::from_slice::<RawError>(&body).ok();
        match (status, question, error) {
            // 40401 to 40403: subject, version, schema not found (Confluent's API reference). A plain 404 is an unknown path.
            (StatusCode::NOT_FOUND, Question::Id(_) | Question::Guid(_) | Question::Newest { .. }, Some(e))
                if (40401..=40403).contains(&e.error_code) =>
            {
                Err(SchemaError::Unknown(format!(
                    "the registry at {} does not know {what} ({}: {})",
                    shown(base),
                    e.error_code,
                    words(&e.message)
                )))
            }
            (StatusCode::NOT_FOUND, Question::Version { .. }, Some(e)) => Err(SchemaError::Unavailable(format!(
                "a schema refers to {what}, which the registry at {} does not have ({}: {}): register it again",
                shown(base),
                e.error_code,
                words(&e.message)
            ))),
            _ => Err(refusal(base, &what, status, &body)),
        }
    }

    async fn get(&self, base: &Url, path: &[&str], deleted: bool) -> Result<(StatusCode, Vec<u8>), SchemaError> {
        let mut url = base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        if deleted {
            url.query_pairs_mut().append_pair("deleted", "true");
        }
        let silent = |e: reqwest::Error| {
            let words = chain(&e.without_url());
            SchemaError::Unavailable(format!("the registry at {} does not answer: {words}{}", shown(base), trust_advice(&words)))
        };
        let request = self.http.get(url).header("accept", "application/vnd.schemaregistry.v1+json, application/json");
        let mut response = self.authorized(request).send().await.map_err(silent)?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(silent)? {
            if body.len() + chunk.len() > BODY_BYTES_MAX {
                return Err(SchemaError::Unavailable(format!(
                    "the registry at {} answers with more than {BODY_BYTES_MAX} bytes: is it a schema registry?",
                    shown(base)
                )));
            }
            body.extend_from_slice(&chunk);
        }
        Ok((status, body))
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        match (&self.bearer_token, &self.username) {
            (Some(token), _) => request.bearer_auth(token.expose()),
            (None, Some(user)) => request.basic_auth(user, self.password.as_ref().map(Secret::expose)),
            (None, None) => request,
        }
    }
}

fn refusal(base: &Url, what: &str, status: StatusCode, body: &[u8]) -> SchemaError {
    let at = shown(base);
    let said = serde_json::from_slice::<RawError>(body).map_or_else(|_| String::new(), |e| format!(": {}", words(&e.message)));
    SchemaError::Unavailable(match status {
        StatusCode::UNAUTHORIZED => {
            format!(
                "the registry at {at} refuses the credentials (HTTP 401{said}): mend username and password, or bearer_token, under [registry]"
            )
        }
        StatusCode::FORBIDDEN => {
            format!("the registry at {at} forbids reading {what} (HTTP 403{said}): grant the user of [registry] the right to read schemas")
        }
        StatusCode::NOT_FOUND => format!(
            "the registry at {at} answers HTTP 404 for {what}{said}, but not as a registry does for an unknown schema: is `urls` its address, \
             path included (guids need Confluent Platform 8.0 or later)?"
        ),
        status => format!("the registry at {at} answers HTTP {} for {what}{said}", status.as_u16()),
    })
}

fn rubbish(base: &Url, what: &str, status: StatusCode, body: &[u8]) -> SchemaError {
    SchemaError::Unavailable(format!(
        "the registry at {} answers HTTP {} for {what} with {} bytes that are no answer of a schema registry: is `urls` its address?",
        shown(base),
        status.as_u16(),
        body.len()
    ))
}

fn base_url(text: &str) -> Result<Url, RegistrySetupError> {
    // The text itself may hold a password: it is not repeated.
    let url = Url::parse(text).map_err(|e| RegistrySetupError(format!("an entry of urls is no URL: {e}")))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(RegistrySetupError("an entry of urls is no http:// or https:// address".to_owned()));
    }
    Ok(url)
}

/// An address without the user and password that it may hold.
fn shown(url: &Url) -> String {
    let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
    format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path().trim_end_matches('/'))
}

fn words(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(WORDS_MAX).collect()
}

/// An error with its causes: reqwest's own words stop at "error sending request".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    words(&text)
}

/// What to do about a certificate that no known authority signed; else empty. By rustls's words: reqwest keeps no type.
fn trust_advice(words: &str) -> &'static str {
    if words.contains("invalid peer certificate: UnknownIssuer") || words.contains("invalid peer certificate: BadSignature") {
        " (if the server is yours, name its authority's certificate in [worker] ca_file)"
    } else {
        ""
    }
}

fn read(path: &Path) -> Result<Vec<u8>, RegistrySetupError> {
    std::fs::read(path).map_err(|e| RegistrySetupError(format!("{} cannot be read: {e}", path.display())))
}

fn bad_pem(path: &Path, error: &reqwest::Error) -> RegistrySetupError {
    RegistrySetupError(format!("{} holds no PEM that can be used: {}", path.display(), chain(error)))
}
