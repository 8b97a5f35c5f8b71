//! Enough of BigQuery's REST API for a worker that wants its tables: datasets exist, tables are got, inserted, patched.

use std::collections::HashMap;

use http::{Method, StatusCode};
use parking_lot::Mutex;
use serde_json::{Value, json};

#[derive(Debug, Default)]
pub struct Tables {
    tables: Mutex<HashMap<String, Value>>,
}

impl Tables {
    /// Status and JSON for `/bigquery/v2/projects/{p}/datasets/{d}[/tables[/{t}]]`.
    pub fn answer(&self, method: &Method, path: &str, body: &[u8]) -> (StatusCode, String) {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let (status, answer) = match parts.as_slice() {
            [.., "datasets", dataset] => {
                (StatusCode::OK, json!({"datasetReference": {"projectId": "bench", "datasetId": dataset}, "location": "EU"}))
            }
            [.., "datasets", dataset, "tables"] if method == Method::POST => self.insert(dataset, body),
            [.., "datasets", dataset, "tables", table] => {
                let mut tables = self.tables.lock();
                match (method, tables.get_mut(&format!("{dataset}.{table}"))) {
                    (_, None) => not_found(&format!("Table bench:{dataset}.{table}")),
                    (&Method::PATCH, Some(found)) => {
                        if let (Some(found), Ok(Value::Object(patch))) = (found.as_object_mut(), serde_json::from_slice(body)) {
                            found.extend(patch);
                            found.insert("etag".to_owned(), json!(uuid::Uuid::new_v4().to_string()));
                        }
                        (StatusCode::OK, found.clone())
                    }
                    (_, Some(found)) => (StatusCode::OK, found.clone()),
                }
            }
            _ => not_found(path),
        };
        (status, answer.to_string())
    }

    fn insert(&self, dataset: &str, body: &[u8]) -> (StatusCode, Value) {
        let mut table: Value = serde_json::from_slice(body).unwrap_or_default();
        let Some(name) = table["tableReference"]["tableId"].as_str().map(str::to_owned) else {
            return (StatusCode::BAD_REQUEST, json!({"error": {"code": 400, "message": "no tableReference"}}));
        };
        table["id"] = json!(format!("bench:{dataset}.{name}"));
        table["kind"] = json!("bigquery#table");
        table["type"] = json!("TABLE");
        table["location"] = json!("EU");
        table["etag"] = json!(uuid::Uuid::new_v4().to_string());
        table["creationTime"] = json!("1790000000000");
        self.tables.lock().insert(format!("{dataset}.{name}"), table.clone());
        (StatusCode::OK, table)
    }
}

fn not_found(what: &str) -> (StatusCode, Value) {
    let message = format!("Not found: {what}");
    let error = json!({"code": 404, "message": message, "status": "NOT_FOUND", "errors": [{"reason": "notFound", "message": message}]});
    (StatusCode::NOT_FOUND, json!({"error": error}))
}
