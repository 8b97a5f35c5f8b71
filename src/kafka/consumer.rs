//! Starting a member of a consumer group, and the thread that polls it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError as RdKafkaError;
use rdkafka::message::Message;

use super::client::{ConsumerHandle, Outsider};
use super::control::MemberControl;
use super::error::KafkaError;
use super::fence::PollTurns;
use super::member::{Begin, BeginAt, Command, GroupConsumer, GroupContext, Member};
use super::prefetch::Prefetch;
use super::properties;
use super::purpose::{Errand, Purpose};
use super::queue::is_member;
use super::rebalance;
use super::repeats::Repeats;
use super::seam::{GroupControl, GroupListener};
use super::settings::{GroupSettings, Topics};
use super::{start, topics};
use crate::flow::SystemClock;
use crate::record::TopicPartition;

/// One poll: the longest that a request waits for the poll thread.
const POLL: Duration = Duration::from_millis(50);
/// Requests that may wait for the poll thread.
const COMMANDS_MAX: usize = 1024;
/// How long the partitions are asked for, so that prefetch can be planned.
const PLAN_TIMEOUT: Duration = Duration::from_secs(5);
/// What is planned for when the brokers do not answer at the start.
const PLAN_PARTITIONS: u64 = 100;
const PLAN_BROKERS: u64 = 3;
/// How often a member without partitions looks whether the group has it.
const MEMBER_LOOK: Duration = Duration::from_secs(1);
/// After this a consumer that does not close is left to its own thread.
const CLOSE_MAX: Duration = Duration::from_secs(60);
/// Between two tries to begin a partition again.
const BEGIN_AGAIN: Duration = Duration::from_millis(500);

/// Starts a member of a consumer group, with a poll thread of its own (`kafka-poll-<connector>`). Every call to the listener comes from it.
///
/// Blocks for up to 5 s while the brokers are asked how many partitions there are, for prefetch is planned for the whole topics: a member
/// may come to own them all. Call it where blocking is allowed.
///
/// **Start offsets.** A committed offset counts. Without one a partition starts at its first record; with `start = "latest"` it starts at
/// its end if it was there before this member joined and the group had no committed offset for any partition of the topics at that moment.
/// So new partitions, and topics that a regular expression finds later, start at their first record, whatever `start` says. Ends are
/// committed at once, so that the choice outlives a restart; should that one commit fail, a restart before the next takes the partition
/// from its first record.
///
/// **Errors at run time** reach [`GroupListener::group_error`]; brokers that do not answer at the start are no error: librdkafka goes on
/// trying.
///
/// # Errors
/// Properties that librdkafka or millrace's promises refuse; no thread.
pub fn start_group(settings: GroupSettings, listener: Arc<dyn GroupListener>) -> Result<Arc<dyn GroupControl>, KafkaError> {
    let subscription = settings.topics.subscription()?;
    let prefetch = plan(&settings)?;
    let purpose = Purpose::Member { group_id: &settings.group_id, prefetch, topics_by_regex: matches!(settings.topics, Topics::Regex(_)) };
    let properties = properties::merge(&settings.cluster, &purpose)?;
    let session_timeout = Duration::from_millis(properties.session_timeout_ms);
    let (commands, requests) = sync_channel(COMMANDS_MAX);
    let member = Arc::new(Member {
        listener,
        events: properties.events,
        turns: PollTurns::new(session_timeout, Arc::new(SystemClock::new())),
        session_timeout,
        fresh: OnceLock::new(),
        commands,
        closing: AtomicBool::new(false),
        closed: (Mutex::new(false), Condvar::new()),
        ownership: Mutex::default(),
        commit_turn: Mutex::new(()),
        client: OnceLock::new(),
        settings,
    });
    let consumer: BaseConsumer<GroupContext> =
        properties.config.create_with_context(GroupContext(Arc::clone(&member))).map_err(properties::creation_error)?;
    let consumer = Arc::new(ConsumerHandle::new(consumer));
    // Set once: the member was made above.
    let _first = member.client.set(Arc::downgrade(&consumer));
    let poller =
        Poller { member: Arc::clone(&member), consumer, requests, later: Vec::new(), looked: Instant::now(), repeats: Repeats::default() };
    thread::Builder::new()
        .name(format!("kafka-poll-{}", member.settings.cluster.connector))
        .spawn(move || poller.run(&subscription))
        .map_err(|error| KafkaError::Stopped(format!("no poll thread: {error}")))?;
    Ok(Arc::new(MemberControl::new(member)))
}

