//! BigQuery's tables and servers, played: one table with versions of its schema, deleted and made again at times; write servers that learn
//! of either late and unevenly. Tables are played below production's REST client.

use std::time::Duration;

use millrace::bigquery::{Append, AppendFailure, ErrorClass, RowError};
use millrace::decode::split_rows;
use millrace::table::Layout;
use parking_lot::Mutex;
use rand::Rng;
use serde_json::{Value, json};

use super::bigquery::{Troubles, failure};
use super::log::Fate;
use super::oracle::Row;
use super::scene::{ProcessId, Scene};
use super::streams::Streams;
use crate::world::World;

/// Servers that take appends.
const SERVERS: usize = 3;
/// How long write servers may lag behind the table's metadata.
const LAG_MAX: Duration = Duration::from_secs(6);
/// The world's beginning, milliseconds since the epoch.
const EPOCH_MS: u128 = 1_790_000_000_000;

struct Version {
    fields: Value,
    /// When each server knows it.
    known_at: [Duration; SERVERS],
}

/// A table from its creation to its end. Another one of the same name is another table.
struct Table {
    created_ms: u128,
    versions: Vec<Version>,
    /// When each server knows that it is gone; `None`: it is not.
    gone_at: Option<[Duration; SERVERS]>,
}

#[derive(Default)]
struct State {
    /// All that ever were, the present one last.
    tables: Vec<Table>,
    /// The most rows that an append may have.
    rows_max: u32,
    troubles: Troubles,
}

impl State {
    /// The table as it is now, if there is one.
    fn table(&mut self) -> Option<&mut Table> {
        self.tables.last_mut().filter(|table| table.gone_at.is_none())
    }

    fn resource(&mut self) -> Option<Value> {
        let table = self.table()?;
        let fields = table.versions.last()?.fields.clone();
        let etag = format!("{}-{}", table.created_ms, table.versions.len());
        Some(json!({ "etag": etag, "creationTime": table.created_ms.to_string(), "schema": { "fields": fields } }))
    }
}

/// The table and its troubles.
pub struct Warehouse {
    world: World,
    state: Mutex<State>,
    /// Streams of their own.
    pub streams: Streams,
}

impl Warehouse {
    /// No table yet.
    pub fn new(world: &World) -> Self {
        let rows_max = world.draw(|random| random.random_range(4..40));
        Self { world: world.clone(), state: Mutex::new(State { rows_max, ..State::default() }), streams: Streams::default() }
    }

    /// Adds to its troubles.
    pub fn trouble(&self, add: impl FnOnce(&mut Troubles)) {
        add(&mut self.state.lock().troubles);
    }

    /// What is wrong.
    pub fn troubles(&self) -> Troubles {
        self.state.lock().troubles
    }

    /// The user deletes the table, and with it its streams; rows that were in it have served their purpose. Servers learn of it late.
    pub fn delete(&self, scene: &Scene) {
        let gone_at = self.known_at();
        let mut state = self.state.lock();
        if let Some(table) = state.table() {
            table.gone_at = Some(gone_at);
            self.streams.all_gone();
            scene.oracle.see(|seen| seen.deleted += 1);
        }
    }

    /// The user makes the table again, with the columns that every row has.
    pub fn make_again(&self) {
        let names = ["kafka_partition", "kafka_offset", "n"];
        let fields: Vec<Value> = names.iter().map(|name| json!({ "name": name, "type": "INTEGER" })).collect();
        let mut state = self.state.lock();
        if state.table().is_none() {
            self.create(&mut state, Value::Array(fields));
        }
    }

    /// Whether there is a table.
    pub fn has_table(&self) -> bool {
        self.state.lock().table().is_some()
    }

    /// Whether something of this probability happens.
    pub fn chance(&self, share: f64) -> bool {
        self.world.draw(|random| random.random_bool(share))
    }

    /// When each server knows of what happens now.
    fn known_at(&self) -> [Duration; SERVERS] {
        let now = self.world.now();
        std::array::from_fn(|_| if self.chance(0.4) { now } else { now + self.world.draw_span(LAG_MAX) })
    }

    fn create(&self, state: &mut State, fields: Value) {
        // Never the same moment as another one.
        let created_ms = (EPOCH_MS + self.world.now().as_millis()).max(state.tables.last().map_or(0, |last| last.created_ms + 1));
        let versions = vec![Version { fields, known_at: self.known_at() }];
        state.tables.push(Table { created_ms, versions, gone_at: None });
    }

