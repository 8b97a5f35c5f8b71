//! What the embedded BigQuery can be told at its start.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::faults::Faults;

/// Settings; the defaults are the documented limits, the harsher where two are documented.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Port of the REST API on 127.0.0.1; 0 takes a free one.
    pub rest_port: u16,
    /// Port of the Storage Write API (gRPC, plain text) on 127.0.0.1; 0 takes a free one.
    pub grpc_port: u16,
    /// Seed of faults and jitter.
    pub seed: u64,
    /// How long a new table or column takes until the last write server knows it; each connection learns of it after 10 to 100 % of this.
    pub visibility_delay: Duration,
    /// Number of write servers with a clock of their own; a connection belongs to one.
    pub write_servers: u32,
    /// What rows for a table that was deleted, or deleted and made again, get until the write servers know.
    pub after_delete: AfterDelete,
    /// An append connection without a request for this long is closed with ABORTED.
    pub idle_close: Duration,
    /// Each append's answer comes this much later; requests behind it are taken meanwhile.
    pub append_latency: Duration,
    /// Bytes a second that one append connection carries; more wait (flow control), `None` for no limit.
    pub connection_bytes_per_s: Option<u64>,
    /// Bytes a second of all appends; more get RESOURCE_EXHAUSTED, `None` for no limit.
    pub append_bytes_per_s: Option<u64>,
    /// Open append connections; more get RESOURCE_EXHAUSTED (quotas: 1,000 in older documents).
    pub max_connections: u32,
    /// CreateWriteStream calls an hour (quotas: 10,000).
    pub create_streams_per_hour: u32,
    /// A COMMITTED stream that nobody appends to, asks for or finalizes for this long is forgotten: STREAM_NOT_FOUND (documented: 3 days).
    pub committed_stream_ttl: Duration,
    /// The same for BUFFERED and PENDING streams (documented for BUFFERED: 7 days); their rows that do not show are gone.
    pub held_stream_ttl: Duration,
    /// Metadata updates of one table per 10 s, counted by name (quotas: 5).
    pub metadata_updates_per_10_s: u32,
    /// Ask for the header `x-goog-request-params` and refuse RPCs without it, as outside the US multi-region.
    pub require_routing_header: bool,
    /// Location of every dataset.
    pub location: String,
    /// Faults.
    pub faults: Faults,
}

/// What a writer gets whose server does not know yet that the table was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AfterDelete {
    /// Rows are acknowledged and lost.
    Swallow,
    /// NOT_FOUND.
    NotFound,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            rest_port: 0,
            grpc_port: 0,
            seed: 0,
            visibility_delay: Duration::ZERO,
            write_servers: 4,
            after_delete: AfterDelete::NotFound,
            idle_close: Duration::from_secs(600),
            append_latency: Duration::ZERO,
            connection_bytes_per_s: None,
            append_bytes_per_s: None,
            max_connections: 1000,
            create_streams_per_hour: 10_000,
            committed_stream_ttl: Duration::from_secs(3 * 86_400),
            held_stream_ttl: Duration::from_secs(7 * 86_400),
            metadata_updates_per_10_s: 5,
            require_routing_header: false,
            location: "US".to_owned(),
            faults: Faults::none(),
        }
    }
}
