//! A partition's own queue, taken in a callback that borrows librdkafka's memory; a commit with a time limit. The only file with `unsafe`.
//!
//! librdkafka 2.12.1: records are taken with `rd_kafka_consume_callback_queue` and `rd_kafka_yield`, never with the batch call, which loses
//! records after an error (rdkafka_queue.c:828). rust-rdkafka's own partition queue makes an event and an allocation of every record.

use std::any::Any;
use std::ffi::{CStr, CString, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;
use std::thread::Thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::TopicPartitionList;
use rdkafka_sys as sys;
use rdkafka_sys::RDKafkaErrorCode;

use super::seam::{Flow, PartitionQueue, QueueEvent, Taken};
use crate::record::{Headers, Record, TopicPartition};

/// A client that stays alive while a queue of it does.
pub(super) trait NativeClient: Send + Sync {
    /// librdkafka's handle: valid as long as `self`.
    fn native(&self) -> *mut sys::RDKafka;
    /// A commit of this client without an answer. Emptied before the client ends.
    fn unanswered(&self) -> &Mutex<Option<Unanswered>>;
}

/// A commit whose answer had not come in time. librdkafka may still be trying: a later one must not overtake it.
pub(super) struct Unanswered(NativeQueue);

/// A reference to one of librdkafka's queues.
struct NativeQueue(NonNull<sys::RDKafkaQueue>);

// SAFETY: librdkafka's queues are locked inside; every call on one is allowed from every thread (rdkafka.h, "thread-safe").
unsafe impl Send for NativeQueue {}
// SAFETY: as above.
unsafe impl Sync for NativeQueue {}

impl Drop for NativeQueue {
    fn drop(&mut self) {
        // SAFETY: the pointer came from `rd_kafka_queue_new` or `_get_partition`, which give one reference, returned here once. The client
        // is still alive: every owner of a `NativeQueue` drops it before its `Arc<dyn NativeClient>` (order of fields) or borrows the
        // client.
        unsafe { sys::rd_kafka_queue_destroy(self.0.as_ptr()) }
    }
}

/// Something other than a record, as librdkafka gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RawEvent {
    pub code: RDKafkaErrorCode,
    pub offset: i64,
    pub message: String,
}

/// Called when a partition's start (`earliest`) could not be found; asks the poll thread to begin it again.
pub(super) type BeginAgain = Arc<dyn Fn(&TopicPartition) + Send + Sync>;

/// The queue of one assigned partition: [`PartitionQueue`] over librdkafka.
pub(super) struct KafkaPartitionQueue {
    // Dropped first, while `client` is alive.
    queue: NativeQueue,
    partition: TopicPartition,
    waker: Option<Box<Thread>>,
    begin_again: Option<BeginAgain>,
    client: Arc<dyn NativeClient>,
}

impl KafkaPartitionQueue {
    /// Takes over a partition's queue: its records no longer flow into the consumer's. `None` when librdkafka cannot make the partition.
    pub fn take_over(client: &Arc<dyn NativeClient>, partition: &TopicPartition, begin_again: Option<BeginAgain>) -> Option<Self> {
        let topic = CString::new(partition.topic.as_bytes()).ok()?;
        // SAFETY: `client` is alive, `topic` a C string that outlives the call.
        let raw = unsafe { sys::rd_kafka_queue_get_partition(client.native(), topic.as_ptr(), partition.partition) };
        let queue = NativeQueue(NonNull::new(raw)?);
        // SAFETY: `queue` is valid; a null destination ends forwarding, and marks that as the application's wish, so that the start of
        // fetching does not set it again (rdkafka_partition.c:2293).
        unsafe { sys::rd_kafka_queue_forward(queue.0.as_ptr(), ptr::null_mut()) };
        Some(Self { queue, partition: partition.clone(), waker: None, begin_again, client: Arc::clone(client) })
    }

