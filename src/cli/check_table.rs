//! `millrace check`, a connector's tables: what they lack for its schemas, what would be made, which permissions are there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::check::{Report, within};
use super::check_schemas::{Mapped, describe};
use crate::bigquery::BigQuery;
use crate::config::{ConnectorConfig, Evolve};
use crate::pipeline::TableRoutes;
use crate::table::{Column, TableName, check_cluster_columns, check_partition_column, diff};

/// The connector's tables: datasets, what the tables lack, permissions.
pub(super) async fn tables(connector: &ConnectorConfig, bigquery: &BigQuery, schemas: &[Mapped], timeout: Duration, report: &mut Report) {
    let routes = TableRoutes::new(&connector.table, bigquery.project());
    let mut tables: BTreeMap<TableName, BTreeSet<&str>> = BTreeMap::new();
    // Of topics that an expression finds, those are known that have a schema in the registry.
    let found = schemas.iter().filter_map(|schema| schema.topic.as_deref());
    for topic in connector.topics.iter().map(String::as_str).chain(found) {
        match routes.table_of(topic) {
            Ok(table) => drop(tables.entry(table).or_default().insert(topic)),
            Err(message) => report.bad(&format!("table of {topic}"), message),
        }
    }
    let template = connector.table.name.as_deref().is_some_and(|name| name.contains("${topic}"));
    if connector.topics_regex.is_some() && template {
        report.note("tables of other topics", "not tried: they depend on the topics that `topics_regex` finds");
    } else if connector.topics_regex.is_some()
        && let Ok(table) = routes.table_of("")
    {
        tables.entry(table).or_default();
    }
    let datasets: BTreeSet<(&str, &str)> = tables.keys().map(|table| (table.project.as_str(), table.dataset.as_str())).collect();
    let mut reachable = BTreeSet::new();
    for (project, dataset) in datasets {
        let answer = within(timeout, bigquery.check_dataset(project, dataset)).await;
        if answer.is_ok() {
            reachable.insert((project.to_owned(), dataset.to_owned()));
        }
        let location = |location: String| if location.is_empty() { location } else { format!("is there, in {location}") };
        report.outcome(&format!("dataset {project}.{dataset}"), answer.map(location));
    }
    for (table, topics) in tables.iter().filter(|(table, _)| reachable.contains(&(table.project.clone(), table.dataset.clone()))) {
        let concerned = |schema: &&Mapped| schema.topic.as_deref().is_none_or(|topic| topics.contains(topic));
        let schemas: Vec<&Mapped> = schemas.iter().filter(concerned).collect();
        one_table(connector, bigquery, table, &schemas, timeout, report).await;
    }
}

async fn one_table(
    connector: &ConnectorConfig,
    bigquery: &BigQuery,
    table: &TableName,
    schemas: &[&Mapped],
    timeout: Duration,
    report: &mut Report,
) {
    let what = format!("table {table}");
    let state = match within(timeout, bigquery.check_table(table)).await {
        Ok(Some(state)) => state,
        Ok(None) if connector.table.create => {
            report.good(&what, "is not there, and is created when the first record comes (bigquery.tables.create is needed then)");
            created(connector, &what, schemas, report);
            return;
        }
        Ok(None) => {
            report.bad(&what, "is not there: create it, or set `create = true` under [table]");
            return;
        }
        Err(error) => {
            report.bad(&what, error);
            return;
        }
    };
    report.good(&what, format!("is there with {} columns", state.columns.len()));
    for schema in schemas {
        let found = diff(&state.columns, &schema.columns, connector.table.evolve);
        let what = format!("{what} for schema {}", schema.name);
        for message in found.conflicts.iter().chain(&found.forbidden) {
            report.bad(&what, message);
        }
        if found.conflicts.is_empty() && found.forbidden.is_empty() {
            report.good(&what, if found.is_empty() { "has every column" } else { "fits after the changes below" });
        }
        for missing in &found.missing {
            let path = missing.parent.iter().map(String::as_str).chain([missing.column.name.as_str()]).collect::<Vec<_>>().join(".");
            report.note(&what, format!("column `{path}` {} would be added", missing.column.ty));
        }
        for path in &found.relax {
            report.note(&what, format!("column `{}` would become NULLABLE", path.join(".")));
        }
    }
    match within(timeout, bigquery.check_permissions(table, connector.table.evolve != Evolve::Never)).await {
        Ok(Some(permissions)) => {
            for permission in permissions {
                let outcome = if permission.granted { Ok("granted") } else { Err("not granted: give the credentials a role that has it") };
                report.outcome(&format!("{what}, {}", permission.name), outcome);
            }
        }
        Ok(None) => report.note(&format!("{what}, permissions"), "this endpoint does not say which are granted"),
        Err(error) => report.bad(&format!("{what}, permissions"), error),
    }
}

/// What a table that is still to be made would look like, and what would keep it from being made.
fn created(connector: &ConnectorConfig, what: &str, schemas: &[&Mapped], report: &mut Report) {
    let mut columns: Vec<Column> = Vec::new();
    for schema in schemas {
        let found = diff(&columns, &schema.columns, Evolve::Add);
        for message in &found.conflicts {
            report.bad(&format!("{what} for schema {}", schema.name), format!("after the schemas above: {message}"));
        }
        columns.extend(found.missing.into_iter().filter(|missing| missing.parent.is_empty()).map(|missing| missing.column));
    }
    if columns.is_empty() {
        return;
    }
    report.note(what, format!("would get {}", columns.iter().map(describe).collect::<Vec<_>>().join(", ")));
    if let Some(by) = connector.table.partition.as_ref().and_then(|partition| partition.by.as_deref())
        && let Err(why) = check_partition_column(&columns, by)
    {
        report.bad(what, why);
    }
    if let Err(why) = check_cluster_columns(&columns, &connector.table.cluster) {
        report.bad(what, why);
    }
}
