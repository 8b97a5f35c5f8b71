//! The embedded BigQuery: REST API v2 and Storage Write API on loopback, with BigQuery's rules, limits, lags and errors.
//!
//! | room | what is in it |
//! |---|---|
//! | `server` | start and stop, the two listeners |
//! | [`Settings`], `limits` | what can be set, what cannot |
//! | `rest`, `error` | the REST API, errors in its body form |
//! | `grpc` | AppendRows and the unary methods |
//! | `schema` | columns, names, tables; what a patch may change |
//! | `rows` | descriptors, plans, checking and reading rows |
//! | `values` | types' ranges and text forms |
//! | `state` | datasets, tables, rows, write streams |
//! | `query` | `SELECT` |
//! | `visibility` | read and write metadata clocks |
//! | `faults`, `fault_class` | errors on demand |
//! | `books` | what landed, for reconciliation |
//!
//! Where the documents leave a rule open, the harsher reading is taken.

mod books;
mod error;
mod fault_class;
mod faults;
mod grpc;
mod limits;
mod query;
mod rest;
mod rows;
mod schema;
mod server;
mod settings;
mod shared;
mod state;
mod values;
mod visibility;

pub use books::{Books, TableBook};
pub use fault_class::FaultClass;
pub use faults::{FaultControl, Faults};
pub use server::EmbeddedBigQuery;
pub use settings::{AfterDelete, Settings};
pub use shared::Stall;
pub use state::MetadataUpdates;
pub use values::cell::Cell;
