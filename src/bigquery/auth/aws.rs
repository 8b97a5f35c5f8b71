//! External accounts of type AWS on EKS: credentials of the pod's role, and the signed request that Google's token service takes for them.
//!
//! google-cloud-auth 1.18 knows AWS keys in the environment and EC2's metadata server, not how EKS gives roles to pods (IRSA's web identity
//! file, Pod Identity's endpoint), and asks the metadata server for a session even when keys are in the environment. So where any of these
//! is set, the subject token is made here: <https://google.aip.dev/auth/4117>, AWS Signature Version 4.

use std::path::PathBuf;
use std::sync::Arc;

use aws_lc_rs::{digest, hmac};
use google_cloud_auth::credentials::Credentials;
use google_cloud_auth::credentials::external_account::ProgrammaticBuilder;
use google_cloud_auth::credentials::subject_token::{Builder, SubjectToken, SubjectTokenProvider};
use google_cloud_auth::errors::SubjectTokenProviderError;
use serde_json::{Value, json};

/// Where AWS's token service is asked for a caller's identity, unless the file says otherwise.
const VERIFICATION_URL: &str = "https://sts.{region}.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15";
/// The address that relative container URIs belong to (ECS; EKS gives a full one).
const CONTAINER_HOST: &str = "http://169.254.170.2";

/// Where the pod's AWS credentials come from.
#[derive(Clone)]
enum Keys {
    /// `AWS_ACCESS_KEY_ID` and its companions.
    Environment,
    /// IRSA: a token file that AWS's STS changes into credentials of a role.
    WebIdentity { role: String, token_file: PathBuf },
    /// Pod Identity and ECS: an endpoint on the node.
    Container { url: String },
}

/// Makes subject tokens for one external account.
pub(super) struct Source {
    keys: Keys,
    region: String,
    audience: String,
    verification_url: String,
    http: reqwest::Client,
}

struct AwsKeys {
    id: String,
    secret: String,
    session: Option<String>,
}

/// Why there is no subject token. Never shows a key.
#[derive(Debug, thiserror::Error)]
#[error("AWS credentials for workload identity federation: {message}")]
pub(super) struct AwsError {
    message: String,
    transient: bool,
}

impl SubjectTokenProviderError for AwsError {
    fn is_transient(&self) -> bool {
        self.transient
    }
}

fn lasting(message: impl Into<String>) -> AwsError {
    AwsError { message: message.into(), transient: false }
}

fn passing(error: reqwest::Error) -> AwsError {
    AwsError { message: super::super::rest::source_chain(&error.without_url()), transient: true }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("aws::Source").field("region", &self.region).field("audience", &self.audience).finish_non_exhaustive()
    }
}

impl Source {
    /// A source for this external account where it is of type AWS and the environment holds one of [`Keys`]; else `None`, and
    /// google-cloud-auth's own source (EC2's metadata server) is right.
    pub(super) fn from_config(config: &Value, http: &reqwest::Client) -> Option<Self> {
        let source = config.get("credential_source")?;
        if !source.get("environment_id")?.as_str()?.starts_with("aws") {
            return None;
        }
        let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let region = env("AWS_REGION").or_else(|| env("AWS_DEFAULT_REGION"))?;
        let keys = if env("AWS_ACCESS_KEY_ID").is_some() && env("AWS_SECRET_ACCESS_KEY").is_some() {
            Keys::Environment
        } else if let (Some(role), Some(file)) = (env("AWS_ROLE_ARN"), env("AWS_WEB_IDENTITY_TOKEN_FILE")) {
            Keys::WebIdentity { role, token_file: file.into() }
        } else if let Some(url) = env("AWS_CONTAINER_CREDENTIALS_FULL_URI") {
            Keys::Container { url }
        } else {
            Keys::Container { url: format!("{CONTAINER_HOST}{}", env("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")?) }
        };
        let verification_url = source.get("regional_cred_verification_url").and_then(Value::as_str).unwrap_or(VERIFICATION_URL);
        let audience = config.get("audience").and_then(Value::as_str)?.to_owned();
        Some(Self { keys, region, audience, verification_url: verification_url.to_owned(), http: http.clone() })
    }

