//! Making a plan: schema from its source, columns, the table as it must be, the layout, the compiled plan.

use std::sync::Arc;
use std::time::Duration;

use crate::bigquery::{TableError, TableSpec, Tables};
use crate::decode::{DecodeOptions, Plan, SchemaKey, avro_columns, json_columns};
use crate::flow::HoldCause;
use crate::record::{RecordError, RecordErrorClass, Stage};
use crate::schema::{SchemaError, SchemaSource};
use crate::table::{Column, SharedLayout};

use super::events::{ShardEvent, ShardHandle};
use super::worker::TableEntry;

/// A plan that can be executed.
pub struct ReadyPlan {
    /// The plan.
    pub plan: Plan,
    /// The layout it was made for, or a newer one.
    pub layout: SharedLayout,
    /// When it was made.
    pub made_at: std::time::Instant,
    /// The table's generation when it was made.
    pub generation: u64,
}

/// What came of asking for a plan.
#[derive(Clone)]
pub enum PlanAnswer {
    /// Here it is.
    Ready(Arc<ReadyPlan>),
    /// Records of this schema are dead letters. Asked again after a while: a registry may learn the id.
    Dead(RecordError),
    /// Not now: the partitions hold.
    Hold {
        /// Why.
        cause: HoldCause,
        /// What is wrong and what to do.
        message: String,
        /// The wait that BigQuery asked for, if it did.
        retry_after: Option<Duration>,
    },
}

/// Makes plans for one connector.
pub struct PlanMaker {
    /// Where schemas come from; `None` for formats without.
    pub schemas: Option<Arc<dyn SchemaSource>>,
    /// The tables.
    pub tables: Arc<dyn Tables>,
    /// What the connector wants of its table.
    pub spec: TableSpec,
    /// How values are read.
    pub options: DecodeOptions,
    /// Where async work runs.
    pub runtime: tokio::runtime::Handle,
}

impl PlanMaker {
    /// Starts making a plan; the answer reaches the shard as an event. Schema sources and tables answer those who ask for the same at the
    /// same time together, so shards need not coordinate.
    pub fn request(self: &Arc<Self>, table: Arc<TableEntry>, key: SchemaKey, shard: ShardHandle) {
        let maker = self.clone();
        self.runtime.spawn(async move {
            let name = (*table.name).clone();
            // In a task of its own: partitions wait for an answer, whatever becomes of the question.
            let asked = key.clone();
            let made = tokio::spawn(async move { maker.make(&table, &asked).await }).await;
            let answer = made.unwrap_or_else(|error| PlanAnswer::Hold {
                cause: HoldCause::UnknownError,
                message: format!("making the plan of {key} failed, please report it: {error}"),
                retry_after: None,
            });
            // A shard that has ended wants no plan.
            shard.send(ShardEvent::Plan { table: name, key, answer }).await;
        });
    }

    /// Makes a plan now.
    pub async fn make(&self, table: &TableEntry, key: &SchemaKey) -> PlanAnswer {
        match self.try_make(table, key).await {
            Ok(ready) => PlanAnswer::Ready(Arc::new(ready)),
            Err(answer) => answer,
        }
    }

    async fn try_make(&self, table: &TableEntry, key: &SchemaKey) -> Result<ReadyPlan, PlanAnswer> {
        let generation = table.generation.load(std::sync::atomic::Ordering::SeqCst);
        let schema = match (key, &self.schemas) {
            (SchemaKey::Columns, _) => None,
            (_, Some(schemas)) => Some(schemas.fetch(key).await.map_err(|error| schema_answer(key, error))?),
            (_, None) => {
                return Err(PlanAnswer::Hold {
                    cause: HoldCause::SchemaSourceUnavailable,
                    message: format!(
                        "no source for {key}: set [registry] in millrace.toml, or `schemas` and `schema_header` in the connector"
                    ),
                    retry_after: None,
                });
            }
        };
        let wanted = match &schema {
            Some(schema) => avro_columns(schema, &self.options).map_err(|error| unmappable(key, &error.to_string()))?,
            None => {
                let present = self.tables.get(&table.name).await.map_err(table_answer)?.map(|state| state.columns).unwrap_or_default();
                json_columns(&present, &self.options).map_err(|error| conflict(table, key, &error.to_string()))?
            }
        };
        let state = self.tables.ensure(&table.name, &self.spec, &wanted).await.map_err(table_answer)?;
        // Not before: a schema that the table does not take would keep the rows of all others waiting when the table is looked at.
        table.want(key, &wanted);
        let used: Vec<Column> = match &schema {
            Some(_) => state.columns.iter().filter(|column| names(&wanted, column)).cloned().collect(),
            // Plain JSON may name any column that the table has.
            None => state.columns.clone(),
        };
        let layout = table.layouts.lock().include(&used).map_err(|error| conflict(table, key, &error.to_string()))?;
        let partition = state.time_partition.as_ref().and_then(|p| p.column.as_deref());
        let plan = match &schema {
            Some(schema) => Plan::avro(schema, &state.columns, &layout, partition, &self.options),
            None => Plan::json(&state.columns, &layout, partition, &self.options),
        }
        .map_err(|error| conflict(table, key, &error.to_string()))?;
        Ok(ReadyPlan { plan, layout, made_at: std::time::Instant::now(), generation })
    }
}

fn table_answer(error: TableError) -> PlanAnswer {
    PlanAnswer::Hold { cause: error.cause, message: error.message, retry_after: error.retry_after }
}

fn names(wanted: &[Column], column: &Column) -> bool {
    wanted.iter().any(|w| w.name.eq_ignore_ascii_case(&column.name))
}

fn unmappable(key: &SchemaKey, why: &str) -> PlanAnswer {
    PlanAnswer::Dead(RecordError::new(
        Stage::Schema,
        RecordErrorClass::UnmappableSchema,
        format!("{key} cannot be mapped to a table: {why}"),
    ))
}

fn conflict(table: &TableEntry, key: &SchemaKey, why: &str) -> PlanAnswer {
    PlanAnswer::Hold {
        cause: HoldCause::TypeConflict,
        message: format!("{key} does not fit table {}: {why}", table.name),
        retry_after: None,
    }
}

fn schema_answer(key: &SchemaKey, error: SchemaError) -> PlanAnswer {
    let hold = |cause, message: String| PlanAnswer::Hold { cause, message: format!("{key}: {message}"), retry_after: None };
    match error {
        SchemaError::Unknown(message) => PlanAnswer::Dead(RecordError::new(Stage::Schema, RecordErrorClass::UnknownSchemaId, message)),
        SchemaError::OutsideFolder(message) => {
            PlanAnswer::Dead(RecordError::new(Stage::Framing, RecordErrorClass::SchemaHeaderOutsideFolder, message))
        }
        SchemaError::Unusable(message) => unmappable(key, &message),
        SchemaError::FileMissing(message) => hold(HoldCause::SchemaFileMissing, message),
        SchemaError::Unavailable(message) => hold(HoldCause::SchemaSourceUnavailable, message),
    }
}
