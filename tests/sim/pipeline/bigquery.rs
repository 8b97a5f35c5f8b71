//! BigQuery, played: one table with versions of its schema, write servers that learn of a version late and unevenly, answers that are lost, late, or
//! never come. Tables are played below production's REST client, appends at the `Appender`.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use millrace::bigquery::{Append, AppendFailure, Appender, ErrorClass, NoAnswer, RestCall, RestTransport, RowError};
use millrace::decode::split_rows;
use millrace::table::Layout;
use parking_lot::Mutex;
use rand::Rng;
use serde_json::{Value, json};

use super::log::Fate;
use super::mutants::Mutant;
use super::oracle::Row;
use super::run::FAULTS;
use super::scene::{ProcessId, Scene};
use super::streams::Streams;
use crate::world::World;

/// Servers that take appends.
const SERVERS: usize = 3;
/// How long an append may stay unanswered.
const APPEND_TIMEOUT: Duration = Duration::from_secs(8);
/// How long write servers may lag behind the table's metadata.
const LAG_MAX: Duration = Duration::from_secs(6);

/// Until when what is wrong.
#[derive(Default, Clone, Copy)]
pub struct Troubles {
    /// Answers take seconds.
    pub slow: Duration,
    /// Appends are not answered.
    pub dead: Duration,
    /// Appends fail, answers are lost.
    pub flaky: Duration,
    /// Rows are refused for a permission.
    pub forbidden: Duration,
    /// REST calls fail, or their answers are lost.
    pub rest: Duration,
}

struct Version {
    fields: Value,
    /// When each server knows it.
    known_at: [Duration; SERVERS],
}

#[derive(Default)]
struct Table {
    versions: Vec<Version>,
    /// The most rows that an append may have.
    rows_max: u32,
    troubles: Troubles,
}

/// The table and its troubles.
pub struct Warehouse {
    world: World,
    table: Mutex<Table>,
    /// Streams of their own.
    pub streams: Streams,
}

impl Warehouse {
    /// No table yet.
    pub fn new(world: &World) -> Self {
        let rows_max = world.draw(|random| random.random_range(4..40));
        Self { world: world.clone(), table: Mutex::new(Table { rows_max, ..Table::default() }), streams: Streams::default() }
    }

    /// Adds to its troubles.
    pub fn trouble(&self, add: impl FnOnce(&mut Troubles)) {
        add(&mut self.table.lock().troubles);
    }

    /// Whether something of this probability happens.
    pub fn chance(&self, share: f64) -> bool {
        self.world.draw(|random| random.random_bool(share))
    }

    fn add_version(&self, table: &mut Table, fields: Value) {
        let now = self.world.now();
        let known_at = std::array::from_fn(|_| if self.chance(0.4) { now } else { now + self.world.draw_span(LAG_MAX) });
        table.versions.push(Version { fields, known_at });
    }

    fn resource(table: &Table) -> Option<Value> {
        let version = table.versions.last()?;
        Some(
            json!({ "etag": format!("v{}", table.versions.len()), "creationTime": "1790000000000", "schema": { "fields": version.fields } }),
        )
    }

    /// What a REST call does: status and body.
    fn rest(&self, scene: &Scene, method: &str, if_match: Option<&str>, body: Option<&Value>) -> (u16, Value) {
        let refuse = |code: u16, reason: &str| (code, json!({ "error": { "message": "as told", "errors": [{ "reason": reason }] } }));
        let mut table = self.table.lock();
        let fields = body.and_then(|body| body.pointer("/schema/fields")).cloned().unwrap_or_else(|| json!([]));
        match (method, Self::resource(&table)) {
            ("GET", Some(resource)) => (200, resource),
            ("POST", Some(_)) => refuse(409, "duplicate"),
            ("POST", None) => {
                scene.oracle.see(|seen| seen.columns += 1);
                self.add_version(&mut table, fields);
                (200, Self::resource(&table).unwrap_or_default())
            }
            ("PATCH", Some(resource)) => {
                if resource["etag"].as_str() != if_match && scene.mutant != Mutant::PatchAnyVersion {
                    scene.oracle.see(|seen| seen.conflicts += 1);
                    return refuse(412, "conditionNotMet");
                }
                let names = |fields: &Value| -> Vec<String> {
                    fields.as_array().into_iter().flatten().filter_map(|field| field["name"].as_str().map(str::to_owned)).collect()
                };
                let new = names(&fields);
                let gone: Vec<String> = names(&resource["schema"]["fields"]).into_iter().filter(|name| !new.contains(name)).collect();
                if !gone.is_empty() {
                    scene.oracle.complain(format!("a patch takes the columns {gone:?} away"));
                }
                scene.oracle.see(|seen| seen.columns += 1);
                self.world.note(|| format!("bigquery: columns {new:?}"));
                self.add_version(&mut table, fields);
                (200, Self::resource(&table).unwrap_or_default())
            }
            _ => refuse(404, "notFound"),
        }
    }

