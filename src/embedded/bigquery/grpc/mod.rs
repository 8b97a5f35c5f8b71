//! The Storage Write API: BigQueryWrite over tonic's server primitives.

pub(super) mod append;
pub(super) mod codec;
pub(super) mod connection;
pub(super) mod names;
pub(super) mod service;
pub(super) mod status;
pub(super) mod streams;
pub(super) mod target;
