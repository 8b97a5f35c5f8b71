//! Reading single records again, without joining a group.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer;
use rdkafka_sys::RDKafkaErrorCode;
use tokio::sync::{mpsc, oneshot};

use super::client::Outsider;
use super::error::KafkaError;
use super::properties;
use super::purpose::{Errand, Purpose};
use super::queue::{KafkaPartitionQueue, NativeClient, RawEvent};
use super::rebalance::list_of;
use super::seam::{Flow, PartitionQueue};
use super::settings::GroupSettings;
use crate::record::{OwnedRecord, TopicPartition};

/// Requests that may wait for the thread.
const REQUESTS_MAX: usize = 16;
/// A gap between wanted offsets that is read through rather than jumped over: a jump costs round trips.
const READ_THROUGH: i64 = 1_000;

type Answer = Result<Vec<Option<OwnedRecord>>, KafkaError>;

struct Request {
    partition: TopicPartition,
    offsets: Vec<i64>,
    deadline: Instant,
    timeout: Duration,
    answer: oneshot::Sender<Answer>,
}

/// Reads records again that BigQuery rejected. One consumer and one thread for all callers; requests are answered in turn.
pub struct Rereader {
    requests: mpsc::Sender<Request>,
}

impl Rereader {
    /// A re-reader for a connector. It carries the group's name (so that no other right is needed) but never joins it and commits nothing.
    ///
    /// # Errors
    /// As [`super::start_group`].
    pub fn new(settings: &GroupSettings) -> Result<Self, KafkaError> {
        // The client is made when first needed, for rejected rows are rare; what is wrong with its properties is said now.
        properties::merge(&settings.cluster, &Purpose::Outsider { group_id: &settings.group_id, errand: Errand::Reread })?;
        let (requests, mut waiting) = mpsc::channel::<Request>(REQUESTS_MAX);
        let (cluster, group_id) = (settings.cluster.clone(), settings.group_id.clone());
        thread::Builder::new()
            .name(format!("kafka-reread-{}", settings.cluster.connector))
            .spawn(move || {
                let mut client: Option<Outsider> = None;
                while let Some(request) = waiting.blocking_recv() {
                    let answer = match client.take().map_or_else(|| Outsider::new(&cluster, &group_id, Errand::Reread), Ok) {
                        Ok(there) => read(client.insert(there), &request),
                        Err(error) => Err(error),
                    };
                    // The caller may have gone: nobody needs the answer then.
                    let _unread = request.answer.send(answer);
                }
            })
            .map_err(|error| KafkaError::Stopped(format!("no thread for reading again: {error}")))?;
        Ok(Self { requests })
    }

    /// The records at `offsets` (ascending), in that order; `None` for one that is gone (retention, compaction, an aborted transaction).
    ///
    /// # Errors
    /// No answer within `timeout`, which includes waiting for other callers; what Kafka refused.
    pub async fn reread(&self, topic: &str, partition: i32, offsets: &[i64], timeout: Duration) -> Answer {
        let partition = TopicPartition::new(topic, partition);
        let what = format!("reading {} records of {partition} again", offsets.len());
        let (answer, answered) = oneshot::channel();
        let deadline = Instant::now() + timeout;
        let request = Request { partition, offsets: offsets.to_vec(), deadline, timeout, answer };
        let ask = async {
            let ended = || KafkaError::Stopped("the thread that reads records again has ended".to_owned());
            self.requests.send(request).await.map_err(|_| ended())?;
            answered.await.map_err(|_| ended())?
        };
        // A little more than the thread's own limit, whose error says more.
        match tokio::time::timeout(timeout + Duration::from_millis(500), ask).await {
            Ok(answer) => answer,
            Err(_) => Err(KafkaError::TimedOut { what, within: timeout }),
        }
    }
}

