//! The pool: which connection an append takes, and when there are more of them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;

use super::answer::Outcome;
use super::connection::Connection;
use crate::bigquery::auth::TokenSource;
use crate::bigquery::changes::Changes;
use crate::bigquery::{Append, AppendFailure, Appender, ErrorClass};
use crate::config::BigQueryConfig;
use crate::table::TableName;

/// BigQuery ends an RPC without a request for 600 s; ours end before.
const IDLE_TIMEOUT: Duration = Duration::from_secs(540);
/// A connection with more than this share of its bytes in flight is busy: the next append looks for another one.
const BUSY_SHARE: usize = 2;

/// A table takes a fresh connection at most this often. While write servers lag, every append of a table is refused again and again: a
/// connection for each would use up the quota of connections and push those of other tables out of the pool.
const FRESH_EVERY: Duration = Duration::from_secs(1);

/// What `[bigquery]` says of append connections.
#[derive(Debug, Clone)]
pub(crate) struct PoolSettings {
    /// The most connections (each location that tables live in may have one beyond).
    pub(crate) connections_max: usize,
    /// The most bytes in flight on one.
    pub(crate) in_flight_bytes: usize,
    /// How long an append may stay unanswered.
    pub(crate) append_timeout: Duration,
    /// When an unused connection is closed.
    pub(crate) idle_timeout: Duration,
    /// The location of all tables, where it is configured.
    pub(crate) location: Option<Arc<str>>,
}

impl PoolSettings {
    pub(crate) fn from_config(config: &BigQueryConfig) -> Self {
        Self {
            connections_max: config.connections_max.max(1) as usize,
            // tokio's semaphore counts what one append takes in 32 bits.
            in_flight_bytes: usize::try_from(config.connection_in_flight.bytes()).unwrap_or(usize::MAX).clamp(1, u32::MAX as usize),
            append_timeout: config.append_timeout.get(),
            idle_timeout: IDLE_TIMEOUT,
            location: config.location.as_deref().map(|location| Arc::from(location.to_lowercase())),
        }
    }

    /// How often a connection looks at the clock.
    pub(super) fn tick(&self) -> Duration {
        (self.append_timeout.min(self.idle_timeout) / 8).clamp(Duration::from_millis(10), Duration::from_secs(1))
    }
}

/// What connections share.
pub(super) struct Shared {
    pub(super) endpoint: tonic::transport::Endpoint,
    pub(super) tokens: Arc<TokenSource>,
    pub(super) changes: Arc<Changes>,
    pub(super) settings: PoolSettings,
    stale: Mutex<HashMap<TableName, Stale>>,
    next_id: AtomicU64,
}

/// Which connections a table avoids.
struct Stale {
    /// This one and all older ones.
    connection: u64,
    since: Instant,
}

impl Shared {
    /// This connection, and every older one, knows the table wrongly: the table's next append takes a younger one, unless the table got one
    /// within [`FRESH_EVERY`]; then a later refusal counts.
    pub(super) fn mark_stale(&self, table: &TableName, connection: u64) {
        let mut stale = self.stale.lock();
        match stale.get_mut(table) {
            Some(known) if connection <= known.connection || known.since.elapsed() < FRESH_EVERY => {}
            Some(known) => *known = Stale { connection, since: Instant::now() },
            None => {
                stale.insert(table.clone(), Stale { connection, since: Instant::now() });
            }
        }
    }

    /// A number for a connection: a larger one is younger.
    pub(super) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// The share of a connection's room that an append takes; one larger than all the room takes all of it.
    pub(super) fn permits(&self, append: &Append) -> u32 {
        let size = append.rows.len() + append.layout.descriptor.len();
        u32::try_from(size.clamp(1, self.settings.in_flight_bytes)).unwrap_or(u32::MAX)
    }

    fn youngest_stale(&self, table: &TableName) -> u64 {
        self.stale.lock().get(table).map_or(0, |stale| stale.connection)
    }
}

/// Connections that tables share: see [`Appender`]. A handle, cheap to clone.
#[derive(Clone)]
pub(crate) struct Pool(Arc<Connections>);

struct Connections {
    shared: Arc<Shared>,
    open: Mutex<Vec<Arc<Connection>>>,
}

impl Pool {
    /// A pool without connections: they open when appends come.
    pub(crate) fn new(
        endpoint: tonic::transport::Endpoint,
        tokens: Arc<TokenSource>,
        changes: Arc<Changes>,
        settings: PoolSettings,
    ) -> Self {
        let shared = Arc::new(Shared { endpoint, tokens, changes, settings, stale: Mutex::default(), next_id: AtomicU64::new(1) });
        Self(Arc::new(Connections { shared, open: Mutex::default() }))
    }

    /// What connections share, for those of created streams.
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }
}

impl Appender for Pool {
    fn append(&self, append: Append) -> BoxFuture<'static, Outcome> {
        let connections = self.0.clone();
        async move { connections.append(append).await }.boxed()
    }
}

impl Connections {
    async fn append(&self, append: Append) -> Outcome {
        let permits = self.shared.permits(&append);
        loop {
            let connection = self.pick(&append);
            // Closed while we waited: nothing was sent, take another one.
            let Some(room) = connection.room(permits).await else { continue };
            if append.gate.as_ref().is_some_and(|gate| !gate.is_open()) {
                return Err(super::answer::withheld());
            }
            let Some(outcome) = connection.push(&append, None, room) else { continue };
            return outcome.await.unwrap_or_else(|_| {
                Err(AppendFailure {
                    class: ErrorClass::Transient,
                    message: "the connection's task is gone".to_owned(),
                    row_errors: Vec::new(),
                    maybe_durable: true,
                })
            });
        }
    }

    /// The connection for the next append of this table: the one that knows its schema, unless it is busy; else the idlest; else, below
    /// the limit, a new one.
    fn pick(&self, append: &Append) -> Arc<Connection> {
        let table = &*append.table;
        let settings = &self.shared.settings;
        let location = settings.location.clone().or_else(|| self.shared.changes.location(table));
        let stale = self.shared.youngest_stale(table);
        let busy = settings.in_flight_bytes / BUSY_SHARE;

        let mut open = self.open.lock();
        open.retain(|c| c.is_open());
        let best = open.iter().filter(|c| c.location == location && c.id > stale && c.suits(append)).min_by_key(|c| {
            let load = c.load_bytes();
            (load > busy, !c.last_was(table), load)
        });
        if let Some(best) = best
            && (best.load_bytes() <= busy || open.len() >= settings.connections_max)
        {
            return best.clone();
        }
        // None fits and there are enough: one makes room, gently; the oldest, which knows tables the worst.
        if open.len() >= settings.connections_max
            && let Some(oldest) = open.iter().min_by_key(|c| c.id)
        {
            oldest.drain();
        }
        let connection = Connection::open(self.shared.next_id(), location, table, self.shared.clone());
        open.push(connection.clone());
        connection
    }
}