    /// As [`PartitionQueue::take`], with the event as librdkafka gave it.
    pub fn take_raw(&mut self, on_record: &mut dyn FnMut(&Record<'_>) -> Flow) -> (u64, Option<RawEvent>) {
        let mut take = Take {
            client: self.client.native(),
            topic: &self.partition.topic,
            partition: self.partition.partition,
            on_record,
            records: 0,
            event: None,
            panic: None,
        };
        // SAFETY: the queue is valid; `on_message` is called on this thread and only before the call returns (timeout 0), so `take`
        // outlives every use of its pointer, and nothing else touches `take` meanwhile.
        unsafe { sys::rd_kafka_consume_callback_queue(self.queue.0.as_ptr(), 0, Some(on_message), (&raw mut take).cast::<c_void>()) };
        if let Some(panic) = take.panic {
            resume_unwind(panic);
        }
        (take.records, take.event)
    }

    /// Throws away what waits, so that no record keeps its partition alive in librdkafka (dropping a consumer would wait for it for ever).
    pub fn discard_all(&mut self) {
        loop {
            let (records, event) = self.take_raw(&mut |_| Flow::Continue);
            if records == 0 && event.is_none() {
                return;
            }
        }
    }
}

impl PartitionQueue for KafkaPartitionQueue {
    fn take(&mut self, on_record: &mut dyn FnMut(&Record<'_>) -> Flow) -> Taken {
        let (records, raw) = self.take_raw(on_record);
        let event = raw.map(|event| match event.code {
            RDKafkaErrorCode::AutoOffsetReset if event.offset >= 0 => QueueEvent::OutOfRange { asked: event.offset },
            code => {
                // The partition's first offset could not be asked for: nothing was lost, and librdkafka has given up.
                if let (RDKafkaErrorCode::AutoOffsetReset, Some(begin_again)) = (code, &self.begin_again) {
                    begin_again(&self.partition);
                }
                QueueEvent::Error { message: format!("{code}: {}", event.message) }
            }
        });
        Taken { records, event }
    }

    fn waiting(&self) -> usize {
        // SAFETY: the queue is valid; the length is read under its lock.
        unsafe { sys::rd_kafka_queue_length(self.queue.0.as_ptr()) }
    }

    fn wake_on_data(&mut self, thread: Thread) {
        self.stop_waking();
        let waker = Box::new(thread);
        let opaque = (&raw const *waker).cast_mut().cast::<c_void>();
        // SAFETY: `opaque` points into the box, which is kept in `self.waker` and freed only after `stop_waking` has disabled the event:
        // librdkafka calls the callback, and replaces it, under the queue's lock (rdkafka_queue.h:322, rdkafka_queue.c:1053).
        unsafe { sys::rd_kafka_queue_cb_event_enable(self.queue.0.as_ptr(), Some(on_data), opaque) };
        // What came before the event was enabled gave none.
        waker.unpark();
        self.waker = Some(waker);
    }
}

impl KafkaPartitionQueue {
    fn stop_waking(&mut self) {
        if self.waker.is_some() {
            // SAFETY: the queue is valid; a null callback disables the event, and none runs when this returns (the queue's lock).
            unsafe { sys::rd_kafka_queue_cb_event_enable(self.queue.0.as_ptr(), None, ptr::null_mut()) };
            self.waker = None;
        }
    }
}

impl Drop for KafkaPartitionQueue {
    fn drop(&mut self) {
        self.stop_waking();
    }
}

/// Called by librdkafka, on any of its threads and under the queue's lock: may not block or panic; `unpark` does neither.
unsafe extern "C" fn on_data(_client: *mut sys::RDKafka, opaque: *mut c_void) {
    // SAFETY: `opaque` is the box of `wake_on_data`, alive while the event is enabled; `Thread` may be used from several threads.
    unsafe { &*opaque.cast::<Thread>() }.unpark();
}

/// One take's state, behind the callback's opaque pointer.
struct Take<'a> {
    client: *mut sys::RDKafka,
    topic: &'a str,
    partition: i32,
    on_record: &'a mut dyn FnMut(&Record<'_>) -> Flow,
    records: u64,
    event: Option<RawEvent>,
    panic: Option<Box<dyn Any + Send>>,
}

