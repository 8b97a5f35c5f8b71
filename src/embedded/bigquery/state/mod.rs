//! What the embedded BigQuery knows: datasets, tables with their metadata's history, rows, write streams.

pub(super) mod catalog;
pub(super) mod store;
pub(super) mod streams;
pub(super) mod table;

pub use catalog::MetadataUpdates;
pub(super) use catalog::{Catalog, TableKey};
pub(super) use table::Table;
