//! `millrace offsets` against real brokers: the coordinator alone says whether a group has members, of either protocol.

use std::time::Duration;

use anyhow::ensure;
use apache_avro::Schema;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::harness::avro::{framed, small, small_schema};
use crate::harness::installation::{Installation, avro_connector};
use crate::harness::journal::{Outgoing, Producer};
use crate::harness::servers::Servers;

const WITHIN: Duration = Duration::from_secs(60);
const RECORDS: i64 = 50;

pub fn are_set_only_while_nobody_reads(servers: &Servers) -> anyhow::Result<()> {
    let (kafka, reader) = (servers.kafka()?, servers.emulator()?.reader());
    reader.create_dataset("moved")?;
    for protocol in ["classic", "consumer"] {
        let name = format!("moved-{protocol}");
        kafka.create_topic(&name, 1, &[])?;
        let schema = small_schema("Moved", &[]);
        let id = servers.registry()?.register(&format!("{name}-value"), &schema, &[])?;
        let schema = Schema::parse(&schema)?;
        let mut installation = Installation::new(servers, &format!("offsets::are_set_only_while_nobody_reads::{protocol}"))?;
        if protocol == "consumer" {
            installation.unset("kafka", "session.timeout.ms");
            installation.set("kafka", "group.protocol", protocol);
        }
        installation.connector(&name, &avro_connector(&name, &format!("moved.{protocol}"), "moved.dead"))?;
        let producer = Producer::new(kafka.client(), &name)?;
        for n in 0..RECORDS {
            let value = framed(id, &small(&schema, n, &[])?);
            producer.send(n.to_string(), &Outgoing { value: Some(&value), ..Outgoing::default() })?;
        }
        producer.journal()?;
        let mut worker = installation.start()?;
        let group = format!("connect-{name}");
        worker.wait_for_metric("millrace_table_rows_durable_total", &[], RECORDS as f64, WITHIN)?;
        wait_for_commit(|| kafka.committed(&group, &name, 0), RECORDS)?;

        let (code, told) = installation.command(&["offsets", "show", &name])?;
        ensure!(code == Some(0) && told.contains(&format!("{name}[0]")) && told.contains("50"), "{code:?}: {told}");
        let (code, told) = installation.command(&["offsets", "set", &name, "--to", "earliest"])?;
        ensure!(
            code == Some(1) && told.contains("has members") && told.contains("connectors stop"),
            "{protocol}, while it runs: {code:?}: {told}"
        );
        ensure!(kafka.committed(&group, &name, 0)? == Some(RECORDS), "set all the same");
        worker.terminate()?;

        let (code, told) = installation.command(&["offsets", "set", &name, "--to", "20", "--dry-run"])?;
        ensure!(
            code == Some(0) && told.contains("at most 30 records come again, 0 are left out") && told.contains("nothing was set"),
            "{told}"
        );
        let (code, told) = installation.command(&["offsets", "set", &name, "--to", "51"])?;
        ensure!(code == Some(2) && told.contains("0 to 50"), "{code:?}: {told}");
        let (code, told) = installation.command(&["offsets", "set", &name, "--to", "20"])?;
        ensure!(code == Some(0) && kafka.committed(&group, &name, 0)? == Some(20), "{protocol}: {code:?}: {told}");

        // What somebody stored beside an offset is not dropped unasked.
        let beside: BaseConsumer = kafka.client().set("group.id", &group).create()?;
        let mut list = TopicPartitionList::new();
        let mut first = list.add_partition(&name, 0);
        first.set_offset(Offset::Offset(20))?;
        first.set_metadata("intents");
        beside.commit(&list, CommitMode::Sync)?;
        let (code, told) = installation.command(&["offsets", "set", &name, "--to", "latest"])?;
        ensure!(code == Some(1) && told.contains("stored beside") && told.contains("--force"), "{code:?}: {told}");
        let (code, told) = installation.command(&["offsets", "set", &name, "--to", "1h", "--force"])?;
        ensure!(code == Some(0) && kafka.committed(&group, &name, 0)? == Some(0), "records of the last hour begin at 0: {code:?}: {told}");

        let mut worker = installation.start()?;
        worker.wait_for_metric("millrace_table_rows_durable_total", &[], RECORDS as f64, WITHIN)?;
        worker.terminate()?;
        let twice = reader.rows(&format!("moved.{protocol}"))?.len() as i64;
        ensure!(twice == 2 * RECORDS, "{twice} rows: all came again, once");
    }
    Ok(())
}

fn wait_for_commit(committed: impl Fn() -> anyhow::Result<Option<i64>>, wanted: i64) -> anyhow::Result<()> {
    let begun = std::time::Instant::now();
    while committed()? != Some(wanted) {
        ensure!(begun.elapsed() < WITHIN, "no commit of {wanted}");
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}