/// Limits on fetching ahead, for all partitions of the topics.
fn plan(settings: &GroupSettings) -> Result<Prefetch, KafkaError> {
    let (partitions, brokers) = match settings.partitions_max {
        Some(partitions) => (u64::from(partitions), PLAN_BROKERS),
        None => {
            let asker = Outsider::new(&settings.cluster, &settings.group_id, Errand::Plan)?;
            match topics::known(&asker, &settings.topics, PLAN_TIMEOUT) {
                Ok(known) => ((known.partitions.len() as u64).max(1), (known.brokers as u64).max(1)),
                Err(error) => {
                    let group = settings.group_id.as_str();
                    tracing::warn!(
                        group,
                        "prefetch is planned for {PLAN_PARTITIONS} partitions, for the brokers did not say how many there are: {error}"
                    );
                    (PLAN_PARTITIONS, PLAN_BROKERS)
                }
            }
        }
    };
    let plan = Prefetch::plan(settings.prefetch_bytes, partitions, brokers);
    let bound = plan.bound_bytes(partitions, brokers);
    if bound > settings.prefetch_bytes {
        tracing::warn!(
            group = settings.group_id,
            "prefetch may take {bound} bytes, more than its budget of {}: {partitions} partitions on {brokers} brokers need at least that",
            settings.prefetch_bytes
        );
    }
    Ok(plan)
}

/// The poll thread's state.
struct Poller {
    member: Arc<Member>,
    consumer: Arc<GroupConsumer>,
    requests: Receiver<Command>,
    /// Partitions to begin again once more, and when.
    later: Vec<(Begin, Instant)>,
    /// When it looked last whether the group has it.
    looked: Instant,
    /// What librdkafka has said lately.
    repeats: Repeats,
}

impl Poller {
    fn run(mut self, subscription: &[String]) {
        let ended = Ended(Arc::clone(&self.member));
        self.member.turns.watched_by(Member::watch(&self.member));
        start::remember_fresh(&self.member, &self.consumer);
        let names: Vec<&str> = subscription.iter().map(String::as_str).collect();
        if let Err(error) = self.consumer.subscribe(&names) {
            self.member.report(&format!("subscribe to {}: {error}", names.join(", ")), true);
        }
        while !self.member.is_closing() {
            self.turn();
            self.serve_requests();
            self.look_for_membership();
        }
        self.close();
        // Before anybody hears that it is closed: whoever asks afterwards finds no consumer. It waits for threads that may ask for a
        // broker's address.
        self.member.turns.unwatched();
        drop(self.consumer);
        drop(ended);
    }

    fn turn(&mut self) {
        self.member.turns.turn();
        match self.consumer.poll(POLL) {
            None => {}
            Some(Ok(stray)) => {
                // Never seen with the order of calls in `rebalance`; if it happens the record is not lost: its partition starts anew from
                // the committed offset, since rows of the former epoch that are not durable are dropped.
                let partition = TopicPartition::new(stray.topic(), stray.partition());
                self.member.report(&format!("a record of {partition} came past its queue: the partition begins again"), false);
                if let Some(of) = self.member.ownership.lock().present(&partition) {
                    self.later.push((Begin { partition, of, at: BeginAt::Committed }, Instant::now()));
                }
            }
            Some(Err(error)) => self.hear(&error),
        }
        self.member.turns.turn();
    }

    /// Health hears of every error; the log of one that is repeated, as librdkafka does all through an outage, once in a while.
    fn hear(&mut self, error: &RdKafkaError) {
        let reason = self.member.events.take_reason().unwrap_or_default();
        let fatal = matches!(error, RdKafkaError::MessageConsumptionFatal(_));
        let (kind, message) = (error.to_string(), format!("{error}: {reason}"));
        match self.repeats.came(&kind, Instant::now()) {
            None if !fatal => return self.member.listener.group_error(&message, false),
            None | Some(0) => {}
            Some(left_out) => {
                let connector = self.member.settings.cluster.connector.as_str();
                tracing::info!(connector, left_out, "Kafka: {kind}: so many more since this was last written");
            }
        }
        self.member.report(&message, fatal);
    }

