//! Google's credentials: a token is had, goes to REST and gRPC, is replaced once after a refusal, and is never shown.

use std::time::Duration;

use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use millrace::bigquery::{Action, ActionContext, ErrorClass, connect};
use millrace::flow::HoldCause;
use serde_json::{Value, json};
use tempfile::TempDir;
use tonic::Code;

use crate::certificates::openssl;
use crate::fake_grpc::{Fake, Reply};
use crate::guarded_rest::GuardedRest;
use crate::token_server::{TokenServer, impersonated, token};
use crate::{bigquery_config, file, logged, one_row, table};

const NOW: Duration = Duration::ZERO;
const SUBJECT: &str = "subject-token-of-the-pod";
const AUDIENCE: &str = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/pool/providers/eks";
const SCOPE: &str = "https://www.googleapis.com/auth/bigquery";

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// An external account whose subject token lies in a file, as a projected service account token of Kubernetes does.
fn file_sourced(folder: &TempDir, tokens: &TokenServer) -> Value {
    let subject = file(folder, "subject", SUBJECT);
    json!({
        "type": "external_account", "audience": AUDIENCE, "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": tokens.url("/v1/token"), "credential_source": { "file": subject },
    })
}

async fn accepting() -> Fake {
    Fake::start(|_, _| (Reply::Ok, NOW)).await
}

#[tokio::test]
async fn a_service_account_signs_its_tokens_itself() {
    logged::keep();
    let folder = tempfile::tempdir().unwrap();
    openssl(folder.path(), "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out sa.key").unwrap();
    openssl(folder.path(), "rsa -in sa.key -RSAPublicKey_out -outform DER -out sa.der").unwrap();
    let private_key = std::fs::read_to_string(folder.path().join("sa.key")).unwrap();
    let tokens = TokenServer::start().await;
    let account = json!({
        "type": "service_account", "project_id": "p", "private_key_id": "key-1", "private_key": private_key,
        "client_email": "mill@p.iam.gserviceaccount.com", "client_id": "1", "token_uri": tokens.url("/token"),
    });
    let account = file(&folder, "account.json", account.to_string());
    let (rest, grpc) = (GuardedRest::default(), accepting().await);
    rest.refuse(&[true]);
    let config = bigquery_config(rest.start().await, grpc.endpoint().unwrap(), account.to_str().unwrap());
    let bigquery = connect(&config, None).await.unwrap();
    assert!(bigquery.tables().get(&table("t")).await.unwrap().is_some());
    bigquery.appender().append(one_row(&table("t"))).await.unwrap();

    // Refused once, shown again once; the same for gRPC. Every token is signed with the account's key.
    let shown = [rest.seen(), vec![grpc.seen()[0].authorization.clone()]].concat();
    assert_eq!(shown.len(), 3);
    let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, std::fs::read(folder.path().join("sa.der")).unwrap());
    for shown in &shown {
        let token = shown.strip_prefix("Bearer ").unwrap();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        public.verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).expect("a signature of the account's key");
        let part = |n| -> Value { serde_json::from_slice(&URL_SAFE_NO_PAD.decode(signed.split('.').nth(n).unwrap()).unwrap()).unwrap() };
        let (header, claims): (Value, Value) = (part(0), part(1));
        assert_eq!((&header["alg"], &header["kid"]), (&json!("RS256"), &json!("key-1")));
        assert_eq!((&claims["iss"], &claims["scope"]), (&json!("mill@p.iam.gserviceaccount.com"), &json!(SCOPE)));
        assert!(claims["exp"].as_i64().unwrap() > chrono::Utc::now().timestamp() + 3000);
    }
    // Google's AIP-4111: the account's own JWT is the access token, `token_uri` is not needed.
    assert!(tokens.asked().is_empty());
    let key_line = private_key.lines().nth(2).unwrap();
    logged::assert_hidden(&[key_line, shown[0].strip_prefix("Bearer ").unwrap()], &[&format!("{config:?}")]);
}

