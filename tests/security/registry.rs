//! The registry over TLS, with client certificates, with a user or a token.

use std::path::Path;

use base64::Engine;
use millrace::config::{RegistryConfig, Secret};
use millrace::decode::SchemaKey;
use millrace::embedded::registry::{Credentials, EmbeddedRegistry, RegistrySettings};
use millrace::schema::{RegistrySource, SchemaError, SchemaSource};

use crate::front::{Clients, Front, Handshake};
use crate::{authority, file, logged};

const SCHEMA: &str = r#"{"type":"record","name":"R","fields":[{"name":"n","type":"long"}]}"#;

fn config(url: String) -> RegistryConfig {
    serde_json::from_value(serde_json::json!({ "urls": [url], "timeout": "5s" })).unwrap()
}

async fn registry(credentials: Credentials) -> (EmbeddedRegistry, SchemaKey) {
    logged::keep();
    let registry = EmbeddedRegistry::start(RegistrySettings { credentials, ..RegistrySettings::default() }).await.unwrap();
    let id = registry.register("s-value", SCHEMA, Vec::new()).unwrap();
    (registry, SchemaKey::Id(id))
}

async fn fetch(config: &RegistryConfig, ca: Option<&Path>, key: &SchemaKey) -> Result<(), SchemaError> {
    RegistrySource::new(config, ca).unwrap().fetch(key).await.map(|_| ())
}

/// The words of a failure that is a hold.
fn unavailable(outcome: Result<(), SchemaError>) -> String {
    match outcome.unwrap_err() {
        SchemaError::Unavailable(words) => words,
        other => panic!("no hold: {other:?}"),
    }
}

#[tokio::test]
async fn https_with_a_private_authority() {
    let (registry, key) = registry(Credentials::None).await;
    let (_folder, certificates) = authority();
    let front = Front::start(registry.url(), &certificates, Clients::Any).await;
    let config = config(front.url());
    fetch(&config, Some(&certificates.ca), &key).await.unwrap();
    assert_eq!(front.passed(), [Handshake { protocol: "http/1.1".into(), client_certificate: false }]);

    let words = unavailable(fetch(&config, None, &key).await);
    println!("no ca_file: {words}");
    assert!(words.contains("certificate") && words.contains(&front.url()) && words.contains("[worker] ca_file"), "{words}");
    assert_eq!(front.passed().len(), 1, "nothing was asked over a connection that is not trusted");
    // An authority that signed something else.
    let (_other_folder, other) = authority();
    let words = unavailable(fetch(&config, Some(&other.ca), &key).await);
    assert!(words.contains("certificate"), "{words}");
}

#[tokio::test]
async fn a_certificate_for_another_host_is_refused() {
    let (registry, key) = registry(Credentials::None).await;
    let folder = tempfile::tempdir().unwrap();
    let certificates = crate::certificates::Certificates::make_for(folder.path(), "DNS:registry.example").unwrap();
    let front = Front::start(registry.url(), &certificates, Clients::Any).await;
    let words = unavailable(fetch(&config(front.url()), Some(&certificates.ca), &key).await);
    assert!(words.contains("certificate") && words.contains("registry.example"), "{words}");
}

#[tokio::test]
async fn mutual_tls() {
    let (registry, key) = registry(Credentials::None).await;
    let (folder, certificates) = authority();
    let front = Front::start(registry.url(), &certificates, Clients::Certified).await;
    let mut config = config(front.url());
    let words = unavailable(fetch(&config, Some(&certificates.ca), &key).await);
    assert!(words.to_lowercase().contains("certificate"), "{words}");
    assert!(front.passed().is_empty() && !front.refused().is_empty(), "{:?}", front.refused());
    println!("no client certificate: {words}");

    (config.client_cert_file, config.client_key_file) = (Some(certificates.client_cert.clone()), Some(certificates.client_key.clone()));
    fetch(&config, Some(&certificates.ca), &key).await.unwrap();
    assert_eq!(front.passed(), [Handshake { protocol: "http/1.1".into(), client_certificate: true }]);

    // One of another authority.
    let (_other_folder, other) = authority();
    (config.client_cert_file, config.client_key_file) = (Some(other.client_cert), Some(other.client_key));
    let words = unavailable(fetch(&config, Some(&certificates.ca), &key).await);
    assert_eq!(front.passed().len(), 1, "{words}");

    // Half of a pair, and a key that is none: said at the start, without the file's contents.
    config.client_key_file = None;
    let half = RegistrySource::new(&config, None).err().unwrap().to_string();
    assert!(half.contains("client_key_file"), "{half}");
    config.client_key_file = Some(file(&folder, "no.key", "-----BEGIN PRIVATE KEY-----\nsecretkeybytes\n-----END PRIVATE KEY-----\n"));
    let broken = RegistrySource::new(&config, None).err().unwrap().to_string();
    logged::assert_hidden(&["secretkeybytes"], &[&half, &broken]);
}

#[tokio::test]
async fn basic_authentication_arrives_and_a_wrong_password_is_a_hold() {
    let (user, password) = ("reader", "right-Passw0rd");
    let (registry, key) = registry(Credentials::Basic { user: user.into(), password: password.into() }).await;
    let mut config = config(registry.url().to_owned());
    let nobody = unavailable(fetch(&config, None, &key).await);
    (config.username, config.password) = (Some(user.into()), Some(Secret::new(password)));
    fetch(&config, None, &key).await.unwrap();
    RegistrySource::new(&config, None).unwrap().probe().await.unwrap();

    config.password = Some(Secret::new("wrong-Passw0rd"));
    let words = unavailable(fetch(&config, None, &key).await);
    let probed = unavailable(RegistrySource::new(&config, None).unwrap().probe().await);
    for words in [&nobody, &words, &probed] {
        assert!(words.contains("401") && words.contains("username and password"), "{words}");
    }
    println!("wrong password: {words}");
    // What is sent hides in base64.
    let base64 = |password: &str| base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    let (right, wrong) = (base64(password), base64("wrong-Passw0rd"));
    logged::assert_hidden(&[password, "wrong-Passw0rd", &right, &wrong], &[&nobody, &words, &probed, &format!("{config:?}")]);
}

#[tokio::test]
async fn a_bearer_token_arrives_and_a_wrong_one_is_a_hold() {
    let (registry, key) = registry(Credentials::Bearer("right-token-1".into())).await;
    let mut config = config(registry.url().to_owned());
    config.bearer_token = Some(Secret::new("right-token-1"));
    fetch(&config, None, &key).await.unwrap();
    config.bearer_token = Some(Secret::new("wrong-token-2"));
    let words = unavailable(fetch(&config, None, &key).await);
    assert!(words.contains("401") && words.contains("bearer_token"), "{words}");
    logged::assert_hidden(&["right-token-1", "wrong-token-2"], &[&words, &format!("{config:?}")]);
}

/// Configuration files with such an address are refused (tests/config), since addresses are shown.
#[tokio::test]
async fn a_password_inside_the_address_is_not_in_what_the_client_says() {
    let (registry, key) = registry(Credentials::Basic { user: "reader".into(), password: "in-the-address".into() }).await;
    let good = config(registry.url().replace("http://", "http://reader:in-the-address@"));
    fetch(&good, None, &key).await.unwrap();
    let bad = config(registry.url().replace("http://", "http://reader:wrong-address@"));
    let words = unavailable(fetch(&bad, None, &key).await);
    let nowhere = unavailable(fetch(&config("http://reader:in-the-address@127.0.0.1:1".into()), None, &key).await);
    logged::assert_hidden(&["in-the-address", "wrong-address"], &[&words, &nowhere]);
}
