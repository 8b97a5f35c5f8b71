//! [`GroupControl`] over librdkafka: commits, holds, questions, the end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::{Offset, TopicPartitionList};

use super::error::group_error;
use super::member::{Begin, BeginAt, Command, GroupConsumer, Member};
use super::rebalance::list_of;
use super::seam::{Epoch, GroupControl, GroupError, NextOffset};
use crate::record::TopicPartition;

/// Control over one member. Dropping it closes the member without waiting.
pub(super) struct MemberControl {
    member: Arc<Member>,
}

impl MemberControl {
    pub fn new(member: Arc<Member>) -> Self {
        Self { member }
    }

    fn owned_client(&self, partition: &TopicPartition) -> Result<Arc<GroupConsumer>, GroupError> {
        if !self.member.owns(partition) {
            return Err(not_owned(partition));
        }
        self.member.client()
    }

    fn ask(&self, command: Command) -> Result<(), GroupError> {
        self.member
            .commands
            .try_send(command)
            .map_err(|_| GroupError::Other("the poll thread has too many requests, or has ended".to_owned()))
    }
}

impl GroupControl for MemberControl {
    fn commit(&self, offsets: &[NextOffset], timeout: Duration) -> Result<Vec<(TopicPartition, GroupError)>, GroupError> {
        let client = self.member.client()?;
        let deadline = Instant::now() + timeout;
        // A revocation takes partitions away first and then waits for this turn to end: what is checked under it stays true.
        let Some(_turn) = self.member.commit_turn.try_lock_for(timeout) else {
            return Err(GroupError::TimedOut("another commit is on its way".to_owned()));
        };
        let (owned, gone): (Vec<NextOffset>, Vec<NextOffset>) = {
            let ownership = self.member.ownership.lock();
            offsets.iter().cloned().partition(|next| ownership.owned.contains_key(&next.partition))
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let mut failed = self.member.commit(client.as_ref(), &owned, left)?;
        failed.extend(gone.into_iter().map(|next| {
            let error = not_owned(&next.partition);
            (next.partition, error)
        }));
        Ok(failed)
    }

    fn pause(&self, partition: &TopicPartition) -> Result<(), GroupError> {
        let client = self.member.client()?;
        // Under the lock: a pause after the revocation's resume would outlive the assignment.
        let mut ownership = self.member.ownership.lock();
        let owned = ownership.owned.get_mut(partition).ok_or_else(|| not_owned(partition))?;
        client.pause(&list_of(std::slice::from_ref(partition))).map_err(|e| GroupError::Other(format!("pause {partition}: {e}")))?;
        owned.paused = true;
        Ok(())
    }

    fn seek_and_resume(&self, partition: &TopicPartition, offset: i64, timeout: Duration) -> Result<(), GroupError> {
        let client = self.owned_client(partition)?;
        let mut list = TopicPartitionList::with_capacity(1);
        let other = |e: rdkafka::error::KafkaError| GroupError::Other(format!("seek {partition} to {offset}: {e}"));
        list.add_partition_offset(&partition.topic, partition.partition, Offset::Offset(offset)).map_err(other)?;
        let sought = client.seek_partitions(list, timeout).map_err(other)?;
        if let Some(element) = sought.find_partition(&partition.topic, partition.partition)
            && let Err(error) = element.error()
        {
            let detail = format!("seek {partition} to {offset}");
            return Err(error.rdkafka_error_code().map_or_else(|| other(error.clone()), |code| group_error(code, &detail)));
        }
        let mut ownership = self.member.ownership.lock();
        let owned = ownership.owned.get_mut(partition).ok_or_else(|| not_owned(partition))?;
        client.resume(&list_of(std::slice::from_ref(partition))).map_err(|e| GroupError::Other(format!("resume {partition}: {e}")))?;
        owned.paused = false;
        Ok(())
    }

    fn restart_at(&self, partition: &TopicPartition, epoch: Epoch, offset: Option<i64>) -> Result<(), GroupError> {
        if !self.member.owns(partition) {
            return Err(not_owned(partition));
        }
        let at = offset.map_or(BeginAt::Earliest, BeginAt::Offset);
        self.ask(Command::Begin(Begin { partition: partition.clone(), of: Some(epoch), at }))
    }

    fn watermarks(&self, partition: &TopicPartition, timeout: Duration) -> Result<(i64, i64), GroupError> {
        let client = self.member.client()?;
        client.fetch_watermarks(&partition.topic, partition.partition, timeout).map_err(|error| {
            let detail = format!("watermarks of {partition}");
            error.rdkafka_error_code().map_or_else(|| GroupError::Other(format!("{detail}: {error}")), |code| group_error(code, &detail))
        })
    }

    fn since_last_poll(&self) -> Duration {
        self.member.turns.since()
    }

    fn session_timeout(&self) -> Duration {
        self.member.session_timeout
    }

    fn close(&self, timeout: Duration) -> Result<(), GroupError> {
        self.member.closing.store(true, Ordering::Release);
        // Full or disconnected: the poll thread looks at `closing` too.
        let _seen_anyway = self.member.commands.try_send(Command::Close);
        let deadline = Instant::now() + timeout;
        let (closed, changed) = &self.member.closed;
        let mut closed = closed.lock();
        while !*closed {
            if changed.wait_until(&mut closed, deadline).timed_out() && !*closed {
                return Err(GroupError::TimedOut(format!("the consumer of group {} is still closing", self.member.settings.group_id)));
            }
        }
        Ok(())
    }
}

impl Drop for MemberControl {
    fn drop(&mut self) {
        self.member.closing.store(true, Ordering::Release);
    }
}

fn not_owned(partition: &TopicPartition) -> GroupError {
    GroupError::Fenced(format!("{partition} is not this worker's"))
}
