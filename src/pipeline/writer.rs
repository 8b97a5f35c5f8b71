//! The writer of one (connector, table): takes append jobs, keeps some in flight, looks after a table that holds.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;

use super::batch::AppendJob;
use super::delivery::{DeliveryContext, deliver};
use super::events::ShardEvent;
use super::worker::TableEntry;

/// Appends of one (connector, table) in flight at a time. The connection's own limit of bytes comes first; this bounds many small ones.
const IN_FLIGHT_MAX: usize = 64;
/// Closed batches that wait for a place in flight; a full queue stops the shards from taking more of this table's partitions.
const QUEUE_MAX: usize = 8;

/// The shards' end of a writer. The writer ends when all of these are dropped and its appends have ended.
#[derive(Clone)]
pub struct WriterHandle {
    /// Closed batches go here.
    pub jobs: mpsc::Sender<AppendJob>,
}

/// Starts the writer's task.
pub fn start(context: Arc<DeliveryContext>, table: Arc<TableEntry>, runtime: &tokio::runtime::Handle) -> WriterHandle {
    let (jobs, receiver) = mpsc::channel(QUEUE_MAX);
    runtime.spawn(run(context, table, receiver));
    WriterHandle { jobs }
}

async fn run(context: Arc<DeliveryContext>, table: Arc<TableEntry>, mut jobs: mpsc::Receiver<AppendJob>) {
    let mut in_flight = FuturesUnordered::new();
    let mut open = true;
    // Kept over the turns of the loop: an event must not throw away a look that is on its way.
    let mut watch = Box::pin(look_again(&context, &table));
    while open || !in_flight.is_empty() {
        tokio::select! {
            job = jobs.recv(), if open && in_flight.len() < IN_FLIGHT_MAX => match job {
                Some(job) => in_flight.push(Box::pin(one(context.clone(), job))),
                None => open = false,
            },
            Some(()) = in_flight.next(), if !in_flight.is_empty() => {}
            () = &mut watch => watch = Box::pin(look_again(&context, &table)),
        }
    }
}

async fn one(context: Arc<DeliveryContext>, job: AppendJob) {
    let outcome = deliver(&context, &job).await;
    job.table.unacked_bytes.fetch_sub(i64::try_from(job.rows.rows.len()).unwrap_or(i64::MAX), Relaxed);
    let shard = job.shard.clone();
    let table = job.table.clone();
    // The memory is free before the shard hears of it: it may wait for just that.
    drop(job);
    let finished: u32 = outcome.shares.iter().map(|share| share.finished).sum();
    if !shard.send(ShardEvent::Outcome(outcome)).await {
        // The shard has ended and its partitions have gone: whoever owns them next reads these records again.
        table.metrics.possible_duplicate_rows.increment(u64::from(finished));
    }
}

/// While the table holds: looks at it when it is time, and releases it when it is as it must be.
async fn look_again(context: &DeliveryContext, table: &TableEntry) {
    let Some(held) = context.health.held() else {
        // Nothing to look after now; the loop comes back here after the next event, or soon.
        tokio::time::sleep(Duration::from_millis(250)).await;
        return;
    };
    tokio::time::sleep_until(held.retry_at.into()).await;
    for wanted in table.wanted() {
        if let Err(error) = context.tables.ensure(&table.name, &context.spec, &wanted).await {
            context.health.hold_again(error.cause, &error.message, error.retry_after, Instant::now());
            return;
        }
    }
    tracing::info!(connector = context.connector, table = %table.name, was = held.cause.as_str(), "table is tried again");
    context.health.release();
}
