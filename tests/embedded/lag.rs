//! Visibility, idle close, stall, lost tables: over a raw client.

use std::time::{Duration, Instant};

use googleapis_tonic_google_cloud_bigquery_storage_v1::google::cloud::bigquery::storage::v1 as pb;
use millrace::embedded::bigquery::{AfterDelete, EmbeddedBigQuery, Settings, Stall};
use pb::append_rows_request::{ProtoData, Rows};
use pb::big_query_write_client::BigQueryWriteClient;
use prost_types::{DescriptorProto, FieldDescriptorProto};
use serde_json::{Value, json};
use tonic::transport::Channel;
use tonic::{Code, Status};

pub async fn start(settings: Settings) -> EmbeddedBigQuery {
    let bigquery = EmbeddedBigQuery::start(settings).await.unwrap();
    bigquery.create_dataset("p", "d").unwrap();
    bigquery
}

/// Where REST and control calls go.
pub fn rest_url(bigquery: &EmbeddedBigQuery) -> String {
    // Another test of this process may have installed it.
    let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    bigquery.rest_url()
}

async fn rest(bigquery: &EmbeddedBigQuery, method: &str, path: &str, body: Value) -> (u16, Value) {
    let url = format!("{}/bigquery/v2/projects/p/datasets/d/tables{path}", rest_url(bigquery));
    let client = reqwest::Client::builder().build().unwrap();
    let answer = client.request(method.parse().unwrap(), url).json(&body).send().await.unwrap();
    let status = answer.status().as_u16();
    (status, answer.json().await.unwrap_or_default())
}

pub async fn create(bigquery: &EmbeddedBigQuery) {
    let body = json!({"tableReference": {"projectId": "p", "datasetId": "d", "tableId": "t"}, "schema": {"fields": [{"name": "id", "type": "INTEGER"}]}});
    assert_eq!(rest(bigquery, "POST", "", body).await.0, 200);
}

/// One row with `id` 1; with `extra`, a field of that name too.
pub fn request(extra: bool) -> pb::AppendRowsRequest {
    let field = |name: &str, number| FieldDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(number),
        label: Some(1),
        r#type: Some(3),
        ..Default::default()
    };
    let mut fields = vec![field("id", 1)];
    fields.extend(extra.then(|| field("extra", 2)));
    let descriptor = DescriptorProto { name: Some("Row".to_owned()), field: fields, ..Default::default() };
    let rows = pb::ProtoRows { serialized_rows: vec![vec![0x08, 1].into()] };
    let data = ProtoData { writer_schema: Some(pb::ProtoSchema { proto_descriptor: Some(descriptor) }), rows: Some(rows) };
    pb::AppendRowsRequest {
        write_stream: "projects/p/datasets/d/tables/t/streams/_default".to_owned(),
        rows: Some(Rows::ProtoRows(data)),
        ..Default::default()
    }
}

pub async fn client(bigquery: &EmbeddedBigQuery) -> BigQueryWriteClient<Channel> {
    BigQueryWriteClient::new(Channel::from_shared(bigquery.grpc_url()).unwrap().connect().await.unwrap())
}

/// A new connection's answer to one request: 0 for a result, else the code of its error.
async fn append(bigquery: &EmbeddedBigQuery, extra: bool) -> Result<i32, Status> {
    let mut client = client(bigquery).await;
    let mut answers = client.append_rows(futures::stream::iter([request(extra)])).await?.into_inner();
    let answer = answers.message().await?.expect("an answer");
    Ok(match answer.response {
        Some(pb::append_rows_response::Response::Error(error)) => error.code,
        _ => 0,
    })
}

/// Delays of the servers that are tried one after the other: a test that shows what happens before one is over cannot where the machine
/// took longer than that for its calls.
const DELAYS: [Duration; 3] = [Duration::from_secs(2), Duration::from_secs(10), Duration::from_secs(60)];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_and_columns_become_visible_late_and_unevenly() {
    for delay in DELAYS {
        if seen_late_and_unevenly(delay).await {
            return;
        }
    }
    panic!("this machine takes longer than {DELAYS:?} for a call");
}

