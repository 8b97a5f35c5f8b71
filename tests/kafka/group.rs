//! Members come and go; nothing is missed, nothing comes twice.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use millrace::config::StartAt;
use millrace::embedded::broker::{BrokerSettings, EmbeddedBroker};
use millrace::kafka::{GroupError, GroupListener, LagClient, NextOffset, StartOffset, Topics, check_connector, start_group};
use millrace::record::TopicPartition;
use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::rig::{Pipeline, Protocol, SESSION, Seen, Worker, join, produce, producer, settings, wait_until};
use crate::machine::Watch;

const PARTITIONS: i32 = 8;
const ROUNDS: usize = 120;
const PER_ROUND: usize = 50;
/// A rebalance takes most of a session here, a cooperative one two.
const SHARED_WITHIN: Duration = Duration::from_secs(90);

/// Three members join and leave while records flow. Returns how many records came more than once without a word: no member was told that
/// its last commit of their partition was refused, or that it was thrown out. (The mock refuses commits while a join is on its way, and a
/// busy machine throws members out.)
fn join_and_leave(protocol: Protocol, group: &str) -> usize {
    // The mock cluster behind the embedded broker, which ends a join that the mock cluster has lost.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let _inside = runtime.enter();
    let cluster = runtime.block_on(EmbeddedBroker::start(BrokerSettings { brokers: 3, ..BrokerSettings::default() })).unwrap();
    runtime.block_on(cluster.create_topic("flow", PARTITIONS)).unwrap();
    let brokers = cluster.bootstrap_servers();
    let writer = {
        let brokers = brokers.clone();
        thread::spawn(move || {
            let producer = producer(&brokers);
            for round in 0..ROUNDS {
                produce(&producer, "flow", PARTITIONS, round * PER_ROUND, PER_ROUND);
                thread::sleep(Duration::from_millis(100));
            }
        })
    };
    let start = || Worker::start(settings(&brokers, group, &["flow"], protocol));
    let first = start();
    wait_until("the first member owns all", SHARED_WITHIN, || first.owned() == PARTITIONS as usize);
    let second = start();
    wait_until("two share", SHARED_WITHIN, || second.owned() > 0 && first.owned() + second.owned() == PARTITIONS as usize);
    let third = start();
    let pipelines = [&first, &second, &third].map(|worker| Arc::clone(&worker.pipeline));
    wait_until("three share", SHARED_WITHIN, || third.owned() > 0 && first.owned() + second.owned() + third.owned() == PARTITIONS as usize);
    thread::sleep(Duration::from_millis(500));
    let mut seen: Vec<Seen> = second.close();
    wait_until("two share again", SHARED_WITHIN, || first.owned() + third.owned() == PARTITIONS as usize);
    seen.extend(first.close());
    wait_until("the last owns all", SHARED_WITHIN, || third.owned() == PARTITIONS as usize);
    writer.join().unwrap();
    let expected = ROUNDS * PER_ROUND * PARTITIONS as usize;
    let key = |s: &Seen| (s.partition.clone(), s.offset);
    let before: HashSet<_> = seen.iter().map(key).collect();
    wait_until("every record", SHARED_WITHIN, || {
        let state = third.pipeline.state.lock();
        state.seen.iter().map(key).chain(before.iter().cloned()).collect::<HashSet<_>>().len() == expected
    });
    assert!(third.pipeline.state.lock().errors.iter().all(|e| e.contains("fatal: false")));
    let last = third.close();
    assert_in_order(&last);
    seen.extend(last);
    let mut counts: HashMap<_, usize> = HashMap::new();
    for record in &seen {
        assert_eq!(record.value, format!("{:032}", record.offset).into_bytes(), "the value of {} at {}", record.partition, record.offset);
        *counts.entry(key(record)).or_default() += 1;
    }
    assert_eq!(counts.len(), expected);
    let mut told = HashSet::new();
    for pipeline in &pipelines {
        let state = pipeline.state.lock();
        told.extend(state.lost.iter().chain(&state.not_committed).cloned());
    }
    let again = counts.iter().filter(|(_, count)| **count > 1);
    let (with_a_word, without): (Vec<_>, Vec<_>) = again.partition(|((partition, _), _)| told.contains(partition));
    println!("{group}: {} records came again of partitions whose members were told so ({told:?})", with_a_word.len());
    without.len()
}

/// Within one epoch of one member, offsets rise.
fn assert_in_order(seen: &[Seen]) {
    let mut last: HashMap<_, i64> = HashMap::new();
    for record in seen {
        if let Some(before) = last.insert((record.partition.clone(), record.epoch), record.offset) {
            assert!(record.offset > before, "{}: {} came after {before}", record.partition, record.offset);
        }
    }
}

