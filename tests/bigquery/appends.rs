//! Appends: pipelining, order, multiplexing, lost answers, timeouts, limits.

use std::time::{Duration, Instant};

use futures::future::join_all;
use googleapis_tonic_google_cloud_bigquery_storage_v1::google::cloud::bigquery::storage::v1::storage_error::StorageErrorCode;
use millrace::bigquery::{ErrorClass, RowError};
use millrace::config::{ByteSize, HumanDuration};
use tonic::Code;

use crate::fake_grpc::{Fake, Reply};
use crate::machine::Watch;
use crate::{append, config, connect, layout, table};

const NOW: Duration = Duration::ZERO;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[tokio::test]
async fn appends_are_pipelined_on_one_connection_in_order() {
    // One after the other they would take 40 s.
    let server = Fake::start(|_, _| (Reply::Ok, ms(2000))).await;
    let appender = connect(&config(None, server.endpoint())).await.appender();
    let (t, l) = (table("t"), layout("L"));
    let start = Instant::now();
    let appends: Vec<_> = (0..20_u8).map(|i| appender.append(append(&t, &l, &[&[i]]))).collect();
    for outcome in join_all(appends).await {
        outcome.unwrap();
    }
    assert!(start.elapsed() < ms(20_000), "20 answers of 2 s took {:?}", start.elapsed());
    let seen = server.seen();
    assert_eq!(seen.iter().map(|s| s.rows[0][0]).collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
    assert!(seen.iter().all(|s| s.connection == 0));
    assert!(seen.iter().all(|s| s.authorization.is_empty()), "credentials = \"none\" shows none");
    assert_eq!(seen[0].routing, "write_stream=projects/p/datasets/d/tables/t/streams/_default");
}

#[tokio::test]
async fn tables_share_a_connection_and_name_their_schema_when_it_changes() {
    let server = Fake::start(|_, _| (Reply::Ok, NOW)).await;
    let mut settings = config(None, server.endpoint());
    settings.location = Some("EU".into());
    let appender = connect(&settings).await.appender();
    let (a, b) = (table("a"), table("b"));
    let (first, wider, other) = (layout("A1"), layout("A2"), layout("B1"));
    for (t, l) in [(&a, &first), (&a, &first), (&b, &other), (&a, &first), (&a, &wider), (&a, &wider), (&b, &other)] {
        appender.append(append(t, l, &[b"x", b"", &[7; 300]])).await.unwrap();
    }
    let seen = server.seen();
    let schemas: Vec<Option<&str>> = seen.iter().map(|s| s.schema.as_deref()).collect();
    assert_eq!(schemas, [Some("A1"), None, Some("B1"), Some("A1"), Some("A2"), None, Some("B1")]);
    let streams: Vec<char> = seen.iter().map(|s| s.stream.split('/').nth(5).unwrap().chars().next().unwrap()).collect();
    assert_eq!(streams, ['a', 'a', 'b', 'a', 'a', 'a', 'b']);
    assert!(seen.iter().all(|s| s.connection == 0 && s.rows == [b"x".to_vec(), Vec::new(), vec![7; 300]]));
    assert!(seen[0].trace_id.starts_with("millrace") && seen[1..].iter().all(|s| s.trace_id.is_empty()));
    assert_eq!(seen[0].routing, "write_location=projects/p/locations/eu");
}

#[tokio::test]
async fn an_unanswered_append_may_be_durable_and_the_next_one_reconnects() {
    let server = Fake::start(|number, seen| match (seen.connection, number) {
        (0, 1) => (Reply::Silent, NOW),
        (0, 2) => (Reply::End(Code::Unavailable, "the connection is draining"), ms(50)),
        _ => (Reply::Ok, NOW),
    })
    .await;
    let appender = connect(&config(None, server.endpoint())).await.appender();
    let (t, l) = (table("t"), layout("L"));
    appender.append(append(&t, &l, &[b"1"])).await.unwrap();
    let (second, third) = futures::join!(appender.append(append(&t, &l, &[b"2"])), appender.append(append(&t, &l, &[b"3"])));
    for failure in [second.unwrap_err(), third.unwrap_err()] {
        assert_eq!((failure.class, failure.maybe_durable), (ErrorClass::Transient, true), "{failure}");
        assert!(failure.message.contains("the connection is draining"), "{failure}");
    }
    appender.append(append(&t, &l, &[b"2"])).await.unwrap();
    let last = server.seen().pop().unwrap();
    assert_eq!((last.connection, last.schema.as_deref()), (1, Some("L")), "a new connection says the schema again");
}

#[tokio::test]
async fn what_never_left_is_surely_not_durable() {
    let [port] = millrace::embedded::ports::free_ports().unwrap();
    let appender = connect(&config(None, Some(format!("http://127.0.0.1:{port}")))).await.appender();
    let failure = appender.append(append(&table("t"), &layout("L"), &[b"1"])).await.unwrap_err();
    assert_eq!((failure.class, failure.maybe_durable), (ErrorClass::Transient, false), "{failure}");
}

#[tokio::test]
async fn a_connection_that_does_not_answer_is_given_up() {
    let server = Fake::start(|_, seen| if seen.connection == 0 { (Reply::StopReading, NOW) } else { (Reply::Ok, NOW) }).await;
    let mut settings = config(None, server.endpoint());
    settings.append_timeout = HumanDuration::from_millis(600);
    let appender = connect(&settings).await.appender();
    let (t, l, row) = (table("t"), layout("L"), vec![1_u8; 900_000]);
    let start = Watch::start();
    let outcomes = join_all((0..4).map(|_| appender.append(append(&t, &l, &[&row])))).await;
    let took = start.elapsed();
    assert!(took < ms(3000), "{took:?}");
    let failures: Vec<_> = outcomes.into_iter().map(|o| o.unwrap_err()).collect();
    assert!(failures.iter().all(|f| f.class == ErrorClass::AnswerTimeout), "{failures:?}");
    assert!(failures[0].maybe_durable, "the server had read it");
    assert!(!failures[3].maybe_durable, "it stood behind a full window");
    // 600 ms are little for a busy machine: what an append took too long for is given up, and the next one goes.
    while let Err(failure) = appender.append(append(&t, &l, &[b"1"])).await {
        assert!(failure.class == ErrorClass::AnswerTimeout && start.elapsed() < ms(60_000), "{failure}");
    }
}

#[tokio::test]
async fn errors_inside_answers_leave_the_connection_alone() {
    let server = Fake::start(|number, _| match number {
        1 => (Reply::Rows(vec![(0, "Field foo: too long"), (2, "bad")]), NOW),
        2 => (Reply::Error(Code::InvalidArgument, StorageErrorCode::Unspecified, "AppendRows request too large: 2 limit 1"), NOW),
        _ => (Reply::Ok, NOW),
    })
    .await;
    let appender = connect(&config(None, server.endpoint())).await.appender();
    let (t, l) = (table("t"), layout("L"));
    let outcomes = join_all((0..4).map(|_| appender.append(append(&t, &l, &[b"1", b"2", b"3"])))).await;
    assert!(outcomes[0].is_ok() && outcomes[3].is_ok());
    let rows = outcomes[1].clone().unwrap_err();
    assert_eq!((rows.class, rows.maybe_durable), (ErrorClass::RowErrors, false));
    assert_eq!(rows.row_errors[1], RowError { index: 2, message: "bad".into() });
    assert_eq!(rows.row_errors.len(), 2);
    assert_eq!(outcomes[2].clone().unwrap_err().class, ErrorClass::RequestTooLarge);
    assert!(server.seen().iter().all(|s| s.connection == 0));
}

#[tokio::test]
async fn a_table_that_a_connection_knows_wrongly_takes_a_fresh_one_and_others_stay() {
    let server = Fake::start(|_, seen| {
        if seen.connection == 0 && seen.stream.contains("/tables/new/") {
            let words = "Input schema has more fields than BigQuery schema, extra fields: 'x'";
            (Reply::Error(Code::InvalidArgument, StorageErrorCode::SchemaMismatchExtraFields, words), NOW)
        } else {
            (Reply::OkUpdated, NOW)
        }
    })
    .await;
    let mut settings = config(None, server.endpoint());
    settings.connections_max = 4;
    let bigquery = connect(&settings).await;
    let appender = bigquery.appender();
    let (old, new, l) = (table("old"), table("new"), layout("L"));
    appender.append(append(&old, &l, &[b"1"])).await.unwrap();
    assert!(bigquery.tables().changed_recently(&old), "an answer told of a changed schema");
    assert!(!bigquery.tables().changed_recently(&new));
    let failure = appender.append(append(&new, &l, &[b"1"])).await.unwrap_err();
    assert_eq!((failure.class, failure.maybe_durable), (ErrorClass::SchemaMismatchExtraFields, false));
    appender.append(append(&new, &l, &[b"1"])).await.unwrap();
    appender.append(append(&old, &l, &[b"2"])).await.unwrap();
    let connections: Vec<usize> = server.seen().iter().map(|s| s.connection).collect();
    assert_eq!(connections, [0, 0, 1, 0]);
}

/// While servers lag, appends are refused again and again: that is no reason for a connection each.
#[tokio::test]
async fn a_table_that_is_refused_again_takes_no_fresh_connection_within_a_second() {
    let words = "Input schema has more fields than BigQuery schema, extra fields: 'x'";
    let server =
        Fake::start(move |_, _| (Reply::Error(Code::InvalidArgument, StorageErrorCode::SchemaMismatchExtraFields, words), NOW)).await;
    let mut settings = config(None, server.endpoint());
    settings.connections_max = 8;
    let appender = connect(&settings).await.appender();
    let (t, l) = (table("t"), layout("L"));
    // When the first append on each connection was begun, and had its answer.
    let mut firsts: Vec<(Instant, Instant)> = Vec::new();
    while firsts.len() < 3 {
        let begun = Instant::now();
        appender.append(append(&t, &l, &[b"1"])).await.unwrap_err();
        let connection = server.seen().last().unwrap().connection;
        assert!(connection <= firsts.len(), "connection {connection} after {}", firsts.len());
        if connection == firsts.len() {
            firsts.push((begun, Instant::now()));
        }
        assert!(server.seen().len() < 10_000, "no fresh connection in {:?}", firsts[0].0.elapsed());
        tokio::time::sleep(ms(10)).await;
    }
    let connections: Vec<usize> = server.seen().iter().map(|s| s.connection).collect();
    assert_eq!(connections[..2], [0, 1], "the first refusal takes one at once");
    // The second comes a second at the earliest after the refusal that made the first.
    assert!(firsts[2].1.duration_since(firsts[0].0) >= ms(1000), "two fresh ones within a second: {connections:?}");
    assert!(connections.len() > 3, "refused once more on the same connection: {connections:?}");
}

#[tokio::test]
async fn an_idle_connection_that_the_server_closes_is_opened_again_quietly() {
    let inactive = "Closing the stream because it has been inactive for 600 seconds. Entity: e";
    let server = Fake::start(move |_, _| (Reply::OkThenEnd(Code::Aborted, inactive), NOW)).await;
    let appender = connect(&config(None, server.endpoint())).await.appender();
    let (t, l) = (table("t"), layout("L"));
    for _ in 0..3 {
        appender.append(append(&t, &l, &[b"1"])).await.unwrap();
        tokio::time::sleep(ms(1000)).await;
    }
    assert_eq!(server.seen().iter().map(|s| s.connection).collect::<Vec<_>>(), [0, 1, 2]);
}

#[tokio::test]
async fn bytes_in_flight_are_bounded_and_a_busy_table_gets_more_connections() {
    // Three appends of 30 kB fit on each of three connections: their answers take long enough to see that no more are sent.
    let patience = ms(6000);
    let server = Fake::start(move |number, _| (Reply::Ok, if number < 3 { patience } else { NOW })).await;
    let mut settings = config(None, server.endpoint());
    settings.connections_max = 3;
    settings.connection_in_flight = ByteSize(100_000);
    let appender = connect(&settings).await.appender();
    let (t, l, row) = (table("t"), layout("L"), vec![1_u8; 30_000]);
    let appends = join_all((0..20).map(|_| appender.append(append(&t, &l, &[&row]))));
    let begun = Instant::now();
    let watch = async {
        while server.seen().len() < 9 && begun.elapsed() < patience {
            tokio::time::sleep(ms(10)).await;
        }
        tokio::time::sleep(ms(500)).await;
        // What is seen while no answer can have come.
        let early = server.seen();
        (begun.elapsed() < patience).then_some(early)
    };
    let (outcomes, early) = futures::join!(appends, watch);
    assert!(outcomes.iter().all(Result::is_ok));
    // On a machine that stood still for seconds answers may have come meanwhile: then the first nine are looked at.
    let early = early.unwrap_or_else(|| server.seen()[..9].to_vec());
    assert_eq!(early.len(), 9, "three appends of 30 kB on each of three connections before the first answer");
    let connections: std::collections::BTreeSet<usize> = early.iter().map(|s| s.connection).collect();
    assert_eq!(connections.len(), 3);
    assert_eq!(server.seen().len(), 20);
}