/// Whether it was shown before the delay was over.
async fn seen_late_and_unevenly(delay: Duration) -> bool {
    let bigquery = start(Settings { visibility_delay: delay, ..Settings::default() }).await;
    create(&bigquery).await;
    let made = Instant::now();
    let early = append(&bigquery, false).await;
    if made.elapsed() >= delay {
        return false;
    }
    assert_eq!(early.unwrap_err().code(), Code::NotFound);
    tokio::time::sleep(delay).await;
    assert_eq!(append(&bigquery, false).await.unwrap(), 0);

    let fields = json!({"schema": {"fields": [{"name": "id", "type": "INTEGER"}, {"name": "extra", "type": "INTEGER"}]}});
    assert_eq!(rest(&bigquery, "PATCH", "/t", fields).await.0, 200);
    let (mut refused, mut taken, mut looks) = (0, 0, 0);
    let changed = Instant::now();
    while changed.elapsed() < delay {
        looks += 1;
        match append(&bigquery, true).await.unwrap() {
            0 => taken += 1,
            code => {
                assert_eq!(code, Code::InvalidArgument as i32);
                refused += 1;
            }
        }
        tokio::time::sleep(delay / 60).await;
    }
    // Too few looks, for each may fall upon another server.
    if looks < 30 {
        return false;
    }
    assert!(refused > 0 && taken > 0, "{refused} refused, {taken} taken");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(append(&bigquery, true).await.unwrap(), 0);
    bigquery.stop().await;
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recreated_table_swallows_rows_or_is_not_found() {
    for after_delete in [AfterDelete::Swallow, AfterDelete::NotFound] {
        let mut shown = false;
        for delay in DELAYS {
            shown = shown || lost_until(delay, after_delete).await;
        }
        assert!(shown, "this machine takes longer than {DELAYS:?} for a call");
    }
}

/// Whether it was shown before the delay was over.
async fn lost_until(delay: Duration, after_delete: AfterDelete) -> bool {
    let bigquery = start(Settings { visibility_delay: delay, after_delete, ..Settings::default() }).await;
    create(&bigquery).await;
    tokio::time::sleep(delay).await;
    assert_eq!(append(&bigquery, false).await.unwrap(), 0);
    assert_eq!(rest(&bigquery, "DELETE", "/t", Value::Null).await.0, 204);
    let made = Instant::now();
    create(&bigquery).await;
    let early = append(&bigquery, false).await;
    if made.elapsed() >= delay {
        return false;
    }
    match (after_delete, early) {
        (AfterDelete::Swallow, answer) => assert_eq!(answer.unwrap(), 0),
        (AfterDelete::NotFound, answer) => assert!(answer.unwrap_err().message().contains("re-created")),
    }
    assert_eq!(bigquery.books().rows("p", "d", "t"), Some(0));
    tokio::time::sleep(delay).await;
    assert_eq!(append(&bigquery, false).await.unwrap(), 0);
    assert_eq!(bigquery.books().rows("p", "d", "t"), Some(1));
    bigquery.stop().await;
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_is_closed_with_aborted() {
    let bigquery = start(Settings { idle_close: Duration::from_secs(1), ..Settings::default() }).await;
    create(&bigquery).await;
    let mut client = client(&bigquery).await;
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    sender.send(request(false)).await.unwrap();
    let mut answers = client.append_rows(tokio_stream::wrappers::ReceiverStream::new(receiver)).await.unwrap().into_inner();
    assert!(answers.message().await.unwrap().is_some());
    let end = answers.message().await.unwrap_err();
    assert_eq!(end.code(), Code::Aborted);
    assert!(end.message().contains("inactive for 1 seconds"), "{}", end.message());
    bigquery.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stall_answers_nothing_and_ends() {
    let bigquery = start(Settings::default()).await;
    create(&bigquery).await;
    bigquery.set_stall(Stall::Appends);
    let waited = tokio::time::timeout(Duration::from_millis(500), append(&bigquery, false)).await;
    assert!(waited.is_err(), "answered while stalled");
    assert_eq!(rest(&bigquery, "GET", "/t", Value::Null).await.0, 200);
    bigquery.set_stall(Stall::Off);
    assert_eq!(append(&bigquery, false).await.unwrap(), 0);
    bigquery.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_and_bytes_have_quotas() {
    let bigquery = start(Settings { max_connections: 0, ..Settings::default() }).await;
    create(&bigquery).await;
    assert_eq!(append(&bigquery, false).await.unwrap_err().code(), Code::ResourceExhausted);
    bigquery.stop().await;
    let bigquery = start(Settings { append_bytes_per_s: Some(1), require_routing_header: false, ..Settings::default() }).await;
    create(&bigquery).await;
    assert_eq!(append(&bigquery, false).await.unwrap(), 0);
    let throttled = append(&bigquery, false).await.unwrap_err();
    assert!(throttled.code() == Code::ResourceExhausted && throttled.message().contains("INSUFFICIENT_TOKENS"));
    bigquery.stop().await;
    let bigquery = start(Settings { require_routing_header: true, ..Settings::default() }).await;
    create(&bigquery).await;
    assert_eq!(append(&bigquery, false).await.unwrap_err().code(), Code::PermissionDenied);
    bigquery.stop().await;
}
