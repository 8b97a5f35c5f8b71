//! A member of the group, played: its heartbeats, its poll thread with rebalances in production's order (`src/kafka/rebalance.rs`), the queues that
//! shards take from, and the control that shards and committer have over it.

mod control;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace::flow::{Clock, Tasks};
use millrace::kafka::{Assigned, Epoch, GroupError, GroupListener, NextOffset, PollTurns, StartOffset};
use millrace::pipeline::{Asked, Rebalances};
use millrace::record::TopicPartition;
use parking_lot::Mutex;
use rand::Rng;

use super::group::{Group, MemberId, SESSION};
use super::log::named;
use super::mutants::Mutant;
use super::queue::{Fetch, Queue};
use super::scene::{ProcessId, Scene};

/// How often the poll thread comes around.
const POLL_EVERY: Duration = Duration::from_millis(300);
/// Between two heartbeats.
const HEARTBEAT_EVERY: Duration = Duration::from_millis(700);
/// How long a revocation tries to commit.
const COMMIT_AGAIN_FOR: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Shared {
    member: Option<MemberId>,
    owned: BTreeMap<i32, Arc<Mutex<Fetch>>>,
    /// The epochs of the last assignments.
    epoch_of: BTreeMap<i32, Epoch>,
    /// Not owned any more, but not given back yet: a revocation drains them.
    letting_go: BTreeSet<i32>,
    epochs: u64,
    /// What the coordinator said last: what should be owned.
    target: Option<BTreeSet<i32>>,
    /// What it is about to become.
    taking: BTreeSet<i32>,
    /// The coordinator does not know this member.
    fenced: bool,
    closing: bool,
    closed: bool,
    restarts: VecDeque<Restart>,
    /// Those that are sent again, and when.
    again: Vec<(Instant, Restart)>,
}

/// A partition is to begin again there, instead of this assignment.
type Restart = (i32, Epoch, Option<i64>);

/// Where a partition starts, and what was committed beside its offset.
type Start = (i32, StartOffset, Option<Arc<str>>);

/// A process's consumer.
pub struct Consumer {
    scene: Scene,
    process: ProcessId,
    tasks: Arc<dyn Tasks>,
    turns: PollTurns,
    shared: Mutex<Shared>,
}

impl Consumer {
    /// One that has not joined yet.
    pub fn new(scene: &Scene, process: ProcessId, tasks: &Arc<dyn Tasks>) -> Arc<Self> {
        let clock: Arc<dyn Clock> = tasks.clone();
        let (turns, tasks) = (PollTurns::new(SESSION, clock), tasks.clone());
        Arc::new(Self { scene: scene.clone(), process, tasks, turns, shared: Mutex::default() })
    }

    fn group(&self) -> &Group {
        &self.scene.group
    }

    /// Asks it to leave the group; it is closed some time later.
    pub fn close(&self) {
        self.shared.lock().closing = true;
    }

    /// Whether it has left.
    pub fn is_closed(&self) -> bool {
        self.shared.lock().closed
    }

    /// The heartbeat thread.
    pub async fn beat(self: Arc<Self>) {
        while !self.is_closed() {
            let (member, owned) = {
                let shared = self.shared.lock();
                let offered = shared.target.iter().flatten().chain(&shared.taking);
                (shared.member, shared.owned.keys().chain(&shared.letting_go).chain(offered).copied().collect())
            };
            if let Some(id) = member {
                match self.group().heartbeat(id, &owned) {
                    Some(Ok(target)) => self.shared.lock().target = Some(target),
                    Some(Err(_)) => self.shared.lock().fenced = true,
                    None => {}
                }
            }
            self.tasks.sleep(HEARTBEAT_EVERY).await;
        }
    }

    /// The poll thread.
    pub async fn poll(self: Arc<Self>, listener: Arc<Rebalances>) {
        loop {
            let span = POLL_EVERY.mul_f64(self.scene.world.draw(|random| random.random_range(0.1..2.0)));
            self.tasks.sleep(span).await;
            self.turns.turn();
            let (member, fenced, closing, restart) = {
                let mut shared = self.shared.lock();
                let now = self.tasks.now();
                let due = shared.again.iter().position(|(at, _)| *at <= now).map(|at| shared.again.remove(at).1);
                shared.restarts.extend(due);
                (shared.member, shared.fenced, shared.closing, shared.restarts.pop_front())
            };
            if fenced {
                self.lose(&listener, self.owned(), true).await;
                let mut shared = self.shared.lock();
                (shared.member, shared.fenced, shared.target) = (None, false, None);
            } else if closing {
                self.revoke(&listener, self.owned()).await;
                if let Some(id) = member {
                    self.group().leave(id);
                }
                self.shared.lock().closed = true;
                self.turns.end();
                return;
            } else if let Some(id) = member {
                if let Some(restart) = restart {
                    self.begin_again(&listener, id, restart).await;
                }
                self.follow(&listener, id).await;
            } else if let Some(id) = self.group().join() {
                self.shared.lock().member = Some(id);
            }
        }
    }

