//! A shard's thread: events, one fair turn of takes, holds and lingers, then a sleep until something comes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::events::{ShardEvent, ShardHandle};
use super::partition::Partition;
use super::shard::Shard;
use super::trouble::panic_words;
use crate::watchdog;

/// The longest sleep: lingers, holds and the fence are looked at that often even when nothing wakes the thread.
const SLEEP_MAX: Duration = Duration::from_millis(50);
/// Events taken in between two turns.
const EVENTS_PER_TURN_MAX: usize = 1024;

/// A shard and its events, which its thread serves in a loop.
pub struct ShardLoop {
    shard: Shard,
    events: mpsc::Receiver<ShardEvent>,
}

/// What a shard's thread does after a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterTurn {
    /// The next turn, at once: records came.
    Again,
    /// Sleeps until it is woken, this long at most.
    Sleep(Duration),
    /// Ends.
    End,
}

impl ShardLoop {
    pub(super) fn new(shard: Shard, events: mpsc::Receiver<ShardEvent>) -> Self {
        Self { shard, events }
    }

    pub(super) fn handle(&self) -> ShardHandle {
        self.shard.parts.handle.clone()
    }

    /// Names whom to wake when an event comes.
    pub fn set_waker(&self, waker: Waker) {
        self.shard.parts.handle.set_waker(waker);
    }

    /// One turn: events, a fair turn of takes, holds and lingers. Never blocks for longer than a seek may take.
    pub fn turn(&mut self) -> AfterTurn {
        let (shard, events) = (&mut self.shard, &mut self.events);
        let tasks = shard.parts.tasks.clone();
        let began = tasks.now();
        shard.parts.fence.beat(began);
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
                    if !shard.handle(event, began) {
                        return AfterTurn::End;
                    }
                }
                Err(mpsc::error::TryRecvError::Empty) => break,
                Err(mpsc::error::TryRecvError::Disconnected) => return AfterTurn::End,
            }
        }
        let records = shard.take_turn(began);
        let now = tasks.now();
        shard.tick(now);
        shard.parts.handle.work().worked(tasks.now().duration_since(began));
        if records == 0 { AfterTurn::Sleep(shard.next_due(now).min(SLEEP_MAX)) } else { AfterTurn::Again }
    }

    /// The thread slept this long.
    fn slept(&self, time: Duration) {
        if self.shard.waits_for_sink {
            self.shard.parts.handle.work().waited_for_sink(time);
        }
    }

    /// To be called last: counts records that are finished but not committed as coming again.
    pub fn end(&mut self) {
        self.shard.end();
    }
}

/// Wakes a thread that is parked.
pub(super) struct Unpark(pub(super) Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

/// Starts the thread of a shard. It ends at [`ShardEvent::Stop`].
///
/// # Errors
/// When the system gives no thread.
pub fn start(name: &str, mut turns: ShardLoop) -> std::io::Result<JoinHandle<()>> {
    let beat = watchdog::watch_at(format!("thread {name}"), turns.shard.place.clone());
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        turns.set_waker(Waker::from(Arc::new(Unpark(std::thread::current()))));
        let _room = turns.shard.parts.worker.budget.unpark_below_limit(std::thread::current());
        let ended = catch_unwind(AssertUnwindSafe(|| {
            loop {
                beat.beat();
                match turns.turn() {
                    AfterTurn::Again => {}
                    AfterTurn::Sleep(most) => {
                        let began = Instant::now();
                        std::thread::park_timeout(most);
                        turns.slept(began.elapsed());
                    }
                    AfterTurn::End => return,
                }
            }
        }));
        let shard = &mut turns.shard;
        if let Err(panic) = ended {
            // Panics while decoding are caught where the record is known. This one left the shard's own state in doubt, so the connector
            // ends.
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
