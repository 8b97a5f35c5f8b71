//! What `millrace check` asks of BigQuery: a token, the dataset, the table, the permissions.

use std::sync::Arc;

use async_trait::async_trait;
use gcp_bigquery_client::auth::Authenticator;
use gcp_bigquery_client::client_builder::ClientBuilder;
use gcp_bigquery_client::error::BQError;
use reqwest::Method;
use serde_json::{Value, json};

use super::auth::TokenSource;
use super::rest::{RestError, source_chain, table_path};
use super::tables::table_error;
use super::trust::advice;
use super::{BigQuery, TableError, TableState};
use crate::table::TableName;

/// A permission that a connector needs on its table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permission {
    /// Google's name, such as `bigquery.tables.updateData`.
    pub name: &'static str,
    /// Whether the credentials have it.
    pub granted: bool,
}

/// Writing rows and reading metadata (BigQuery's access control page).
const TO_WRITE: [&str; 2] = ["bigquery.tables.get", "bigquery.tables.updateData"];
/// Adding columns.
const TO_EVOLVE: &str = "bigquery.tables.update";

impl BigQuery {
    /// Whether a token can be had. The error is the token server's words.
    pub async fn check_token(&self) -> Result<(), String> {
        self.tokens.headers().await.map(|_| ()).map_err(|e| e.message)
    }

    /// Whether the dataset can be read: `Ok` holds its location.
    pub async fn check_dataset(&self, project: &str, dataset: &str) -> Result<String, String> {
        let client = ClientBuilder::new()
            .with_v2_base_url(self.rest_endpoint.clone())
            .with_client(self.http.clone())
            .build_from_authenticator(Arc::new(Tokens(self.tokens.clone())))
            .await
            .map_err(|e| e.to_string())?;
        match client.dataset().get(project, dataset).await {
            Ok(found) => Ok(found.location.unwrap_or_default()),
            Err(BQError::ResponseError { error }) => {
                let advice = match error.error.code {
                    404 => ": create it (millrace makes tables, not datasets), or mend the table's name or [bigquery] project",
                    403 => ": give the credentials a role that has bigquery.datasets.get, such as roles/bigquery.dataEditor on the dataset",
                    _ => "",
                };
                Err(format!("HTTP {}: {}{advice}", error.error.code, error.error.message))
            }
            // The token's own line says why.
            Err(BQError::NoToken) => Err("not asked: there is no access token".to_owned()),
            Err(error) => {
                // "error sending request" says nothing without what lies below.
                let words = source_chain(&error);
                Err(format!("{words}{}", advice(&words)))
            }
        }
    }

    /// The table as it is, `None` when it does not exist.
    pub async fn check_table(&self, table: &TableName) -> Result<Option<TableState>, TableError> {
        self.tables().get(table).await
    }

    /// Which of the permissions that a connector needs are granted on an existing table (`tables.testIamPermissions`). `None` where the
    /// endpoint does not know the question: emulators.
    pub async fn check_permissions(&self, table: &TableName, evolve: bool) -> Result<Option<Vec<Permission>>, TableError> {
        let wanted: Vec<&'static str> = TO_WRITE.into_iter().chain(evolve.then_some(TO_EVOLVE)).collect();
        let path = format!("{}:testIamPermissions", table_path(table));
        match self.rest.call(Method::POST, &path, None, Some(&json!({ "permissions": wanted }))).await {
            Ok(answer) => {
                let granted: Vec<&str> =
                    answer.get("permissions").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
                Ok(Some(wanted.into_iter().map(|name| Permission { name, granted: granted.contains(&name) }).collect()))
            }
            Err(RestError { http: Some(404 | 405 | 501), .. }) => Ok(None),
            Err(error) => Err(table_error(table, "asking for permissions", &error)),
        }
    }

    /// The project of tables that name none.
    pub fn project(&self) -> &str {
        &self.project
    }
}

/// Our tokens for gcp-bigquery-client.
#[derive(Clone)]
struct Tokens(Arc<TokenSource>);

#[async_trait]
impl Authenticator for Tokens {
    async fn access_token(&self) -> Result<String, BQError> {
        let auth = self.0.headers().await.map_err(|_| BQError::NoToken)?;
        let bearer = auth.headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
        Ok(bearer.strip_prefix("Bearer ").unwrap_or_default().to_owned())
    }
}
