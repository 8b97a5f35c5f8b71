//! Broker, registry and BigQuery in this process, for the demo and for tests.
//!
//! Uses external crates only, nothing of millrace, so that it stays an independent judge. A stand-in must not be kinder than
//! the real thing: it enforces the documented limits and errors and can be told to fail in each documented way.

pub mod bigquery;
pub mod broker;
mod error;
pub mod ports;
pub mod registry;

pub use error::EmbeddedError;
