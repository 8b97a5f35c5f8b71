//! What the poll thread, the shards and the committer of one group member share.

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::KafkaError as RdKafkaError;
use rdkafka::util::Timeout;
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use rdkafka_sys::{RDKafkaErrorCode, RDKafkaRespErr};

use super::client::ConsumerHandle;
use super::context::ClientEvents;
use super::error::group_error;
use super::fence::PollTurns;
use super::queue::{self, NativeClient};
use super::rebalance;
use super::seam::{Epoch, GroupError, GroupListener, NextOffset};
use super::settings::GroupSettings;
use crate::record::TopicPartition;
use crate::watchdog::{self, Beat};

/// The consumer of a group member.
pub(super) type GroupConsumer = ConsumerHandle<GroupContext>;

/// Where a partition begins again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BeginAt {
    Offset(i64),
    Earliest,
    /// Where the group's committed offset is, as at an assignment.
    Committed,
}

/// A partition is to begin again.
#[derive(Debug, Clone)]
pub(super) struct Begin {
    pub partition: TopicPartition,
    /// The assignment that is to be replaced; `None`: the group gave the partition, and it was never started.
    pub of: Option<Epoch>,
    pub at: BeginAt,
}

/// What the poll thread is asked to do between two polls.
pub(super) enum Command {
    Begin(Begin),
    Close,
}

/// Which partitions this worker owns.
#[derive(Default)]
pub(super) struct Ownership {
    pub owned: HashMap<TopicPartition, Owned>,
    /// Given by the group, but not yet started: the start failed and is tried again. With the epoch that a new start is to replace.
    pub unstarted: HashMap<TopicPartition, Option<Epoch>>,
    epochs: u64,
}

/// One owned partition.
pub(super) struct Owned {
    /// This assignment.
    pub epoch: Epoch,
    /// Paused by us: a pause survives revocation and assignment, so it is taken back before.
    pub paused: bool,
}

impl Ownership {
    /// The next assignment's number: unique in this process' member, rising.
    pub fn next_epoch(&mut self) -> Epoch {
        self.epochs += 1;
        Epoch(self.epochs)
    }

    /// The assignment that a new start of this partition replaces; `None` when the group has not given it.
    pub fn present(&self, partition: &TopicPartition) -> Option<Option<Epoch>> {
        self.owned.get(partition).map(|owned| Some(owned.epoch)).or_else(|| self.unstarted.get(partition).copied())
    }
}

/// Shared by all who deal with one group member.
pub(super) struct Member {
    pub settings: GroupSettings,
    pub listener: Arc<dyn GroupListener>,
    pub events: ClientEvents,
    pub turns: PollTurns,
    pub session_timeout: Duration,
    /// Partitions known before the member subscribed, when the group had no committed offset at all; see [`super::start_group`].
    pub fresh: OnceLock<HashSet<TopicPartition>>,
    pub commands: SyncSender<Command>,
    pub closing: AtomicBool,
    pub closed: (Mutex<bool>, Condvar),
    pub ownership: Mutex<Ownership>,
    /// Held while a commit is on its way: a revocation waits for it, bounded by the commit's own timeout.
    pub commit_turn: Mutex<()>,
    pub client: OnceLock<Weak<GroupConsumer>>,
}

impl Member {
    /// Watches the poll thread. Its last words name the partitions; their offsets are the shards'.
    pub fn watch(member: &Arc<Self>) -> Beat {
        let connector = &member.settings.cluster.connector;
        let (who, member) = (format!("thread kafka-poll-{connector}"), Arc::downgrade(member));
        let place = move || {
            let Some(member) = member.upgrade() else { return String::new() };
            let mut owned: Vec<String> = member.ownership.lock().owned.keys().map(ToString::to_string).collect();
            owned.sort_unstable();
            let (connector, group) = (&member.settings.cluster.connector, &member.settings.group_id);
            format!("connector {connector}, group {group}, with {} partitions: {}", owned.len(), owned.join(" "))
        };
        watchdog::watch_at(who, Arc::new(place))
    }

    /// The consumer, while it is there.
    pub fn client(&self) -> Result<Arc<GroupConsumer>, GroupError> {
        self.client.get().and_then(Weak::upgrade).ok_or_else(|| GroupError::Fenced("the consumer is closed".to_owned()))
    }

    /// Whether the group has given this partition to this worker and not taken it back.
    pub fn owns(&self, partition: &TopicPartition) -> bool {
        self.ownership.lock().owned.contains_key(partition)
    }

