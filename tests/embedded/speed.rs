//! How many rows the embedded BigQuery takes through AppendRows: the figure in benches/README.md. Google's own messages over a real
//! connection, every row checked and kept, as always.

use std::time::Instant;

use googleapis_tonic_google_cloud_bigquery_storage_v1::google::cloud::bigquery::storage::v1 as pb;
use millrace::embedded::bigquery::{EmbeddedBigQuery, Settings};
use pb::append_rows_request::{ProtoData, Rows};
use pb::append_rows_response::Response;
use prost_types::{DescriptorProto, FieldDescriptorProto};
use serde_json::json;

use crate::lag::{client, rest_url, start};

/// The stock update's columns: six numbers, five texts.
const COLUMNS: usize = 11;
const TEXTS_FROM: usize = 6;
const ROWS_A_REQUEST: usize = 10_000;
const REQUESTS: usize = 50;
const CONNECTIONS: usize = 2;

/// A row of about 95 bytes.
fn row(n: usize) -> Vec<u8> {
    let mut row = Vec::new();
    for column in 0..COLUMNS {
        let number = column as u64 + 1;
        if column < TEXTS_FROM {
            prost::encoding::encode_varint(number << 3, &mut row);
            prost::encoding::encode_varint((n * 31 + column * 1_000_003) as u64, &mut row);
        } else {
            let text = format!("text-{column}-{:05}", n % 100_000);
            prost::encoding::encode_varint(number << 3 | 2, &mut row);
            prost::encoding::encode_varint(text.len() as u64, &mut row);
            row.extend_from_slice(text.as_bytes());
        }
    }
    row
}

fn request() -> pb::AppendRowsRequest {
    let field = |column: usize| FieldDescriptorProto {
        name: Some(format!("c{column}")),
        number: Some(column as i32 + 1),
        label: Some(1),
        r#type: Some(if column < TEXTS_FROM { 3 } else { 9 }),
        ..Default::default()
    };
    let descriptor = DescriptorProto { name: Some("Row".to_owned()), field: (0..COLUMNS).map(field).collect(), ..Default::default() };
    let rows = pb::ProtoRows { serialized_rows: (0..ROWS_A_REQUEST).map(|n| row(n).into()).collect() };
    let data = ProtoData { writer_schema: Some(pb::ProtoSchema { proto_descriptor: Some(descriptor) }), rows: Some(rows) };
    pb::AppendRowsRequest {
        write_stream: "projects/p/datasets/d/tables/t/streams/_default".to_owned(),
        rows: Some(Rows::ProtoRows(data)),
        ..Default::default()
    }
}

async fn fill(bigquery: &EmbeddedBigQuery, request: pb::AppendRowsRequest) {
    let mut client = client(bigquery).await;
    let requests = futures::stream::iter(std::iter::repeat_n(request, REQUESTS));
    let mut answers = client.append_rows(requests).await.unwrap().into_inner();
    let mut acknowledged = 0;
    while let Some(answer) = answers.message().await.unwrap() {
        assert!(matches!(answer.response, Some(Response::AppendResult(_))), "{answer:?}");
        acknowledged += 1;
    }
    assert_eq!(acknowledged, REQUESTS);
}

#[ignore = "a measurement: cargo test --release --test embedded -- --ignored --nocapture speed"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_a_second_through_append_rows() {
    let bigquery = start(Settings::default()).await;
    let field = |column: usize| json!({ "name": format!("c{column}"), "type": if column < TEXTS_FROM { "INTEGER" } else { "STRING" } });
    let fields: Vec<_> = (0..COLUMNS).map(field).collect();
    let body = json!({ "tableReference": { "projectId": "p", "datasetId": "d", "tableId": "t" }, "schema": { "fields": fields } });
    let url = format!("{}/bigquery/v2/projects/p/datasets/d/tables", rest_url(&bigquery));
    assert!(reqwest::Client::new().post(url).json(&body).send().await.unwrap().status().is_success());
    let request = request();
    let bytes = row(0).len();
    let begun = Instant::now();
    futures::future::join_all((0..CONNECTIONS).map(|_| fill(&bigquery, request.clone()))).await;
    let took = begun.elapsed().as_secs_f64();
    let rows = CONNECTIONS * REQUESTS * ROWS_A_REQUEST;
    assert_eq!(bigquery.books().rows("p", "d", "t"), Some(rows as u64));
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    println!(
        "{build} build: {rows} rows of {bytes} bytes in {took:.2} s: {:.0} k rows/s, client in the same process",
        rows as f64 / took / 1000.0
    );
}
