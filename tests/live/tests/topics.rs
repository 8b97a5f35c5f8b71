//! Topics as they are in real life: transactions, compaction, tombstones, retention, growth.

use std::time::Duration;

use anyhow::{Context, ensure};
use apache_avro::Schema;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::Producer as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::harness::avro::{framed, small, small_schema};
use crate::harness::cluster::Cluster;
use crate::harness::installation::{Installation, avro_connector};
use crate::harness::journal::{Journal, Outgoing, Producer, reconcile_exactly, rows};
use crate::harness::process::wait_for;
use crate::harness::servers::Servers;
use crate::harness::worker::Worker;

const SECONDS_60: Duration = Duration::from_secs(60);

/// A topic of small records with its dead letters, its dataset, its schema and its connector, all of one name.
struct Small {
    schema: Schema,
    id: u32,
    installation: Installation,
}

impl Small {
    fn new(servers: &Servers, test: &str, name: &str, partitions: i32, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        let kafka = servers.kafka()?;
        kafka.create_topic(name, partitions, settings)?;
        kafka.create_topic(&format!("{name}.dead"), 1, &[])?;
        servers.emulator()?.reader().create_dataset(name)?;
        let schema = small_schema("Small", &[]);
        let id = servers.registry()?.register(&format!("{name}-value"), &schema, &[])?;
        let installation = Installation::new(servers, test)?;
        installation.connector(name, &avro_connector(name, &format!("{name}.rows"), &format!("{name}.dead")))?;
        Ok(Self { schema: Schema::parse(&schema)?, id, installation })
    }

    fn value(&self, n: i64) -> anyhow::Result<Vec<u8>> {
        Ok(framed(self.id, &small(&self.schema, n, &[])?))
    }

    fn send(&self, producer: &Producer, numbers: std::ops::Range<i64>, partitions: i64) -> anyhow::Result<()> {
        for n in numbers {
            let partition = i32::try_from(n % partitions)?;
            producer.send(n.to_string(), &Outgoing { partition: Some(partition), value: Some(&self.value(n)?), ..Outgoing::default() })?;
        }
        Ok(())
    }
}

/// Waits until a connector's group has committed `offset` of partition 0.
fn wait_for_commit(kafka: &Cluster, group: &str, topic: &str, offset: i64) -> anyhow::Result<()> {
    let mut last = None;
    let done = wait_for("the commit", Duration::from_secs(30), || {
        last = kafka.committed(group, topic, 0)?;
        Ok((last == Some(offset)).then_some(()))
    });
    done.with_context(|| format!("{group} committed {last:?} of {topic}, wanted {offset}"))
}

pub fn aborted_transactions_never_arrive(servers: &Servers) -> anyhow::Result<()> {
    let kafka = servers.kafka()?;
    let small = Small::new(servers, "topics::aborted_transactions_never_arrive", "aborted", 2, &[])?;
    let mut config = kafka.client();
    config.set("transactional.id", "live-aborted");
    let producer = Producer::new(config, "aborted")?;
    let limit = Duration::from_secs(30);
    producer.inner().init_transactions(limit)?;
    let _worker = small.installation.start()?;
    let (mut committed, mut aborted) = (Journal::new(), Journal::new());
    for transaction in 0..6 {
        producer.inner().begin_transaction()?;
        small.send(&producer, transaction * 100..(transaction + 1) * 100, 2)?;
        let mut written = producer.journal()?; // flushed: the brokers have the records before the outcome is known
        if transaction % 2 == 0 {
            producer.inner().abort_transaction(limit)?;
            aborted.append(&mut written);
        } else {
            producer.inner().commit_transaction(limit)?;
            committed.append(&mut written);
        }
    }
    ensure!((committed.len(), aborted.len()) == (300, 300), "{} committed, {} aborted", committed.len(), aborted.len());
    let reader = servers.emulator()?.reader();
    reconcile_exactly(reader, "aborted.rows", "id", &committed, SECONDS_60)?;
    // The last transaction was committed, so everything below it has been decided: nothing else may follow.
    std::thread::sleep(Duration::from_secs(2));
    reconcile_exactly(reader, "aborted.rows", "id", &committed, SECONDS_60)
}

