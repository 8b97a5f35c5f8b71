//! The registry as its clients meet it.

use reqwest::{Client, Method};
use serde_json::{Value, json};

use super::*;

const V1: &str = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"int"}]}"#;
const V2: &str =
    r#"{"type":"record","name":"R","fields":[{"name":"a","type":"int"},{"name":"b","type":["null","string"],"default":null}]}"#;
const NO_DEFAULT: &str = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"int"},{"name":"c","type":"string"}]}"#;

async fn call(registry: &EmbeddedRegistry, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
    // The binary installs the provider in `main`; a test does it for itself, and another test may have done so already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut request = Client::new().request(method, format!("{}{path}", registry.url()));
    if let Some(body) = body {
        request = request.body(body.to_string());
    }
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap_or(Value::Null))
}

#[tokio::test]
async fn versions_ids_compatibility_and_their_codes() {
    let r = EmbeddedRegistry::start(RegistrySettings::default()).await.unwrap();
    let post = |s: &str| Some(json!({ "schema": s }));
    assert_eq!(call(&r, Method::GET, "/subjects/s/versions", None).await.1["error_code"], 40401);
    let (status, one) = call(&r, Method::POST, "/subjects/s/versions", post(V1)).await;
    assert_eq!((status, &one["id"]), (200, &json!(1)));
    assert_eq!(call(&r, Method::POST, "/subjects/s/versions", post(&V1.replace(',', " , "))).await.1["id"], 1, "same schema, same id");
    assert_eq!(call(&r, Method::POST, "/subjects/other/versions", post(V1)).await.1["id"], 1, "same schema elsewhere, same id");
    let (status, refused) = call(&r, Method::POST, "/subjects/s/versions", post(NO_DEFAULT)).await;
    assert_eq!((status, &refused["error_code"]), (409, &json!(409)));
    assert_eq!(call(&r, Method::POST, "/subjects/s/versions", post(V2)).await.1["id"], 2);
    assert_eq!(call(&r, Method::GET, "/subjects/s/versions", None).await.1, json!([1, 2]));
    assert_eq!(call(&r, Method::GET, "/subjects/s/versions/latest", None).await.1["id"], 2);
    assert_eq!(call(&r, Method::GET, "/subjects/s/versions/9", None).await.1["error_code"], 40402);
    let (status, body) = call(&r, Method::GET, "/subjects/s/versions/zero", None).await;
    assert_eq!((status, &body["error_code"]), (422, &json!(42202)));
    let (status, body) = call(&r, Method::GET, "/schemas/ids/77", None).await;
    assert_eq!((status, &body["error_code"]), (404, &json!(40403)));
    assert_eq!(call(&r, Method::GET, "/schemas/ids/1", None).await.1["schema"], V1);
    assert_eq!(call(&r, Method::GET, "/schemas/ids/1/subjects", None).await.1, json!(["other", "s"]));
    let guid = one["guid"].as_str().unwrap();
    assert_eq!(call(&r, Method::GET, &format!("/schemas/guids/{guid}"), None).await.1["id"], 1);
    let (_, verbose) = call(&r, Method::POST, "/compatibility/subjects/s/versions/latest?verbose=true", post(NO_DEFAULT)).await;
    assert_eq!(verbose["is_compatible"], false);
    assert!(verbose["messages"][0].as_str().unwrap().contains("cannot read"), "{verbose}");
    assert_eq!(call(&r, Method::PUT, "/config/s", Some(json!({ "compatibility": "NONE" }))).await.0, 200);
    assert_eq!(call(&r, Method::POST, "/subjects/s/versions", post(NO_DEFAULT)).await.1["id"], 3);
    assert_eq!(call(&r, Method::PUT, "/config", Some(json!({ "compatibility": "SIDEWAYS" }))).await.1["error_code"], 42203);
    assert_eq!(call(&r, Method::POST, "/subjects/s/versions", post("{\"type\":\"recrod\"}")).await.1["error_code"], 42201);
}

