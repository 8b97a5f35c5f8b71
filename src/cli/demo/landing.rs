//! Reads back what landed in BigQuery, row by row, while the demo runs: for the reconciliation and for the freshness.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use parking_lot::Mutex;

use super::flows::{DATASET, FLOWS, Flow, PROJECT};
use super::freshness::Freshness;
use super::reconcile::LandedRow;
use crate::datagen::StockUpdate;
use crate::embedded::bigquery::{Books, Cell, EmbeddedBigQuery};

/// What is read of each row: metadata first, then the fields of [`StockUpdate`] in the schema's order.
const COLUMNS: [&str; 15] = [
    "kafka_topic",
    "kafka_partition",
    "kafka_offset",
    "kafka_timestamp",
    "timestamp",
    "process_reference",
    "variant_id",
    "warehouse_id",
    "warehouse_name",
    "huubclient_id",
    "ean",
    "reference",
    "sales_channel_type",
    "delta",
    "stock_after_adjust",
];

/// Follows both tables on a thread of its own.
pub(super) struct Landing {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    stop: AtomicBool,
    books: Books,
    found: Mutex<Found>,
}

#[derive(Default)]
struct Found {
    rows: Vec<Vec<LandedRow>>,
    /// Rows read of each table, unreadable ones too.
    read: Vec<u64>,
    freshness: Freshness,
    unreadable: u64,
    first_unreadable: Option<String>,
}

impl Landing {
    pub(super) fn start(bigquery: &EmbeddedBigQuery) -> Result<Self> {
        let found = Found { rows: vec![Vec::new(); FLOWS.len()], read: vec![0; FLOWS.len()], ..Found::default() };
        let shared = Arc::new(Shared { stop: AtomicBool::new(false), books: bigquery.books(), found: Mutex::new(found) });
        let thread = std::thread::Builder::new()
            .name("landing".to_owned())
            .spawn({
                let shared = shared.clone();
                move || {
                    while !shared.stop.load(Ordering::Relaxed) {
                        shared.follow();
                        std::thread::sleep(Duration::from_millis(500));
                    }
                }
            })
            .context("landing thread")?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Rows that both tables hold now.
    pub(super) fn rows(&self) -> u64 {
        FLOWS.iter().filter_map(|f| self.shared.books.rows(PROJECT, DATASET, f.table)).sum()
    }

    /// p50 and p99 of the time from a record's Kafka timestamp to its row being stored, milliseconds.
    pub(super) fn freshness(&self) -> (Option<u64>, Option<u64>) {
        let found = self.shared.found.lock();
        (found.freshness.percentile(0.5), found.freshness.percentile(0.99))
    }

    /// Reads what is left; gives the rows by flow.
    pub(super) fn finish(&mut self) -> Vec<Vec<LandedRow>> {
        self.join();
        self.shared.follow();
        std::mem::take(&mut self.shared.found.lock().rows)
    }

    /// Rows whose columns are not of the types that they should have, in words.
    pub(super) fn unreadable(&self) -> Option<String> {
        let found = self.shared.found.lock();
        found.first_unreadable.as_ref().map(|first| format!("{} rows cannot be read; the first: {first}", found.unreadable))
    }

    fn join(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It panicked or it ended; either way it is over, and `finish` reads on.
            let _ = thread.join();
        }
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.join();
    }
}

impl Shared {
    fn follow(&self) {
        for (number, flow) in FLOWS.iter().enumerate() {
            let from = self.found.lock().read[number];
            let mut new = Found::default();
            let mut rows = Vec::new();
            let mut read = from;
            // A table that is not there yet has no rows.
            let _ = self.books.read_landed((PROJECT, DATASET, flow.table), &COLUMNS, from, |cells, landed_ms| {
                read += 1;
                match landed(flow, cells, landed_ms) {
                    Some((row, kafka_ms)) => {
                        new.freshness.add(landed_ms - kafka_ms);
                        rows.push(row);
                    }
                    None => {
                        new.unreadable += 1;
                        new.first_unreadable.get_or_insert_with(|| format!("{}: {cells:?}", flow.table));
                    }
                }
            });
            let mut found = self.found.lock();
            found.read[number] = read;
            found.rows[number].append(&mut rows);
            found.freshness.merge(&new.freshness);
            found.unreadable += new.unreadable;
            if found.first_unreadable.is_none() {
                found.first_unreadable = new.first_unreadable;
            }
        }
    }
}

/// A row and its record's Kafka timestamp; `None` when a column is not what the connector's file says.
fn landed(flow: &Flow, cells: &[Cell], landed_ms: i64) -> Option<(LandedRow, i64)> {
    let [Cell::Text(topic), partition, Cell::Int(offset), Cell::Timestamp(kafka_us), fields @ ..] = cells else { return None };
    if topic != flow.topic {
        return None;
    }
    let hash63 = update(fields)?.content_hash() & (u64::MAX >> 1);
    Some((LandedRow { partition: int(partition)?, offset: *offset, hash63, landed_ms }, kafka_us / 1000))
}

fn update(fields: &[Cell]) -> Option<StockUpdate> {
    let [Cell::Timestamp(at_us), process, variant, warehouse, name, client, ean, reference, channel, delta, stock] = fields else {
        return None;
    };
    (at_us % 1000 == 0).then_some(())?;
    Some(StockUpdate {
        timestamp: at_us / 1000,
        process_reference: match process {
            Cell::Null => None,
            other => Some(text(other)?),
        },
        variant_id: int(variant)?,
        warehouse_id: int(warehouse)?,
        warehouse_name: text(name)?,
        huubclient_id: int(client)?,
        ean: text(ean)?,
        reference: text(reference)?,
        sales_channel_type: text(channel)?,
        delta: int(delta)?,
        stock_after_adjust: int(stock)?,
    })
}

fn int(cell: &Cell) -> Option<i32> {
    match cell {
        Cell::Int(n) => i32::try_from(*n).ok(),
        _ => None,
    }
}

fn text(cell: &Cell) -> Option<String> {
    match cell {
        Cell::Text(text) => Some(text.clone()),
        _ => None,
    }
}
