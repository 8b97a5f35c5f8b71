//! Rows over the Storage Write API: a pool of long-lived, pipelined connections that tables share.
//!
//! Our own client below tonic's codec: rows arrive in wire form and leave as they are, in HTTP/2 frames behind a small head ([`request`]),
//! so that a row is never copied again.

mod answer;
mod connection;
mod created;
mod outbox;
mod pool;
mod request;

pub(crate) use created::CreatedStreams;
pub(crate) use pool::{Pool, PoolSettings};