    /// One of the servers.
    pub fn any_server(&self) -> usize {
        self.world.draw(|random| random.random_range(0..SERVERS))
    }

    /// Lets an append land on a server, or says why not.
    pub fn land(&self, scene: &Scene, process: ProcessId, server: usize, append: &Append) -> Result<(), AppendFailure> {
        let refuse = |class| Err(AppendFailure { class, message: "as told".to_owned(), row_errors: Vec::new(), maybe_durable: false });
        let table = self.table.lock();
        let now = self.world.now();
        if table.troubles.forbidden > now {
            return refuse(ErrorClass::PermissionDenied);
        }
        let Some(version) = table.versions.iter().rev().find(|version| version.known_at[server] <= now) else {
            return refuse(ErrorClass::TableNotFound);
        };
        let has = |name: &str| version.fields.as_array().into_iter().flatten().any(|field| field["name"] == name);
        if !append.layout.columns.iter().all(|column| has(&column.name)) {
            return refuse(ErrorClass::SchemaMismatchExtraFields);
        }
        if append.row_count > table.rows_max {
            return refuse(ErrorClass::RequestTooLarge);
        }
        drop(table);
        let rows: Vec<Row> = split_rows(&append.rows).map(|range| decode(&append.layout, &append.rows[range])).collect();
        if rows.len() != append.row_count as usize {
            scene.oracle.complain(format!("an append of {} rows says that they are {}", rows.len(), append.row_count));
        }
        let rejected: Vec<RowError> = rows
            .iter()
            .enumerate()
            .filter(|(_, row)| is_rejected(scene, row))
            .map(|(index, _)| RowError { index: index as u32, message: "no".to_owned() })
            .take(2)
            .collect();
        if !rejected.is_empty() {
            if scene.mutant == Mutant::PartOfAnAppend {
                rows.into_iter().filter(|row| !is_rejected(scene, row)).for_each(|row| scene.oracle.landed(process, row));
            }
            return Err(AppendFailure {
                class: ErrorClass::RowErrors,
                message: "as told".to_owned(),
                row_errors: rejected,
                maybe_durable: false,
            });
        }
        self.world.note(|| {
            let places: Vec<_> = rows.iter().map(|row| (row.get("kafka_partition"), row.get("kafka_offset"))).collect();
            format!("bigquery: {} rows of process {process} land: {places:?}", rows.len())
        });
        scene.oracle.see(|seen| seen.landed += 1);
        rows.into_iter().for_each(|row| scene.oracle.landed(process, row));
        Ok(())
    }
}

fn is_rejected(scene: &Scene, row: &Row) -> bool {
    let place = |name| row.get(name).copied();
    let (Some(partition), Some(offset)) = (place("kafka_partition"), place("kafka_offset")) else { return false };
    let records = scene.log.records(partition as i32);
    records.binary_search_by_key(&offset, |record| record.offset).is_ok_and(|at| matches!(records[at].fate, Fate::Rejected(_)))
}

/// A row's numbers by the names of its columns: all columns of the simulation are INT64.
fn decode(layout: &Layout, mut bytes: &[u8]) -> Row {
    let mut row = Row::new();
    while !bytes.is_empty() {
        let (Ok(key), Ok(value)) = (prost::encoding::decode_varint(&mut bytes), prost::encoding::decode_varint(&mut bytes)) else { break };
        if let Some(column) = layout.columns.iter().find(|column| u64::from(column.number) << 3 == key) {
            row.insert(column.name.clone(), value as i64);
        }
    }
    row
}

/// An append that failed.
pub fn failure(class: ErrorClass, maybe_durable: bool) -> AppendFailure {
    AppendFailure { class, message: "as told".to_owned(), row_errors: Vec::new(), maybe_durable }
}

/// A process's way to BigQuery.
#[derive(Clone)]
pub struct Client {
    pub scene: Scene,
    pub process: ProcessId,
}

impl Client {
    /// Of this process.
    pub fn new(scene: &Scene, process: ProcessId) -> Self {
        Self { scene: scene.clone(), process }
    }

    /// What is wrong with BigQuery.
    pub fn troubles(&self) -> Troubles {
        self.scene.warehouse.table.lock().troubles
    }

    /// How long one way takes.
    pub fn way(&self) -> Duration {
        let slow = self.troubles().slow > self.scene.world.now();
        self.scene.world.draw_span(Duration::from_millis(if slow { 3000 } else { 60 }))
    }
}

impl Appender for Client {
    fn append(&self, append: Append) -> BoxFuture<'static, Result<(), AppendFailure>> {
        let client = self.clone();
        async move { client.send(append).await }.boxed()
    }
}

