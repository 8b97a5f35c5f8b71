//! Holds (pause, seek, resume) and partitions that begin again.

use std::time::Duration;

use millrace::kafka::{Flow, NextOffset, QueueEvent, StartOffset};
use millrace::record::TopicPartition;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::mocking::MockCluster;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::rig::{Protocol, Worker, join, produce, producer, settings, wait_until};
use crate::machine::Watch;

#[test]
fn holds_keep_order_and_completeness() {
    const RECORDS: i64 = 20_000;
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("held", 2, 1).unwrap();
    let brokers = cluster.bootstrap_servers();
    let writer = producer(&brokers);
    produce(&writer, "held", 2, 0, RECORDS as usize);
    let (pipeline, control) = join(settings(&brokers, "held", &["held"], Protocol::CooperativeSticky));
    wait_until("both", Duration::from_secs(20), || pipeline.state.lock().slots.len() == 2);
    // Partition 1 flows on; partition 0 is held again and again, and whatever still comes meanwhile is thrown away.
    let held = TopicPartition::new("held", 0);
    let flowing = TopicPartition::new("held", 1);
    let (mut next, mut other, mut rounds) = (0_i64, 0_i64, 0);
    let begun = Watch::start();
    while next < RECORDS || other < RECORDS {
        assert!(begun.elapsed() < Duration::from_secs(60), "stalled at {next} and {other} after {rounds} holds");
        let mut state = pipeline.state.lock();
        let slot = state.slots.get_mut(&flowing).unwrap();
        slot.queue.take(&mut |record| {
            assert_eq!(record.offset, other);
            other += 1;
            Flow::Continue
        });
        let slot = state.slots.get_mut(&held).unwrap();
        let mut left = 300;
        slot.queue.take(&mut |record| {
            assert_eq!(record.offset, next, "after {rounds} holds");
            next += 1;
            left -= 1;
            if left == 0 { Flow::Yield } else { Flow::Continue }
        });
        drop(state);
        if left == 0 && next < RECORDS {
            control.pause(&held).unwrap();
            rounds += 1;
            let mut state = pipeline.state.lock();
            state.slots.get_mut(&held).unwrap().queue.take(&mut |_| Flow::Continue);
            drop(state);
            control.seek_and_resume(&held, next, Duration::from_secs(5)).unwrap();
        }
    }
    assert!(rounds >= 40, "only {rounds} holds");
    control.close(Duration::from_secs(20)).unwrap();
}

fn restart(protocol: Protocol, group: &str) {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("gone", 3, 1).unwrap();
    let brokers = cluster.bootstrap_servers();
    produce(&producer(&brokers), "gone", 3, 0, 100);
    // Partition 0 has a committed offset that is not there.
    let outsider: BaseConsumer = ClientConfig::new().set("bootstrap.servers", &brokers).set("group.id", group).create().unwrap();
    let mut far = TopicPartitionList::new();
    far.add_partition_offset("gone", 0, Offset::Offset(10_000)).unwrap();
    outsider.commit(&far, CommitMode::Sync).unwrap();
    drop(far);
    drop(outsider);
    let worker = Worker::start(settings(&brokers, group, &["gone"], protocol));
    let lost = TopicPartition::new("gone", 0);
    wait_until("the event", Duration::from_secs(30), || !worker.pipeline.state.lock().events.is_empty());
    assert_eq!(worker.pipeline.state.lock().events, [(lost.clone(), QueueEvent::OutOfRange { asked: 10_000 })]);
    wait_until("the others flow on", Duration::from_secs(20), || worker.seen() == 200);
    assert_eq!(worker.control.watermarks(&lost, Duration::from_secs(5)), Ok((0, 100)));
    let epoch_of = |partition: &TopicPartition| {
        let state = worker.pipeline.state.lock();
        state.starts.iter().filter(|(p, _, _)| p == partition).map(|(_, epoch, _)| *epoch).max().unwrap()
    };
    let first = epoch_of(&lost);
    worker.control.restart_at(&lost, first, Some(40)).unwrap();
    wait_until("sixty records", Duration::from_secs(20), || {
        worker.pipeline.state.lock().seen.iter().any(|s| s.partition == lost && s.offset == 99)
    });
    {
        let state = worker.pipeline.state.lock();
        assert!(state.lost.contains(&lost));
        let starts: Vec<_> = state.starts.iter().filter(|(p, _, _)| *p == lost).collect();
        assert_eq!(starts.len(), 2, "{starts:?}");
        assert!(starts[1].1 > starts[0].1, "a new epoch");
        assert_eq!(starts[1].2, StartOffset::Asked(40), "which the group does not have");
        let offsets: Vec<i64> = state.seen.iter().filter(|s| s.partition == lost).map(|s| s.offset).collect();
        assert_eq!(offsets, (40..100).collect::<Vec<_>>());
    }
    // Sent again, for no answer came in time, and served when the partition has begun again: nothing comes of it.
    worker.control.restart_at(&lost, first, Some(40)).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!((epoch_of(&lost) > first, worker.pipeline.state.lock().starts.iter().filter(|(p, _, _)| *p == lost).count()), (true, 2));
    worker.control.restart_at(&lost, epoch_of(&lost), None).unwrap();
    wait_until("all hundred from the first", Duration::from_secs(20), || {
        let state = worker.pipeline.state.lock();
        let epoch = state.starts.iter().filter(|(p, _, _)| *p == lost).map(|(_, epoch, _)| *epoch).max().unwrap();
        state.seen.iter().filter(|s| s.partition == lost && s.epoch == epoch).count() == 100
    });
    // The others neither missed nor repeated anything.
    produce(&producer(&brokers), "gone", 3, 100, 5);
    wait_until("five more of each", Duration::from_secs(20), || worker.seen() == 200 + 60 + 100 + 15);
    let seen = worker.close();
    assert_eq!(seen.len(), 375);
    for partition in [1, 2] {
        let offsets: Vec<i64> = seen.iter().filter(|s| s.partition.partition == partition).map(|s| s.offset).collect();
        assert_eq!(offsets, (0..105).collect::<Vec<_>>(), "partition {partition}");
    }
}