#[test]
fn cooperative_sticky_members_join_and_leave_without_loss_or_silent_repeat() {
    assert_eq!(join_and_leave(Protocol::CooperativeSticky, "coop"), 0);
}

#[test]
fn range_members_join_and_leave_without_loss_or_silent_repeat() {
    // The mock refuses a commit while a join is on its way, so what was taken since the last commit comes again here; a real broker takes
    // it.
    assert_eq!(join_and_leave(Protocol::Range, "range"), 0);
}

#[test]
fn consumer_protocol_members_join_and_leave_without_loss_or_silent_repeat() {
    assert_eq!(join_and_leave(Protocol::Consumer, "kip848"), 0);
}

#[test]
fn closing_does_not_wait_for_queues_that_nobody_reads() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("unread", 4, 1).unwrap();
    let brokers = cluster.bootstrap_servers();
    produce(&producer(&brokers), "unread", 4, 0, 5_000);
    let (pipeline, control) = join(settings(&brokers, "unread", &["unread"], Protocol::CooperativeSticky));
    wait_until("all four", Duration::from_secs(20), || pipeline.state.lock().slots.len() == 4);
    thread::sleep(Duration::from_millis(500));
    let begun = Watch::start();
    control.close(Duration::from_secs(20)).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(pipeline.state.lock().slots.is_empty());
    let after = control.commit(&[NextOffset::plain(TopicPartition::new("unread", 0), 1)], Duration::from_secs(1));
    assert!(matches!(after, Err(GroupError::Fenced(_))), "{after:?}");
    // The consumer itself goes on a thread of its own; it goes: no thread of librdkafka's is left for ever.
    wait_until("librdkafka's threads are gone", Duration::from_secs(20), || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        !tasks.filter_map(|t| std::fs::read_to_string(t.path().join("comm")).ok()).any(|name| name.trim() == "kafka-poll-unrea")
    });
}

#[test]
fn commit_errors_are_typed() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("typed", 2, 1).unwrap();
    let brokers = cluster.bootstrap_servers();
    produce(&producer(&brokers), "typed", 2, 0, 10);
    let (pipeline, control) = join(settings(&brokers, "typed", &["typed"], Protocol::CooperativeSticky));
    wait_until("both", Duration::from_secs(20), || pipeline.state.lock().slots.len() == 2);
    let next = |partition, offset| NextOffset::plain(TopicPartition::new("typed", partition), offset);
    let limit = Duration::from_secs(20);
    assert_eq!(control.commit(&[next(0, 3), next(1, 4)], limit), Ok(vec![]));
    let foreign = control.commit(&[next(0, 5), next(7, 1)], limit).unwrap();
    assert!(matches!(foreign.as_slice(), [(p, GroupError::Fenced(_))] if p.partition == 7), "{foreign:?}");
    let lag = LagClient::new(&settings(&brokers, "typed", &["typed"], Protocol::CooperativeSticky)).unwrap();
    assert_eq!(lag.partitions(limit).unwrap().len(), 2);
    let answered = lag.query(&[TopicPartition::new("typed", 0), TopicPartition::new("typed", 1)], limit).unwrap();
    assert_eq!(
        answered.iter().map(|o| (o.low, o.end, o.committed)).collect::<Vec<_>>(),
        [(Some(0), Some(10), Some(5)), (Some(0), Some(10), Some(4))]
    );
    let injected = |error: RDKafkaRespErr| {
        cluster.request_errors(RDKafkaApiKey::OffsetCommit, &[error; 8]);
        let answer = control.commit(&[next(0, 6)], limit);
        cluster.clear_request_errors(RDKafkaApiKey::OffsetCommit);
        let got = answer.map_or_else(|e| e, |failed| failed.into_iter().next().expect("an error").1);
        // librdkafka takes some of them for the loss of its assignment and joins again.
        thread::sleep(Duration::from_millis(500));
        wait_until("both again", Duration::from_secs(20), || pipeline.state.lock().slots.len() == 2);
        got
    };
    let denied = injected(RDKafkaRespErr::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED);
    assert!(matches!(denied, GroupError::Other(_)), "{denied:?}");
    let rebalancing = injected(RDKafkaRespErr::RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS);
    assert!(matches!(rebalancing, GroupError::Rebalancing(_)), "{rebalancing:?}");
    let generation = injected(RDKafkaRespErr::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION);
    assert!(matches!(generation, GroupError::Rebalancing(_)), "{generation:?}");
    let silence = Duration::from_secs(5);
    cluster.broker_round_trip_time(1, silence).unwrap();
    let begun = Watch::start();
    let late = control.commit(&[next(0, 7)], Duration::from_millis(300));
    assert!(matches!(late, Err(GroupError::TimedOut(_))), "{late:?}");
    assert!(begun.elapsed() < silence / 2, "not by the broker's time: {:?}", begun.elapsed());
    cluster.broker_round_trip_time(1, Duration::ZERO).unwrap();
    wait_until("polls go on", Duration::from_secs(20), || control.since_last_poll() < Duration::from_secs(1));
    assert_eq!(control.session_timeout(), SESSION);
    control.close(Duration::from_secs(20)).unwrap();
}

