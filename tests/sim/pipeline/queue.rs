//! The records of one assignment, as a shard takes them.

use std::sync::Arc;
use std::thread::Thread;

use millrace::kafka::{Flow, PartitionQueue, QueueEvent, Taken};
use millrace::record::{NoHeaders, Record};
use parking_lot::Mutex;
use rand::Rng;

use super::log::TOPIC;
use super::mutants::Mutant;
use super::scene::{ProcessId, Scene};

/// Where one assignment reads.
pub struct Fetch {
    pub position: i64,
    pub paused: bool,
    /// Its offset was out of range: librdkafka has given it up, and no seek brings it back.
    pub stopped: bool,
}

impl Fetch {
    /// From this offset on.
    pub fn at(position: i64) -> Self {
        Self { position, paused: false, stopped: false }
    }
}

/// The records of one assignment.
pub struct Queue {
    pub scene: Scene,
    pub process: ProcessId,
    pub partition: i32,
    pub fetch: Arc<Mutex<Fetch>>,
}

impl PartitionQueue for Queue {
    fn take(&mut self, on_record: &mut dyn FnMut(&Record<'_>) -> Flow) -> Taken {
        let mut taken = Taken::default();
        let now = self.scene.world.now();
        {
            let mut fetch = self.fetch.lock();
            let low = self.scene.log.low(self.partition);
            if self.scene.mutant == Mutant::SilentLoss {
                fetch.position = low.max(fetch.position);
            }
            if fetch.position < low && !fetch.paused && !fetch.stopped {
                fetch.stopped = true;
                self.scene.oracle.see(|seen| seen.out_of_range += 1);
                self.scene
                    .world
                    .note(|| format!("process {}: {} of partition {} is out of range", self.process, fetch.position, self.partition));
                return Taken { records: 0, event: Some(QueueEvent::OutOfRange { asked: fetch.position }) };
            }
        }
        let most = self.scene.world.draw(|random| random.random_range(1..12));
        while taken.records < most {
            let mut fetch = self.fetch.lock();
            let Some(next) = self.scene.log.next(self.partition, fetch.position, now).filter(|_| !fetch.paused && !fetch.stopped) else {
                break;
            };
            fetch.position = next.offset + 1;
            drop(fetch);
            taken.records += 1;
            let record = Record {
                topic: TOPIC,
                partition: self.partition,
                offset: next.offset,
                timestamp_ms: Some(1),
                key: None,
                value: next.value.as_deref(),
                headers: &NoHeaders,
            };
            if on_record(&record) == Flow::Yield {
                break;
            }
        }
        if taken.records > 0 {
            self.scene.world.note(|| format!("process {}: took {} of partition {}", self.process, taken.records, self.partition));
        }
        taken
    }

    fn waiting(&self) -> usize {
        usize::from(self.scene.log.next(self.partition, self.fetch.lock().position, self.scene.world.now()).is_some())
    }

    fn wake_on_data(&mut self, _thread: Thread) {}
}