    /// Credentials that exchange this source's subject tokens at Google's token service. Errors name what the file lacks.
    pub(super) fn credentials(self, config: &Value, scope: &str) -> Result<Credentials, String> {
        let text = |key: &str| config.get(key).and_then(Value::as_str);
        let need = |key: &str| text(key).ok_or_else(|| format!("the external account lacks `{key}`"));
        let mut builder = ProgrammaticBuilder::new(Arc::new(self))
            .with_audience(need("audience")?)
            .with_subject_token_type(need("subject_token_type")?)
            .with_token_url(need("token_url")?)
            .with_scopes([scope]);
        if let Some(url) = text("service_account_impersonation_url") {
            let principal = url.rsplit('/').next().and_then(|last| last.split(':').next()).unwrap_or_default();
            builder = builder.with_target_principal(principal);
        }
        if let Some(project) = text("quota_project_id") {
            builder = builder.with_quota_project_id(project);
        }
        builder.build().map_err(|e| super::super::rest::source_chain(&e))
    }

    async fn keys(&self) -> Result<AwsKeys, AwsError> {
        match &self.keys {
            Keys::Environment => {
                let env = |name: &str| std::env::var(name).map_err(|_| lasting(format!("{name} is not set")));
                Ok(AwsKeys {
                    id: env("AWS_ACCESS_KEY_ID")?,
                    secret: env("AWS_SECRET_ACCESS_KEY")?,
                    session: std::env::var("AWS_SESSION_TOKEN").ok(),
                })
            }
            Keys::WebIdentity { role, token_file } => {
                let token = tokio::fs::read_to_string(token_file)
                    .await
                    .map_err(|e| lasting(format!("AWS_WEB_IDENTITY_TOKEN_FILE {}: {e}", token_file.display())))?;
                let url = format!("https://sts.{}.amazonaws.com/", self.region);
                let form = [
                    ("Action", "AssumeRoleWithWebIdentity"),
                    ("Version", "2011-06-15"),
                    ("RoleArn", role.as_str()),
                    ("RoleSessionName", "millrace"),
                    ("WebIdentityToken", token.trim()),
                ];
                let answer = self.http.post(url).form(&form).send().await.map_err(passing)?;
                let status = answer.status();
                let xml = answer.text().await.map_err(passing)?;
                if !status.is_success() {
                    let code = tag(&xml, "Code").unwrap_or("no code");
                    return Err(AwsError {
                        message: format!("AssumeRoleWithWebIdentity for {role}: HTTP {status} {code}"),
                        transient: status.is_server_error(),
                    });
                }
                let need = |name: &str| tag(&xml, name).map(str::to_owned).ok_or_else(|| lasting(format!("AWS STS gave no {name}")));
                Ok(AwsKeys { id: need("AccessKeyId")?, secret: need("SecretAccessKey")?, session: Some(need("SessionToken")?) })
            }
            Keys::Container { url } => {
                let mut request = self.http.get(url);
                if let Ok(file) = std::env::var("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
                    let token = tokio::fs::read_to_string(&file).await.map_err(|e| lasting(format!("{file}: {e}")))?;
                    request = request.header("Authorization", token.trim());
                } else if let Ok(token) = std::env::var("AWS_CONTAINER_AUTHORIZATION_TOKEN") {
                    request = request.header("Authorization", token);
                }
                let answer = request.send().await.map_err(passing)?;
                let status = answer.status();
                if !status.is_success() {
                    return Err(AwsError {
                        message: format!("the container's credentials endpoint: HTTP {status}"),
                        transient: status.is_server_error(),
                    });
                }
                let json: Value = answer.json().await.map_err(passing)?;
                let text = |key: &str| json.get(key).and_then(Value::as_str).map(str::to_owned);
                let need = |key: &str| text(key).ok_or_else(|| lasting(format!("the container's credentials endpoint gave no {key}")));
                Ok(AwsKeys { id: need("AccessKeyId")?, secret: need("SecretAccessKey")?, session: text("Token") })
            }
        }
    }
}

impl SubjectTokenProvider for Source {
    type Error = AwsError;

    async fn subject_token(&self) -> Result<SubjectToken, AwsError> {
        let keys = self.keys().await?;
        let now = chrono::Utc::now().format("%Y%m%dT%H%M%SZ").to_string();
        let request = signed_request(&keys, &self.region, &self.audience, &self.verification_url, &now)?;
        Ok(Builder::new(super::super::rest::encode(&request.to_string())).build())
    }
}

