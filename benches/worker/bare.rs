//! The reference: librdkafka with the same taking method as millrace (a queue per partition, `rd_kafka_consume_callback_queue`), every
//! message dropped in the callback. Nothing of millrace is in it.

use std::ffi::c_void;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka_sys as rdsys;

/// What the callback has seen.
#[derive(Default)]
struct Seen {
    records: u64,
    bytes: u64,
}

/// Takes `total` records of the topic from its beginning, with one thread; prints the seconds from the first record to the last.
pub fn consume(bootstrap: &str, topic: &str, partitions: i32, total: u64, settings: &[(String, String)]) -> Result<()> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("group.id", "bench-bare").set("enable.auto.commit", "false");
    for (key, value) in settings {
        config.set(key, value);
    }
    let consumer: BaseConsumer = config.create()?;
    let mut all = TopicPartitionList::new();
    for partition in 0..partitions {
        all.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&all)?;
    let name = std::ffi::CString::new(topic)?;
    let client = consumer.client().native_ptr();
    let mut queues = Vec::new();
    for partition in 0..partitions {
        // SAFETY: the client lives until the end of this function; the name is a C string.
        let queue = unsafe { rdsys::rd_kafka_queue_get_partition(client, name.as_ptr(), partition) };
        if queue.is_null() {
            bail!("partition {partition} has no queue");
        }
        // SAFETY: a queue just given; forwarding to none makes it one of its own.
        unsafe { rdsys::rd_kafka_queue_forward(queue, std::ptr::null_mut()) };
        queues.push(queue);
    }
    let (mut seen, mut first) = (Seen::default(), None);
    while seen.records < total {
        let before = seen.records;
        for queue in &queues {
            // SAFETY: the queue is alive; the callback gets `seen`, which outlives the call, and nobody else uses it meanwhile.
            unsafe { rdsys::rd_kafka_consume_callback_queue(*queue, 0, Some(drop_message), (&raw mut seen).cast()) };
        }
        if seen.records > 0 && first.is_none() {
            first = Some(Instant::now());
        }
        if seen.records == before {
            let _ = consumer.poll(std::time::Duration::ZERO);
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
    let seconds = first.context("no record")?.elapsed().as_secs_f64();
    for queue in queues {
        // SAFETY: each queue is given back once, before the client.
        unsafe { rdsys::rd_kafka_queue_destroy(queue) };
    }
    println!("took {} records, {} bytes in {seconds} s", seen.records, seen.bytes);
    // The parent reads what this process has cost, then kills it.
    std::thread::park();
    Ok(())
}

unsafe extern "C" fn drop_message(message: *mut rdsys::rd_kafka_message_t, opaque: *mut c_void) {
    // SAFETY: librdkafka gives a message that is valid during the call, and the pointer that `consume` gave it.
    let (message, seen) = unsafe { (&*message, &mut *opaque.cast::<Seen>()) };
    if matches!(message.err, rdsys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR) {
        seen.records += 1;
        seen.bytes += message.len as u64;
    }
}