    fn owned(&self) -> BTreeSet<i32> {
        self.shared.lock().owned.keys().copied().collect()
    }

    /// Becomes what the coordinator wants.
    async fn follow(&self, listener: &Arc<Rebalances>, id: MemberId) {
        let target = {
            let mut shared = self.shared.lock();
            let Some(target) = shared.target.take() else { return };
            shared.taking.clone_from(&target);
            target
        };
        self.become_owner_of(listener, id, &target).await;
        self.shared.lock().taking.clear();
    }

    async fn become_owner_of(&self, listener: &Arc<Rebalances>, id: MemberId, target: &BTreeSet<i32>) {
        let owned = self.owned();
        let away: BTreeSet<i32> = owned.difference(target).copied().collect();
        if !away.is_empty() {
            self.revoke(listener, away).await;
        }
        let new: Vec<i32> = target.difference(&owned).copied().collect();
        let mut starts = Vec::new();
        for partition in new {
            // Without an answer the assignment is taken up later: the coordinator says it again.
            let Some(committed) = self.group().fetch(partition) else { return };
            starts.push(match committed {
                Some((offset, metadata)) => (partition, StartOffset::Committed(offset), metadata),
                None => {
                    self.scene.oracle.begins_at_first(partition);
                    (partition, StartOffset::Earliest, None)
                }
            });
        }
        if !starts.is_empty() && self.shared.lock().member == Some(id) && !self.shared.lock().fenced {
            self.begin(listener, &starts);
        } else {
            listener.joined();
        }
    }

    fn begin(&self, listener: &Arc<Rebalances>, starts: &[Start]) {
        if self.owned().is_empty() {
            self.scene.oracle.knows(self.process);
        }
        let mut given = Vec::new();
        for (partition, at, metadata) in starts {
            let position = match at {
                StartOffset::Committed(offset) | StartOffset::Latest(offset) | StartOffset::Asked(offset) => *offset,
                StartOffset::Earliest => self.scene.log.low(*partition),
            };
            let fetch = Arc::new(Mutex::new(Fetch::at(position)));
            let mut shared = self.shared.lock();
            shared.epochs += 1;
            let epoch = if self.scene.mutant == Mutant::SameEpoch { Epoch(1) } else { Epoch(shared.epochs) };
            shared.owned.insert(*partition, fetch.clone());
            shared.epoch_of.insert(*partition, epoch);
            given.push(Assigned {
                partition: named(*partition),
                epoch,
                start: *at,
                metadata: metadata.clone(),
                queue: Box::new(Queue { scene: self.scene.clone(), process: self.process, partition: *partition, fetch }),
            });
        }
        self.scene.world.note(|| format!("process {}: assigned {starts:?}", self.process));
        listener.assigned(given);
    }

    async fn wait(&self, mut asked: Asked) -> Asked {
        while !asked.is_over(self.tasks.now()) {
            self.tasks.sleep(Duration::from_millis(20)).await;
        }
        asked
    }

    fn disown(&self, partitions: &BTreeSet<i32>) -> Vec<TopicPartition> {
        let mut shared = self.shared.lock();
        partitions.iter().filter(|partition| shared.owned.remove(partition).is_some()).map(|partition| named(*partition)).collect()
    }

    async fn lose(&self, listener: &Arc<Rebalances>, partitions: BTreeSet<i32>, all: bool) {
        let names = self.disown(&partitions);
        self.scene.world.note(|| format!("process {}: lost {partitions:?}", self.process));
        self.scene.oracle.lost(self.process);
        if names.is_empty() || (all && self.scene.mutant == Mutant::DeafToLoss) {
            return;
        }
        self.wait(listener.begin_lost(&names)).await;
    }

