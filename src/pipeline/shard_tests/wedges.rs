//! Each thread and task of a connector wedged by something that really can wedge it: a queue that blocks, a decoding without end, a lock
//! that somebody keeps. The watchdog's last words name it and where it stands.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::Thread;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use super::played::{Control, Log, LogQueue};
use super::{Stage, stage, value};
use crate::kafka::{Assigned, Flow, PartitionQueue, StartOffset, Taken};
use crate::pipeline::committer::{Committer, CommitterParts};
use crate::pipeline::events::{ShardEvent, ShardHandle};
use crate::pipeline::progress::Ownership;
use crate::pipeline::shard_thread::{self, ShardLoop};
use crate::record::{Headers, Record};
use crate::watchdog::{Limits, last_words};

const LIMITS: Limits =
    Limits { stand_still: Duration::from_millis(800), long_step: Duration::from_millis(2400), tick: Duration::from_millis(20) };
const SOON: Duration = Duration::from_secs(20);

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// Waits for as long as the test holds the lock.
fn wait_for(wedge: &Mutex<()>) {
    drop(wedge.lock());
}

/// Blocks before any record is handed over.
struct BlockedQueue(LogQueue, Arc<Mutex<()>>);

impl PartitionQueue for BlockedQueue {
    fn take(&mut self, on_record: &mut dyn FnMut(&Record<'_>) -> Flow) -> Taken {
        wait_for(&self.1);
        self.0.take(on_record)
    }
    fn waiting(&self) -> usize {
        self.0.waiting()
    }
    fn wake_on_data(&mut self, thread: Thread) {
        self.0.wake_on_data(thread);
    }
}

/// Headers that are never read to their end: as a decoding without end.
struct EndlessHeaders<'a>(&'a Mutex<()>);

impl Headers for EndlessHeaders<'_> {
    fn last(&self, _name: &str) -> Option<Option<&[u8]>> {
        None
    }
    fn each(&self, _visit: &mut dyn FnMut(&str, Option<&[u8]>)) {
        wait_for(self.0);
    }
}

/// From this record on, decoding does not end.
const ENDLESS: i64 = 3;

struct EndlessRecord(Arc<Log>, Arc<Mutex<()>>);

impl PartitionQueue for EndlessRecord {
    fn take(&mut self, on_record: &mut dyn FnMut(&Record<'_>) -> Flow) -> Taken {
        let (wedge, mut inner) = (self.1.clone(), LogQueue(self.0.clone()));
        inner.take(&mut |record| match record.offset {
            ENDLESS => on_record(&Record { headers: &EndlessHeaders(&wedge), ..*record }),
            _ => on_record(record),
        })
    }
    fn waiting(&self) -> usize {
        LogQueue(self.0.clone()).waiting()
    }
    fn wake_on_data(&mut self, _thread: Thread) {}
}

/// A shard at work on a thread of this name, whose partition has this queue.
fn start(stage: Stage, name: &str, queue: Box<dyn PartitionQueue>) -> Running {
    let Stage { shard, events, progress, .. } = stage;
    let handle = shard.parts.handle.clone();
    let assigned =
        Assigned { partition: progress.partition.clone(), epoch: progress.epoch, start: StartOffset::Committed(0), queue, metadata: None };
    assert!(handle.blocking_send(ShardEvent::Assigned(vec![(assigned, progress)])));
    let thread = shard_thread::start(name, ShardLoop::new(shard, events)).expect("a thread");
    Running(handle, Some(thread))
}

/// Ends the shard's thread when the test is over; its wedge must be gone by then.
struct Running(ShardHandle, Option<std::thread::JoinHandle<()>>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.blocking_send(ShardEvent::Stop);
        let _ended = self.1.take().map(std::thread::JoinHandle::join);
    }
}

fn words(heard: &Receiver<String>) -> String {
    heard.recv_timeout(SOON).expect("last words")
}

#[test]
fn a_shard_whose_take_blocks() {
    let (runtime, wedge) = (runtime(), Arc::new(Mutex::new(())));
    let held = wedge.lock();
    let heard = last_words("shard-0-blocked-take", LIMITS);
    let stage = stage(runtime.handle(), (0..50).map(value).collect(), false, 1);
    let queue = BlockedQueue(LogQueue(stage.log.clone()), wedge.clone());
    let _running = start(stage, "shard-0-blocked-take", Box::new(queue));
    let said = words(&heard);
    drop(held);
    let place = "thread shard-0-blocked-take (connector c, taking from partition t[0] at offset 0, finished up to 0)";
    assert!(said.contains(place), "{said}");
}

