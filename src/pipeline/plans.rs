//! Making a plan: schema from its source, columns, the table as it must be, the layout, the compiled plan.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use futures::FutureExt;

use crate::bigquery::{TableError, TableSpec, Tables};
use crate::decode::{DecodeOptions, Plan, SchemaKey, avro_columns, json_columns};
use crate::flow::{HoldCause, Tasks};
use crate::record::{RecordError, RecordErrorClass, Stage};
use crate::schema::{SchemaError, SchemaSource};
use crate::table::{Column, LayoutError, SharedLayout, same_name};
use crate::telemetry::outcomes::schema_fetched;

use super::events::{ShardEvent, ShardHandle};
use super::trouble::panic_words;
use super::worker::TableEntry;

/// How often a plan is begun again because the table changed meanwhile, before its partitions wait.
const TRIES: u32 = 3;

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
    pub tasks: Arc<dyn Tasks>,
}

impl PlanMaker {
    /// Starts making a plan; the answer reaches the shard as an event. Schema sources and tables answer those who ask for the same at the
    /// same time together, so shards need not coordinate.
    pub fn request(self: &Arc<Self>, table: Arc<TableEntry>, key: SchemaKey, shard: ShardHandle) {
        let maker = self.clone();
        let asked = async move {
            let name = (*table.name).clone();
            // Partitions wait for an answer, whatever becomes of the question.
            let made = AssertUnwindSafe(maker.make(&table, &key)).catch_unwind().await;
            let answer = made.unwrap_or_else(|panic| PlanAnswer::Hold {
                cause: HoldCause::UnknownError,
                message: format!("making the plan of {key} panicked ({}): please report it", panic_words(panic.as_ref())),
                retry_after: None,
            });
            // A shard that has ended wants no plan.
            shard.send(ShardEvent::Plan { table: name, key, answer }).await;
        };
        self.tasks.spawn(Box::pin(asked));
    }

    /// Makes a plan now.
    pub async fn make(&self, table: &TableEntry, key: &SchemaKey) -> PlanAnswer {
        for _ in 0..TRIES {
            match self.try_make(table, key).await {
                Ok(Some(ready)) => return PlanAnswer::Ready(Arc::new(ready)),
                Ok(None) => {}
                Err(answer) => return answer,
            }
        }
        let message = format!("the columns of {} keep changing while the plan of {key} is made", table.name);
        PlanAnswer::Hold { cause: HoldCause::PlanPending, message, retry_after: None }
    }

    /// `None`: the table became another one meanwhile.
    async fn try_make(&self, table: &TableEntry, key: &SchemaKey) -> Result<Option<ReadyPlan>, PlanAnswer> {
        let generation = table.generation.load(SeqCst);
        let schema = match (key, &self.schemas) {
            (SchemaKey::Columns, _) => None,
            (_, Some(schemas)) => {
                let fetched = schemas.fetch(key).await;
                schema_fetched(fetched.as_ref().err().map_or("found", outcome_name));
                Some(fetched.map_err(|error| schema_answer(key, error))?)
            }
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
        // Plain JSON may name any column that the table has.
        let used = |column: &Column| schema.is_none() || names(&wanted, column);
        let laid = lay_out(table, generation, &state.columns, used).map_err(|error| conflict(table, key, &error.to_string()))?;
        let Some(layout) = laid else { return Ok(None) };
        let partition = state.time_partition.as_ref().and_then(|p| p.column.as_deref());
        let plan = match &schema {
            Some(schema) => Plan::avro(schema, &state.columns, &layout, partition, &self.options),
            None => Plan::json(&state.columns, &layout, partition, &self.options),
        }
        .map_err(|error| conflict(table, key, &error.to_string()))?;
        Ok(Some(ReadyPlan { plan, layout, made_at: self.tasks.now(), generation }))
    }
}

/// The table's layout with the columns that are `used`, beside those of former plans that the table still has. `None` when plans of this
/// generation are no longer right: rows of one generation are described by every later layout of it, so a column that goes or changes
/// begins another one.
fn lay_out(
    table: &TableEntry,
    generation: u64,
    columns: &[Column],
    used: impl Fn(&Column) -> bool,
) -> Result<Option<SharedLayout>, LayoutError> {
    let mut layouts = table.layouts.lock();
    if table.generation.load(SeqCst) != generation {
        return Ok(None);
    }
    let before = layouts.current();
    let kept: Vec<Column> = columns.iter().filter(|column| used(column) || before.column(&column.name).is_some()).cloned().collect();
    let layout = layouts.replace(&kept)?;
    if layout.describes(&before) {
        return Ok(Some(layout));
    }
    table.generation.fetch_add(1, SeqCst);
    Ok(None)
}

fn table_answer(error: TableError) -> PlanAnswer {
    PlanAnswer::Hold { cause: error.cause, message: error.message, retry_after: error.retry_after }
}

fn names(wanted: &[Column], column: &Column) -> bool {
    wanted.iter().any(|w| same_name(&w.name, &column.name))
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

/// The name of an error in `schema_fetches_total`.
fn outcome_name(error: &SchemaError) -> &'static str {
    match error {
        SchemaError::Unknown(_) => "unknown",
        SchemaError::Unusable(_) | SchemaError::OutsideFolder(_) => "unusable",
        SchemaError::FileMissing(_) | SchemaError::Unavailable(_) => "unavailable",
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
