//! Streams of type COMMITTED against the embedded BigQuery.

use std::sync::Arc;

use futures::future::join_all;
use millrace::bigquery::{Append, ErrorClass, TableSpec};
use millrace::config::Evolve;
use millrace::embedded::bigquery::{EmbeddedBigQuery, Settings};
use millrace::table::{Column, ColumnType, LayoutHistory, Mode};

use crate::{append, config, connect, table};

/// Rows land where they must, once: in order over one line, again over another, and never after the end of the stream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_land_at_their_offset_and_never_after_the_end() {
    let server = EmbeddedBigQuery::start(Settings::default()).await.unwrap();
    server.create_dataset("p", "d").unwrap();
    let bigquery = connect(&config(Some(server.rest_url()), Some(server.grpc_url()))).await;
    let (tables, streams, t) = (bigquery.tables(), bigquery.streams(), table("t"));
    let missing = streams.create(&t).await.unwrap_err();
    assert_eq!(missing.class, ErrorClass::TableNotFound, "{missing}");
    let spec = TableSpec { create: true, partition: None, cluster: Vec::new(), evolve: Evolve::Add };
    let column = |name: &str| Column { name: name.into(), ty: ColumnType::Int64, mode: Mode::Nullable, description: None };
    let mut history = LayoutHistory::new();
    let layout = history.include(&tables.ensure(&t, &spec, &[column("a")]).await.unwrap().columns).unwrap();
    let row: Vec<u8> = layout.columns.iter().flat_map(|c| [u8::try_from(c.number << 3).unwrap(), 1]).collect();
    let rows = |count: usize| -> Append { append(&t, &layout, &vec![row.as_slice(); count]) };

    let stream = streams.create(&t).await.unwrap();
    assert!(stream.starts_with("projects/p/datasets/d/tables/t/streams/"), "{stream}");
    let mut line = streams.open(&stream);
    let mut answers = Vec::new();
    for n in 0..20 {
        answers.push(line.append(rows(3), n * 3).await);
    }
    assert!(join_all(answers).await.into_iter().all(|answer| answer.is_ok()), "in the order of the calls");
    let class = |answer: Result<(), millrace::bigquery::AppendFailure>| answer.map_err(|failure| (failure.class, failure.maybe_durable));
    assert_eq!(class(line.append(rows(3), 57).await.await), Err((ErrorClass::OffsetAlreadyExists, false)));
    assert_eq!(class(line.append(rows(3), 61).await.await), Err((ErrorClass::OffsetOutOfRange, false)));
    let mut other = streams.open(&stream);
    assert_eq!(class(other.append(rows(2), 60).await.await), Ok(()), "another line takes the stream over");

    // Another layout needs another connection: the line opens one by itself.
    let layout = history.include(&tables.ensure(&t, &spec, &[column("a"), column("b")]).await.unwrap().columns).unwrap();
    let both: Vec<u8> = layout.columns.iter().flat_map(|c| [u8::try_from(c.number << 3).unwrap(), 1]).collect();
    assert_eq!(class(other.append(append(&t, &layout, &[&both]), 62).await.await), Ok(()));

    assert_eq!(streams.finalize(&stream).await, Ok(63));
    assert_eq!(streams.finalize(&stream).await, Ok(63), "asked again");
    assert_eq!(class(line.append(rows(1), 63).await.await), Err((ErrorClass::StreamFinalized, false)));
    assert_eq!(server.books().rows("p", "d", "t"), Some(63));
    assert!(server.forget_stream(&stream));
    assert_eq!(streams.finalize(&stream).await.unwrap_err().class, ErrorClass::StreamNotFound);
    drop((line, other));
    let _: Arc<_> = t;
    server.stop().await;
}