/// One record's decoding may take longer than a turn, but not for ever; what is said names the record.
#[test]
fn a_record_whose_decoding_does_not_end() {
    let (runtime, wedge) = (runtime(), Arc::new(Mutex::new(())));
    let held = wedge.lock();
    let heard = last_words("shard-0-endless-record", LIMITS);
    let stage = stage(runtime.handle(), (0..50).map(value).collect(), false, 1);
    let (log, queue) = (stage.log.clone(), EndlessRecord(stage.log.clone(), wedge.clone()));
    let _running = start(stage, "shard-0-endless-record", Box::new(queue));
    while log.position.load(SeqCst) <= ENDLESS {
        std::thread::sleep(Duration::from_millis(5));
    }
    let allowed = (LIMITS.stand_still + LIMITS.long_step) / 2;
    assert_eq!(heard.recv_timeout(allowed), Err(RecvTimeoutError::Timeout), "one decoding may take longer than a turn");
    let said = words(&heard);
    drop(held);
    assert!(said.contains("thread shard-0-endless-record (connector c, partition t[0], at offset 3, in its decoding"), "{said}");
}

/// Who idles, waits for a sink or holds turns all the same: nobody is blamed.
#[test]
fn a_shard_with_nothing_to_do_is_not_wedged() {
    let runtime = runtime();
    let heard = last_words("shard-0-nothing-to-do", LIMITS);
    let stage = stage(runtime.handle(), Vec::new(), false, 1);
    let queue = LogQueue(stage.log.clone());
    let _running = start(stage, "shard-0-nothing-to-do", Box::new(queue));
    assert_eq!(heard.recv_timeout(LIMITS.stand_still * 3), Err(RecvTimeoutError::Timeout));
}

/// The sink's call blocks the thread that polls the writer, instead of waiting as async code does.
#[test]
fn a_writer_whose_append_blocks() {
    let runtime = runtime();
    let heard = last_words("the writer of p.d.t", LIMITS);
    let stage = stage(runtime.handle(), (0..50).map(value).collect(), false, 1);
    let (sink, queue) = (stage.sink.clone(), LogQueue(stage.log.clone()));
    let dice: MutexGuard<'_, _> = sink.rng.lock();
    let _running = start(stage, "shard-0-blocked-append", Box::new(queue));
    let said = words(&heard);
    drop(dice);
    assert!(said.contains("the writer of p.d.t (connector c, rows were taken last of t[0] at offset "), "{said}");
}

fn committer_of(stage: &Stage, connector: &str, ownership: Arc<Ownership>, interval: Duration) -> CommitterParts {
    let parts = &stage.shard.parts;
    CommitterParts {
        connector: connector.into(),
        control: Arc::new(Control(stage.log.clone())),
        ownership,
        fence: parts.fence.clone(),
        trouble: parts.trouble.clone(),
        metrics: parts.metrics.clone(),
        tasks: parts.tasks.clone(),
        interval,
        bell: Arc::default(),
        tries: std::sync::atomic::AtomicU32::new(0),
    }
}

/// Whose interval is longer than a thread may stand still, and whose bell rings all the time, so that it never sleeps: both turn.
#[test]
fn a_committer_that_sleeps_for_long_or_never_is_not_wedged() {
    let runtime = runtime();
    let stage = stage(runtime.handle(), Vec::new(), false, 1);
    // More than one nap.
    let limits = Limits { stand_still: Duration::from_millis(2500), ..LIMITS };
    let heard = [last_words("commit-sleeper", limits), last_words("commit-busy", limits)];
    let sleeper = committer_of(&stage, "sleeper", Arc::default(), Duration::from_secs(60));
    let busy = committer_of(&stage, "busy", Arc::default(), Duration::from_secs(60));
    let bell = busy.bell.clone();
    let committers = [sleeper, busy].map(|parts| Committer::start(parts).expect("a thread"));
    let began = std::time::Instant::now();
    while began.elapsed() < limits.stand_still * 2 {
        bell.ring();
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(heard.iter().all(|heard| heard.try_recv().is_err()));
    committers.into_iter().for_each(Committer::stop);
}

/// Somebody else's commit never ends, and the committer waits for its turn.
#[test]
fn a_committer_that_waits_for_a_lock() {
    let runtime = runtime();
    let heard = last_words("commit-wedged", LIMITS);
    let stage = stage(runtime.handle(), Vec::new(), false, 1);
    let (ownership, wedge) = (Arc::new(Ownership::default()), Arc::new(Mutex::new(())));
    ownership.insert(stage.progress.clone());
    let held = wedge.lock();
    let other = {
        let (ownership, wedge) = (ownership.clone(), wedge.clone());
        std::thread::spawn(move || ownership.with_commits(true, |_, _, _| wait_for(&wedge)))
    };
    let committer = Committer::start(committer_of(&stage, "wedged", ownership, Duration::from_millis(10)));
    let said = words(&heard);
    drop(held);
    assert!(said.contains("thread commit-wedged (connector wedged, with t[0] at offset 0, finished up to 0)"), "{said}");
    other.join().expect("the other commit");
    committer.expect("a thread").stop();
}
