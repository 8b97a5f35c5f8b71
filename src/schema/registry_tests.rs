#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
//! A registry that answers what it is told to, counted.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State as Given};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use serde_json::json;

use super::*;
use crate::flow::ManualClock;

#[derive(Default)]
struct Fake {
    answers: Mutex<HashMap<String, (u16, String)>>,
    asked: Mutex<Vec<String>>,
    headers: Mutex<HeaderMap>,
    delay: Mutex<Duration>,
}

impl Fake {
    async fn start() -> (Arc<Self>, String) {
        let fake = Arc::new(Self::default());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(Arc::clone(&fake));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (fake, url)
    }

    fn says(&self, path: &str, status: u16, body: impl ToString) {
        self.answers.lock().insert(path.to_owned(), (status, body.to_string()));
    }

    fn has(&self, path: &str, schema: &str, references: &[(&str, &str, u32)]) {
        let references: Vec<_> =
            references.iter().map(|(name, subject, version)| json!({"name": name, "subject": subject, "version": version})).collect();
        self.says(path, 200, json!({"schema": schema, "references": references}));
    }

    fn asked(&self, path: &str) -> usize {
        self.asked.lock().iter().filter(|p| *p == path).count()
    }
}

async fn answer(Given(fake): Given<Arc<Fake>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    fake.asked.lock().push(path.clone());
    *fake.headers.lock() = request.headers().clone();
    let delay = *fake.delay.lock();
    tokio::time::sleep(delay).await;
    match fake.answers.lock().get(&path) {
        Some((status, body)) => (StatusCode::from_u16(*status).unwrap(), body.clone()).into_response(),
        None => (StatusCode::NOT_FOUND, json!({"error_code": 40403, "message": "Schema not found"}).to_string()).into_response(),
    }
}

fn config(urls: &[&str], more: &str) -> RegistryConfig {
    toml::from_str(&format!("urls = {urls:?}\n{more}")).unwrap()
}

fn source(url: &str) -> (RegistrySource, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::default());
    (RegistrySource::with_clock(&config(&[url], "timeout = '20s'"), None, Arc::clone(&clock) as Arc<dyn Clock>).unwrap(), clock)
}

const INT: &str = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"int"}]}"#;

#[tokio::test]
async fn a_schema_is_fetched_once_for_all_who_ask() {
    let (fake, url) = Fake::start().await;
    fake.has("/schemas/ids/7", INT, &[]);
    *fake.delay.lock() = Duration::from_millis(100);
    let (source, _) = source(&url);
    let got = futures::future::join_all((0..50).map(|_| source.fetch(&SchemaKey::Id(7)))).await;
    assert!(got.iter().all(|schema| schema.as_ref().unwrap().id == "7"));
    source.fetch(&SchemaKey::Id(7)).await.unwrap();
    assert_eq!(fake.asked("/schemas/ids/7"), 1);
}

#[tokio::test]
async fn a_fetch_whose_caller_went_away_still_ends() {
    let (fake, url) = Fake::start().await;
    fake.has("/schemas/ids/7", INT, &[]);
    *fake.delay.lock() = Duration::from_secs(1);
    let (source, _) = source(&url);
    assert!(tokio::time::timeout(Duration::from_millis(20), source.fetch(&SchemaKey::Id(7))).await.is_err());
    source.fetch(&SchemaKey::Id(7)).await.unwrap();
    assert_eq!(fake.asked("/schemas/ids/7"), 1);
}

#[tokio::test]
async fn a_fetch_that_panics_is_not_everyones_answer_for_ever() {
    let (fake, url) = Fake::start().await;
    fake.has("/schemas/ids/7", INT, &[]);
    let (source, _) = source(&url);
    let key = SchemaKey::Id(7);
    {
        let mut state = source.inner.state.lock();
        let flight = fly(Arc::clone(&source.inner), key.clone(), async { panic!("a schema that the parser does not survive") });
        state.flights.insert(key.clone(), flight);
    }
    assert!(matches!(source.fetch(&key).await, Err(SchemaError::Unavailable(_))));
    source.fetch(&key).await.unwrap();
    assert_eq!(fake.asked("/schemas/ids/7"), 1);
}

