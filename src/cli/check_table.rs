//! `millrace check`, a connector's tables: what they lack for its schemas, what would be made, which permissions are there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::check::{Report, within};
use super::check_schemas::{Mapped, describe};
use crate::bigquery::BigQuery;
use crate::config::{ConnectorConfig, Evolve, ValueFormat};
use crate::decode::{DecodeOptions, json_columns};
use crate::pipeline::TableRoutes;
use crate::table::{Column, TableName, check_cluster_columns, check_partition_column, diff};

/// The connector's tables: datasets, what the tables lack, permissions.
pub(super) async fn tables(connector: &ConnectorConfig, bigquery: &BigQuery, schemas: &[Mapped], timeout: Duration, report: &mut Report) {
    let tables = tables_of(connector, bigquery.project(), schemas, report);
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
    for (table, topics) in &tables {
        let schemas = of_topics(schemas, topics);
        if reachable.contains(&(table.project.clone(), table.dataset.clone())) {
            one_table(connector, bigquery, table, &schemas, timeout, report).await;
        } else {
            unseen(connector, table, &schemas, report);
        }
    }
}

/// What can be said of the connector's tables when nobody can be asked: whether they could be created. `project` is that of tables that
/// name none.
pub(super) fn tables_unseen(connector: &ConnectorConfig, project: &str, schemas: &[Mapped], report: &mut Report) {
    for (table, topics) in tables_of(connector, project, schemas, report) {
        unseen(connector, &table, &of_topics(schemas, &topics), report);
    }
}

fn unseen(connector: &ConnectorConfig, table: &TableName, schemas: &[&Mapped], report: &mut Report) {
    if connector.table.create && !schemas.is_empty() {
        created(connector, &format!("table {table}, should it be created"), schemas, report);
    }
}

/// The schemas of some of these topics' records.
fn of_topics<'m>(schemas: &'m [Mapped], topics: &BTreeSet<&str>) -> Vec<&'m Mapped> {
    schemas.iter().filter(|schema| schema.topic.as_deref().is_none_or(|topic| topics.contains(topic))).collect()
}

/// The connector's tables, and which of its topics go into each.
fn tables_of<'t>(
    connector: &'t ConnectorConfig,
    project: &str,
    schemas: &'t [Mapped],
    report: &mut Report,
) -> BTreeMap<TableName, BTreeSet<&'t str>> {
    let routes = TableRoutes::new(&connector.table, project);
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
    tables
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
    let stated = stated(connector, &state.columns, &what, report);
    for schema in schemas.iter().copied().chain(&stated) {
        let found = diff(&state.columns, &schema.columns, connector.table.evolve);
        let what = format!("{what} for {}", schema.name);
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

/// Of a connector whose values are JSON: the table's columns with those that its file states.
fn stated(connector: &ConnectorConfig, present: &[Column], what: &str, report: &mut Report) -> Option<Mapped> {
    if connector.value.format != ValueFormat::Json {
        return None;
    }
    // Mistakes in the options were said where schemas are mapped.
    let options = DecodeOptions::new(connector, false).ok()?;
    match json_columns(present, &options) {
        Ok(columns) => Some(Mapped { name: "[table.columns]".to_owned(), topic: None, columns, stated_in_vain: BTreeSet::new() }),
        Err(why) => {
            report.bad(what, why.to_string());
            None
        }
    }
}

/// What a table that is still to be made would look like, and what would keep it from being made.
fn created(connector: &ConnectorConfig, what: &str, schemas: &[&Mapped], report: &mut Report) {
    let mut columns: Vec<Column> = Vec::new();
    for schema in schemas {
        let found = diff(&columns, &schema.columns, Evolve::Add);
        for message in &found.conflicts {
            report.bad(&format!("{what} for {}", schema.name), format!("after the schemas above: {message}"));
        }
        columns.extend(found.missing.into_iter().filter(|missing| missing.parent.is_empty()).map(|missing| missing.column));
    }
    if columns.is_empty() {
        return;
    }
    report.note(what, format!("would get {}", columns.iter().map(describe).collect::<Vec<_>>().join(", ")));
    if let Some(partition) = &connector.table.partition
        && let Some(by) = &partition.by
        && let Err(why) = check_partition_column(&columns, by, partition.every)
    {
        report.bad(what, why);
    }
    if let Err(why) = check_cluster_columns(&columns, &connector.table.cluster) {
        report.bad(what, why);
    }
}
