//! Rows of the Storage Write API: the writer's descriptor, the plan that binds it to a table's columns, checking and reading rows by it.

pub(super) mod bind;
pub(super) mod check;
pub(super) mod descriptor;
pub(super) mod plan;
pub(super) mod read;
pub(super) mod scalar;
pub(super) mod wire;