pub fn a_compacted_topic_with_gaps(servers: &Servers) -> anyhow::Result<()> {
    let kafka = servers.kafka()?;
    let settings = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "500"),
        ("min.cleanable.dirty.ratio", "0.001"),
        ("min.compaction.lag.ms", "0"),
        ("max.compaction.lag.ms", "500"),
    ];
    let small = Small::new(servers, "topics::a_compacted_topic_with_gaps", "compacted", 1, &settings)?;
    let producer = Producer::new(kafka.client(), "compacted")?;
    // 50 keys again and again; a new segment begins with the first record after segment.ms.
    for n in 0..500 {
        let key = (n % 50).to_string();
        producer.send(n.to_string(), &Outgoing { key: key.as_bytes(), value: Some(&small.value(n)?), ..Outgoing::default() })?;
        if n % 100 == 99 {
            producer.inner().flush(SECONDS_60)?;
            std::thread::sleep(Duration::from_millis(700));
        }
    }
    let produced = producer.journal()?;
    let left = wait_for("the log cleaner", SECONDS_60, || {
        let left = offsets(kafka, "compacted")?;
        Ok((left.len() < 300).then_some(left))
    })?;
    let left: Journal = produced.into_iter().filter(|((_, offset), _)| left.contains(offset)).collect();
    let first = left.keys().next().context("something is left")?.1;
    ensure!(first > 0 || left.len() < 500, "no gaps");
    let _worker = small.installation.start()?;
    // The cleaner may take more while the worker reads: what it keeps for certain is the last record of each key.
    let reader = servers.emulator()?.reader();
    wait_for("the last record of each key", SECONDS_60, || {
        let rows = rows(reader, "compacted.rows", "id")?;
        Ok((450..500).all(|n| rows.contains_key(&(0, n))).then_some(()))
    })?;
    let rows = rows(reader, "compacted.rows", "id")?;
    for (place, copies) in &rows {
        ensure!(
            copies.len() == 1 && left.get(place) == copies.first(),
            "{place:?}: {copies:?} in the table, {:?} in the topic",
            left.get(place)
        );
    }
    wait_for_commit(kafka, "connect-compacted", "compacted", 500)
}

/// The offsets of all records that partition 0 of a topic still holds.
fn offsets(kafka: &Cluster, topic: &str) -> anyhow::Result<Vec<i64>> {
    let consumer: BaseConsumer = kafka.client().set("group.id", "offsets").set("enable.partition.eof", "true").create()?;
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(topic, 0, Offset::Beginning)?;
    consumer.assign(&from)?;
    let mut found = Vec::new();
    loop {
        match consumer.poll(Duration::from_secs(20)).context("no end of the partition within 20 s")? {
            Ok(message) => found.push(message.offset()),
            Err(rdkafka::error::KafkaError::PartitionEOF(_)) => return Ok(found),
            Err(error) => return Err(error.into()),
        }
    }
}

pub fn a_batch_of_tombstones_only(servers: &Servers) -> anyhow::Result<()> {
    let kafka = servers.kafka()?;
    let small = Small::new(servers, "topics::a_batch_of_tombstones_only", "tombstones", 1, &[])?;
    let producer = Producer::new(kafka.client(), "tombstones")?;
    for n in 0..250 {
        producer.send("tombstone", &Outgoing { key: n.to_string().as_bytes(), ..Outgoing::default() })?;
    }
    ensure!(producer.journal()?.len() == 250);
    let mut worker = small.installation.start()?;
    worker.wait_for_metric("millrace_tombstones_total", &[("connector", "tombstones")], 250.0, SECONDS_60)?;
    // Nothing became durable, and still the group has done with them.
    wait_for_commit(kafka, "connect-tombstones", "tombstones", 250)?;
    small.send(&producer, 0..10, 1)?;
    let journal = producer.journal()?;
    reconcile_exactly(servers.emulator()?.reader(), "tombstones.rows", "id", &journal, SECONDS_60)?;
    ensure!(worker.metric("millrace_dead_letters_total", &[])? == 0.0, "a tombstone became a dead letter");
    worker.terminate()
}