#[tokio::test]
async fn by_guid_and_with_a_path_before_it() {
    let (fake, url) = Fake::start().await;
    let guid = uuid::Uuid::from_u128(0x1234);
    fake.has(&format!("/apis/ccompat/v7/schemas/guids/{guid}"), INT, &[]);
    let (source, _) = source(&format!("{url}/apis/ccompat/v7/"));
    assert_eq!(source.fetch(&SchemaKey::Guid(*guid.as_bytes())).await.unwrap().id, guid.to_string());
}

#[tokio::test]
async fn references_of_references_in_several_versions() {
    let (fake, url) = Fake::start().await;
    let leaf = |symbol: &str| {
        format!(
            r#"{{"type":"record","name":"b.Leaf","fields":[{{"name":"e","type":{{"type":"enum","name":"E","symbols":["{symbol}"]}}}}]}}"#
        )
    };
    fake.has(
        "/schemas/ids/1",
        r#"{"type":"record","name":"R","fields":[{"name":"m","type":"b.Mid"},{"name":"e","type":"b.E"}]}"#,
        &[("b.Mid", "mid/value", 2)],
    );
    fake.has(
        "/subjects/mid%2Fvalue/versions/2",
        r#"{"type":"record","name":"b.Mid","fields":[{"name":"l","type":"Leaf"}]}"#,
        &[("b.Leaf", "leaf", 1)],
    );
    fake.has("/subjects/leaf/versions/1", &leaf("OLD"), &[]);
    fake.has("/schemas/ids/2", r#"{"type":"record","name":"R","fields":[{"name":"l","type":"b.Leaf"}]}"#, &[("b.Leaf", "leaf", 2)]);
    fake.has("/subjects/leaf/versions/2", &leaf("NEW"), &[]);
    let (source, _) = source(&url);
    let first = source.fetch(&SchemaKey::Id(1)).await.unwrap();
    assert_eq!(first.references.len(), 3);
    assert!(format!("{:?}", first.references).contains("OLD"));
    let second = source.fetch(&SchemaKey::Id(2)).await.unwrap();
    assert!(format!("{:?}", second.references).contains("NEW"));
    // A cycle of references, and one that the registry lost.
    fake.has("/schemas/ids/3", INT, &[("x", "x", 1)]);
    fake.has("/subjects/x/versions/1", r#"{"type":"enum","name":"X","symbols":[]}"#, &[("y", "y", 1)]);
    fake.has("/subjects/y/versions/1", r#"{"type":"enum","name":"Y","symbols":[]}"#, &[("x", "x", 1)]);
    source.fetch(&SchemaKey::Id(3)).await.unwrap();
    fake.has("/schemas/ids/4", INT, &[("z", "z", 1)]);
    assert!(matches!(source.fetch(&SchemaKey::Id(4)).await, Err(SchemaError::Unavailable(m)) if m.contains("`z` version 1")));
}

#[tokio::test]
async fn troubles_hold_and_are_forgotten_at_once() {
    let (fake, url) = Fake::start().await;
    let (source, _) = source(&url);
    let page = "<html><body>Bad gateway</body></html>";
    let troubles = [
        (500, json!({"error_code": 50001, "message": "Error in the backend data store"}).to_string()),
        (502, page.to_owned()),
        (503, String::new()),
        (429, json!({"error_code": 429, "message": "slow down"}).to_string()),
        (401, json!({"error_code": 401, "message": "Unauthorized"}).to_string()),
        (403, json!({"error_code": 40301, "message": "User is denied"}).to_string()),
        (404, page.to_owned()),
        (404, json!({"error_code": 404, "message": "HTTP 404 Not Found"}).to_string()),
        (404, json!({"message": "no Route matched with those values"}).to_string()),
        (200, page.to_owned()),
        (200, json!({"schema": INT}).to_string()[..20].to_owned()),
        (200, json!({"id": 7}).to_string()),
        (200, json!({"schema": null}).to_string()),
        (200, "[]".to_owned()),
        (200, String::new()),
        (200, " ".repeat(5_000_000)),
    ];
    for (status, body) in troubles {
        fake.says("/schemas/ids/7", status, &body);
        let outcome = source.fetch(&SchemaKey::Id(7)).await;
        let Err(SchemaError::Unavailable(message)) = &outcome else { panic!("{status} {:.60}: {outcome:?}", body) };
        assert!(message.contains(&url), "{message}");
        assert!(status != 401 || message.contains("bearer_token"), "{message}");
    }
    fake.has("/schemas/ids/7", INT, &[]);
    source.fetch(&SchemaKey::Id(7)).await.unwrap();
}

#[tokio::test]
async fn silence_ends_at_the_timeout_and_nobody_listening_at_once() {
    let (fake, url) = Fake::start().await;
    *fake.delay.lock() = Duration::from_secs(60);
    let silent = RegistrySource::new(&config(&[&url], "timeout = '200ms'"), None).unwrap();
    let start = Instant::now();
    assert!(matches!(silent.fetch(&SchemaKey::Id(7)).await, Err(SchemaError::Unavailable(_))));
    assert!(start.elapsed() < Duration::from_secs(30));
    // Port 1 is nobody's.
    let (gone, _) = source("http://127.0.0.1:1");
    assert!(matches!(gone.fetch(&SchemaKey::Id(7)).await, Err(SchemaError::Unavailable(m)) if m.contains("refused")));
}

#[tokio::test]
async fn an_unknown_id_is_asked_again_after_30_s() {
    let (fake, url) = Fake::start().await;
    let (source, clock) = source(&url);
    for _ in 0..5 {
        assert!(
            matches!(source.fetch(&SchemaKey::Id(7)).await, Err(SchemaError::Unknown(m)) if m.contains("40403") && m.contains("schema id 7"))
        );
    }
    assert_eq!(fake.asked("/schemas/ids/7"), 1);
    fake.has("/schemas/ids/7", INT, &[]);
    clock.advance(Duration::from_secs(29));
    assert!(source.fetch(&SchemaKey::Id(7)).await.is_err());
    clock.advance(Duration::from_secs(1));
    source.fetch(&SchemaKey::Id(7)).await.unwrap();
    assert!(matches!(source.fetch(&SchemaKey::Id(3_000_000_000)).await, Err(SchemaError::Unknown(_))));
    assert_eq!(fake.asked.lock().len(), 2, "an id that cannot be is not asked for");
}

#[tokio::test]
async fn what_is_no_avro_schema_is_unusable() {
    let (fake, url) = Fake::start().await;
    let (source, _) = source(&url);
    fake.says("/schemas/ids/1", 200, json!({"schema": "syntax = \"proto3\";", "schemaType": "PROTOBUF"}));
    fake.says("/schemas/ids/2", 200, json!({"schema": "{\"type\":\"recrod\"}"}));
    fake.says("/schemas/ids/3", 200, json!({"schema": "[".repeat(100_000)}));
    fake.says("/schemas/ids/4", 200, json!({"schema": " ".repeat(TEXT_BYTES_MAX + 1)}));
    let many: Vec<_> = (0..300).map(|n| json!({"name": format!("n{n}"), "subject": "s", "version": 1})).collect();
    fake.says("/schemas/ids/5", 200, json!({"schema": INT, "references": many}));
    fake.has("/subjects/s/versions/1", INT, &[]);
    for (id, word) in [(1, "PROTOBUF"), (2, "valid Avro"), (3, "deep"), (4, "1048577 bytes"), (5, "256")] {
        let outcome = source.fetch(&SchemaKey::Id(id)).await;
        assert!(matches!(&outcome, Err(SchemaError::Unusable(m)) if m.contains(word)), "{id}: {outcome:?}");
    }
    assert!(matches!(source.fetch(&SchemaKey::Name("x".into())).await, Err(SchemaError::Unusable(_))));
}

#[tokio::test]
async fn a_name_that_is_defined_in_two_ways_is_unusable_and_both_places_are_named() {
    let (fake, url) = Fake::start().await;
    let (source, _) = source(&url);
    let leaf = |symbol: &str| format!(r#"{{"type":"enum","name":"Leaf","symbols":["{symbol}"]}}"#);
    let record = |name: &str, fields: &[&str]| {
        let fields: Vec<String> = fields.iter().enumerate().map(|(n, ty)| format!(r#"{{"name":"f{n}","type":{ty}}}"#)).collect();
        format!(r#"{{"type":"record","name":"{name}","fields":[{}]}}"#, fields.join(","))
    };
    fake.has("/schemas/ids/1", &record("R", &[&leaf("A"), &leaf("B")]), &[]);
    fake.has("/schemas/ids/2", &record("R", &[&leaf("A"), "\"Mid\""]), &[("Mid", "mid", 3)]);
    fake.has("/subjects/mid/versions/3", &record("Mid", &[&leaf("B")]), &[]);
    for (id, other) in [(1, "field `f1` of `R`"), (2, "field `f0` of `Mid` in subject `mid` version 3")] {
        let Err(SchemaError::Unusable(message)) = source.fetch(&SchemaKey::Id(id)).await else { panic!("{id} is taken") };
        let expected =
            format!("schema id {id} of the registry cannot be used: `Leaf` is defined in two ways, at field `f0` of `R` and at {other}: ");
        assert!(message.starts_with(&expected), "{message}");
    }
}

#[tokio::test]
async fn addresses_are_tried_in_turn() {
    let (bad, bad_url) = Fake::start().await;
    let (good, good_url) = Fake::start().await;
    bad.says("/schemas/ids/1", 500, "");
    good.has("/schemas/ids/1", INT, &[]);
    good.has("/schemas/ids/2", INT, &[]);
    good.has("/schemas/ids/3", INT, &[]);
    let source = RegistrySource::new(&config(&[&bad_url, &good_url], ""), None).unwrap();
    source.fetch(&SchemaKey::Id(1)).await.unwrap();
    source.fetch(&SchemaKey::Id(2)).await.unwrap();
    assert_eq!(bad.asked.lock().len(), 1, "the one that answered last comes first");
    // One node lags behind the other: its 404 is not the last word.
    let lagging = RegistrySource::new(&config(&[&bad_url, &good_url], ""), None).unwrap();
    lagging.fetch(&SchemaKey::Id(3)).await.unwrap();
    // One says for certain, the other is in trouble: a bad record must not hold its partition.
    good.says("/schemas/ids/9", 503, "");
    assert!(matches!(source.fetch(&SchemaKey::Id(9)).await, Err(SchemaError::Unknown(_))));
}

#[tokio::test]
async fn credentials_are_sent_and_never_shown() {
    let (fake, url) = Fake::start().await;
    fake.has("/schemas/ids/1", INT, &[]);
    fake.says("/schemas/ids/2", 401, "");
    fake.says("/schemas/types", 200, r#"["AVRO"]"#);
    let with_user = url.replace("http://", "http://anna:hunter2@");
    for (address, more, expected) in [
        (&url, "username = 'anna'\npassword = 'hunter2'", "Basic YW5uYTpodW50ZXIy"),
        (&url, "bearer_token = 'hunter2'", "Bearer hunter2"),
        (&with_user, "", "Basic YW5uYTpodW50ZXIy"),
    ] {
        let source = RegistrySource::new(&config(&[address], more), None).unwrap();
        source.fetch(&SchemaKey::Id(1)).await.unwrap();
        assert_eq!(fake.headers.lock()["authorization"], expected);
        let error = source.fetch(&SchemaKey::Id(2)).await.unwrap_err().to_string();
        assert!(!error.contains("hunter2") && !error.contains("anna"), "{error}");
        source.probe().await.unwrap();
    }
    fake.says("/schemas/types", 403, "");
    assert!(RegistrySource::new(&config(&[&url], ""), None).unwrap().probe().await.is_err());
}

#[test]
fn what_cannot_be_set_up_is_said() {
    let refused = |urls: &[&str], more: &str, ca: Option<&str>| {
        RegistrySource::new(&config(urls, more), ca.map(Path::new)).err().unwrap().to_string()
    };
    assert!(refused(&[], "", None).contains("urls is empty"));
    assert!(!refused(&["anna:hunter2@host"], "", None).contains("hunter2"));
    assert!(refused(&["ftp://host"], "", None).contains("http"));
    assert!(refused(&["http://host"], "client_cert_file = '/nonexistent.pem'", None).contains("client_key_file"));
    assert!(refused(&["http://host"], "", Some("/nonexistent.pem")).contains("/nonexistent.pem"));
}
