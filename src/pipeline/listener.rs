//! Rebalances: partitions to shards and back. Runs on the poll thread, and never waits longer than the revoke deadline.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::flow::Tasks;
use crate::kafka::{Assigned, GroupListener, NextOffset};
use crate::record::TopicPartition;
use crate::telemetry::metrics::ConnectorMetrics;

use super::events::{ShardEvent, ShardHandle};
use super::progress::{Ownership, PartitionProgress};
use super::route::TableRoutes;
use super::trouble::Trouble;
use super::worker::WorkerShared;

/// Beyond the deadline: time for the shards to notice it and answer.
const ANSWER_SLACK: Duration = Duration::from_millis(500);

/// The connector's side of a rebalance.
pub struct Rebalances {
    /// The connector's name.
    pub connector: String,
    /// Its shards.
    pub shards: Vec<ShardHandle>,
    /// What it owns.
    pub ownership: Arc<Ownership>,
    /// How long a revocation waits for appends in flight.
    pub revoke_deadline: Duration,
    /// What it counts.
    pub metrics: Arc<ConnectorMetrics>,
    /// Topics to tables, and the tables: for duplicates that a refused commit leaves.
    pub routes: Arc<TableRoutes>,
    /// What it shares with other connectors.
    pub worker: Arc<WorkerShared>,
    /// What the last revocation took, until the next one.
    pub revoked: Mutex<Vec<Arc<PartitionProgress>>>,
    /// Whether records that come again are left out where their rows have landed.
    pub exactly_once: bool,
    /// Whether the group has this member, and what it said last: for health.
    pub trouble: Arc<Trouble>,
    /// What time it is.
    pub tasks: Arc<dyn Tasks>,
}

/// Shards that were asked to let partitions go, and their answers so far.
pub struct Asked {
    connector: String,
    waiting: Vec<Receiver<Vec<NextOffset>>>,
    heads: Vec<NextOffset>,
    deadline: Instant,
}

impl Asked {
    /// Takes in the answers that are there. Whether nothing is to be waited for any more: all have answered, or it is too late.
    pub fn is_over(&mut self, now: Instant) -> bool {
        let heads = &mut self.heads;
        self.waiting.retain(|answer| match answer.try_recv() {
            Ok(mut some) => {
                heads.append(&mut some);
                false
            }
            Err(error) => error == TryRecvError::Empty,
        });
        self.waiting.is_empty() || now >= self.deadline + ANSWER_SLACK
    }

    /// Waits for the answers until the deadline. Blocks.
    fn wait(&mut self, tasks: &dyn Tasks) {
        for answer in self.waiting.drain(..) {
            let patience = (self.deadline + ANSWER_SLACK).saturating_duration_since(tasks.now());
            match answer.recv_timeout(patience) {
                Ok(mut some) => self.heads.append(&mut some),
                // Nothing is committed for these partitions: their records since the last commit come again.
                Err(error) => tracing::warn!(connector = self.connector, %error, "a shard did not answer in time for a rebalance"),
            }
        }
    }
}

