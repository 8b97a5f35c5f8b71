//! What stands in for Kafka when letters are replayed: records on a shelf, a group that is none, and the dead-letter topic with a count of
//! replays.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use crate::kafka::{Epoch, Flow, GroupControl, GroupError, NextOffset, PartitionQueue, Taken};
use crate::record::{OwnedRecord, Record, TopicPartition};

use super::clients::ConnectorClients;
use super::dead_letters::{LetterBox, LetterError, Rereader};
use super::letter::{Letter, OFFSET, PARTITION, REPLAYS, ReadLetter, TOPIC};

/// The session of a group that is none: nobody is fenced.
const SESSION: Duration = Duration::from_secs(45);

/// Records of one partition, in order of their offsets.
pub(super) struct Shelf {
    records: Vec<OwnedRecord>,
    next: Mutex<usize>,
}

impl Shelf {
    pub fn new(records: Vec<OwnedRecord>) -> Self {
        Self { records, next: Mutex::new(0) }
    }

    fn seek(&self, offset: i64) {
        *self.next.lock() = self.records.partition_point(|record| record.offset < offset);
    }
}

/// Takes from a shelf.
pub(super) struct ShelfQueue(Arc<Shelf>);

impl ShelfQueue {
    pub fn new(shelf: Arc<Shelf>) -> Self {
        Self(shelf)
    }
}

impl PartitionQueue for ShelfQueue {
    fn take(&mut self, on_record: &mut dyn FnMut(&Record<'_>) -> Flow) -> Taken {
        let mut taken = Taken::default();
        let mut next = self.0.next.lock();
        while let Some(owned) = self.0.records.get(*next) {
            *next += 1;
            taken.records += 1;
            let record = Record {
                topic: &owned.topic,
                partition: owned.partition,
                offset: owned.offset,
                timestamp_ms: owned.timestamp_ms,
                key: owned.key.as_deref(),
                value: owned.value.as_deref(),
                headers: owned,
            };
            if on_record(&record) == Flow::Yield {
                break;
            }
        }
        taken
    }

    fn waiting(&self) -> usize {
        self.0.records.len() - *self.0.next.lock()
    }

    // The shard looks every 50 ms.
    fn wake_on_data(&mut self, _thread: std::thread::Thread) {}
}

/// Control over a group that is none: commits are noted, seeks go along the shelf.
#[derive(Default)]
pub(super) struct ShelfControl {
    shelves: Mutex<HashMap<TopicPartition, Arc<Shelf>>>,
    committed: Mutex<HashMap<TopicPartition, i64>>,
}

impl ShelfControl {
    pub fn put(&self, partition: TopicPartition, shelf: Arc<Shelf>) {
        self.committed.lock().remove(&partition);
        self.shelves.lock().insert(partition, shelf);
    }

    pub fn clear(&self) {
        self.shelves.lock().clear();
        self.committed.lock().clear();
    }

    /// Below these offsets everything is durable.
    pub fn committed(&self) -> HashMap<TopicPartition, i64> {
        self.committed.lock().clone()
    }
}

impl GroupControl for ShelfControl {
    fn commit(&self, offsets: &[NextOffset], _timeout: Duration) -> Result<Vec<(TopicPartition, GroupError)>, GroupError> {
        let mut committed = self.committed.lock();
        for next in offsets {
            committed.insert(next.partition.clone(), next.offset);
        }
        Ok(Vec::new())
    }

    fn pause(&self, _partition: &TopicPartition) -> Result<(), GroupError> {
        Ok(())
    }

    fn seek_and_resume(&self, partition: &TopicPartition, offset: i64, _timeout: Duration) -> Result<(), GroupError> {
        match self.shelves.lock().get(partition) {
            Some(shelf) => shelf.seek(offset),
            None => return Err(GroupError::Fenced(format!("{partition} is not being replayed"))),
        }
        Ok(())
    }

    fn restart_at(&self, partition: &TopicPartition, _epoch: Epoch, offset: Option<i64>) -> Result<(), GroupError> {
        self.seek_and_resume(partition, offset.unwrap_or(0), SESSION)
    }

    fn watermarks(&self, partition: &TopicPartition, _timeout: Duration) -> Result<(i64, i64), GroupError> {
        let shelves = self.shelves.lock();
        let records = shelves.get(partition).map(|shelf| shelf.records.as_slice()).unwrap_or_default();
        let end = records.last().map_or(0, |last| last.offset + 1);
        Ok((records.first().map_or(0, |first| first.offset), end))
    }

    fn since_last_poll(&self) -> Duration {
        Duration::ZERO
    }

    fn session_timeout(&self) -> Duration {
        SESSION
    }

    fn close(&self, _timeout: Duration) -> Result<(), GroupError> {
        Ok(())
    }
}

/// A record's topic, partition and offset.
type Place = (Arc<str>, i32, i64);

/// The dead-letter topic of a replay: letters get the count of their record's replays, and a record is read again from its letter.
pub(super) struct Desk {
    topic: Arc<ConnectorClients>,
    letters: Mutex<HashMap<Place, (u32, OwnedRecord)>>,
}

impl Desk {
    pub fn new(topic: Arc<ConnectorClients>) -> Self {
        Self { topic, letters: Mutex::default() }
    }

    /// These are replayed now, and no others.
    pub fn begin(&self, letters: &[ReadLetter]) {
        let key = |record: &OwnedRecord| (record.topic.clone(), record.partition, record.offset);
        *self.letters.lock() = letters.iter().map(|letter| (key(&letter.record), (letter.replays, letter.record.clone()))).collect();
    }

    fn replays_of(&self, letter: &Letter) -> u32 {
        let text = |name: &str| {
            let value = letter.headers.iter().rev().find(|(header, _)| header == name).and_then(|(_, value)| value.as_deref());
            value.and_then(|value| std::str::from_utf8(value).ok())
        };
        let number = |name: &str| text(name).and_then(|text| text.parse::<i64>().ok());
        let key = text(TOPIC).zip(number(PARTITION).and_then(|n| i32::try_from(n).ok())).zip(number(OFFSET));
        let before = key.and_then(|((topic, partition), offset)| Some(self.letters.lock().get(&(Arc::from(topic), partition, offset))?.0));
        before.unwrap_or(0) + 1
    }
}

#[async_trait]
impl LetterBox for Desk {
    async fn put(&self, topic: &str, mut letter: Letter) -> Result<(), LetterError> {
        let replays = self.replays_of(&letter);
        letter.headers.push((REPLAYS.to_owned(), Some(Bytes::from(replays.to_string()))));
        self.topic.put(topic, letter).await
    }

    fn complaint(&self) -> Option<String> {
        self.topic.complaint()
    }
}

#[async_trait]
impl Rereader for Desk {
    async fn reread(&self, partition: &TopicPartition, offsets: &[i64]) -> Result<Vec<Option<OwnedRecord>>, String> {
        let letters = self.letters.lock();
        let find = |offset: &i64| letters.get(&(partition.topic.clone(), partition.partition, *offset)).map(|(_, record)| record.clone());
        Ok(offsets.iter().map(find).collect())
    }
}
