//! jobs: query, getQueryResults, insert (queries only; load, copy and extract are refused with 501 `notImplemented`), get. Queries run at
//! once; their answers are kept for paging.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use super::request::Call;
use super::{Answer, row_json};
use crate::embedded::bigquery::error::{ApiError, ApiResult};
use crate::embedded::bigquery::query::{self, Defaults, QueryResult};
use crate::embedded::bigquery::schema::column::int64;
use crate::embedded::bigquery::shared::Shared;
use crate::embedded::bigquery::state::table::now_ms;

/// Rows on a page without `maxResults`.
const PAGE_ROWS: u64 = 10_000;
/// Answers that are kept.
const KEPT: usize = 64;

/// Answers of past queries, the oldest dropped first.
#[derive(Debug, Default)]
pub(crate) struct Jobs(Mutex<VecDeque<Arc<Job>>>);

#[derive(Debug)]
struct Job {
    project: String,
    id: String,
    configuration: Value,
    made_ms: i64,
    result: Result<QueryResult, ApiError>,
}

impl Jobs {
    fn keep(&self, job: Job) -> ApiResult<Arc<Job>> {
        let mut jobs = self.0.lock();
        if jobs.iter().any(|j| j.project == job.project && j.id == job.id) {
            return Err(ApiError::duplicate(format_args!("Job {}:US.{}", job.project, job.id)));
        }
        if jobs.len() == KEPT {
            jobs.pop_front();
        }
        let job = Arc::new(job);
        jobs.push_back(Arc::clone(&job));
        Ok(job)
    }

    fn find(&self, project: &str, id: &str) -> ApiResult<Arc<Job>> {
        let found = self.0.lock().iter().find(|j| j.project == project && j.id == id).cloned();
        found.ok_or_else(|| ApiError::not_found(format_args!("Job {project}:{id}")))
    }
}

fn run(shared: &Shared, project: &str, id: Option<&str>, request: &Map<String, Value>, configuration: Value) -> ApiResult<Arc<Job>> {
    let sql = request.get("query").and_then(Value::as_str).filter(|sql| !sql.trim().is_empty());
    let sql = sql.ok_or_else(|| ApiError::new(400, "required", "Required parameter is missing: query"))?;
    // Legacy SQL is the API's default.
    if request.get("useLegacySql").and_then(Value::as_bool) != Some(false) {
        return Err(ApiError::new(501, "notImplemented", "Legacy SQL is not implemented here: send \"useLegacySql\": false."));
    }
    if request.get("queryParameters").and_then(Value::as_array).is_some_and(|p| !p.is_empty()) {
        return Err(ApiError::new(501, "notImplemented", "Query parameters are not implemented here."));
    }
    let dataset = request.get("defaultDataset").and_then(|d| d.get("datasetId")?.as_str());
    let result = query::run(&shared.catalog, Defaults { project, dataset }, sql);
    let id = id.map_or_else(|| format!("job_{}", uuid::Uuid::new_v4().simple()), str::to_owned);
    shared.jobs.keep(Job { project: project.to_owned(), id, configuration, made_ms: now_ms(), result })
}

fn reference(shared: &Shared, job: &Job) -> Value {
    json!({"projectId": job.project, "jobId": job.id, "location": shared.settings.location})
}

/// A page of a job's answer.
fn page(shared: &Shared, job: &Job, kind: &str, start: u64, limit: u64, int64_timestamps: bool) -> ApiResult<Answer> {
    let result = job.result.as_ref().map_err(Clone::clone)?;
    let rows = result.rows.iter().skip(start as usize).take(limit as usize);
    let rows: Vec<Value> = rows.map(|row| row_json::row(row, &result.columns, int64_timestamps)).collect();
    let end = start + rows.len() as u64;
    let mut answer = json!({
        "kind": kind, "jobComplete": true, "cacheHit": false, "totalBytesProcessed": "0", "etag": job.id,
        "jobReference": reference(shared, job), "schema": row_json::schema(&result.columns),
        "totalRows": result.rows.len().to_string(), "rows": rows,
    });
    if end < result.rows.len() as u64 {
        answer["pageToken"] = json!(end.to_string());
    }
    Ok(Answer::Json(answer))
}

pub(super) fn query(shared: &Arc<Shared>, project: &str, call: &Call) -> ApiResult<Answer> {
    let body = call.object()?;
    let int64_timestamps = body.get("formatOptions").and_then(|f| f.get("useInt64Timestamp")?.as_bool()).unwrap_or(false);
    let limit = body.get("maxResults").and_then(int64).map_or(PAGE_ROWS, |n| n.max(0) as u64);
    let configuration = json!({"jobType": "QUERY", "query": {"query": body.get("query"), "useLegacySql": false}});
    let job = run(shared, project, None, &body, configuration)?;
    page(shared, &job, "bigquery#queryResponse", 0, limit, int64_timestamps)
}

pub(super) fn results(shared: &Arc<Shared>, project: &str, id: &str, call: &Call) -> ApiResult<Answer> {
    let job = shared.jobs.find(project, id)?;
    let start = match call.number("pageToken")? {
        Some(token) => token,
        None => call.number("startIndex")?.unwrap_or(0),
    };
    let limit = call.number("maxResults")?.unwrap_or(PAGE_ROWS);
    page(shared, &job, "bigquery#getQueryResultsResponse", start, limit, call.flag("formatOptions.useInt64Timestamp"))
}

pub(super) fn insert(shared: &Arc<Shared>, project: &str, call: &Call) -> ApiResult<Answer> {
    let body = call.object()?;
    let configuration = body.get("configuration").cloned().unwrap_or_default();
    let Some(query) = configuration.get("query").and_then(Value::as_object) else {
        let words =
            "Only query jobs are implemented here: rows come by the Storage Write API or insertAll, not by load, copy or extract jobs.";
        return Err(ApiError::new(501, "notImplemented", words));
    };
    let id = body.get("jobReference").and_then(|r| r.get("jobId")?.as_str());
    let job = run(shared, project, id, query, configuration.clone())?;
    Ok(described(shared, &job))
}

pub(super) fn get(shared: &Arc<Shared>, project: &str, id: &str) -> ApiResult<Answer> {
    Ok(described(shared, &*shared.jobs.find(project, id)?))
}

fn described(shared: &Shared, job: &Job) -> Answer {
    let mut configuration = job.configuration.clone();
    configuration["jobType"] = json!("QUERY");
    let mut status = json!({"state": "DONE"});
    if let Err(error) = &job.result {
        let item = json!({"reason": error.reason, "message": error.message, "location": error.location});
        status["errorResult"] = item.clone();
        status["errors"] = json!([item]);
    }
    let time = job.made_ms.to_string();
    Answer::Json(json!({
        "kind": "bigquery#job", "etag": job.id, "id": format!("{}:{}", job.project, job.id), "jobReference": reference(shared, job),
        "configuration": configuration, "status": status,
        "statistics": {"creationTime": time, "startTime": time, "endTime": time, "query": {"statementType": "SELECT", "cacheHit": false}},
    }))
}
