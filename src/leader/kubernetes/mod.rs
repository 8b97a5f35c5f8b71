//! Leadership and size on Kubernetes: a Lease, and the scale of the worker's own StatefulSet.
//!
//! The rights that are needed, by name: `get` and `update` of the Lease, `get` and `update` of `statefulsets/scale`. Nothing is created,
//! listed, watched or deleted.

mod client;
mod lease;
mod scale;

pub use client::{KubernetesError, Place, connect};
pub use lease::KubernetesLease;
pub use scale::KubernetesScale;
