//! BigQuery's REST and gRPC over TLS with a private authority.

use millrace::bigquery::{BigQuery, ErrorClass, connect};
use millrace::embedded::bigquery::{EmbeddedBigQuery, Settings};
use millrace::flow::HoldCause;

use crate::certificates::Certificates;
use crate::front::{Clients, Front};
use crate::{authority, bigquery_config, columns, created, logged, one_row, table};

struct Secured {
    server: EmbeddedBigQuery,
    rest: Front,
    grpc: Front,
    certificates: Certificates,
    _folder: tempfile::TempDir,
}

async fn secured() -> Secured {
    logged::keep();
    let server = EmbeddedBigQuery::start(Settings::default()).await.unwrap();
    server.create_dataset("p", "d").unwrap();
    let (folder, certificates) = authority();
    let rest = Front::start(&server.rest_url(), &certificates, Clients::Any).await;
    let grpc = Front::start(&server.grpc_url(), &certificates, Clients::Any).await;
    Secured { server, rest, grpc, certificates, _folder: folder }
}

impl Secured {
    async fn connect(&self, trusted: bool) -> BigQuery {
        let config = bigquery_config(self.rest.url(), self.grpc.url(), "none");
        connect(&config, trusted.then_some(self.certificates.ca.as_path())).await.unwrap()
    }
}

#[tokio::test]
async fn ca_file_reaches_rest_and_grpc() {
    let secured = secured().await;
    let bigquery = secured.connect(true).await;
    let t = table("t");
    bigquery.tables().ensure(&t, &created(), &columns()).await.unwrap();
    bigquery.appender().append(one_row(&t)).await.unwrap();
    assert_eq!(bigquery.check_dataset("p", "d").await.unwrap(), "US");
    assert_eq!(secured.server.books().rows("p", "d", "t"), Some(1));
    assert_eq!(secured.grpc.passed()[0].protocol, "h2");
    println!("REST spoke {:?}", secured.rest.passed());
    assert!(!secured.rest.passed().is_empty());
}

#[tokio::test]
async fn without_the_authority_both_say_that_the_certificate_is_not_trusted() {
    let secured = secured().await;
    let bigquery = secured.connect(false).await;
    let (tables, appender, t) = (bigquery.tables(), bigquery.appender(), table("t"));
    let (rest, grpc, checked) = tokio::join!(tables.get(&t), appender.append(one_row(&t)), bigquery.check_dataset("p", "d"));
    let checked = checked.unwrap_err();
    println!("check: {checked}");
    assert!(checked.contains("invalid peer certificate") && checked.contains("[worker] ca_file"), "{checked}");
    let (rest, grpc) = (rest.unwrap_err(), grpc.unwrap_err());
    println!("REST: {rest}\ngRPC: {grpc}");
    assert_eq!(rest.cause, HoldCause::TableServiceUnavailable, "{rest}");
    assert!(rest.message.contains("certificate") && rest.message.contains("[worker] ca_file"), "{rest}");
    assert_eq!((grpc.class, grpc.maybe_durable), (ErrorClass::Transient, false), "{grpc}");
    assert!(grpc.message.contains("certificate") && grpc.message.contains("[worker] ca_file"), "{grpc}");
    assert!(secured.rest.passed().is_empty() && secured.grpc.passed().is_empty());
    assert_eq!(secured.server.books().rows("p", "d", "t"), None);
}

#[tokio::test]
async fn a_ca_file_without_a_certificate_is_said_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let empty = crate::file(&folder, "ca.pem", "nothing\n");
    let config = bigquery_config("https://127.0.0.1:1".into(), "https://127.0.0.1:1".into(), "none");
    let error = connect(&config, Some(&empty)).await.err().unwrap().to_string();
    assert!(error.contains("ca_file") && error.contains("ca.pem"), "{error}");
    let missing = folder.path().join("missing.pem");
    let error = connect(&config, Some(&missing)).await.err().unwrap().to_string();
    assert!(error.contains("ca_file") && error.contains("missing.pem"), "{error}");
}