/// Called by librdkafka for every message of a take, on the taking thread.
unsafe extern "C" fn on_message(message: *mut sys::RDKafkaMessage, opaque: *mut c_void) {
    // SAFETY: `opaque` is the `Take` of the `take_raw` that is on this thread's stack now; its lifetime ends after this call.
    let take = unsafe { &mut *opaque.cast::<Take<'_>>() };
    // SAFETY: librdkafka passes a valid message and keeps it until this callback returns.
    let fields = unsafe { &*message };
    if fields.err != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        // SAFETY: for an error message the payload, if any, is its text, of `len` bytes, valid as long as the message.
        let text = unsafe { bytes_of(fields.payload, fields.len) }.unwrap_or_default();
        take.event = Some(RawEvent {
            code: RDKafkaErrorCode::from(fields.err),
            offset: fields.offset,
            message: String::from_utf8_lossy(text).trim_end_matches('\0').to_owned(),
        });
        // SAFETY: sets a flag of this thread; `client` is alive.
        unsafe { sys::rd_kafka_yield(take.client) };
        return;
    }
    let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
    // SAFETY: both pointers are valid for the call.
    let timestamp = unsafe { sys::rd_kafka_message_timestamp(message, &raw mut kind) };
    let headers = MessageHeaders { message };
    let record = Record {
        topic: take.topic,
        partition: take.partition,
        offset: fields.offset,
        timestamp_ms: (timestamp >= 0).then_some(timestamp),
        // SAFETY: key and payload are null or point to as many bytes as their lengths say, valid until the callback returns; `record` does
        // not outlive it (`on_record` takes it by reference, for any lifetime).
        key: unsafe { bytes_of(fields.key, fields.key_len) },
        // SAFETY: as above.
        value: unsafe { bytes_of(fields.payload, fields.len) },
        headers: &headers,
    };
    take.records += 1;
    let on_record = &mut *take.on_record;
    // A panic must not unwind through C: it is carried over and goes on in `take_raw`.
    let flow = match catch_unwind(AssertUnwindSafe(|| on_record(&record))) {
        Ok(flow) => flow,
        Err(panic) => {
            take.panic = Some(panic);
            Flow::Yield
        }
    };
    if flow == Flow::Yield {
        // SAFETY: sets a flag of this thread; `client` is alive. What was not handed over goes back to the queue's head.
        unsafe { sys::rd_kafka_yield(take.client) };
    }
}

/// # Safety
/// `data` is null or points to `len` bytes that live as long as `'a`.
unsafe fn bytes_of<'a>(data: *const c_void, len: usize) -> Option<&'a [u8]> {
    // SAFETY: the caller's promise; a slice of no bytes needs no more than a pointer that is not null.
    (!data.is_null()).then(|| unsafe { slice::from_raw_parts(data.cast::<u8>(), len) })
}

/// A message's headers, parsed by librdkafka when first touched.
struct MessageHeaders {
    message: *const sys::RDKafkaMessage,
}

impl MessageHeaders {
    fn list(&self) -> Option<*const sys::RDKafkaHeaders> {
        let mut list = ptr::null_mut();
        // SAFETY: `message` is valid: `self` lives within the callback only. The list belongs to the message.
        let error = unsafe { sys::rd_kafka_message_headers(self.message, &raw mut list) };
        (error == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR && !list.is_null()).then_some(list.cast_const())
    }

    fn at(&self, list: *const sys::RDKafkaHeaders, index: usize) -> Option<(&CStr, Option<&[u8]>)> {
        let (mut name, mut value, mut size): (*const c_char, *const c_void, usize) = (ptr::null(), ptr::null(), 0);
        // SAFETY: `list` is this message's; an index beyond its end is answered with an error.
        let error = unsafe { sys::rd_kafka_header_get_all(list, index, &raw mut name, &raw mut value, &raw mut size) };
        if error != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR || name.is_null() {
            return None;
        }
        // SAFETY: librdkafka ends names with a zero byte; name and value live as long as the message, which `self` does not outlive.
        Some(unsafe { (CStr::from_ptr(name), bytes_of(value, size)) })
    }
}

impl Headers for MessageHeaders {
    fn last(&self, wanted: &str) -> Option<Option<&[u8]>> {
        let list = self.list()?;
        // SAFETY: `list` is this message's.
        let count = unsafe { sys::rd_kafka_header_cnt(list) };
        (0..count).rev().filter_map(|i| self.at(list, i)).find(|(name, _)| name.to_bytes() == wanted.as_bytes()).map(|(_, value)| value)
    }

    fn each(&self, visit: &mut dyn FnMut(&str, Option<&[u8]>)) {
        let Some(list) = self.list() else { return };
        let mut index = 0;
        while let Some((name, value)) = self.at(list, index) {
            visit(&name.to_string_lossy(), value);
            index += 1;
        }
    }
}

/// Whether the group has this consumer: its generation (classic) or member epoch (KIP-848) is known. Asks librdkafka's main thread.
pub(super) fn is_member(client: &dyn NativeClient) -> bool {
    // SAFETY: `client` is alive for the whole call; null, or metadata that is ours to destroy.
    let Some(metadata) = NonNull::new(unsafe { sys::rd_kafka_consumer_group_metadata(client.native()) }) else { return false };
    // SAFETY: `metadata` is valid until it is destroyed below.
    let generation = unsafe { sys::rd_kafka_consumer_group_metadata_generation_id(metadata.as_ptr()) };
    // SAFETY: it came from `rd_kafka_consumer_group_metadata` and is not used again.
    unsafe { sys::rd_kafka_consumer_group_metadata_destroy(metadata.as_ptr()) };
    generation > 0
}

/// What a commit came to: an error for all, and those of single partitions.
pub(super) type CommitAnswer = (Option<RDKafkaErrorCode>, Vec<(TopicPartition, RDKafkaErrorCode)>);

