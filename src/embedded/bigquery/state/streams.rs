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

/// All created streams, and the rate of their creation.
#[derive(Debug)]
pub(crate) struct Streams {
    by_name: RwLock<HashMap<String, Arc<WriteStream>>>,
    created: Mutex<VecDeque<Instant>>,
    per_hour: u32,
}

impl Streams {
    pub(crate) fn new(per_hour: u32) -> Self {
        Self { by_name: RwLock::default(), created: Mutex::default(), per_hour }
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
        let stream = Arc::new(WriteStream { name: name.clone(), table, kind, created_ms: now_ms(), state: Mutex::default() });
        self.by_name.write().insert(name, Arc::clone(&stream));
        Some(stream)
    }

    pub(crate) fn get(&self, name: &str) -> Option<Arc<WriteStream>> {
        self.by_name.read().get(name).cloned()
    }
}