#[test]
fn latest_starts_at_the_end_and_a_topic_found_later_at_its_first_record() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("late-a", 2, 1).unwrap();
    let brokers = cluster.bootstrap_servers();
    let writer = producer(&brokers);
    produce(&writer, "late-a", 2, 0, 100);
    let mut wanted = settings(&brokers, "late", &[], Protocol::CooperativeSticky);
    wanted.topics = Topics::Regex("late-.*".to_owned());
    wanted.start = StartAt::Latest;
    wanted.cluster.kafka.insert("topic.metadata.refresh.interval.ms".to_owned(), millrace::config::KafkaValue::Int(500));
    let worker = Worker::start(wanted.clone());
    wait_until("both partitions", Duration::from_secs(20), || worker.owned() == 2);
    produce(&writer, "late-a", 2, 100, 10);
    cluster.create_topic("late-b", 1, 1).unwrap();
    produce(&writer, "late-b", 1, 0, 7);
    wait_until("ten of each and seven", Duration::from_secs(30), || worker.seen() >= 27);
    let starts = worker.pipeline.state.lock().starts.clone();
    for (partition, _, start) in &starts {
        match &*partition.topic {
            "late-a" => assert!(matches!(start, StartOffset::Latest(100) | StartOffset::Committed(_)), "{partition}: {start:?}"),
            _ => assert_eq!(*start, StartOffset::Earliest, "{partition}"),
        }
    }
    let seen = worker.close();
    assert_eq!(seen.len(), 27);
    assert!(seen.iter().all(|s| &*s.partition.topic == "late-b" || s.offset >= 100));
    // The group is not new any more: the same member again begins at what is committed.
    let again = Worker::start(wanted);
    wait_until("all three", Duration::from_secs(20), || again.owned() == 3);
    let starts = again.pipeline.state.lock().starts.clone();
    assert!(starts.iter().all(|(_, _, start)| matches!(start, StartOffset::Committed(_))), "{starts:?}");
    assert_eq!(again.close().len(), 0);
}

#[test]
fn a_parked_thread_wakes_promptly() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("wake", 1, 1).unwrap();
    let brokers = cluster.bootstrap_servers();
    let writer = producer(&brokers);
    produce(&writer, "wake", 1, 0, 1);
    let pipeline = Pipeline::new();
    *pipeline.wake.lock() = Some(thread::current());
    let control =
        start_group(settings(&brokers, "wake", &["wake"], Protocol::CooperativeSticky), Arc::clone(&pipeline) as Arc<dyn GroupListener>)
            .unwrap();
    // Far longer than a wake-up takes on any machine: who waits it out was not woken.
    let park_max = Duration::from_secs(60);
    let begun = Instant::now();
    while pipeline.take() == 0 {
        assert!(begun.elapsed() < park_max, "never woken at all");
        thread::park_timeout(park_max);
    }
    let mut took = Vec::new();
    for n in 0..30 {
        while pipeline.take() > 0 {}
        let brokers = brokers.clone();
        let sender = thread::spawn(move || {
            let writer = producer(&brokers);
            thread::sleep(Duration::from_millis(50));
            produce(&writer, "wake", 1, n + 1, 1);
            Instant::now()
        });
        let parked = Instant::now();
        while pipeline.take() == 0 {
            assert!(parked.elapsed() < park_max, "never woken in round {n}");
            thread::park_timeout(park_max);
        }
        let woken = Instant::now();
        took.push(woken.saturating_duration_since(sender.join().unwrap()));
    }
    took.sort_unstable();
    assert!(*took.last().unwrap() < park_max / 2, "one was not woken: {took:?}");
    assert!(took[took.len() / 2] < Duration::from_millis(1_500), "wake-ups took {took:?}");
    pipeline.idle.store(true, Ordering::Relaxed);
    control.close(Duration::from_secs(20)).unwrap();
}

