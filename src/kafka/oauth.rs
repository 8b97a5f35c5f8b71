//! OAUTHBEARER tokens: the client-credentials grant of an OIDC endpoint, fetched by us (this build of librdkafka has no HTTP client), or
//! unsecured ones for tests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rdkafka::client::OAuthToken;
use serde::Deserialize;

use super::error::KafkaError;
use super::properties::Given;
use crate::config::Secret;

/// How long a request for a token may take, connecting included.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Where tokens come from.
#[derive(Debug)]
pub(super) enum TokenSource {
    /// The client-credentials grant.
    Oidc { endpoint: String, client_id: String, client_secret: Secret, scope: Option<String>, ca_file: Option<PathBuf> },
    /// RFC 7515 "none", as librdkafka's own unsecured tokens: principal, scope, seconds.
    Unsecured { principal: String, principal_claim: String, scope: Vec<String>, scope_claim: String, life: Duration },
}

/// The properties that are read here and not passed on, in their long and short spelling.
const OURS: &[&str] = &[
    "sasl.oauthbearer.method",
    "sasl.oauthbearer.client.id",
    "sasl.oauthbearer.client.credentials.client.id",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.client.credentials.client.secret",
    "sasl.oauthbearer.scope",
    "sasl.oauthbearer.extensions",
    "sasl.oauthbearer.token.endpoint.url",
    "sasl.oauthbearer.grant.type",
    "sasl.oauthbearer.config",
    "enable.sasl.oauthbearer.unsecure.jwt",
];

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    expires_in: Option<i64>,
}

impl TokenSource {
    /// Whether this property is read here.
    pub fn is_ours(property: &str) -> bool {
        OURS.contains(&property)
    }

    /// Takes the properties of a token source out of the user's.
    pub fn extract(users: &mut BTreeMap<String, Given>, ca_file: Option<&Path>) -> Result<Option<Self>, KafkaError> {
        let taken: BTreeMap<&str, Given> = OURS.iter().filter_map(|name| Some((*name, users.remove(*name)?))).collect();
        let value =
            |names: &[&str]| names.iter().find_map(|name| taken.get(name)).map(|given| given.value.clone()).filter(|v| !v.is_empty());
        let refuse = |property: &str, message: &str| {
            let origin = taken.get(property).map_or_else(|| "[kafka]".to_owned(), |given| given.origin.clone());
            Err(KafkaError::Property { origin, property: property.to_owned(), message: message.to_owned() })
        };
        if value(&["sasl.oauthbearer.extensions"]).is_some() {
            return refuse("sasl.oauthbearer.extensions", "SASL extensions are not supported");
        }
        if value(&["sasl.oauthbearer.grant.type"]).is_some_and(|grant| grant != "client_credentials") {
            return refuse("sasl.oauthbearer.grant.type", "only \"client_credentials\" is supported");
        }
        match value(&["sasl.oauthbearer.method"]).as_deref() {
            Some("oidc") => {
                let Some(endpoint) = value(&["sasl.oauthbearer.token.endpoint.url"]) else {
                    return refuse("sasl.oauthbearer.token.endpoint.url", "is missing: the address that gives tokens");
                };
                let Some(client_id) = value(&["sasl.oauthbearer.client.id", "sasl.oauthbearer.client.credentials.client.id"]) else {
                    return refuse("sasl.oauthbearer.client.id", "is missing");
                };
                let Some(secret) = value(&["sasl.oauthbearer.client.secret", "sasl.oauthbearer.client.credentials.client.secret"]) else {
                    return refuse("sasl.oauthbearer.client.secret", "is missing");
                };
                let scope = value(&["sasl.oauthbearer.scope"]);
                Ok(Some(Self::Oidc {
                    endpoint,
                    client_id,
                    client_secret: Secret::new(secret),
                    scope,
                    ca_file: ca_file.map(Path::to_owned),
                }))
            }
            None | Some("default") => {
                if value(&["enable.sasl.oauthbearer.unsecure.jwt"]).is_some_and(|v| v.eq_ignore_ascii_case("true")) {
                    return Self::unsecured(&value(&["sasl.oauthbearer.config"]).unwrap_or_default())
                        .map(Some)
                        .or_else(|m| refuse("sasl.oauthbearer.config", &m));
                }
                Ok(None)
            }
            Some(_) => refuse("sasl.oauthbearer.method", "is \"default\" or \"oidc\""),
        }
    }

    /// librdkafka's format: `principal=admin scope=role1,role2 lifeSeconds=600`, with `principalClaimName` and `scopeClaimName`.
    fn unsecured(config: &str) -> Result<Self, String> {
        let (mut principal, mut principal_claim) = (String::new(), "sub".to_owned());
        let (mut scope, mut scope_claim, mut life) = (Vec::new(), "scope".to_owned(), Duration::from_secs(3600));
        for pair in config.split_whitespace() {
            match pair.split_once('=') {
                Some(("principal", v)) => v.clone_into(&mut principal),
                Some(("principalClaimName", v)) => v.clone_into(&mut principal_claim),
                Some(("scope", v)) => scope = v.split(',').map(str::to_owned).collect(),
                Some(("scopeClaimName", v)) => v.clone_into(&mut scope_claim),
                Some(("lifeSeconds", v)) => life = Duration::from_secs(v.parse().map_err(|_| "lifeSeconds is no whole number".to_owned())?),
                _ => return Err("knows principal, principalClaimName, scope, scopeClaimName, lifeSeconds; each as name=value".to_owned()),
            }
        }
        if principal.is_empty() {
            return Err("needs principal=NAME".to_owned());
        }
        Ok(Self::Unsecured { principal, principal_claim, scope, scope_claim, life })
    }

