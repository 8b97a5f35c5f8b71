//! Health, metrics and status over HTTP: traits in, a router out.