    /// Whether the group has given this worker any partition.
    pub fn owns_some(&self) -> bool {
        let ownership = self.ownership.lock();
        !ownership.owned.is_empty() || !ownership.unstarted.is_empty()
    }

    /// Tells the listener and the log.
    pub fn report(&self, message: &str, fatal: bool) {
        let (group, connector) = (self.settings.group_id.as_str(), self.settings.cluster.connector.as_str());
        if fatal {
            tracing::error!(connector, group, "Kafka: {message}");
        } else {
            tracing::warn!(connector, group, "Kafka: {message}");
        }
        self.listener.group_error(message, fatal);
    }

    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Commits; the caller has checked ownership.
    pub fn commit(
        &self,
        client: &dyn NativeClient,
        offsets: &[NextOffset],
        timeout: Duration,
    ) -> Result<Vec<(TopicPartition, GroupError)>, GroupError> {
        if offsets.is_empty() {
            return Ok(Vec::new());
        }
        let mut list = TopicPartitionList::with_capacity(offsets.len());
        for next in offsets {
            let refused = |what: String| GroupError::Other(format!("{} at {}: {what}", next.partition, next.offset));
            list.add_partition_offset(&next.partition.topic, next.partition.partition, Offset::Offset(next.offset))
                .map_err(|e| refused(e.to_string()))?;
            if let Some(metadata) = &next.metadata {
                let mut element = list
                    .find_partition(&next.partition.topic, next.partition.partition)
                    .ok_or_else(|| refused("librdkafka lost it from its list".to_owned()))?;
                element.set_metadata(&**metadata);
            }
        }
        let answer = queue::commit(client, &list, timeout);
        let sorted = sort_commit_answer(answer);
        if matches!(&sorted, Ok(failed) if failed.len() < offsets.len()) {
            self.turns.confirmed();
        }
        sorted
    }
}

/// An error of the whole group (generation, fencing, no answer) is one for the call; others belong to the partitions that carry them.
fn sort_commit_answer((whole, failed): queue::CommitAnswer) -> Result<Vec<(TopicPartition, GroupError)>, GroupError> {
    // Nothing to commit is no error.
    let whole = whole.filter(|code| *code != RDKafkaErrorCode::NoOffset);
    if let Some(code) = whole {
        let error = group_error(code, "commit");
        if failed.is_empty() || !matches!(error, GroupError::Other(_) | GroupError::MetadataTooLarge(_)) {
            return Err(error);
        }
    }
    Ok(failed.into_iter().map(|(partition, code)| (partition, group_error(code, "commit"))).collect())
}

/// librdkafka's view of a member: rebalances come here, on the poll thread.
pub(super) struct GroupContext(pub Arc<Member>);

impl ClientContext for GroupContext {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        self.0.events.log(level, fac, message);
    }
    fn stats_raw(&self, _statistics: &[u8]) {}
    fn error(&self, error: RdKafkaError, reason: &str) {
        self.0.events.error(error, reason);
    }
    fn generate_oauth_token(&self, config: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        self.0.events.generate_oauth_token(config)
    }
}

impl ConsumerContext for GroupContext {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, err: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        if err == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            rebalance::assign(&self.0, consumer, partitions);
        } else {
            rebalance::revoke(&self.0, consumer, partitions);
        }
    }

    fn main_queue_min_poll_interval(&self) -> Timeout {
        Timeout::After(Duration::from_millis(50))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commit_answers_are_sorted_into_what_the_committer_does() {
        let p = |n| TopicPartition::new("t", n);
        assert!(matches!(sort_commit_answer((Some(RDKafkaErrorCode::IllegalGeneration), vec![])), Err(GroupError::Rebalancing(_))));
        let all = vec![(p(0), RDKafkaErrorCode::UnknownMemberId)];
        assert!(matches!(sort_commit_answer((Some(RDKafkaErrorCode::UnknownMemberId), all)), Err(GroupError::Fenced(_))));
        assert!(matches!(sort_commit_answer((Some(RDKafkaErrorCode::OperationTimedOut), vec![])), Err(GroupError::TimedOut(_))));
        let one = vec![(p(1), RDKafkaErrorCode::OffsetMetadataTooLarge)];
        let sorted = sort_commit_answer((Some(RDKafkaErrorCode::OffsetMetadataTooLarge), one));
        assert!(matches!(&sorted, Ok(failed) if failed.len() == 1 && failed[0].0 == p(1)), "{sorted:?}");
        assert_eq!(sort_commit_answer((Some(RDKafkaErrorCode::NoOffset), vec![])), Ok(vec![]));
        assert_eq!(sort_commit_answer((None, vec![])), Ok(vec![]));
    }
}
