//! What millrace itself counts of what users must know of: possible duplicates, rows sent again on purpose, records lost to retention,
//! records skipped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

/// The sums over all processes of a run, also of those that ended.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counted {
    /// `millrace_possible_duplicate_rows_total`.
    pub duplicates: u64,
    /// `millrace_exact_replayed_rows_total`.
    pub replayed: u64,
    /// `millrace_lost_records_total`.
    pub lost_records: u64,
    /// `millrace_skipped_records_total`.
    pub skipped: u64,
}

/// Reads them.
#[derive(Default)]
pub struct Counters {
    duplicates: Arc<AtomicU64>,
    replayed: Arc<AtomicU64>,
    lost_records: Arc<AtomicU64>,
    skipped: Arc<AtomicU64>,
}

impl Counters {
    /// As they are now.
    pub fn now(&self) -> Counted {
        Counted {
            duplicates: self.duplicates.load(Relaxed),
            replayed: self.replayed.load(Relaxed),
            lost_records: self.lost_records.load(Relaxed),
            skipped: self.skipped.load(Relaxed),
        }
    }
}

impl Recorder for Counters {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        match key.name() {
            "millrace_possible_duplicate_rows_total" => Counter::from_arc(self.duplicates.clone()),
            "millrace_exact_replayed_rows_total" => Counter::from_arc(self.replayed.clone()),
            "millrace_lost_records_total" => Counter::from_arc(self.lost_records.clone()),
            "millrace_skipped_records_total" => Counter::from_arc(self.skipped.clone()),
            _ => Counter::noop(),
        }
    }
    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}