    fn serve_requests(&mut self) {
        let mut due: Vec<Begin> = Vec::new();
        // `Close` ends it as an empty queue does: the caller looks at `is_closing`.
        while let Ok(Command::Begin(begin)) = self.requests.try_recv() {
            due.push(begin);
        }
        let now = Instant::now();
        self.later.retain(|(begin, when)| {
            if *when <= now {
                due.push(begin.clone());
            }
            *when > now
        });
        if due.is_empty() || self.member.is_closing() {
            return;
        }
        // All at once: with an eager protocol one that begins again ends the others' assignments, and with them what was asked for them.
        if let Err(message) = rebalance::begin_again(&self.member, &self.consumer, &due) {
            let which = due.iter().map(|begin| begin.partition.to_string()).collect::<Vec<_>>().join(" ");
            self.member.report(&format!("{which} could not begin again, tried again: {message}"), false);
            self.later.extend(due.into_iter().map(|begin| (begin, now + BEGIN_AGAIN)));
        }
        self.member.turns.turn();
    }

    /// A member that gets no partition may hear nothing at all (KIP-848: no rebalance without a change of its own): it asks.
    fn look_for_membership(&mut self) {
        if self.looked.elapsed() < MEMBER_LOOK || self.member.owns_some() {
            return;
        }
        self.looked = Instant::now();
        if is_member(self.consumer.as_ref()) {
            self.member.listener.joined();
        }
    }

    /// Leaves the group. The revocation comes through the poll like any other.
    fn close(&mut self) {
        let deadline = Instant::now() + CLOSE_MAX;
        if let Err(error) = self.consumer.close_queue() {
            tracing::warn!(group = self.member.settings.group_id, "the consumer could not leave its group: {error}");
        } else {
            while !self.consumer.closed() && Instant::now() < deadline {
                self.member.turns.turn();
                if let Some(Err(error)) = self.consumer.poll(POLL) {
                    tracing::debug!(group = self.member.settings.group_id, %error, "while closing");
                }
            }
        }
    }
}

/// However the poll thread ends, nobody waits for it for ever, and the listener holds no queue of a consumer that is gone.
struct Ended(Arc<Member>);

impl Drop for Ended {
    fn drop(&mut self) {
        if thread::panicking() {
            guarded("saying that the poll thread panicked", || self.0.report("the poll thread panicked", true));
        }
        let left: Vec<TopicPartition> = self.0.ownership.lock().owned.drain().map(|(partition, _)| partition).collect();
        if !left.is_empty() {
            // Also after a panic: shards that kept queues of the consumer would keep it alive, and its heartbeats with it.
            guarded("giving up the partitions of a poll thread that ended", || self.0.listener.lost(&left));
        }
        self.0.turns.end();
        let (closed, changed) = &self.0.closed;
        *closed.lock() = true;
        changed.notify_all();
    }
}

/// Also while the thread panics: a second panic that left a drop would end the process.
fn guarded(what: &str, tell: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(tell)).is_err() {
        tracing::error!("{what} panicked");
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Tells as [`Ended`] does.
    struct Tells(mpsc::Sender<&'static str>);

    impl Drop for Tells {
        fn drop(&mut self) {
            assert!(thread::panicking());
            guarded("the first", || {
                self.0.send("first").unwrap();
                panic!("on purpose, in a drop");
            });
            guarded("the second", || self.0.send("second").unwrap());
        }
    }

    #[test]
    fn a_panic_while_the_thread_panics_keeps_nothing_from_being_told() {
        let (told, heard) = mpsc::channel();
        let ended = thread::spawn(move || {
            let _tells = Tells(told);
            panic!("on purpose");
        });
        assert!(ended.join().is_err());
        assert_eq!(heard.iter().collect::<Vec<_>>(), ["first", "second"]);
    }
}
