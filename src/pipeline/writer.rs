//! The writer of one (connector, table): takes append jobs, keeps some in flight, looks after a table that holds.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::sync::mpsc;

use crate::flow::HoldCause;
use crate::watchdog;

use super::batch::{AppendJob, Share};
use super::delivery::{Delivered, DeliveryContext, deliver};
use super::events::{Outcome, ShardEvent, ShareOutcome};
use super::trouble::panic_words;
use super::whereabouts::WriterPlace;
use super::wishes::meet_wishes;
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

impl WriterHandle {
    /// A handle without a writer: it takes nothing.
    pub fn closed() -> Self {
        Self { jobs: mpsc::channel(1).0 }
    }
}

/// Starts the writer's task.
pub fn start(context: Arc<DeliveryContext>, table: Arc<TableEntry>) -> WriterHandle {
    let (jobs, receiver) = mpsc::channel(QUEUE_MAX);
    let tasks = context.shared.tasks.clone();
    let place = Arc::new(WriterPlace::new(&context.shared.connector));
    let beat = watchdog::watch_at(format!("the writer of {}", table.name), place.clone());
    tasks.spawn(Box::pin(beat.polls(async move {
        let (trouble, name) = (context.shared.trouble.clone(), table.name.clone());
        // A single delivery's panic is caught where it belongs; without its writer a table would stand still for ever.
        if let Err(panic) = AssertUnwindSafe(run(context, table, receiver, &place)).catch_unwind().await {
            let words = panic_words(panic.as_ref());
            trouble.fail(format!("the writer of {name} panicked ({words}): please report it; restart the worker"));
        }
    })));
    WriterHandle { jobs }
}

async fn run(context: Arc<DeliveryContext>, table: Arc<TableEntry>, mut jobs: mpsc::Receiver<AppendJob>, place: &WriterPlace) {
    let mut in_flight = FuturesUnordered::new();
    let mut open = true;
    // Kept over the turns of the loop: an event must not throw away a look that is on its way.
    let mut watch = Box::pin(look_again(&context, &table));
    while open || !in_flight.is_empty() {
        tokio::select! {
            // In order: a seeded run must repeat itself. Ends first, so that they free places for jobs.
            biased;
            Some(()) = in_flight.next(), if !in_flight.is_empty() => {}
            job = jobs.recv(), if open && in_flight.len() < IN_FLIGHT_MAX => match job {
                Some(job) => {
                    place.takes(&job);
                    in_flight.push(Box::pin(one(context.clone(), job)));
                }
                None => open = false,
            },
            () = &mut watch => watch = Box::pin(look_again(&context, &table)),
        }
    }
}

async fn one(context: Arc<DeliveryContext>, job: AppendJob) {
    let delivered = AssertUnwindSafe(deliver(&context, &job)).catch_unwind().await;
    let Delivered { outcome, rejected } = delivered.unwrap_or_else(|panic| given_up(&context, &job, panic_words(panic.as_ref())));
    let shard = job.shard.clone();
    let table = job.table.clone();
    // The memory is free before the shard hears of it: it may wait for just that.
    drop(job);
    let finished: u32 = outcome.shares.iter().map(|share| share.finished).sum();
    if !shard.send(ShardEvent::Outcome(outcome)).await {
        // The shard has ended and its partitions have gone: whoever owns them next reads these records again.
        table.metrics.possible_duplicate_rows.increment(u64::from(finished));
    }
    // After the outcome: the shard must know of letters before it hears that one is durable.
    if let Some(rejected) = rejected {
        context.shared.dead_letters.take_rejected(rejected);
    }
}

/// The outcome of an append whose delivery panicked: its rows are read again, and its partitions hold meanwhile and say why. Nobody knows
/// which of its rows landed.
fn given_up(context: &DeliveryContext, job: &AppendJob, words: &str) -> Delivered {
    let rows = job.rows.origins.len();
    job.table.metrics.possible_duplicate_rows.increment(rows as u64);
    let message = format!(
        "delivering {rows} rows to {} panicked ({words}): millrace is wrong, please report it; they are sent again",
        job.table.name
    );
    tracing::error!(connector = context.shared.connector, table = %job.table.name, message);
    context.health.hold(HoldCause::UnknownError, &message, None, context.shared.tasks.now());
    let abandoned = |share: &Share| ShareOutcome { share: *share, finished: 0, abandoned: share.rows, rejected: 0 };
    let shares = job.shares.iter().map(abandoned).collect();
    let hold = Some((HoldCause::UnknownError, message));
    Delivered { outcome: Outcome { table: Some(job.table.clone()), shares, hold, landed_below: None }, rejected: None }
}

/// While the table holds: looks at it when it is time, and releases it when it is as it must be.
async fn look_again(context: &DeliveryContext, table: &TableEntry) {
    let Some(held) = context.health.held() else {
        // Nothing to look after now; the loop comes back here after the next event, or soon.
        context.shared.tasks.sleep(Duration::from_millis(250)).await;
        return;
    };
    context.shared.tasks.sleep(held.retry_at.saturating_duration_since(context.shared.tasks.now())).await;
    if let Err(error) = meet_wishes(context.shared.tables.as_ref(), &context.shared.spec, table).await {
        context.health.hold_again(error.cause, &error.message, error.retry_after, context.shared.tasks.now());
        return;
    }
    tracing::info!(connector = context.shared.connector, table = %table.name, was = held.cause.as_str(), "table is tried again");
    context.health.release();
}
