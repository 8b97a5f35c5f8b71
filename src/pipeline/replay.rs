//! Dead letters replayed: the records that they hold go the connector's own way once more, by its present rules.
//!
//! It is a connector in every part but one: in place of a consumer group stands a [`Shelf`] of letters. So rows are built, sent, retried,
//! split and rejected as ever, tables are created and evolved, holds wait, and a letter counts as done only when the ledger's head has
//! passed it: its row is durable, or a new letter is. Nothing is written back to the source topic (that would break the order of keys, and
//! other consumers would read the records again), and the group's offsets are not touched, so the fleet goes on meanwhile.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::config::{BadRecords, Guarantee, HumanDuration};
use crate::kafka::{Assigned, Epoch, GroupControl, GroupListener, GroupSettings, StartOffset};
use crate::record::{OwnedRecord, TopicPartition};

use super::assembly::{Assembly, AssemblyParts, ConnectorWorld};
use super::committer::Committer;
use super::connector::{ConnectorError, ConnectorParts};
use super::events::ShardHandle;
use super::half_started::{HalfStarted, end_shards};
use super::letter::ReadLetter;
use super::replay_shelf::{Desk, Shelf, ShelfControl, ShelfQueue};
use super::shard_thread;

/// How often what is durable is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How often the ledger's heads are noted.
const COMMIT_EVERY: HumanDuration = HumanDuration::from_millis(50);

/// How the letters of one call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Replayed {
    /// Records that became rows (or were dropped by a rule, as tombstones are).
    pub rows: u64,
    /// Records that died again: their letters are in the topic, with one replay more.
    pub dead_again: u64,
}

/// A connector whose records are dead letters.
pub struct Replay {
    assembly: Assembly,
    control: Arc<ShelfControl>,
    desk: Arc<Desk>,
    shards: Vec<(ShardHandle, JoinHandle<()>)>,
    committer: Committer,
    epoch: u64,
    dead_before: u64,
}

impl Replay {
    /// Puts the connector together. Must be called inside a tokio runtime.
    ///
    /// The file's rules hold, with these differences: a record that dies again is a dead letter whatever `bad_records` says, however many
    /// do, and delivery is at least once.
    ///
    /// # Errors
    /// A mistake in its file that shows only now, no thread.
    pub fn start(parts: ConnectorParts) -> Result<Self, ConnectorError> {
        let mut config = (*parts.world.config).clone();
        config.errors.bad_records = BadRecords::DeadLetter;
        config.errors.max_dead_share = 1.0;
        config.delivery.guarantee = Guarantee::AtLeastOnce;
        let mut fleet = (*parts.world.fleet).clone();
        fleet.worker.commit_interval = COMMIT_EVERY;
        fleet.worker.shards = 1;
        let clients = parts.world.worker.clients.of(&GroupSettings::of(&fleet, &config, parts.prefetch_bytes));
        let desk = Arc::new(Desk::new(clients));
        let name = config.name.clone();
        let thread_error = |source| ConnectorError::Thread { connector: name.clone(), source };
        let world = ConnectorWorld { config: Arc::new(config), fleet: Arc::new(fleet), ..parts.world };
        let mut assembly = Assembly::new(AssemblyParts { world, letters: desk.clone(), rereader: desk.clone() })?;
        let control = Arc::new(ShelfControl::default());
        let group: Arc<dyn GroupControl> = control.clone();
        let mut half_started = HalfStarted::new(group.clone());
        let (shards, committer) = assembly.join(&group);
        for shard in shards {
            let handle = shard.handle();
            let thread = shard_thread::start(&format!("replay-{name}"), shard).map_err(thread_error)?;
            half_started.shards.push((handle, thread));
        }
        let committer = Committer::start(committer).map_err(thread_error)?;
        Ok(Self { assembly, control, desk, shards: half_started.complete(), committer, epoch: 0, dead_before: 0 })
    }

    /// Replays these letters and returns when all of them are durable, as rows or as letters once more. Of several letters of one record
    /// only one may be given. `waits` hears, now and then, why nothing moves. Blocks.
    ///
    /// # Errors
    /// In words: the connector failed, or nothing moved for `patience`. Some of the letters may be rows then.
    pub fn run(&mut self, letters: &[ReadLetter], patience: Duration, waits: &mut dyn FnMut(&str)) -> Result<Replayed, String> {
        let mut shelves: BTreeMap<TopicPartition, Vec<OwnedRecord>> = BTreeMap::new();
        for letter in letters {
            let partition = TopicPartition::new(letter.record.topic.clone(), letter.record.partition);
            shelves.entry(partition).or_default().push(letter.record.clone());
        }
        let mut ends: HashMap<TopicPartition, i64> = HashMap::new();
        self.epoch += 1;
        self.desk.begin(letters);
        let mut assigned = Vec::with_capacity(shelves.len());
        for (partition, mut records) in shelves {
            records.sort_by_key(|record| record.offset);
            let (Some(first), Some(last)) = (records.first(), records.last()) else { continue };
            let start = StartOffset::Committed(first.offset);
            ends.insert(partition.clone(), last.offset + 1);
            let shelf = Arc::new(Shelf::new(records));
            self.control.put(partition.clone(), shelf.clone());
            let queue = Box::new(ShelfQueue::new(shelf));
            assigned.push(Assigned { partition, epoch: Epoch(self.epoch), start, metadata: None, queue });
        }
        let partitions: Vec<TopicPartition> = ends.keys().cloned().collect();
        self.assembly.listener.assigned(assigned);
        let done = self.wait(&ends, patience, waits);
        if done.is_ok() {
            self.assembly.listener.revoking(&partitions);
        } else {
            self.assembly.listener.lost(&partitions);
        }
        self.control.clear();
        done?;
        let dead = self.assembly.dead_letters.counts.dead_letters.load(Relaxed);
        let dead_again = dead - std::mem::replace(&mut self.dead_before, dead);
        Ok(Replayed { rows: (letters.len() as u64).saturating_sub(dead_again), dead_again })
    }

    /// Waits until the heads have passed the last letters.
    fn wait(&self, ends: &HashMap<TopicPartition, i64>, patience: Duration, waits: &mut dyn FnMut(&str)) -> Result<(), String> {
        let (mut moved, mut heard) = (Instant::now(), Instant::now());
        let mut before = i64::MIN;
        loop {
            let committed = self.control.committed();
            if ends.iter().all(|(partition, end)| committed.get(partition).is_some_and(|offset| offset >= end)) {
                return Ok(());
            }
            if let Some(failure) = self.assembly.failure() {
                return Err(failure);
            }
            let sum = committed.values().fold(0_i64, |sum, offset| sum.wrapping_add(*offset));
            if sum != before {
                (before, moved) = (sum, Instant::now());
            }
            let why = || {
                let holds = self
                    .assembly
                    .ownership
                    .snapshot()
                    .into_iter()
                    .filter_map(|progress| Some((progress.partition.clone(), progress.hold()?)));
                holds.map(|(partition, hold)| format!("{partition} holds: {}: {}", hold.cause.as_str(), hold.message)).next()
            };
            if moved.elapsed() > patience {
                return Err(why().unwrap_or_else(|| format!("nothing became durable for {} s", patience.as_secs())));
            }
            if heard.elapsed() > Duration::from_secs(5) {
                heard = Instant::now();
                waits(&why().unwrap_or_else(|| "waiting for BigQuery".to_owned()));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Ends its threads. Blocks.
    pub fn stop(self) {
        self.committer.stop();
        end_shards(self.shards);
    }
}
