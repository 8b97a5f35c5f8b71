//! Kafka through librdkafka: consumer, partition queues, rebalances, producer, lag queries.
//!
//! Belongs here: everything that calls librdkafka, and all `unsafe` (in `queue.rs`).
//! Does not belong here: what a record means, when an offset may be committed (`pipeline/`).

mod seam;

pub use seam::{
    Assigned, Epoch, Flow, GroupControl, GroupError, GroupListener, NextOffset, PartitionQueue, QueueEvent, StartOffset, Taken,
};
