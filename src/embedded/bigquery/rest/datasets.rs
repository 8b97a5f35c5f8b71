//! datasets: insert, get, list, delete.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::Answer;
use super::request::Call;
use crate::embedded::bigquery::error::{ApiError, ApiResult};
use crate::embedded::bigquery::schema::column::int64;
use crate::embedded::bigquery::schema::names;
use crate::embedded::bigquery::shared::Shared;
use crate::embedded::bigquery::state::table::now_ms;

/// A dataset's resource from what a caller gave.
pub(crate) fn make(shared: &Shared, project: &str, dataset: &str, mut resource: Map<String, Value>) -> ApiResult<Map<String, Value>> {
    names::check_dataset(dataset)?;
    if resource.get("description").and_then(Value::as_str).is_some_and(|d| d.chars().count() > 16_384) {
        return Err(ApiError::invalid("The dataset description is too long. The maximum length is 16384 characters."));
    }
    if let Some(expiry) = resource.get("defaultTableExpirationMs").filter(|v| !v.is_null())
        && int64(expiry).is_none_or(|ms| ms < 3_600_000)
    {
        return Err(ApiError::invalid("Invalid value for defaultTableExpirationMs: the minimum is 3600000 milliseconds."));
    }
    let now = now_ms().to_string();
    for (key, value) in [
        ("kind", json!("bigquery#dataset")),
        ("etag", json!(uuid::Uuid::new_v4().simple().to_string())),
        ("id", json!(format!("{project}:{dataset}"))),
        ("datasetReference", json!({"projectId": project, "datasetId": dataset})),
        ("creationTime", json!(now)),
        ("lastModifiedTime", json!(now)),
    ] {
        resource.insert(key.to_owned(), value);
    }
    resource.entry("location").or_insert_with(|| json!(shared.settings.location));
    shared.catalog.insert_dataset(project, dataset, resource)
}

pub(super) fn insert(shared: &Arc<Shared>, project: &str, call: &Call) -> ApiResult<Answer> {
    let resource = call.object()?;
    let id = resource.get("datasetReference").and_then(|r| r.get("datasetId")?.as_str()).unwrap_or_default().to_owned();
    make(shared, project, &id, resource).map(|resource| Answer::Json(resource.into()))
}

pub(super) fn get(shared: &Arc<Shared>, project: &str, dataset: &str) -> ApiResult<Answer> {
    shared.catalog.dataset(project, dataset).map(|resource| Answer::Json(resource.into()))
}

pub(super) fn list(shared: &Arc<Shared>, project: &str) -> ApiResult<Answer> {
    let pick = |resource: &Map<String, Value>| {
        let keys = ["id", "datasetReference", "location", "labels", "friendlyName"];
        let mut item: Map<String, Value> = keys.iter().filter_map(|k| Some(((*k).to_owned(), resource.get(*k)?.clone()))).collect();
        item.insert("kind".to_owned(), json!("bigquery#dataset"));
        item
    };
    // A leading `_` hides a dataset.
    let datasets = shared.catalog.datasets(project);
    let items: Vec<_> = datasets.iter().filter(|(name, _)| !name.starts_with('_')).map(|(_, resource)| pick(resource)).collect();
    Ok(Answer::Json(json!({"kind": "bigquery#datasetList", "etag": "0", "datasets": items})))
}

pub(super) fn delete(shared: &Arc<Shared>, project: &str, dataset: &str, call: &Call) -> ApiResult<Answer> {
    shared.catalog.delete_dataset(project, dataset, call.flag("deleteContents"))?;
    Ok(Answer::Empty)
}