/// A signed GetCallerIdentity request as JSON: who replays it learns who signed it. `now` is `YYYYMMDDThhmmssZ`.
fn signed_request(keys: &AwsKeys, region: &str, audience: &str, url: &str, now: &str) -> Result<Value, AwsError> {
    let url = reqwest::Url::parse(&url.replace("{region}", region)).map_err(|e| lasting(format!("regional_cred_verification_url: {e}")))?;
    let host = url.host_str().ok_or_else(|| lasting("regional_cred_verification_url has no host"))?;
    let date = now.get(..8).ok_or_else(|| lasting("no date"))?;
    let mut query: Vec<String> =
        url.query_pairs().map(|(k, v)| format!("{}={}", super::super::rest::encode(&k), super::super::rest::encode(&v))).collect();
    query.sort();
    // In the order of their names, as the signature wants them.
    let mut headers = vec![("host", host.to_owned()), ("x-amz-date", now.to_owned())];
    if let Some(session) = &keys.session {
        headers.push(("x-amz-security-token", session.clone()));
    }
    headers.push(("x-goog-cloud-target-resource", audience.to_owned()));
    let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let lines: String = headers.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
    let canonical = format!("POST\n{}\n{}\n{lines}\n{names}\n{}", url.path(), query.join("&"), sha256(""));
    let scope = format!("{date}/{region}/sts/aws4_request");
    let to_sign = format!("AWS4-HMAC-SHA256\n{now}\n{scope}\n{}", sha256(&canonical));
    let mut key = format!("AWS4{}", keys.secret).into_bytes();
    for part in [date, region, "sts", "aws4_request", &to_sign] {
        key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), part.as_bytes()).as_ref().to_vec();
    }
    let authorization = format!("AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={}", keys.id, hex::encode(&key));
    headers.push(("Authorization", authorization));
    let headers: Vec<Value> = headers.into_iter().map(|(key, value)| json!({ "key": key, "value": value })).collect();
    Ok(json!({ "url": url.as_str(), "method": "POST", "headers": headers, "body": "" }))
}

fn sha256(text: &str) -> String {
    hex::encode(digest::digest(&digest::SHA256, text.as_bytes()))
}

/// The text of the first element of this name: AWS's STS answers flat XML.
fn tag<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(text, _)| text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    /// google-auth-library-python's own test vector for a session (tests/test_aws.py, POST GetCallerIdentity), minus nothing but our
    /// extra header would change it: so the signature's chain is checked on AWS's published derivation instead.
    #[test]
    fn the_signing_key_is_derived_as_aws_publishes_it() {
        // "Examples of how to derive a signing key for Signature Version 4", AWS General Reference.
        let mut key = b"AWS4wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_vec();
        for part in ["20120215", "us-east-1", "iam", "aws4_request"] {
            key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), part.as_bytes()).as_ref().to_vec();
        }
        assert_eq!(hex::encode(key), "f4780e2d9f65fa895f9c67b32ce1baf0b0d8a43505a000a1a9e090d414db404d");
    }

    #[test]
    fn the_request_names_the_audience_and_hides_the_secret() {
        let keys = AwsKeys { id: "AKID".into(), secret: "sekret".into(), session: Some("sess".into()) };
        let request = signed_request(&keys, "eu-west-1", "//iam/pool", VERIFICATION_URL, "20260102T030405Z").unwrap();
        assert_eq!(request["url"], "https://sts.eu-west-1.amazonaws.com/?Action=GetCallerIdentity&Version=2011-06-15");
        let text = request.to_string();
        assert!(!text.contains("sekret"));
        let header = |name: &str| {
            let headers = request["headers"].as_array().unwrap();
            headers.iter().find(|h| h["key"] == name).unwrap()["value"].as_str().unwrap().to_owned()
        };
        assert_eq!(header("x-goog-cloud-target-resource"), "//iam/pool");
        assert_eq!(header("x-amz-security-token"), "sess");
        let signed = header("Authorization");
        assert!(signed.starts_with("AWS4-HMAC-SHA256 Credential=AKID/20260102/eu-west-1/sts/aws4_request, "), "{signed}");
        assert!(signed.contains("SignedHeaders=host;x-amz-date;x-amz-security-token;x-goog-cloud-target-resource, Signature="), "{signed}");
    }

    #[test]
    fn xml_is_read() {
        assert_eq!(tag("<a><SessionToken>x/y+z=</SessionToken></a>", "SessionToken"), Some("x/y+z="));
        assert_eq!(tag("<a></a>", "SessionToken"), None);
    }
}