pub fn retention_overtakes_a_stopped_worker(servers: &Servers) -> anyhow::Result<()> {
    let (kafka, reader) = (servers.kafka()?, servers.emulator()?.reader());
    let small = Small::new(servers, "topics::retention_overtakes_a_stopped_worker", "retention", 1, &[])?;
    let producer = Producer::new(kafka.client(), "retention")?;
    small.send(&producer, 0..100, 1)?;
    let before = producer.journal()?;
    let mut worker = small.installation.start()?;
    reconcile_exactly(reader, "retention.rows", "id", &before, SECONDS_60)?;
    worker.terminate()?;
    wait_for_commit(kafka, "connect-retention", "retention", 100)?;

    small.send(&producer, 100..200, 1)?;
    let after = producer.journal()?;
    kafka.delete_records("retention", 0, 150)?;
    let mut worker = small.installation.start()?;
    worker.wait_for_metric("millrace_held_partitions", &[("connector", "retention"), ("cause", "lost_range")], 1.0, SECONDS_60)?;
    let status = worker.status()?;
    let hold = &status["connectors"][0]["partitions"][0]["hold"];
    let message = hold["message"].as_str().unwrap_or_default();
    ensure!(
        hold["cause"] == "lost_range" && message.contains("offsets 100 to 149 of retention"),
        "/status does not report the range: {status}"
    );
    std::thread::sleep(Duration::from_secs(3));
    ensure!(rows(reader, "retention.rows", "id")?.len() == 100, "rows arrived although the partition holds");
    ensure!(kafka.committed("connect-retention", "retention", 0)? == Some(100), "the hold moved the committed offset");
    worker.terminate()?;

    let connector = avro_connector("retention", "retention.rows", "retention.dead");
    small.installation.connector("retention", &format!("on_lost_range = \"continue\"\n{connector}"))?;
    let worker: Worker = small.installation.start()?;
    let kept = after.into_iter().filter(|((_, offset), _)| *offset >= 150);
    let journal: Journal = before.into_iter().chain(kept).collect();
    ensure!(journal.len() == 150);
    reconcile_exactly(reader, "retention.rows", "id", &journal, SECONDS_60)?;
    ensure!(worker.metric("millrace_lost_records_total", &[("connector", "retention")])? == 50.0, "50 records were lost");
    ensure!(worker.metric("millrace_lost_ranges_total", &[("connector", "retention")])? == 1.0, "one range was lost");
    Ok(())
}

/// `start = "latest"` is about what there is when the connector is first started; what comes later is read from its first record.
pub fn new_partitions_and_topics_start_at_their_first_record(servers: &Servers) -> anyhow::Result<()> {
    let (kafka, reader) = (servers.kafka()?, servers.emulator()?.reader());
    let mut small = Small::new(servers, "topics::new_partitions_and_topics_start_at_their_first_record", "growing", 1, &[])?;
    small.installation.set("kafka", "topic.metadata.refresh.interval.ms", 2000);
    let connector =
        avro_connector("growing", "growing.${topic}", "growing.dead").replace("topics = [\"growing\"]", "topics_regex = \"growing(_.*)?\"");
    small.installation.connector("growing", &connector)?;
    let producer = Producer::new(kafka.client(), "growing")?;
    small.send(&producer, 0..10, 1)?;
    let mut journal = producer.journal()?;
    let mut worker = small.installation.start()?;
    reconcile_exactly(reader, "growing.growing", "id", &journal, SECONDS_60)?;

    kafka.create_topic("growing_two", 1, &[])?;
    let second = Producer::new(kafka.client(), "growing_two")?;
    small.send(&second, 0..10, 1)?;
    kafka.grow_topic("growing", 3)?;
    let producer = Producer::new(kafka.client(), "growing")?; // knows the new partitions from the start
    small.send(&producer, 10..40, 3)?;
    journal.append(&mut producer.journal()?);
    worker.wait_for_partitions("growing", 4, SECONDS_60)?;
    reconcile_exactly(reader, "growing.growing", "id", &journal, SECONDS_60)?;
    reconcile_exactly(reader, "growing.growing_two", "id", &second.journal()?, SECONDS_60)
}
