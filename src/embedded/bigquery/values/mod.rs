//! Values of BigQuery's types: ranges, text forms, and the forms in which they travel.

pub(super) mod cell;
pub(super) mod civil;
pub(super) mod decimal;
pub(super) mod json_text;

pub(super) use cell::{Cell, CellRef};
