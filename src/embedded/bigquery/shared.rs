//! What all servers and connections of one embedded BigQuery share.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::faults::FaultControl;
use super::rest::insert_all::InsertIds;
use super::rest::jobs::Jobs;
use super::settings::Settings;
use super::state::Catalog;
use super::state::streams::Streams;
use super::visibility::Visibility;

/// What is left unanswered while a stall is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stall {
    /// Nothing: all is answered.
    #[default]
    Off,
    /// Appends: they are not read either, so that flow control reaches the client.
    Appends,
    /// Appends and every REST call.
    All,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub settings: Settings,
    pub catalog: Catalog,
    pub streams: Streams,
    pub faults: Arc<FaultControl>,
    pub visibility: Visibility,
    pub stall: watch::Sender<Stall>,
    pub jobs: Jobs,
    pub insert_ids: InsertIds,
    pub shutdown: CancellationToken,
    pub connections: AtomicU32,
    append_bucket: Mutex<Bucket>,
}

/// A token bucket of bytes that holds a second's worth.
#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Shared {
    pub(crate) fn new(settings: Settings) -> Self {
        let tokens = settings.append_bytes_per_s.unwrap_or_default() as f64;
        Self {
            catalog: Catalog::new(settings.metadata_updates_per_10_s, settings.after_delete),
            streams: Streams::new(settings.create_streams_per_hour, settings.committed_stream_ttl, settings.held_stream_ttl),
            faults: Arc::new(FaultControl::new(settings.faults.clone(), settings.seed)),
            visibility: Visibility::new(settings.visibility_delay, settings.write_servers, settings.seed),
            stall: watch::Sender::new(Stall::Off),
            jobs: Jobs::default(),
            insert_ids: InsertIds::default(),
            shutdown: CancellationToken::new(),
            connections: AtomicU32::new(0),
            append_bucket: Mutex::new(Bucket { tokens, filled: Instant::now() }),
            settings,
        }
    }

    /// Whether the quota of append bytes takes so many more.
    pub(crate) fn take_append_bytes(&self, bytes: usize) -> bool {
        let Some(rate) = self.settings.append_bytes_per_s.map(|rate| rate as f64) else { return true };
        let mut bucket = self.append_bucket.lock();
        let now = Instant::now();
        bucket.tokens = (bucket.tokens + now.duration_since(bucket.filled).as_secs_f64() * rate).min(rate);
        bucket.filled = now;
        // A request larger than a second's worth passes on a full bucket, or it could never pass.
        let takes = bucket.tokens >= (bytes as f64).min(rate);
        if takes {
            bucket.tokens -= bytes as f64;
        }
        takes
    }

    /// Waits while a stall of this kind is on.
    pub(crate) async fn wait_out_stall(&self, is_append: bool) {
        let mut stall = self.stall.subscribe();
        let is_free = |stall: &Stall| match stall {
            Stall::Off => true,
            Stall::Appends => !is_append,
            Stall::All => false,
        };
        tokio::select! {
            // The sender lives as long as `self`: an error cannot come, and would end the wait.
            _ = stall.wait_for(is_free) => {}
            () = self.shutdown.cancelled() => {}
        }
    }
}
