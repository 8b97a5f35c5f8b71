//! `millrace check`, a connector's schemas and tables: what maps to what, what the tables lack, which permissions are there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use apache_avro::Schema;

use super::check::{Report, within};
use crate::bigquery::BigQuery;
use crate::config::{ConnectorConfig, Evolve, FleetConfig};
use crate::decode::{DecodeOptions, SchemaKey, avro_columns};
use crate::pipeline::TableRoutes;
use crate::schema::{FolderSource, SchemaSource};
use crate::table::{Column, Mode, TableName, diff};

/// A schema and the columns that its records need.
pub(super) struct Mapped {
    name: String,
    columns: Vec<Column>,
}

/// Maps every schema of the folder to columns, and says how. (A registry's schemas are known by the ids in the records only.)
pub(super) async fn mapped(
    connector: &ConnectorConfig,
    fleet: &FleetConfig,
    folder: Option<(FolderSource, Vec<String>)>,
    report: &mut Report,
) -> Vec<Mapped> {
    let options = match DecodeOptions::new(connector, fleet.bigquery.text_literals) {
        Ok(options) => options,
        Err(message) => {
            report.bad("columns", message);
            return Vec::new();
        }
    };
    let Some((source, names)) = folder else { return Vec::new() };
    let mut mapped = Vec::new();
    for name in names {
        let what = format!("schema {name}");
        let schema = match source.fetch(&SchemaKey::Name(Arc::from(name.as_str()))).await {
            Ok(schema) => schema,
            Err(error) => {
                report.bad(&what, error.to_string());
                continue;
            }
        };
        match avro_columns(&schema, &options) {
            Ok(columns) => {
                report.good(&what, columns.iter().map(describe).collect::<Vec<_>>().join(", "));
                for path in nanosecond_fields(&schema.root) {
                    report.note(&what, format!("`{path}` counts nanoseconds: a TIMESTAMP keeps microseconds, the rest is cut"));
                }
                mapped.push(Mapped { name, columns });
            }
            Err(unmappable) => report.bad(&what, format!("cannot be mapped, its records would be dead letters: {unmappable}")),
        }
    }
    mapped
}

fn describe(column: &Column) -> String {
    let mode = match column.mode {
        Mode::Nullable => "",
        Mode::Required => " REQUIRED",
        Mode::Repeated => " REPEATED",
    };
    format!("{} {}{mode}", column.name, column.ty)
}

/// The paths of fields whose logical type counts nanoseconds.
fn nanosecond_fields(schema: &Schema) -> Vec<String> {
    fn walk(schema: &Schema, path: &mut Vec<String>, found: &mut Vec<String>) {
        match schema {
            Schema::TimestampNanos | Schema::LocalTimestampNanos => found.push(path.join(".")),
            Schema::Record(record) => {
                for field in &record.fields {
                    path.push(field.name.clone());
                    walk(&field.schema, path, found);
                    path.pop();
                }
            }
            Schema::Array(array) => walk(&array.items, path, found),
            Schema::Map(map) => walk(&map.types, path, found),
            Schema::Union(union) => union.variants().iter().for_each(|variant| walk(variant, path, found)),
            // A reference leads to a record that is walked where it is defined.
            _ => {}
        }
    }
    let mut found = Vec::new();
    walk(schema, &mut Vec::new(), &mut found);
    found
}

/// The connector's tables: datasets, what they lack, permissions.
pub(super) async fn tables(connector: &ConnectorConfig, bigquery: &BigQuery, schemas: &[Mapped], timeout: Duration, report: &mut Report) {
    let routes = TableRoutes::new(&connector.table, bigquery.project());
    let mut tables: BTreeMap<TableName, Vec<&str>> = BTreeMap::new();
    for topic in &connector.topics {
        match routes.table_of(topic) {
            Ok(table) => tables.entry(table).or_default().push(topic),
            Err(message) => report.bad(&format!("table of {topic}"), message),
        }
    }
    let template = connector.table.name.as_deref().is_some_and(|name| name.contains("${topic}"));
    if connector.topics_regex.is_some() && template {
        report.note("tables", "not tried: they depend on the topics that `topics_regex` finds");
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
    for table in tables.keys().filter(|table| reachable.contains(&(table.project.clone(), table.dataset.clone()))) {
        one_table(connector, bigquery, table, schemas, timeout, report).await;
    }
}

async fn one_table(
    connector: &ConnectorConfig,
    bigquery: &BigQuery,
    table: &TableName,
    schemas: &[Mapped],
    timeout: Duration,
    report: &mut Report,
) {
    let what = format!("table {table}");
    let state = match within(timeout, bigquery.check_table(table)).await {
        Ok(Some(state)) => state,
        Ok(None) if connector.table.create => {
            report.good(&what, "is not there, and is created when the first record comes (bigquery.tables.create is needed then)");
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
