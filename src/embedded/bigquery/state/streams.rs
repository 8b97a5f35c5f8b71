//! Write streams that callers create: COMMITTED, BUFFERED, PENDING.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio_util::sync::CancellationToken;

use super::Table;
use super::table::now_ms;
use crate::embedded::bigquery::rows::plan::MessagePlan;
use crate::embedded::bigquery::rows::wire::RowsReader;
use crate::embedded::bigquery::values::Cell;

/// When a stream's rows show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamKind {
    Committed,
    Buffered,
    Pending,
}

/// A created stream.
#[derive(Debug)]
pub(crate) struct WriteStream {
    pub name: String,
    pub table: Arc<Table>,
    pub kind: StreamKind,
    pub created_ms: i64,
    created: Instant,
    /// Unused for this long, it is forgotten.
    ttl: Duration,
    pub state: Mutex<StreamState>,
}

/// What a stream has taken.
#[derive(Debug, Default)]
pub(crate) struct StreamState {
    /// Rows appended so far: the next offset.
    pub rows: u64,
    pub finalized: bool,
    pub committed_ms: Option<i64>,
    /// Rows that show (BUFFERED).
    pub flushed: u64,
    held: VecDeque<Held>,
    /// The connection that has it now; cancelled when another takes it.
    pub owner: Option<CancellationToken>,
    /// When rows were appended, flushed or finalized last.
    used: Option<Instant>,
    forgotten: bool,
}

/// Rows that do not show yet.
#[derive(Debug)]
struct Held {
    plan: Arc<MessagePlan>,
    fill: Arc<[(usize, Cell)]>,
    proto_rows: Bytes,
    rows: u64,
}

impl WriteStream {
    /// Whether BigQuery still knows it. One that is asked for in time lives on for as long again.
    pub(crate) fn lives(&self, state: &mut StreamState) -> bool {
        let now = Instant::now();
        if state.forgotten || now.duration_since(state.used.unwrap_or(self.created)) >= self.ttl {
            state.forgotten = true;
            return false;
        }
        state.used = Some(now);
        true
    }

    /// Adds rows at the end; shown at once by a COMMITTED stream. The caller has checked offset and state.
    pub(crate) fn append(
        &self,
        state: &mut StreamState,
        plan: &Arc<MessagePlan>,
        fill: &Arc<[(usize, Cell)]>,
        proto_rows: &Bytes,
        rows: u64,
    ) {
        state.rows += rows;
        if self.kind == StreamKind::Committed {
            self.table.store.lock().push_proto(plan, fill, proto_rows, rows);
        } else {
            // A copy, so that the request's whole buffer is not kept.
            let proto_rows = Bytes::copy_from_slice(proto_rows);
            state.held.push_back(Held { plan: Arc::clone(plan), fill: Arc::clone(fill), proto_rows, rows });
        }
    }

    /// Shows the rows below `end`.
    pub(crate) fn show(&self, state: &mut StreamState, end: u64) {
        let mut store = self.table.store.lock();
        while state.flushed < end {
            let Some(mut held) = state.held.pop_front() else { break };
            let wanted = end - state.flushed;
            if held.rows <= wanted {
                store.push_proto(&held.plan, &held.fill, &held.proto_rows, held.rows);
                state.flushed += held.rows;
                continue;
            }
            // The end lies inside: rows are re-framed one by one.
            let mut head = Vec::new();
            let mut tail = Vec::new();
            for (index, row) in RowsReader::new(&held.proto_rows).flatten().enumerate() {
                let part = if (index as u64) < wanted { &mut head } else { &mut tail };
                part.push(0x0A);
                prost::encoding::encode_varint(row.len() as u64, part);
                part.extend_from_slice(row);
            }
            store.push_proto(&held.plan, &held.fill, &head, wanted);
            state.flushed = end;
            held.rows -= wanted;
            held.proto_rows = tail.into();
            state.held.push_front(held);
        }
    }
}

/// All created streams, the rate of their creation, and how long unused ones are kept.
#[derive(Debug)]
pub(crate) struct Streams {
    committed_ttl: Duration,
    held_ttl: Duration,
    by_name: RwLock<HashMap<String, Arc<WriteStream>>>,
    created: Mutex<VecDeque<Instant>>,
    per_hour: u32,
}

impl Streams {
    pub(crate) fn new(per_hour: u32, committed_ttl: Duration, held_ttl: Duration) -> Self {
        Self { committed_ttl, held_ttl, by_name: RwLock::default(), created: Mutex::default(), per_hour }
    }

    /// A new stream of a table; `None` when the hour's quota is used up.
    pub(crate) fn create(&self, table: Arc<Table>, kind: StreamKind) -> Option<Arc<WriteStream>> {
        let now = Instant::now();
        {
            let mut created = self.created.lock();
            while created.front().is_some_and(|at| now.duration_since(*at) >= Duration::from_secs(3600)) {
                created.pop_front();
            }
            if created.len() >= self.per_hour as usize {
                return None;
            }
            created.push_back(now);
        }
        let key = &table.key;
        let id = uuid::Uuid::new_v4().simple();
        let name = format!("projects/{}/datasets/{}/tables/{}/streams/{id}", key.project, key.dataset, key.table);
        let ttl = if kind == StreamKind::Committed { self.committed_ttl } else { self.held_ttl };
        let stream = WriteStream { name: name.clone(), table, kind, created_ms: now_ms(), created: now, ttl, state: Mutex::default() };
        let stream = Arc::new(stream);
        self.by_name.write().insert(name, Arc::clone(&stream));
        Some(stream)
    }

    /// A stream that is still known; asking for it counts as using it.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<WriteStream>> {
        let stream = self.by_name.read().get(name).cloned()?;
        if stream.lives(&mut stream.state.lock()) {
            return Some(stream);
        }
        self.by_name.write().remove(name);
        None
    }

    /// Forgets a stream as after days without use: its rows that show stay, the others are gone. False when there is none of this name.
    pub(crate) fn forget(&self, name: &str) -> bool {
        let Some(stream) = self.by_name.write().remove(name) else { return false };
        stream.state.lock().forgotten = true;
        true
    }
}