#[tokio::test]
async fn a_broken_key_is_said_without_the_key() {
    logged::keep();
    let folder = tempfile::tempdir().unwrap();
    let grpc = accepting().await;
    let rest = GuardedRest::default().start().await;
    let account = |key: &str| {
        json!({ "type": "service_account", "project_id": "p", "private_key_id": "key-1", "private_key": key,
            "client_email": "mill@p.iam.gserviceaccount.com" })
    };
    let key = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0LWtleS1ieXRlcw==\n-----END PRIVATE KEY-----\n";
    let broken = [account(key).to_string(), account("secret-no-pem").to_string(), "{ \"private_key\": \"secret-cut-off".to_owned()];
    for (n, text) in broken.iter().enumerate() {
        let path = file(&folder, &format!("{n}.json"), text);
        let config = bigquery_config(rest.clone(), grpc.endpoint().unwrap(), path.to_str().unwrap());
        let said = match connect(&config, None).await {
            Err(error) => error.to_string(),
            Ok(bigquery) => {
                let refused = bigquery.tables().get(&table("t")).await.unwrap_err();
                assert_eq!(refused.cause, HoldCause::Unauthenticated, "{refused}");
                refused.to_string()
            }
        };
        println!("{said}");
        assert!(said.contains("credentials"), "{said}");
        logged::assert_hidden(&["c2VjcmV0LWtleS1ieXRlcw", "secret-no-pem", "secret-cut-off"], &[&said]);
    }
}

#[tokio::test]
async fn a_subject_token_of_a_file_becomes_an_access_token_and_is_read_again_after_a_refusal() {
    logged::keep();
    let folder = tempfile::tempdir().unwrap();
    let tokens = TokenServer::start().await;
    let account = file(&folder, "account.json", file_sourced(&folder, &tokens).to_string());
    let rest = GuardedRest::default();
    // The first RPC is refused as BigQuery does it with a token that was revoked.
    let grpc = Fake::start(|_, seen| match seen.connection {
        0 => (Reply::End(Code::Unauthenticated, "Request had invalid authentication credentials."), NOW),
        _ => (Reply::Ok, NOW),
    })
    .await;
    let config = bigquery_config(rest.start().await, grpc.endpoint().unwrap(), account.to_str().unwrap());
    let bigquery = connect(&config, None).await.unwrap();
    assert!(tokens.asked().is_empty(), "connect asks no server");
    let (tables, appender) = (bigquery.tables(), bigquery.appender());
    assert!(tables.get(&table("a")).await.unwrap().is_some());

    // Kubernetes has renewed the file when BigQuery refuses the token.
    file(&folder, "subject", "subject-token-renewed");
    rest.refuse(&[true]);
    assert!(tables.get(&table("b")).await.unwrap().is_some());
    assert_eq!(rest.seen(), [1, 1, 2].map(|n| bearer(&token(n))));
    let asked = tokens.asked();
    assert_eq!(asked.len(), 2, "one exchange, and one after the refusal");
    let subjects: Vec<&str> = asked.iter().map(|a| a.form["subject_token"].as_str()).collect();
    assert_eq!(subjects, [SUBJECT, "subject-token-renewed"]);
    assert_eq!((asked[0].form["audience"].as_str(), asked[0].form["scope"].as_str()), (AUDIENCE, SCOPE));

    // gRPC: the same token, then a new one.
    let refused = appender.append(one_row(&table("a"))).await.unwrap_err();
    // The RPC ended with an append on its way: counted as perhaps durable, to be on the safe side.
    assert_eq!((refused.class, refused.maybe_durable), (ErrorClass::Unauthenticated, true), "{refused}");
    assert!(matches!(refused.class.action(ActionContext::default()), Action::Retry(_)));
    let again = ActionContext { attempts: 1, ..ActionContext::default() };
    assert_eq!(refused.class.action(again), Action::Hold(HoldCause::Unauthenticated));
    appender.append(one_row(&table("a"))).await.unwrap();
    let shown: Vec<String> = grpc.seen().iter().map(|s| s.authorization.clone()).collect();
    assert_eq!(shown, [2, 3].map(|n| bearer(&token(n))));
    let secrets = [token(1), token(2), token(3)];
    let secrets: Vec<&str> = secrets.iter().map(String::as_str).chain([SUBJECT, "subject-token-renewed"]).collect();
    logged::assert_hidden(&secrets, &[&refused.to_string(), &format!("{refused:?} {config:?}")]);
}

