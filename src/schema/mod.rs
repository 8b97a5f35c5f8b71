//! Where schemas come from: a registry, or a folder whose files a header names.
//!
//! Belongs here: fetching, caching, retries, limits on a schema's size and depth before it is parsed.
//! Does not belong here: what a schema means for a table (`decode/`), what a partition does meanwhile (`pipeline/`).

mod source;

pub use source::{SchemaError, SchemaSource};