/// What is stored beside a partition's offset in an answer of librdkafka's; `None` when there is nothing. Bytes that are no UTF-8 are
/// replaced: rdkafka's own accessor panics at them, and whoever reads metadata must see that something is there.
pub(super) fn metadata_of(list: &TopicPartitionList, partition: &TopicPartition) -> Option<Arc<str>> {
    let topic = CString::new(&*partition.topic).ok()?;
    // SAFETY: the list and the name are valid for the call; the element, if there is one, belongs to the list, which outlives this
    // function.
    let element = unsafe { sys::rd_kafka_topic_partition_list_find(list.ptr(), topic.as_ptr(), partition.partition).as_ref() }?;
    if element.metadata.is_null() || element.metadata_size == 0 {
        return None;
    }
    // SAFETY: librdkafka stores `metadata_size` bytes at `metadata`.
    let bytes = unsafe { slice::from_raw_parts(element.metadata.cast::<u8>(), element.metadata_size) };
    Some(Arc::from(&*String::from_utf8_lossy(bytes)))
}

/// Commits and waits for the answer, at most `timeout` (`rd_kafka_commit` would wait without limit: rdkafka_offset.c:406).
///
/// One at a time: after a commit without an answer the next one waits for that, within its own time. librdkafka repeats commits by itself,
/// and a late one would put older offsets and metadata in the place of newer ones that were accepted.
pub(super) fn commit(client: &dyn NativeClient, offsets: &TopicPartitionList, timeout: Duration) -> CommitAnswer {
    let deadline = Instant::now() + timeout;
    let mut unanswered = client.unanswered().lock();
    if let Some(earlier) = unanswered.take() {
        let Some(event) = next_event(&earlier.0, timeout) else {
            *unanswered = Some(earlier);
            return (Some(RDKafkaErrorCode::OperationTimedOut), Vec::new());
        };
        // SAFETY: `event` came from `rd_kafka_queue_poll` and is not used again. What it says nobody waits for any more.
        unsafe { sys::rd_kafka_event_destroy(event.as_ptr()) };
    }
    // SAFETY: `client` is alive for the whole call.
    let Some(raw) = NonNull::new(unsafe { sys::rd_kafka_queue_new(client.native()) }) else {
        return (Some(RDKafkaErrorCode::Fail), Vec::new());
    };
    let queue = NativeQueue(raw);
    // SAFETY: all three are valid; librdkafka copies the list; without a callback the answer is an event on `queue`.
    let error = unsafe { sys::rd_kafka_commit_queue(client.native(), offsets.ptr(), queue.0.as_ptr(), None, ptr::null_mut()) };
    if error != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        return (Some(error.into()), Vec::new());
    }
    let Some(event) = next_event(&queue, deadline.saturating_duration_since(Instant::now())) else {
        *unanswered = Some(Unanswered(queue));
        return (Some(RDKafkaErrorCode::OperationTimedOut), Vec::new());
    };
    // SAFETY: `event` is valid until it is destroyed below.
    let error = unsafe { sys::rd_kafka_event_error(event.as_ptr()) };
    // SAFETY: as above; null, or a list that belongs to the event.
    let list = unsafe { sys::rd_kafka_event_topic_partition_list(event.as_ptr()) };
    let mut failed = Vec::new();
    // SAFETY: `list` is null or valid until the event is destroyed.
    if let Some(list) = unsafe { list.as_ref() } {
        let count = usize::try_from(list.cnt).unwrap_or(0);
        if count > 0 && !list.elems.is_null() {
            // SAFETY: `elems` holds `cnt` elements.
            for element in unsafe { slice::from_raw_parts(list.elems, count) } {
                if element.err != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                    // SAFETY: a topic's name is a C string of the element's.
                    let topic = unsafe { CStr::from_ptr(element.topic) }.to_string_lossy();
                    failed.push((TopicPartition::new(topic.as_ref(), element.partition), element.err.into()));
                }
            }
        }
    }
    // SAFETY: `event` came from `rd_kafka_queue_poll` and is not used again.
    unsafe { sys::rd_kafka_event_destroy(event.as_ptr()) };
    ((error != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR).then(|| error.into()), failed)
}

/// Waits for an event of a queue.
fn next_event(queue: &NativeQueue, timeout: Duration) -> Option<NonNull<sys::rd_kafka_event_t>> {
    let wait_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: `queue` is valid. An answer that comes after the queue was destroyed is dropped by librdkafka.
    NonNull::new(unsafe { sys::rd_kafka_queue_poll(queue.0.as_ptr(), wait_ms) })
}