#[tokio::test]
async fn references_are_found_and_guard_what_they_refer_to() {
    let r = EmbeddedRegistry::start(RegistrySettings::default()).await.unwrap();
    r.register("inner", r#"{"type":"record","name":"n.Inner","fields":[{"name":"x","type":"long"}]}"#, vec![]).unwrap();
    let outer = r#"{"type":"record","name":"n.Outer","fields":[{"name":"i","type":"n.Inner"},{"name":"j","type":["null","n.Inner"]}]}"#;
    let refers = json!([{ "name": "n.Inner", "subject": "inner", "version": 1 }]);
    assert_eq!(call(&r, Method::POST, "/subjects/outer/versions", Some(json!({ "schema": outer }))).await.1["error_code"], 42201);
    let (status, body) =
        call(&r, Method::POST, "/subjects/outer/versions", Some(json!({ "schema": outer, "references": refers.clone() }))).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(call(&r, Method::GET, "/subjects/outer/versions/1", None).await.1["references"], refers);
    assert_eq!(call(&r, Method::GET, "/subjects/inner/versions/1/referencedby", None).await.1, json!([2]));
    assert_eq!(call(&r, Method::DELETE, "/subjects/inner", None).await.1["error_code"], 42206);
    assert_eq!(call(&r, Method::DELETE, "/subjects/outer?permanent=true", None).await.1["error_code"], 40405);
    assert_eq!(call(&r, Method::DELETE, "/subjects/outer", None).await.1, json!([1]));
    assert_eq!(call(&r, Method::DELETE, "/subjects/outer", None).await.1["error_code"], 40404);
    assert_eq!(call(&r, Method::DELETE, "/subjects/outer?permanent=true", None).await.1, json!([1]));
    assert_eq!(call(&r, Method::GET, "/schemas/ids/2", None).await.0, 200, "an id stays readable");
    assert_eq!(call(&r, Method::DELETE, "/subjects/inner", None).await.1, json!([1]));
}

#[tokio::test]
async fn what_the_api_does_not_have_is_refused_in_its_own_form() {
    let r = EmbeddedRegistry::start(RegistrySettings::default()).await.unwrap();
    for (method, path, code) in [(Method::PATCH, "/subjects", 405), (Method::PUT, "/subjects/s", 405), (Method::GET, "/nothing", 404)] {
        let (status, body) = call(&r, method, path, None).await;
        assert_eq!((status, &body["error_code"]), (code, &json!(code)), "{path}");
        assert!(body["message"].as_str().is_some_and(|message| message.starts_with("HTTP 40")), "{path}: {body}");
    }
}

#[tokio::test]
async fn modes_faults_and_credentials() {
    let settings = RegistrySettings {
        credentials: Credentials::Bearer("open sesame".to_owned()),
        faults: RegistryFaultRates::none().first(vec![RegistryFault::Down, RegistryFault::Rubbish]),
        ..RegistrySettings::default()
    };
    let r = EmbeddedRegistry::start(settings).await.unwrap();
    assert_eq!(call(&r, Method::GET, "/subjects", None).await.1["error_code"], 50003);
    assert_eq!(call(&r, Method::GET, "/subjects", None).await, (200, Value::Null), "HTML is no JSON");
    assert_eq!(call(&r, Method::GET, "/subjects", None).await.0, 401);
    assert_eq!(r.fired().into_iter().collect::<Vec<_>>(), [("registry_down", 1), ("registry_rubbish", 1)]);
    let answer = Client::new().get(format!("{}/subjects", r.url())).bearer_auth("open sesame").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(!format!("{:?}", Credentials::Bearer("open sesame".to_owned())).contains("sesame"));
    let open = EmbeddedRegistry::start(RegistrySettings::default()).await.unwrap();
    assert_eq!(call(&open, Method::PUT, "/mode/s", Some(json!({ "mode": "READONLY" }))).await.0, 200);
    let refused = call(&open, Method::POST, "/subjects/s/versions", Some(json!({ "schema": V1 }))).await;
    assert_eq!((refused.0, &refused.1["error_code"]), (422, &json!(42205)));
    assert_eq!(call(&open, Method::GET, "/config/s?defaultToGlobal=true", None).await.1["compatibilityLevel"], "BACKWARD");
    assert_eq!(call(&open, Method::GET, "/config/s", None).await.1["error_code"], 40408);
}
