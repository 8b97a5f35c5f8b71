//! A shard's thread: events, one fair turn of takes, holds and lingers, then a sleep until something comes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::events::ShardEvent;
use super::partition::Partition;
use super::shard::Shard;
use super::trouble::panic_words;

/// The longest sleep: lingers, holds and the fence are looked at that often even when nothing wakes the thread.
const SLEEP_MAX: Duration = Duration::from_millis(50);
/// Events taken in between two turns.
const EVENTS_PER_TURN_MAX: usize = 1024;

/// Starts the thread of a shard. It ends at [`ShardEvent::Stop`].
///
/// # Errors
/// When the system gives no thread.
pub fn start(name: &str, mut shard: Shard, mut events: mpsc::Receiver<ShardEvent>) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        shard.parts.handle.set_thread(std::thread::current());
        shard.parts.worker.budget.unpark_below_limit(std::thread::current());
        let ended = catch_unwind(AssertUnwindSafe(|| while turn(&mut shard, &mut events) {}));
        if let Err(panic) = ended {
            // A record's decoding is caught where the record is known; this is the shard's own state, which nobody can trust any more.
            let thread = std::thread::current();
            let (thread, words) = (thread.name().unwrap_or("a shard's thread"), panic_words(panic.as_ref()));
            let partitions: Vec<String> = shard.slots.iter().filter(|partition| partition.owned).map(place).collect();
            shard.parts.trouble.fail(format!(
                "thread {thread} panicked ({words}) with partitions {}: please report it; restart the worker",
                partitions.join(", ")
            ));
        }
        if catch_unwind(AssertUnwindSafe(|| shard.end())).is_err() {
            tracing::error!(connector = shard.parts.config.name, "a shard's end panicked: records that come again are not counted");
        }
    })
}

fn turn(shard: &mut Shard, events: &mut mpsc::Receiver<ShardEvent>) -> bool {
    let now = Instant::now();
    let began = now;
    shard.parts.fence.beat(now);
    shard.parts.fence.poll_was_away(shard.parts.control.since_last_poll());
    if shard.parts.fence.take_news() {
        shard.parts.metrics.self_fences.increment(1);
        tracing::warn!(
            connector = shard.parts.config.name,
            "this process was paused for longer than its session: nothing is appended until a commit is accepted"
        );
    }
    for _ in 0..EVENTS_PER_TURN_MAX {
        match events.try_recv() {
            Ok(event) => {
                if !shard.handle(event, now) {
                    return false;
                }
            }
            Err(mpsc::error::TryRecvError::Empty) => break,
            Err(mpsc::error::TryRecvError::Disconnected) => return false,
        }
    }
    let records = shard.take_turn(now);
    let now = Instant::now();
    shard.tick(now);
    let ended = Instant::now();
    shard.parts.handle.work().worked(ended.duration_since(began));
    if records == 0 {
        std::thread::park_timeout(shard.next_due(now).min(SLEEP_MAX));
        if shard.waits_for_sink {
            shard.parts.handle.work().waited_for_sink(ended.elapsed());
        }
    }
    true
}

impl Shard {
    fn next_due(&self, now: Instant) -> Duration {
        let linger = self.linger();
        let pace = self.pace_wait();
        let batches = self.tables.iter().filter_map(|table| table.batch.as_ref()).map(|batch| batch.due_at(linger));
        let due = batches.min().map_or(SLEEP_MAX, |due| due.saturating_duration_since(now).max(Duration::from_millis(1)));
        if pace.is_zero() { due } else { due.min(pace) }
    }
}

/// A partition and the next offset that it would have taken.
fn place(partition: &Partition) -> String {
    format!(
        "{} at offset {}",
        partition.progress.partition,
        partition.resume_offset().map_or("unknown".to_owned(), |offset| offset.to_string())
    )
}