impl Rebalances {
    fn shard_of(&self, partition: &TopicPartition) -> usize {
        let topic = partition.topic.bytes().fold(0usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
        topic.wrapping_add(usize::try_from(partition.partition).unwrap_or(0)) % self.shards.len().max(1)
    }

    /// Asks the shards concerned.
    fn ask(
        &self,
        partitions: &[TopicPartition],
        deadline: Instant,
        event: impl Fn(Vec<TopicPartition>, std::sync::mpsc::SyncSender<Vec<NextOffset>>) -> ShardEvent,
    ) -> Asked {
        let mut groups: Vec<Vec<TopicPartition>> = vec![Vec::new(); self.shards.len()];
        for partition in partitions {
            if let Some(group) = groups.get_mut(self.shard_of(partition)) {
                group.push(partition.clone());
            }
        }
        let mut waiting = Vec::new();
        for (shard, group) in self.shards.iter().zip(groups) {
            if group.is_empty() {
                continue;
            }
            let (reply, answer) = sync_channel(1);
            if shard.blocking_send(event(group, reply)) {
                waiting.push(answer);
            }
        }
        Asked { connector: self.connector.clone(), waiting, heads: Vec::new(), deadline }
    }

    /// The first half of [`GroupListener::revoking`]: the shards drain.
    pub fn begin_revoking(&self, partitions: &[TopicPartition]) -> Asked {
        self.metrics.rebalances_revoked.increment(1);
        let deadline = self.tasks.now() + self.revoke_deadline;
        self.ask(partitions, deadline, |partitions, reply| ShardEvent::Revoke { partitions, deadline, reply })
    }

    /// The second half: the heads that may be committed. Waits for a commit that is on its way.
    pub fn end_revoking(&self, partitions: &[TopicPartition], asked: Asked) -> Vec<NextOffset> {
        // Also where a shard did not answer in time.
        *self.revoked.lock() = self.ownership.remove(partitions);
        let names: Vec<String> = partitions.iter().map(ToString::to_string).collect();
        let heads = asked.heads;
        tracing::info!(connector = self.connector, partitions = names.join(" "), drained = heads.len(), "partitions revoked");
        heads
    }

    /// The first half of [`GroupListener::lost`]: nothing of these partitions is sent or committed any more; the shards drop them.
    pub fn begin_lost(&self, partitions: &[TopicPartition]) -> Asked {
        self.trouble.set_joined(false);
        self.metrics.rebalances_lost.increment(1);
        self.ownership.remove(partitions);
        let deadline = self.tasks.now() + self.revoke_deadline;
        let names: Vec<String> = partitions.iter().map(ToString::to_string).collect();
        tracing::warn!(connector = self.connector, partitions = names.join(" "), "partitions lost");
        self.ask(partitions, deadline, |partitions, reply| ShardEvent::Lost { partitions, reply })
    }
}

impl GroupListener for Rebalances {
    fn joined(&self) {
        if !self.trouble.has_joined() {
            tracing::info!(connector = self.connector, "joined its group");
        }
        self.trouble.set_joined(true);
    }

    fn assigned(&self, partitions: Vec<Assigned>) {
        self.trouble.set_joined(true);
        self.metrics.rebalances_assigned.increment(1);
        let names: Vec<String> = partitions.iter().map(|assigned| assigned.partition.to_string()).collect();
        tracing::info!(connector = self.connector, partitions = names.join(" "), "partitions assigned");
        let mut groups: Vec<Vec<(Assigned, Arc<PartitionProgress>)>> = (0..self.shards.len()).map(|_| Vec::new()).collect();
        for assigned in partitions {
            let progress = Arc::new(
                PartitionProgress::new(assigned.partition.clone(), assigned.epoch, assigned.start).with_metadata(assigned.metadata.clone()),
            );
            self.ownership.insert(progress.clone());
            if let Some(group) = groups.get_mut(self.shard_of(&assigned.partition)) {
                group.push((assigned, progress));
            }
        }
        for (shard, group) in self.shards.iter().zip(groups) {
            if !group.is_empty() && !shard.blocking_send(ShardEvent::Assigned(group)) {
                tracing::error!(connector = self.connector, "a shard has ended and cannot take partitions");
            }
        }
    }

    fn revoking(&self, partitions: &[TopicPartition]) -> Vec<NextOffset> {
        let mut asked = self.begin_revoking(partitions);
        asked.wait(self.tasks.as_ref());
        self.end_revoking(partitions, asked)
    }

    fn not_committed(&self, partitions: &[TopicPartition]) {
        self.metrics.commit_failures.increment(1);
        if self.exactly_once {
            return; // the next owner finds out what landed, and sends none of it again
        }
        for progress in self.revoked.lock().iter().filter(|progress| partitions.contains(&progress.partition)) {
            let (Some(head), Ok(table)) = (progress.head(), self.routes.table_of(&progress.partition.topic)) else { continue };
            // An upper bound: gaps between offsets count as records.
            let again = match progress.committed() {
                Some(committed) => u64::try_from(head - committed).unwrap_or(0),
                None => progress.records.load(Relaxed),
            };
            self.worker.table(&table).metrics.possible_duplicate_rows.increment(again);
        }
    }

    fn lost(&self, partitions: &[TopicPartition]) {
        self.begin_lost(partitions).wait(self.tasks.as_ref());
    }

    fn group_error(&self, message: &str, fatal: bool) {
        self.metrics.consumer_errors.increment(1);
        if fatal {
            self.trouble.fail(format!("the consumer failed: {message}"));
        } else {
            self.trouble.group_error(message);
        }
    }
}
