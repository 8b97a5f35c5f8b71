//! Kafka through librdkafka: consumer, partition queues, rebalances, producer, lag queries.
//!
//! Belongs here: everything that calls librdkafka, and all `unsafe` (in `queue.rs`).
//! Does not belong here: what a record means, when an offset may be committed (`pipeline/`).

mod check;
mod client;
mod consumer;
mod context;
mod control;
mod error;
mod fence;
mod group_offsets;
mod lag;
mod log_reader;
mod log_topic;
mod log_writer;
mod member;
mod oauth;
mod prefetch;
mod producer;
mod properties;
mod purpose;
mod queue;
mod rebalance;
mod repeats;
mod reread;
mod sample;
mod seam;
mod settings;
mod start;
mod topic_scan;
mod topics;
mod trust;

pub use check::{Tried, check_connector};
pub use consumer::start_group;
pub use error::KafkaError;
pub use fence::PollTurns;
pub use group_offsets::{CommittedPartition, GroupOffsets, NotSet};
pub use lag::{HighWatermarks, LagClient, PartitionOffsets};
pub use log_reader::{LogReader, LogRecord, LogStart};
pub use log_topic::{Kept, LogTopic, ensure_log_topics};
pub use log_writer::LogWriter;
pub use producer::{DeadLetterProducer, ProduceError};
pub use reread::Rereader;
pub use sample::{SAMPLE_RECORDS, Sampler};
pub use seam::{
    Assigned, Epoch, Flow, GroupControl, GroupError, GroupListener, NextOffset, PartitionQueue, QueueEvent, StartOffset, Taken,
};
pub use settings::{ClusterSettings, GroupSettings, Topics};
pub use topic_scan::TopicScan;
