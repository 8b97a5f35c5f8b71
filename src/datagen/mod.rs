//! Stock updates with a journal of what was produced: for the demo, for tests against real servers, for trying things by hand.
//!
//! Belongs here: making records (good ones and bad ones, the same for the same seed), producing them at a rate that may change while it
//! runs, remembering what was acknowledged. Does not belong here: judging what became of them (`cli/demo`).

mod bad_record;
mod control;
mod generator;
mod journal;
mod rate;
mod record_maker;
mod shape;
mod stock_update;

pub use bad_record::BadKind;
pub use control::serve_rate;
pub use generator::{Generator, GeneratorError, GeneratorSettings};
pub use journal::{Entry, Journal};
pub use rate::{Brake, Rate};
pub use record_maker::{Framing, MadeRecord, RecordMaker};
pub use shape::LoadShape;
pub use stock_update::{STOCK_UPDATE_NAME, STOCK_UPDATE_SCHEMA, StockUpdate};
