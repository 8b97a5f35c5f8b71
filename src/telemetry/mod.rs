//! Logs and metrics.
//!
//! Belongs here: how lines are written, every metric's name, the handles that count. Does not belong here: when something is
//! counted (each room does that), who serves the page (`http/`).

pub mod catalog;
pub mod cpu;
pub mod exact;
pub mod leader_page;
pub mod levels;
pub mod logs;
pub mod metrics;
pub mod outcomes;
pub mod panics;
pub mod reload;
pub mod standing;
pub mod wishes;
