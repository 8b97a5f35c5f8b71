//! Where schemas come from: a registry, or a folder whose files a header names.
//!
//! Belongs here: fetching, caching, retries, limits on a schema's size and depth before it is parsed.
//! Does not belong here: what a schema means for a table (`decode/`), what a partition does meanwhile (`pipeline/`).

mod cache;
mod folder;
mod folder_index;
mod form;
mod lifter;
mod limits;
mod names;
mod parse;
mod registry;
mod registry_client;
mod source;

pub use folder::FolderSource;
pub use parse::{SchemaText, parse};
pub use registry::{NewestVersion, RegistrySource};
pub use registry_client::RegistrySetupError;
pub use source::{SchemaError, SchemaSource};