#[tokio::test]
async fn check_says_what_it_tried() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("checked", 3, 1).unwrap();
    cluster.create_topic("checked.dead", 1, 1).unwrap();
    let good = settings(&cluster.bootstrap_servers(), "checked", &["checked"], Protocol::CooperativeSticky);
    let tried = check_connector(&good, Some("checked.dead"), Duration::from_secs(30)).await;
    assert!(tried.iter().all(|t| t.outcome.is_ok()), "{tried:#?}");
    assert!(tried.iter().any(|t| t.what == "offsets of group checked"), "{tried:#?}");
    let nobody = settings("127.0.0.1:1", "checked", &["checked"], Protocol::CooperativeSticky);
    let begun = Watch::start();
    let tried = check_connector(&nobody, Some("checked.dead"), Duration::from_secs(2)).await;
    assert!(tried.iter().any(|t| t.what == "reach the brokers" && t.outcome.is_err()), "{tried:#?}");
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_member_that_never_reached_a_broker_says_so_and_closes() {
    let mut nowhere = settings("127.0.0.1:1", "nowhere", &["t"], Protocol::CooperativeSticky);
    nowhere.partitions_max = None;
    let begun = Watch::start();
    let (pipeline, control) = join(nowhere);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    wait_until("an error", Duration::from_secs(10), || !pipeline.state.lock().errors.is_empty());
    assert!(pipeline.state.lock().errors.iter().any(|e| e.contains("127.0.0.1:1")), "{:?}", pipeline.state.lock().errors);
    let begun = Watch::start();
    control.close(Duration::from_secs(20)).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

/// What a commit stores beside the offset comes back with the next assignment; a commit without it erases it; one too large refuses its
/// partition only.
#[test]
fn metadata_goes_with_the_offset_and_comes_back_with_the_assignment() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("noted", 3, 1).unwrap();
    let brokers = cluster.bootstrap_servers();
    produce(&producer(&brokers), "noted", 3, 0, 10);
    let noted = || settings(&brokers, "noted", &["noted"], Protocol::Consumer);
    let place = |partition, offset, metadata: &str| NextOffset {
        partition: TopicPartition::new("noted", partition),
        offset,
        metadata: Some(Arc::from(metadata)),
    };
    let (pipeline, control) = join(noted());
    wait_until("all three", Duration::from_secs(20), || pipeline.state.lock().slots.len() == 3);
    let limit = Duration::from_secs(20);
    assert!(pipeline.state.lock().metadata.values().all(Option::is_none));
    let long = "ü".repeat(2_000);
    assert_eq!(control.commit(&[place(0, 3, "m r1 3 7"), place(1, 4, &long), place(2, 2, "gone soon")], limit), Ok(vec![]));
    assert_eq!(control.commit(&[NextOffset::plain(TopicPartition::new("noted", 2), 2)], limit), Ok(vec![]));
    // Not `close`: its last commits are the pipeline's own, without metadata.
    pipeline.state.lock().slots.clear();
    control.close(Duration::from_secs(20)).unwrap();

    let (pipeline, control) = join(noted());
    wait_until("all three", Duration::from_secs(20), || pipeline.state.lock().slots.len() == 3);
    let metadata = pipeline.state.lock().metadata.clone();
    let of = |partition| metadata[&TopicPartition::new("noted", partition)].as_deref();
    assert_eq!((of(0), of(1), of(2)), (Some("m r1 3 7"), Some(long.as_str()), None));
    control.close(Duration::from_secs(20)).unwrap();
}

/// librdkafka goes on with a commit whose answer came too late for us: a newer one waits for it, so that the older never comes after it.
#[test]
fn a_commit_waits_for_one_without_an_answer() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("late", 1, 1).unwrap();
    let brokers = cluster.bootstrap_servers();
    produce(&producer(&brokers), "late", 1, 0, 10);
    let late = settings(&brokers, "late", &["late"], Protocol::Consumer);
    let (pipeline, control) = join(late.clone());
    wait_until("the partition", Duration::from_secs(20), || pipeline.state.lock().slots.len() == 1);
    let next = |offset| [NextOffset::plain(TopicPartition::new("late", 0), offset)];
    assert_eq!(control.commit(&next(1), Duration::from_secs(20)), Ok(vec![]));
    let round_trip = Duration::from_secs(2);
    cluster.broker_round_trip_time(1, round_trip).unwrap();
    let first = control.commit(&next(2), Duration::from_millis(100));
    assert!(matches!(first, Err(GroupError::TimedOut(_))), "{first:?}");
    let begun = Instant::now();
    let second = control.commit(&next(3), Duration::from_millis(100));
    assert!(matches!(second, Err(GroupError::TimedOut(_))), "not sent beside the first: {second:?}");
    assert_eq!(control.commit(&next(4), Duration::from_secs(60)), Ok(vec![]));
    assert!(begun.elapsed() > round_trip, "{:?}", begun.elapsed());
    cluster.broker_round_trip_time(1, Duration::ZERO).unwrap();
    let committed = LagClient::new(&late).unwrap().query(&[TopicPartition::new("late", 0)], Duration::from_secs(20)).unwrap();
    assert_eq!(committed[0].committed, Some(4));
    pipeline.state.lock().slots.clear();
    control.close(Duration::from_secs(20)).unwrap();
}