    /// What a REST call does: status and body.
    pub fn rest(&self, scene: &Scene, method: &str, if_match: Option<&str>, body: Option<&Value>) -> (u16, Value) {
        let refuse = |code: u16, reason: &str| (code, json!({ "error": { "message": "as told", "errors": [{ "reason": reason }] } }));
        let mut state = self.state.lock();
        let fields = body.and_then(|body| body.pointer("/schema/fields")).cloned().unwrap_or_else(|| json!([]));
        match (method, state.resource()) {
            ("GET", Some(resource)) => (200, resource),
            ("POST", Some(_)) => refuse(409, "duplicate"),
            ("POST", None) => {
                scene.oracle.see(|seen| seen.columns += 1);
                self.create(&mut state, fields);
                (200, state.resource().unwrap_or_default())
            }
            ("PATCH", Some(resource)) => {
                // Without a version to compare it is done, as the service does it.
                if if_match.is_some() && resource["etag"].as_str() != if_match {
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
                let known_at = self.known_at();
                if let Some(table) = state.table() {
                    table.versions.push(Version { fields, known_at });
                }
                (200, state.resource().unwrap_or_default())
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
        let refuse = |class| Err(failure(class, false));
        let state = self.state.lock();
        let now = self.world.now();
        if state.troubles.forbidden > now {
            return refuse(ErrorClass::PermissionDenied);
        }
        let version = |table: &'_ Table| table.versions.iter().rposition(|version| version.known_at[server] <= now);
        let known = state.tables.iter().rev().find_map(|table| Some((table, &table.versions[version(table)?])));
        let Some((table, version)) = known else { return refuse(ErrorClass::TableNotFound) };
        if table.gone_at.is_some_and(|gone_at| gone_at[server] <= now) {
            let made_again = state.tables.last().is_some_and(|last| last.gone_at.is_none());
            return refuse(if made_again && self.chance(0.5) { ErrorClass::TableRecreated } else { ErrorClass::TableNotFound });
        }
        let swallows = table.gone_at.is_some();
        let has = |name: &str| version.fields.as_array().into_iter().flatten().any(|field| field["name"] == name);
        if !append.layout.columns.iter().all(|column| has(&column.name)) {
            return refuse(ErrorClass::SchemaMismatchExtraFields);
        }
        if append.row_count > state.rows_max {
            return refuse(ErrorClass::RequestTooLarge);
        }
        drop(state);
        let rows: Vec<Row> = split_rows(&append.rows).map(|range| decode(&append.layout, &append.rows[range])).collect();
        if rows.len() != append.row_count as usize {
            scene.oracle.complain(format!("an append of {} rows says that they are {}", rows.len(), append.row_count));
        }
        if rows.iter().any(|row| matches!(fate_of(scene, row), Some(Fate::Poison(_)))) {
            scene.oracle.see(|seen| seen.poison += u64::from(rows.len() == 1));
            return refuse(if append.row_count.is_multiple_of(2) { ErrorClass::RowErrorsUnnamed } else { ErrorClass::RequestTooLarge });
        }
        let is_rejected = |row: &Row| matches!(fate_of(scene, row), Some(Fate::Rejected(_)));
        let rejected = rows.iter().enumerate().filter(|(_, row)| is_rejected(row));
        let row_errors: Vec<RowError> =
            rejected.map(|(index, _)| RowError { index: index as u32, message: "no".to_owned() }).take(2).collect();
        if !row_errors.is_empty() {
            return Err(AppendFailure { row_errors, ..failure(ErrorClass::RowErrors, false) });
        }
        self.world.note(|| {
            let places: Vec<_> = rows.iter().map(|row| (row.get("kafka_partition"), row.get("kafka_offset"))).collect();
            format!("bigquery: {} rows of process {process} land: {places:?}", rows.len())
        });
        scene.oracle.see(|seen| {
            seen.landed += 1;
            seen.swallowed += if swallows { rows.len() as u64 } else { 0 };
        });
        rows.into_iter().for_each(|row| scene.oracle.landed(process, row));
        Ok(())
    }
}

fn fate_of(scene: &Scene, row: &Row) -> Option<Fate> {
    let place = |name| row.get(name).copied();
    scene.log.fate(place("kafka_partition")? as i32, place("kafka_offset")?)
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