impl Client {
    /// The way of an append to the network: room on the connection, then the gate, right before its bytes leave.
    pub async fn leave(&self, append: &Append) -> Result<(), AppendFailure> {
        let Self { scene, process } = self;
        let (world, warehouse) = (&scene.world, &scene.warehouse);
        world.pass(world.draw_span(Duration::from_millis(20))).await;
        if world.now() < FAULTS && warehouse.chance(scene.pause_share) {
            scene.freeze(*process, world.draw_span(Duration::from_secs(12)));
            world.pass(Duration::ZERO).await;
        }
        if append.gate.as_ref().is_some_and(|gate| !gate.is_open()) && scene.mutant != Mutant::NoGate {
            scene.oracle.see(|seen| seen.withheld += 1);
            return Err(failure(ErrorClass::Withheld, false));
        }
        scene.oracle.leaves(*process);
        Ok(())
    }

    async fn send(self, append: Append) -> Result<(), AppendFailure> {
        self.leave(&append).await?;
        let (oracle, process, rows) = (self.scene.oracle.clone(), self.process, append.row_count);
        oracle.on_way(process, rows);
        let outcome = self.answered(append).await;
        oracle.answered(process, rows, outcome.as_ref().is_err_and(|failure| failure.maybe_durable));
        outcome
    }

    async fn answered(self, append: Append) -> Result<(), AppendFailure> {
        let Self { scene, process } = &self;
        let (world, warehouse) = (&scene.world, &scene.warehouse);
        let troubles = self.troubles();
        let now = world.now();
        let server = warehouse.any_server();
        if troubles.dead > now {
            // Whether it lands is known when the servers are back, if it does at all; its sender hears nothing.
            if warehouse.chance(0.5) {
                let (scene, process) = (scene.clone(), *process);
                world.after(troubles.dead - now, move |_| {
                    if scene.warehouse.land(&scene, process, server, &append).is_ok() {
                        scene.oracle.see(|seen| seen.late += 1);
                    }
                });
            }
            world.pass(APPEND_TIMEOUT).await;
            return self.unanswered(failure(ErrorClass::AnswerTimeout, true));
        }
        if scene.mutant == Mutant::AckBeforeDurable && warehouse.chance(0.2) {
            let (scene, process) = (scene.clone(), *process);
            world.after(self.way() * 20, move |_| drop(scene.warehouse.land(&scene, process, server, &append)));
            return Ok(());
        }
        let flaky = troubles.flaky > now;
        if flaky && warehouse.chance(0.3) {
            world.pass(self.way()).await;
            scene.oracle.see(|seen| seen.refused += 1);
            return Err(failure(ErrorClass::Transient, false));
        }
        // The answer is known when the rows are there, and may be lost: then its sender may hear of it before they are.
        let (answer, answered) = tokio::sync::oneshot::channel();
        let (there, here) = (scene.clone(), *process);
        world.after(self.way(), move |_| drop(answer.send(there.warehouse.land(&there, here, server, &append))));
        if flaky && warehouse.chance(0.25) {
            world.pass(self.way()).await;
            scene.oracle.see(|seen| seen.lost_answers += 1);
            return self.unanswered(failure(ErrorClass::Transient, true));
        }
        let outcome = answered.await.unwrap_or_else(|_| Err(failure(ErrorClass::Transient, true)));
        world.pass(self.way()).await;
        if outcome.is_err() {
            scene.oracle.see(|seen| seen.refused += 1);
        }
        outcome
    }

    /// A lost answer, and what mutants make of it.
    pub fn unanswered(&self, failure: AppendFailure) -> Result<(), AppendFailure> {
        match self.scene.mutant {
            Mutant::LostAnswerIsSuccess => Ok(()),
            Mutant::LostAnswerIsRefusal => Err(AppendFailure { maybe_durable: false, ..failure }),
            _ => Err(failure),
        }
    }
}

#[async_trait]
impl RestTransport for Client {
    async fn send(&self, call: RestCall<'_>) -> Result<(u16, Bytes), NoAnswer> {
        let (scene, world) = (&self.scene, &self.scene.world);
        world.pass(self.way()).await;
        let troubled = self.troubles().rest > world.now();
        let away = || NoAnswer::Network("as told".to_owned());
        if troubled && scene.warehouse.chance(0.3) {
            return Err(away());
        }
        if troubled && scene.warehouse.chance(0.3) {
            let reason = if scene.warehouse.chance(0.5) { (503, "backendError") } else { (403, "rateLimitExceeded") };
            let body = json!({ "error": { "message": "as told", "errors": [{ "reason": reason.1 }] } });
            return Ok((reason.0, Bytes::from(body.to_string())));
        }
        let body: Option<Value> = call.body.as_ref().map(|body| serde_json::from_slice(body).expect("JSON"));
        let (status, answer) = scene.warehouse.rest(scene, call.method.as_str(), call.if_match, body.as_ref());
        world.pass(self.way()).await;
        if troubled && scene.warehouse.chance(0.3) {
            return Err(away()); // it was done, and nobody hears of it
        }
        Ok((status, Bytes::from(answer.to_string())))
    }
}
