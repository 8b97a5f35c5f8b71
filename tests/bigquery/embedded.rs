//! Tables and appends together against the embedded BigQuery: columns that write servers see late.

use std::sync::Arc;
use std::time::Duration;

use millrace::bigquery::{Action, ActionContext, Append, TableSpec};
use millrace::config::{Evolve, HumanDuration};
use millrace::embedded::bigquery::{EmbeddedBigQuery, Settings};
use millrace::table::{Column, ColumnType, LayoutHistory, Mode};

use crate::{append, config, connect, table};

fn columns(names: &[&str]) -> Vec<Column> {
    let column = |name: &&str| Column { name: (*name).into(), ty: ColumnType::Int64, mode: Mode::Nullable, description: None };
    names.iter().map(column).collect()
}

/// A new column in mid-stream: appends with it are refused until its server knows it, tried again as the match of classes says, and
/// land; nothing is lost, doubled, or held.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_with_a_new_column_land_when_the_servers_know_it() {
    let delay = Duration::from_secs(3);
    let server = EmbeddedBigQuery::start(Settings { visibility_delay: delay, ..Settings::default() }).await.unwrap();
    server.create_dataset("p", "d").unwrap();
    let mut settings = config(Some(server.rest_url()), Some(server.grpc_url()));
    settings.visibility_delay = HumanDuration(delay * 10);
    settings.connections_max = 4;
    let bigquery = connect(&settings).await;
    let (tables, appender, t) = (bigquery.tables(), bigquery.appender(), table("t"));
    let spec = TableSpec { create: true, partition: None, cluster: Vec::new(), evolve: Evolve::Add };
    let mut history = LayoutHistory::new();
    let mut refused = 0;
    for wanted in [columns(&["a"]), columns(&["a", "b"])] {
        let state = tables.ensure(&t, &spec, &wanted).await.unwrap();
        let layout = history.include(&state.columns).unwrap();
        for _ in 0..5 {
            let numbers: Vec<u8> = layout.columns.iter().flat_map(|c| [u8::try_from(c.number << 3).unwrap(), 1]).collect();
            let rows: Append = append(&t, &layout, &[&numbers, &numbers]);
            let mut attempts = 0;
            while let Err(failure) = appender.append(rows.clone()).await {
                let context = ActionContext { changed_recently: tables.changed_recently(&t), attempts };
                assert!(matches!(failure.class.action(context), Action::Retry(_)), "attempt {attempts}, {context:?}: {failure:?}");
                assert!(!failure.maybe_durable, "{failure}");
                attempts += 1;
                refused += 1;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    assert!(refused > 0, "the delay was never felt");
    assert_eq!(server.books().rows("p", "d", "t"), Some(20));
    drop((appender, bigquery));
    server.stop().await;
    let _: Arc<_> = t;
}
