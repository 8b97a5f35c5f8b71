//! Created streams that BigQuery forgets: by themselves after a time without use, or now, to see what that does to a client.

use std::time::{Duration, Instant};

use googleapis_tonic_google_cloud_bigquery_storage_v1::google::cloud::bigquery::storage::v1 as pb;
use millrace::embedded::bigquery::{EmbeddedBigQuery, Settings};
use pb::write_stream::Type;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use crate::lag::{client, create, request, rest_url, start};

const PARENT: &str = "projects/p/datasets/d/tables/t";

async fn new_stream(bigquery: &EmbeddedBigQuery, kind: Type) -> String {
    let stream = pb::WriteStream { r#type: kind.into(), ..Default::default() };
    let request = pb::CreateWriteStreamRequest { parent: PARENT.to_owned(), write_stream: Some(stream) };
    client(bigquery).await.create_write_stream(request).await.unwrap().into_inner().name
}

async fn row_count(bigquery: &EmbeddedBigQuery, name: &str) -> Result<i64, Status> {
    let request = pb::FinalizeWriteStreamRequest { name: name.to_owned() };
    client(bigquery).await.finalize_write_stream(request).await.map(|answer| answer.into_inner().row_count)
}

fn append(name: &str) -> pb::AppendRowsRequest {
    pb::AppendRowsRequest { write_stream: name.to_owned(), ..request(false) }
}

/// The code in the answer to a request: 0 for a result.
fn code(answer: &pb::AppendRowsResponse) -> i32 {
    match &answer.response {
        Some(pb::append_rows_response::Response::Error(error)) => error.code,
        _ => 0,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unused_stream_is_forgotten_after_its_time_and_a_used_one_is_not() {
    // Again with a longer time where the machine left a stream unused for longer than that.
    let mut shown = false;
    for seconds in [2, 12, 60] {
        shown = shown || forgotten_unless_used(Duration::from_secs(seconds)).await;
    }
    assert!(shown, "this machine takes a minute for a call");
}

/// Whether the one that is used was used all the time.
async fn forgotten_unless_used(ttl: Duration) -> bool {
    let bigquery = start(Settings { committed_stream_ttl: ttl, ..Settings::default() }).await;
    create(&bigquery).await;
    let (used, unused) = (new_stream(&bigquery, Type::Committed).await, new_stream(&bigquery, Type::Committed).await);
    let pending = new_stream(&bigquery, Type::Pending).await;
    let (sender, requests) = mpsc::channel(1);
    let mut client = client(&bigquery).await;
    sender.send(append(&used)).await.unwrap();
    let mut answers = client.append_rows(ReceiverStream::new(requests)).await.unwrap().into_inner();
    assert_eq!(code(&answers.message().await.unwrap().unwrap()), 0);
    let mut last = Instant::now();
    for _ in 0..6 {
        tokio::time::sleep(ttl / 4).await;
        sender.send(append(&used)).await.unwrap();
        let answer = answers.message().await;
        if last.elapsed() >= ttl {
            return false;
        }
        last = Instant::now();
        assert_eq!(code(&answer.unwrap().unwrap()), 0);
    }
    assert_eq!(row_count(&bigquery, &unused).await.unwrap_err().code(), Code::NotFound);
    let rows = row_count(&bigquery, &used).await;
    if last.elapsed() >= ttl {
        return false;
    }
    assert_eq!(rows.unwrap(), 7);
    assert_eq!(row_count(&bigquery, &pending).await.unwrap(), 0, "a pending stream has another time");
    tokio::time::sleep(ttl).await;
    assert_eq!(row_count(&bigquery, &used).await.unwrap_err().code(), Code::NotFound, "a finalized one is forgotten as well");
    assert_eq!(bigquery.books().rows("p", "d", "t"), Some(7), "its rows are not");
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_forgotten_now_is_gone_for_an_open_connection_too() {
    let bigquery = start(Settings::default()).await;
    create(&bigquery).await;
    let (name, other) = (new_stream(&bigquery, Type::Committed).await, new_stream(&bigquery, Type::Committed).await);
    let (sender, requests) = mpsc::channel(1);
    let mut client = client(&bigquery).await;
    sender.send(append(&name)).await.unwrap();
    let mut answers = client.append_rows(ReceiverStream::new(requests)).await.unwrap().into_inner();
    assert_eq!(code(&answers.message().await.unwrap().unwrap()), 0);
    assert!(bigquery.forget_stream(&name));
    assert!(!bigquery.forget_stream(&name));
    sender.send(append(&name)).await.unwrap();
    let refused = answers.message().await.map(|answer| code(&answer.unwrap())).map_err(|status| status.code() as i32);
    assert!(refused == Ok(Code::NotFound as i32) || refused == Err(Code::NotFound as i32), "{refused:?}");
    assert_eq!(row_count(&bigquery, &name).await.unwrap_err().code(), Code::NotFound);

    // By another process.
    let forget = |stream: String| {
        let url = format!("{}/_control/forget_stream", rest_url(&bigquery));
        async move { reqwest::Client::new().post(url).json(&json!({ "stream": stream })).send().await.unwrap().status().as_u16() }
    };
    assert_eq!((forget(other.clone()).await, forget(other.clone()).await), (200, 404));
    assert_eq!(row_count(&bigquery, &other).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(bigquery.books().rows("p", "d", "t"), Some(1));
}