    /// A fresh token. Blocks, at most for 10 s; never on a thread of the async runtime (librdkafka asks on the thread that polls).
    ///
    /// # Errors
    /// In words, without the secret and without the answer's body.
    pub fn token(&self) -> Result<OAuthToken, String> {
        match self {
            Self::Unsecured { principal, principal_claim, scope, scope_claim, life } => {
                let now = unix_ms();
                let end = now + i64::try_from(life.as_millis()).unwrap_or(i64::MAX / 2);
                let mut claims = serde_json::Map::new();
                claims.insert(principal_claim.clone(), principal.clone().into());
                claims.insert("iat".to_owned(), (now as f64 / 1000.0).into());
                claims.insert("exp".to_owned(), (end as f64 / 1000.0).into());
                if !scope.is_empty() {
                    claims.insert(scope_claim.clone(), scope.clone().into());
                }
                let part = |json: String| URL_SAFE_NO_PAD.encode(json);
                let token = format!("{}.{}.", part(r#"{"alg":"none"}"#.to_owned()), part(serde_json::Value::Object(claims).to_string()));
                Ok(OAuthToken { token, principal_name: principal.clone(), lifetime_ms: end })
            }
            Self::Oidc { endpoint, client_id, client_secret, scope, ca_file } => {
                let answer = fetch(endpoint, client_id, client_secret, scope.as_deref(), ca_file.as_deref())?;
                let claims = claims_of(&answer.access_token);
                let expiry = claims.as_ref().and_then(|c| c.get("exp")).and_then(serde_json::Value::as_i64).map(|s| s * 1000);
                let lifetime_ms = expiry.or_else(|| answer.expires_in.map(|s| unix_ms() + s * 1000));
                let subject = claims.as_ref().and_then(|c| c.get("sub")).and_then(serde_json::Value::as_str);
                Ok(OAuthToken {
                    principal_name: subject.unwrap_or(client_id).to_owned(),
                    lifetime_ms: lifetime_ms
                        .ok_or_else(|| format!("{endpoint}: the answer says neither `expires_in` nor an `exp` claim"))?,
                    token: answer.access_token,
                })
            }
        }
    }
}

fn unix_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|d| i64::try_from(d.as_millis()).ok()).unwrap_or(0)
}

/// The claims of a token that is a JWT; they are read, not trusted: the broker checks the signature.
fn claims_of(token: &str) -> Option<serde_json::Value> {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?.trim_end_matches('=')).ok()?;
    serde_json::from_slice(&payload).ok()
}

/// Asks on a thread with a runtime of its own: librdkafka's question comes on a thread that may or may not belong to one.
fn fetch(endpoint: &str, client_id: &str, secret: &Secret, scope: Option<&str>, ca_file: Option<&Path>) -> Result<TokenAnswer, String> {
    let ask = async {
        let mut client = reqwest::Client::builder().timeout(TOKEN_TIMEOUT);
        if let Some(file) = ca_file {
            let pem = std::fs::read(file).map_err(|e| format!("{}: {e}", file.display()))?;
            for certificate in reqwest::Certificate::from_pem_bundle(&pem).map_err(|e| format!("{}: {e}", file.display()))? {
                client = client.add_root_certificate(certificate);
            }
        }
        let client = client.build().map_err(|e| format!("{endpoint}: {}", e.without_url()))?;
        let mut form = vec![("grant_type", "client_credentials")];
        if let Some(scope) = scope {
            form.push(("scope", scope));
        }
        let sent = client.post(endpoint).basic_auth(client_id, Some(secret.expose())).form(&form).send().await;
        let answer = sent.map_err(|e| format!("{endpoint}: {}", describe(&e.without_url())))?;
        let status = answer.status();
        if !status.is_success() {
            return Err(format!("{endpoint} answered {status}: are client id, secret and scope right?"));
        }
        answer.json::<TokenAnswer>().await.map_err(|_| format!("{endpoint}: the answer is no JSON object with `access_token`"))
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("kafka-token".to_owned()).spawn_scoped(scope, || {
            // main() installs the process's provider; a library user may not have. The second call's error says that there is one.
            let _already = rustls::crypto::aws_lc_rs::default_provider().install_default();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
            runtime.block_on(ask)
        });
        thread.map_err(|e| e.to_string())?.join().map_err(|_| "the token thread panicked".to_owned())?
    })
}

/// An error with its causes: reqwest's own words stop at "error sending request".
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