fn read(client: &Outsider, request: &Request) -> Answer {
    let partition = &request.partition;
    let what = || format!("reading {} records of {partition} again", request.offsets.len());
    let late = || KafkaError::TimedOut { what: what(), within: request.timeout };
    let left = || request.deadline.saturating_duration_since(Instant::now());
    let failed = |error: rdkafka::error::KafkaError| KafkaError::from_rdkafka(what(), &error, request.timeout);
    if left().is_zero() {
        return Err(late());
    }
    let consumer = client.consumer();
    let (low, end) = consumer.fetch_watermarks(&partition.topic, partition.partition, left()).map_err(failed)?;
    let mut found: BTreeMap<i64, OwnedRecord> = BTreeMap::new();
    let wanted: Vec<i64> = request.offsets.iter().copied().filter(|offset| (low..end).contains(offset)).collect();
    for run in wanted.chunk_by(|a, b| b - a <= READ_THROUGH) {
        let outcome = read_run(client, partition, run, request.deadline, &mut found);
        // Whatever came out, the partition leaves: the next assignment may not overlap it. The round trip lets that take effect.
        consumer.incremental_unassign(&list_of(std::slice::from_ref(partition))).map_err(failed)?;
        let again = consumer.fetch_watermarks(&partition.topic, partition.partition, left().max(Duration::from_millis(100)));
        let native: Arc<dyn NativeClient> = Arc::clone(consumer) as _;
        if let Some(mut queue) = KafkaPartitionQueue::take_over(&native, partition, None) {
            queue.discard_all();
        }
        match outcome.map_err(failed)? {
            Run::Read => {}
            Run::Late => return Err(late()),
            Run::Failed(event) => {
                return Err(KafkaError::Refused { what: what(), message: format!("{}: {}", event.code, event.message) });
            }
        }
        again.map_err(failed)?;
    }
    Ok(request.offsets.iter().map(|offset| found.remove(offset)).collect())
}

/// How the reading of neighbouring offsets ended.
enum Run {
    Read,
    Late,
    Failed(RawEvent),
}

/// Reads from the first to the last of `offsets` (ascending, not empty) and keeps those wanted.
fn read_run(
    client: &Outsider,
    partition: &TopicPartition,
    offsets: &[i64],
    deadline: Instant,
    found: &mut BTreeMap<i64, OwnedRecord>,
) -> Result<Run, rdkafka::error::KafkaError> {
    let (Some(first), Some(last)) = (offsets.first(), offsets.last()) else { return Ok(Run::Read) };
    let native: Arc<dyn NativeClient> = Arc::clone(client.consumer()) as _;
    let mut list = TopicPartitionList::with_capacity(1);
    list.add_partition_offset(&partition.topic, partition.partition, Offset::Offset(*first))?;
    let before = KafkaPartitionQueue::take_over(&native, partition, None);
    client.consumer().incremental_assign(&list)?;
    let queue = KafkaPartitionQueue::take_over(&native, partition, None);
    drop(before);
    let Some(mut queue) = queue else { return Ok(Run::Late) };
    queue.wake_on_data(thread::current());
    loop {
        let mut passed = false;
        let (_, event) = queue.take_raw(&mut |record| {
            if offsets.binary_search(&record.offset).is_ok() {
                found.insert(record.offset, record.to_owned_record());
            }
            passed = record.offset >= *last;
            if passed { Flow::Yield } else { Flow::Continue }
        });
        if passed {
            return Ok(Run::Read);
        }
        match event {
            // The end of the partition, behind all that were wanted; or retention overtook us: what is gone is gone.
            Some(event) if matches!(event.code, RDKafkaErrorCode::PartitionEOF | RDKafkaErrorCode::AutoOffsetReset) => {
                return Ok(Run::Read);
            }
            Some(event) if !transient(event.code) => return Ok(Run::Failed(event)),
            _ => {}
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Run::Late);
        }
        thread::park_timeout(left.min(Duration::from_millis(100)));
    }
}

/// Errors that librdkafka tries again by itself.
fn transient(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::OperationTimedOut
            | Code::RequestTimedOut
            | Code::NotLeaderForPartition
            | Code::LeaderNotAvailable
            | Code::UnknownTopicOrPartition
    )
}