#[tokio::test]
async fn an_impersonated_account_s_token_is_the_one_that_is_shown() {
    logged::keep();
    let folder = tempfile::tempdir().unwrap();
    let tokens = TokenServer::start().await;
    let mut account = file_sourced(&folder, &tokens);
    account["service_account_impersonation_url"] =
        tokens.url("/v1/projects/-/serviceAccounts/mill@p.iam.gserviceaccount.com:generateAccessToken").into();
    let account = file(&folder, "account.json", account.to_string());
    let rest = GuardedRest::default();
    let config = bigquery_config(rest.start().await, accepting().await.endpoint().unwrap(), account.to_str().unwrap());
    connect(&config, None).await.unwrap().tables().get(&table("t")).await.unwrap();
    assert_eq!(rest.seen(), [bearer(&impersonated(2))]);
    assert_eq!(tokens.asked()[1].authorization, bearer(&token(1)));
    logged::assert_hidden(&[&impersonated(2), &token(1)], &[]);
}

#[tokio::test]
async fn a_user_s_refresh_token_becomes_an_access_token() {
    logged::keep();
    let folder = tempfile::tempdir().unwrap();
    let tokens = TokenServer::start().await;
    let account = json!({
        "type": "authorized_user", "client_id": "id.apps", "client_secret": "secret-of-client", "refresh_token": "secret-refresh-token",
        "token_uri": tokens.url("/token"),
    });
    let account = file(&folder, "account.json", account.to_string());
    let rest = GuardedRest::default();
    let config = bigquery_config(rest.start().await, accepting().await.endpoint().unwrap(), account.to_str().unwrap());
    connect(&config, None).await.unwrap().tables().get(&table("t")).await.unwrap();
    assert_eq!(rest.seen(), [bearer(&token(1))]);
    logged::assert_hidden(&["secret-of-client", "secret-refresh-token", &token(1)], &[]);
}

#[tokio::test]
async fn a_token_server_that_refuses_is_a_hold_with_its_words() {
    logged::keep();
    let folder = tempfile::tempdir().unwrap();
    let tokens = TokenServer::start().await;
    tokens.refuse(400, r#"{"error":"invalid_grant","error_description":"The audience does not match the provider."}"#);
    let account = file(&folder, "account.json", file_sourced(&folder, &tokens).to_string());
    let rest = GuardedRest::default();
    let grpc = accepting().await;
    let config = bigquery_config(rest.start().await, grpc.endpoint().unwrap(), account.to_str().unwrap());
    let bigquery = connect(&config, None).await.unwrap();
    let by_rest = bigquery.tables().get(&table("t")).await.unwrap_err();
    assert_eq!(by_rest.cause, HoldCause::Unauthenticated, "{by_rest}");
    let by_grpc = bigquery.appender().append(one_row(&table("t"))).await.unwrap_err();
    assert_eq!((by_grpc.class, by_grpc.maybe_durable), (ErrorClass::Unauthenticated, false), "{by_grpc}");
    let checked = bigquery.check_token().await.unwrap_err();
    println!("{by_rest}\n{by_grpc}\n{checked}");
    for words in [&by_rest.message, &by_grpc.message, &checked] {
        assert!(words.contains("The audience does not match the provider."), "{words}");
    }
    assert!(rest.seen().is_empty() && grpc.seen().is_empty(), "nothing is asked without a token");
    logged::assert_hidden(&[SUBJECT], &[&by_rest.message, &by_grpc.message, &checked]);
}

#[tokio::test]
async fn a_token_that_bigquery_never_takes_is_a_hold_after_one_renewal() {
    logged::keep();
    let folder = tempfile::tempdir().unwrap();
    let tokens = TokenServer::start().await;
    let account = file(&folder, "account.json", file_sourced(&folder, &tokens).to_string());
    let rest = GuardedRest::default();
    rest.refuse_all();
    let config = bigquery_config(rest.start().await, accepting().await.endpoint().unwrap(), account.to_str().unwrap());
    let refused = connect(&config, None).await.unwrap().tables().get(&table("t")).await.unwrap_err();
    assert_eq!(refused.cause, HoldCause::Unauthenticated, "{refused}");
    assert!(refused.message.contains("[bigquery] credentials") && refused.message.contains("invalid authentication"), "{refused}");
    assert_eq!(rest.seen(), [1, 2].map(|n| bearer(&token(n))));
    logged::assert_hidden(&[SUBJECT, &token(1), &token(2)], &[&refused.message]);
}