    async fn revoke(&self, listener: &Arc<Rebalances>, partitions: BTreeSet<i32>) {
        let positions: BTreeMap<i32, i64> = {
            let shared = self.shared.lock();
            shared.owned.iter().map(|(partition, fetch)| (*partition, fetch.lock().position)).collect()
        };
        self.shared.lock().letting_go.extend(&partitions);
        let names = self.disown(&partitions);
        if !names.is_empty() {
            self.drain_and_commit(listener, &names, &positions).await;
            self.scene.world.note(|| format!("process {}: gave {partitions:?} back", self.process));
        }
        self.shared.lock().letting_go.clear();
    }

    async fn drain_and_commit(&self, listener: &Arc<Rebalances>, names: &[TopicPartition], positions: &BTreeMap<i32, i64>) {
        let asked = self.wait(listener.begin_revoking(names)).await;
        let mut heads = listener.end_revoking(names, asked);
        if self.scene.mutant == Mutant::RevokeWithoutDrain {
            heads = names.iter().map(|name| NextOffset::plain(name.clone(), positions[&name.partition])).collect();
        }
        self.turns.turn();
        let began = self.tasks.now();
        loop {
            match self.commit_as_member(&heads) {
                Ok(failed) => {
                    let refused: Vec<TopicPartition> = failed.into_iter().map(|(partition, _)| partition).collect();
                    if !refused.is_empty() && self.scene.mutant != Mutant::DeafToRefusal {
                        listener.not_committed(&refused);
                    }
                    break;
                }
                Err(GroupError::Rebalancing(_)) if self.tasks.now() < began + COMMIT_AGAIN_FOR => {
                    self.tasks.sleep(Duration::from_millis(100)).await;
                }
                Err(_) => {
                    let refused: Vec<TopicPartition> = heads.iter().map(|next| next.partition.clone()).collect();
                    if self.scene.mutant != Mutant::DeafToRefusal {
                        listener.not_committed(&refused);
                    }
                    break;
                }
            }
        }
    }

    /// One partition begins anew, in the middle of a session.
    async fn begin_again(&self, listener: &Arc<Rebalances>, id: MemberId, (partition, epoch, offset): Restart) {
        if !self.owned().contains(&partition) {
            return;
        }
        if self.shared.lock().epoch_of.get(&partition) != Some(&epoch) {
            self.scene.oracle.see(|seen| seen.asked_late += 1);
            if self.scene.mutant != Mutant::RestartsLater {
                return;
            }
        }
        // It stays this member's all the while.
        self.shared.lock().letting_go.insert(partition);
        self.lose(listener, BTreeSet::from([partition]), false).await;
        let is_member = || {
            let shared = self.shared.lock();
            shared.member == Some(id) && !shared.fenced
        };
        if let Some(committed) = self.group().fetch(partition).filter(|_| is_member()) {
            // What stands beside the committed offset is told wherever it begins.
            let metadata = committed.and_then(|committed| committed.1);
            self.scene.oracle.see(|seen| seen.asked += u64::from(offset.is_some()));
            let named = if self.scene.mutant == Mutant::AskedIsCommitted { StartOffset::Committed } else { StartOffset::Asked };
            self.begin(listener, &[(partition, offset.map_or(StartOffset::Earliest, named), metadata)]);
        }
        self.shared.lock().letting_go.clear();
    }

    fn commit_as_member(&self, offsets: &[NextOffset]) -> Result<Vec<(TopicPartition, GroupError)>, GroupError> {
        if offsets.is_empty() {
            return Ok(Vec::new());
        }
        let plain = |next: &NextOffset| NextOffset::plain(next.partition.clone(), next.offset);
        let without: Vec<NextOffset> = offsets.iter().map(plain).collect();
        let offsets = if self.scene.mutant == Mutant::SkipIntents { &without } else { offsets };
        self.scene.oracle.commit_tried(self.process, offsets);
        let Some(id) = self.shared.lock().member else { return Err(GroupError::Fenced("not a member".to_owned())) };
        let answer = self.group().commit(id, offsets);
        self.scene.world.note(|| {
            let shown: Vec<_> = offsets.iter().map(|next| (next.partition.partition, next.offset)).collect();
            format!("process {}: commit {shown:?}: {answer:?}", self.process)
        });
        if let Ok(failed) = &answer
            && failed.len() < offsets.len()
        {
            self.turns.confirmed();
            self.scene.oracle.confirmed(self.process, offsets, failed);
        }
        answer
    }

    fn fetch_of(&self, partition: &TopicPartition) -> Result<Arc<Mutex<Fetch>>, GroupError> {
        let shared = self.shared.lock();
        let gone = || GroupError::Fenced(format!("{partition} is not this worker's"));
        shared.owned.get(&partition.partition).cloned().ok_or_else(gone)
    }
}
