//! The fleet on a real Kubernetes control plane: what the API server accepts and refuses, and how the fleet resizes itself there.

pub mod autoscaler;
pub mod disturbances;
pub mod fleet;
pub mod in_cluster;
pub mod joins;
pub mod lease;
pub mod manifests;
pub mod objects;
pub mod observed;
