//! What a process's threads do with production's shards and committer: a turn, then a sleep until something comes.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::{Poll, Wake, Waker};
use std::time::Duration;

use millrace::flow::Tasks;
use millrace::pipeline::{AfterTurn, CommitterParts, ShardLoop};
use parking_lot::Mutex;

/// A shard with nothing to do sleeps this long, or until it is woken ...
const IDLE_SLEEP: Duration = Duration::from_millis(50);
/// ... here for longer, as on a busy machine: turns that do nothing are most of a run's cost.
const IDLE_SLEEP_HERE: Duration = Duration::from_millis(300);

/// What wakes a shard from its sleep.
struct Nudge {
    nudged: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl Wake for Nudge {
    fn wake(self: Arc<Self>) {
        self.nudged.store(true, SeqCst);
        if let Some(task) = self.task.lock().as_ref() {
            task.wake_by_ref();
        }
    }
}

/// A shard's thread.
pub async fn turn(mut shard: ShardLoop, tasks: Arc<dyn Tasks>, stopping: Arc<AtomicBool>, looked: impl Fn()) {
    let nudge = Arc::new(Nudge { nudged: AtomicBool::new(false), task: Mutex::default() });
    shard.set_waker(Waker::from(nudge.clone()));
    loop {
        looked();
        let most = match shard.turn() {
            AfterTurn::Again => Duration::from_millis(1),
            AfterTurn::Sleep(most) if most < IDLE_SLEEP => most,
            AfterTurn::Sleep(_) => IDLE_SLEEP_HERE,
            AfterTurn::End => return,
        };
        if stopping.load(SeqCst) {
            shard.end();
            return;
        }
        let mut sleep = tasks.sleep(most);
        poll_fn(|context| {
            *nudge.task.lock() = Some(context.waker().clone());
            if nudge.nudged.swap(false, SeqCst) { Poll::Ready(()) } else { sleep.as_mut().poll(context) }
        })
        .await;
    }
}

/// The committer's thread.
pub async fn commit(committer: CommitterParts, tasks: Arc<dyn Tasks>, stopping: Arc<AtomicBool>) {
    let nudge = Arc::new(Nudge { nudged: AtomicBool::new(false), task: Mutex::default() });
    committer.bell.set_waker(Waker::from(nudge.clone()));
    let mut wait = committer.interval;
    while !stopping.load(SeqCst) {
        let mut sleep = tasks.sleep(wait);
        poll_fn(|context| {
            *nudge.task.lock() = Some(context.waker().clone());
            if nudge.nudged.swap(false, SeqCst) | committer.bell.has_rung() { Poll::Ready(()) } else { sleep.as_mut().poll(context) }
        })
        .await;
        wait = committer.turn();
        // Appends that are announced meanwhile share the next commit, as in the thread.
        tasks.sleep(Duration::from_millis(10)).await;
    }
}
