//! A worker's life: start, watch, reload, drain, stop.
