//! A token server on loopback: OAuth 2.0's refresh, the exchange of subject tokens (RFC 8693), impersonation of service accounts, and AWS's
//! two ways to give a pod a role.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use serde_json::json;

/// The secret key of every role that the server gives.
pub const AWS_SECRET: &str = "aws-Secret+key/of=a-role";
/// The session of every role that the server gives.
pub const AWS_SESSION: &str = "aws-Session+token/of=a-role";
/// AWS STS's answer to AssumeRoleWithWebIdentity.
const ASSUMED_ROLE: &str = r#"<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
  <AssumeRoleWithWebIdentityResult>
    <Credentials>
      <AccessKeyId>ASIAWEBIDENTITY</AccessKeyId>
      <SecretAccessKey>aws-Secret+key/of=a-role</SecretAccessKey>
      <SessionToken>aws-Session+token/of=a-role</SessionToken>
      <Expiration>2099-01-01T00:00:00Z</Expiration>
    </Credentials>
  </AssumeRoleWithWebIdentityResult>
</AssumeRoleWithWebIdentityResponse>"#;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    pub path: String,
    pub authorization: String,
    /// The fields of its form.
    pub form: BTreeMap<String, String>,
}

#[derive(Default)]
struct Inner {
    asked: Mutex<Vec<Asked>>,
    refusal: Mutex<Option<(u16, &'static str)>>,
}

/// The server; it ends with the test's runtime.
pub struct TokenServer {
    pub address: SocketAddr,
    inner: Arc<Inner>,
}

/// The access token that the server gives at its nth answer, from 1.
pub fn token(n: usize) -> String {
    format!("ya29.secret-access-token-{n}")
}

/// The token of an impersonated service account, at the nth answer.
pub fn impersonated(n: usize) -> String {
    format!("ya29.secret-impersonated-{n}")
}

impl TokenServer {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let inner = Arc::<Inner>::default();
        let router = axum::Router::new().fallback(answer).with_state(inner.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, inner }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// From now on, this is the answer.
    pub fn refuse(&self, status: u16, body: &'static str) {
        *self.inner.refusal.lock() = Some((status, body));
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.inner.asked.lock().clone()
    }
}

async fn answer(State(inner): State<Arc<Inner>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let authorization = parts.headers.get("authorization").map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
    let url = reqwest::Url::parse(&format!("http://x/?{}", String::from_utf8_lossy(&body))).unwrap();
    let form = url.query_pairs().into_owned().collect();
    let n = {
        let mut asked = inner.asked.lock();
        asked.push(Asked { path: parts.uri.path().to_owned(), authorization, form });
        asked.len()
    };
    if let Some((status, body)) = *inner.refusal.lock() {
        return (StatusCode::from_u16(status).unwrap(), body).into_response();
    }
    if inner.asked.lock()[n - 1].form.get("Action").is_some_and(|action| action == "AssumeRoleWithWebIdentity") {
        return (StatusCode::OK, ASSUMED_ROLE).into_response();
    }
    let body = if parts.uri.path() == "/v1/credentials" {
        json!({ "AccessKeyId": "AKIACONTAINER", "SecretAccessKey": AWS_SECRET, "Token": AWS_SESSION, "Expiration": "2099-01-01T00:00:00Z" })
    } else if parts.uri.path().ends_with(":generateAccessToken") {
        json!({ "accessToken": impersonated(n), "expireTime": "2099-01-01T00:00:00Z" })
    } else {
        json!({
            "access_token": token(n), "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "token_type": "Bearer", "expires_in": 3600,
        })
    };
    (StatusCode::OK, [("content-type", "application/json")], body.to_string()).into_response()
}
