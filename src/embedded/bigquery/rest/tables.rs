//! tables: insert, get, list, patch, update, delete.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::Answer;
use super::request::Call;
use crate::embedded::bigquery::error::{ApiError, ApiResult};
use crate::embedded::bigquery::schema::{Schema, names, patch, table_rules};
use crate::embedded::bigquery::shared::Shared;
use crate::embedded::bigquery::state::{Table, TableKey};

const BASE: &str = "https://bigquery.googleapis.com/bigquery/v2";

fn rendered(shared: &Shared, table: &Table) -> Answer {
    Answer::Json(table.to_rest(&shared.settings.location, BASE))
}

/// The columns of a resource; its fields are put into the form that tables.get answers.
fn schema_of(resource: &mut Map<String, Value>) -> ApiResult<Schema> {
    match resource.get_mut("schema").and_then(Value::as_object_mut) {
        None => Ok(Schema::default()),
        Some(schema) => match schema.get_mut("fields").and_then(Value::as_array_mut) {
            None => Ok(Schema::default()),
            Some(fields) => Schema::from_rest(fields),
        },
    }
}

pub(super) fn insert(shared: &Arc<Shared>, project: &str, dataset: &str, call: &Call) -> ApiResult<Answer> {
    shared.catalog.dataset(project, dataset)?;
    let mut resource = call.object()?;
    let name = resource.get("tableReference").and_then(|r| r.get("tableId")?.as_str()).unwrap_or_default().to_owned();
    names::check_table(&name)?;
    for unsupported in ["view", "materializedView", "externalDataConfiguration"] {
        if resource.get(unsupported).is_some_and(|v| !v.is_null()) {
            return Err(ApiError::new(501, "notImplemented", format!("{unsupported} is not implemented here.")));
        }
    }
    resource.retain(|key, value| !patch::OUTPUT_ONLY.contains(&key.as_str()) && !value.is_null());
    let schema = schema_of(&mut resource)?;
    let partitioning = table_rules::check(&resource, &schema)?;
    let key = TableKey::new(project, dataset, &name);
    let table = shared.catalog.insert_table(Table::new(key, resource, schema, partitioning))?;
    Ok(rendered(shared, &table))
}

pub(super) fn get(shared: &Arc<Shared>, key: &TableKey) -> ApiResult<Answer> {
    shared.catalog.dataset(&key.project, &key.dataset)?;
    Ok(rendered(shared, &*shared.catalog.table(key)?))
}

pub(super) fn list(shared: &Arc<Shared>, project: &str, dataset: &str, call: &Call) -> ApiResult<Answer> {
    shared.catalog.dataset(project, dataset)?;
    let tables = shared.catalog.tables(project, dataset);
    let limit = call.number("maxResults")?.unwrap_or(1000) as usize;
    let start = call.number("pageToken")?.unwrap_or(0) as usize;
    let item = |table: &Arc<Table>| {
        let mut whole = table.to_rest(&shared.settings.location, BASE);
        let keys = ["id", "tableReference", "type", "timePartitioning", "rangePartitioning", "clustering", "creationTime", "labels"];
        let mut item: Map<String, Value> = keys.iter().filter_map(|k| Some(((*k).to_owned(), whole.get_mut(*k)?.take()))).collect();
        item.insert("kind".to_owned(), json!("bigquery#table"));
        item
    };
    let items: Vec<_> = tables.iter().skip(start).take(limit).map(item).collect();
    let mut answer = json!({"kind": "bigquery#tableList", "etag": "0", "totalItems": tables.len()});
    if start + items.len() < tables.len() {
        answer["nextPageToken"] = json!((start + items.len()).to_string());
    }
    answer["tables"] = json!(items);
    Ok(Answer::Json(answer))
}

/// The resource before, the change: the resource after.
type Merge = fn(&Map<String, Value>, &Map<String, Value>) -> Map<String, Value>;

pub(super) fn patch(shared: &Arc<Shared>, key: &TableKey, call: &Call) -> ApiResult<Answer> {
    change(shared, key, call, patch::merged)
}

pub(super) fn update(shared: &Arc<Shared>, key: &TableKey, call: &Call) -> ApiResult<Answer> {
    // PUT replaces everything that a caller can set.
    change(shared, key, call, |_, new| {
        let mut new = new.clone();
        new.retain(|key, value| !patch::OUTPUT_ONLY.contains(&key.as_str()) && !value.is_null());
        new
    })
}

fn change(shared: &Arc<Shared>, key: &TableKey, call: &Call, merge: Merge) -> ApiResult<Answer> {
    let body = call.object()?;
    shared.catalog.dataset(&key.project, &key.dataset)?;
    let table = shared.catalog.update_table(key, |table| {
        let (mut resource, before) = {
            let meta = table.meta.read();
            if call.if_match.as_ref().is_some_and(|etag| etag != "*" && *etag != meta.etag) {
                return Err(ApiError::new(412, "conditionNotMet", "Precondition check failed."));
            }
            (merge(&meta.resource, &body), meta.resource.clone())
        };
        let schema = schema_of(&mut resource)?;
        let name = key.to_string();
        patch::check_columns(&name, &table.schema(), &schema)?;
        patch::check_partitioning(&name, &before, &resource)?;
        let partitioning = table_rules::check(&resource, &schema)?;
        table.change(resource, schema, partitioning);
        Ok(())
    })?;
    Ok(rendered(shared, &table))
}

pub(super) fn delete(shared: &Arc<Shared>, key: &TableKey) -> ApiResult<Answer> {
    shared.catalog.delete_table(key)?;
    Ok(Answer::Empty)
}