#[test]
fn a_lost_range_is_reported_and_restarted_cooperative() {
    restart(Protocol::CooperativeSticky, "gone-coop");
}

#[test]
fn a_lost_range_is_reported_and_restarted_range() {
    restart(Protocol::Range, "gone-range");
}

#[test]
fn a_lost_range_is_reported_and_restarted_consumer_protocol() {
    restart(Protocol::Consumer, "gone-848");
}

#[test]
fn a_pause_does_not_outlive_the_assignment() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("paused", 1, 1).unwrap();
    let brokers = cluster.bootstrap_servers();
    let writer = producer(&brokers);
    produce(&writer, "paused", 1, 0, 10);
    let worker = Worker::start(settings(&brokers, "paused", &["paused"], Protocol::CooperativeSticky));
    let partition = TopicPartition::new("paused", 0);
    wait_until("ten", Duration::from_secs(20), || worker.seen() == 10);
    worker.control.pause(&partition).unwrap();
    let epoch = worker.pipeline.state.lock().starts[0].1;
    worker.control.restart_at(&partition, epoch, Some(10)).unwrap();
    wait_until("a second start", Duration::from_secs(20), || worker.pipeline.state.lock().starts.len() == 2);
    produce(&writer, "paused", 1, 10, 10);
    wait_until("ten more, though it was paused", Duration::from_secs(20), || worker.seen() == 20);
    let next = NextOffset::plain(TopicPartition::new("paused", 5), 1);
    assert!(worker.control.pause(&next.partition).is_err());
    worker.close();
}

#[test]
fn a_panic_in_the_callback_reaches_the_taker_and_costs_one_record() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("panic", 1, 1).unwrap();
    let brokers = cluster.bootstrap_servers();
    produce(&producer(&brokers), "panic", 1, 0, 20);
    let (pipeline, control) = join(settings(&brokers, "panic", &["panic"], Protocol::CooperativeSticky));
    let partition = TopicPartition::new("panic", 0);
    wait_until("the partition", Duration::from_secs(20), || !pipeline.state.lock().slots.is_empty());
    let mut offsets = Vec::new();
    let mut panics = 0;
    wait_until("all but one", Duration::from_secs(20), || {
        let mut state = pipeline.state.lock();
        let queue = &mut state.slots.get_mut(&partition).unwrap().queue;
        let taken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            queue.take(&mut |record| {
                assert_ne!(record.offset, 7, "on purpose");
                offsets.push(record.offset);
                Flow::Continue
            })
        }));
        panics += usize::from(taken.is_err());
        offsets.len() == 19
    });
    assert_eq!(panics, 1);
    assert_eq!(offsets, (0..20).filter(|o| *o != 7).collect::<Vec<_>>());
    control.close(Duration::from_secs(20)).unwrap();
}
