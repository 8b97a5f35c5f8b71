//! How much librdkafka may fetch ahead: a budget in bytes turned into its properties. Pure.

/// librdkafka's bookkeeping for one message in a queue, beside its value: measured 335 bytes (reference: libraries.md, Memory).
const MESSAGE_OVERHEAD_BYTES: u64 = 335;
/// Room for the values of one queue, at least: below this every fetch is a round trip of its own.
const QUEUE_KIB_MIN: u64 = 16;
/// What a compressed byte of an answer becomes in a queue: small records compressed to some 60 bytes take 440 there (335 of them
/// bookkeeping). With 500 partitions and answers as large as their queues, 330 MB were held where 64 were meant.
const EXPANSION: u64 = 8;
/// One partition's share of an answer, at least. A broker still gives one whole batch, however large, to the first partition that has data.
const PARTITION_FETCH_BYTES_MIN: u64 = 4 * 1024;
/// One fetch answer of a broker, at least.
const FETCH_BYTES_MIN: u64 = 64 * 1024;
/// One fetch answer of a broker, at most: more brings no speed.
const FETCH_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// A batch as it lies in a queue, roughly: 500 records of 100 bytes with their bookkeeping. A batch comes whole, however small the limits:
/// a queue whose share is less is filled again only when it is empty, for every message of a batch keeps the whole batch in memory.
const BATCH_BYTES: u64 = 256 * 1024;
/// What librdkafka allocates for a compressed batch before it knows what it needs: `message.max.bytes`, at least (rdkafka_lz4.c:222; it
/// grows from there).
const DECOMPRESSION_BYTES_MIN: u64 = 32 * 1024;
/// Messages in one queue, at most: beyond it only memory grows (reference: 20,000 was as fast as 100,000).
const QUEUE_MESSAGES_MAX: u64 = 20_000;

/// How long a broker holds a fetch that finds nothing. A partition whose queue is full is left out of the fetch that is sent at that
/// moment, and one fetch of a broker is under way at a time: while its other partitions are idle, a partition that catches up stands still
/// for this long, again and again. With librdkafka's 500 ms one partition of 1 MB records moved 22 records/s. The price: ten empty fetches
/// a second of each broker when idle.
const FETCH_WAIT_MS: u64 = 100;

/// librdkafka's limits on fetching ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Prefetch {
    /// `queued.max.messages.kbytes`: values in one partition's queue.
    pub queue_kib: u64,
    /// `queued.min.messages`: fetching for a partition stops at so many.
    pub queue_messages: u64,
    /// `fetch.max.bytes`: one answer of a broker.
    pub fetch_bytes: u64,
    /// `fetch.message.max.bytes`: one partition's share of it.
    pub partition_fetch_bytes: u64,
}

impl Prefetch {
    /// Limits that keep `partitions` queues and one answer of each of `brokers` within `budget_bytes`.
    ///
    /// `bound = 2 x (partitions x (kib x 1024 + messages x 335) + brokers x fetch)`: the factor for a queue being refilled while its former
    /// content is taken, and for keys, headers and decompression. A quarter of the half goes to answers in flight, the rest to queues, of
    /// it two thirds to values. librdkafka's smallest useful limits win over a budget too small for them: see [`Prefetch::bound_bytes`].
    pub fn plan(budget_bytes: u64, partitions: u64, brokers: u64) -> Self {
        let (partitions, brokers, half) = (partitions.max(1), brokers.max(1), budget_bytes / 2);
        let fetch_bytes = (half / 4 / brokers).clamp(FETCH_BYTES_MIN, FETCH_BYTES_MAX);
        let queue = half.saturating_sub(fetch_bytes * brokers) / partitions;
        let queue_kib = (queue * 2 / 3 / 1024).clamp(QUEUE_KIB_MIN, 65_536);
        let queue_messages = match queue {
            ..BATCH_BYTES => 1,
            _ => (queue / 3 / MESSAGE_OVERHEAD_BYTES).min(QUEUE_MESSAGES_MAX),
        };
        // A partition's answer comes on top of what its queue holds when it is asked for: no more than the queue's own size, once expanded.
        let partition_fetch_bytes = (queue_kib * 1024 / EXPANSION).clamp(PARTITION_FETCH_BYTES_MIN, 1024 * 1024).min(fetch_bytes);
        Self { queue_kib, queue_messages, fetch_bytes, partition_fetch_bytes }
    }

    /// The formula of [`Prefetch::plan`]: what these limits may take.
    pub fn bound_bytes(&self, partitions: u64, brokers: u64) -> u64 {
        let queue = self.queue_kib * 1024 + self.queue_messages * MESSAGE_OVERHEAD_BYTES;
        2 * (partitions.max(1) * queue + brokers.max(1) * self.fetch_bytes)
    }

    /// As librdkafka's properties. `message.max.bytes` follows, since librdkafka raises `fetch.max.bytes` to it (rdkafka_conf.c:4267).
    pub fn properties(&self) -> [(&'static str, String); 7] {
        [
            ("queued.max.messages.kbytes", self.queue_kib.to_string()),
            ("queued.min.messages", self.queue_messages.to_string()),
            ("fetch.max.bytes", self.fetch_bytes.to_string()),
            ("fetch.message.max.bytes", self.partition_fetch_bytes.to_string()),
            ("message.max.bytes", (self.queue_kib * 1024).max(DECOMPRESSION_BYTES_MIN).min(self.fetch_bytes).min(1_000_000).to_string()),
            ("fetch.queue.backoff.ms", "10".to_owned()),
            ("fetch.wait.max.ms", FETCH_WAIT_MS.to_string()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bound_stays_within_the_budget_whenever_the_smallest_limits_allow_it() {
        for budget_mib in [8_u64, 32, 128, 512, 4096] {
            for partitions in [1_u64, 4, 25, 100] {
                for brokers in [1_u64, 3] {
                    let budget = budget_mib * 1024 * 1024;
                    let plan = Prefetch::plan(budget, partitions, brokers);
                    let smallest = 2 * (partitions * (QUEUE_KIB_MIN * 1024 + MESSAGE_OVERHEAD_BYTES) + brokers * FETCH_BYTES_MIN);
                    assert!(
                        plan.bound_bytes(partitions, brokers) <= budget.max(smallest),
                        "{budget_mib} MiB, {partitions}, {brokers}: {plan:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_large_budget_is_used() {
        let plan = Prefetch::plan(256 * 1024 * 1024, 4, 3);
        assert!(plan.bound_bytes(4, 3) > 128 * 1024 * 1024, "{plan:?}");
        assert_eq!(plan.queue_messages, QUEUE_MESSAGES_MAX);
    }
}
