//! Kafka, BigQuery and the dead-letter topic, played: one partition's records, its group's offset, write streams, a table.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::sync::Notify;

use crate::bigquery::{
    Append, AppendFailure, Appender, ErrorClass, RowError, StreamLine, TableError, TableSpec, TableState, Tables, WriteStreams,
};
use crate::decode::split_rows;
use crate::kafka::{Epoch, GroupControl, GroupError, NextOffset};
use crate::pipeline::dead_letters::{LetterBox, LetterError, Rereader};
use crate::pipeline::letter::Letter;
use crate::record::{OwnedRecord, TopicPartition};
use crate::table::{Column, ColumnType, Mode, TableName};

/// At which step of all an owner stops, and whether what it asked for is done then.
#[derive(Debug, Clone, Copy)]
pub struct Stop {
    pub at: u64,
    pub after: bool,
}

/// One stream.
#[derive(Debug, Default)]
pub struct Stream {
    pub rows: u64,
    pub finalized: bool,
    pub forgotten: bool,
}

/// What becomes of appends, beside faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Appends {
    #[default]
    Taken,
    /// Refused for now, but the answer does not come.
    Unanswered,
    /// Refused for now.
    Refused,
}

#[derive(Default)]
pub struct State {
    /// The group's: only its newest member may commit.
    pub generation: u64,
    pub committed: Option<(i64, Option<Arc<str>>)>,
    pub streams: BTreeMap<String, Stream>,
    /// The table, as it would be read.
    pub rows: Vec<Vec<u8>>,
    pub letters: BTreeSet<String>,
    /// Steps so far, and what each was.
    pub steps: Vec<&'static str>,
    pub stop: Option<Stop>,
    /// The owner that stands still.
    pub stopped: Option<u64>,
    /// Faults beside: lost answers, refusals.
    pub dice: Option<ChaCha8Rng>,
    /// Rows at the default stream.
    pub unguarded: u64,
    /// The most metadata beside an offset, if the broker has a limit.
    pub metadata_bytes_max: Option<usize>,
    pub appends: Appends,
    /// Those that were not taken.
    pub refused_appends: u64,
    pub letters_refused: bool,
}

/// Everything around the owners.
pub struct World {
    pub values: Vec<Option<Vec<u8>>>,
    pub state: Mutex<State>,
    pub thawed: Notify,
}

/// What a step does in the end.
enum Fate {
    Do,
    /// Done, but nobody hears of it.
    DoUnheard,
    /// Not done, and nobody hears.
    Fail,
    /// The owner stands still; done before or after that.
    Stand {
        done: bool,
    },
}

impl World {
    pub fn new(values: Vec<Option<Vec<u8>>>, faults: Option<u64>) -> Arc<Self> {
        let dice = faults.map(ChaCha8Rng::seed_from_u64);
        Arc::new(Self { values, state: Mutex::new(State { dice, ..State::default() }), thawed: Notify::new() })
    }

    pub fn is_stopped(&self, owner: u64) -> bool {
        self.state.lock().stopped == Some(owner)
    }

    /// A paused owner goes on: what it had asked for comes late.
    pub fn thaw(&self) {
        self.state.lock().stopped = None;
        self.thawed.notify_waiters();
    }

    fn refuses(&self) -> bool {
        let mut state = self.state.lock();
        let refuses = state.appends != Appends::Taken;
        state.refused_appends += u64::from(refuses);
        refuses
    }

    fn fate(&self, owner: u64, what: &'static str) -> Fate {
        let mut state = self.state.lock();
        if state.stopped == Some(owner) {
            return Fate::Stand { done: false };
        }
        let step = state.steps.len() as u64;
        state.steps.push(what);
        if let Some(stop) = state.stop.filter(|stop| stop.at == step) {
            state.stop = None;
            state.stopped = Some(owner);
            return Fate::Stand { done: stop.after };
        }
        match state.dice.as_mut().map(|dice| dice.random_range(0..100)) {
            Some(0..8) => Fate::DoUnheard,
            Some(8..14) => Fate::Fail,
            _ => Fate::Do,
        }
    }

    /// A step of an owner: done at once, or when the owner is thawed. `None`: no answer came.
    async fn step<T>(&self, owner: u64, what: &'static str, act: impl FnOnce(&mut State) -> T) -> Option<T> {
        match self.fate(owner, what) {
            Fate::Do => Some(act(&mut self.state.lock())),
            Fate::DoUnheard => {
                act(&mut self.state.lock());
                None
            }
            Fate::Fail => None,
            Fate::Stand { done } => {
                let thawed = self.thawed.notified();
                if done {
                    act(&mut self.state.lock());
                    thawed.await;
                } else {
                    thawed.await;
                    act(&mut self.state.lock());
                }
                None
            }
        }
    }

    /// How often each record that should be a row is one; and those that should not.
    pub fn judge(&self) -> Result<(), String> {
        let state = self.state.lock();
        for (n, value) in self.values.iter().enumerate() {
            let needle = format!("fine {n}.").into_bytes();
            let copies = state.rows.iter().filter(|row| row.windows(needle.len()).any(|part| part == needle)).count();
            let expected = usize::from(value.as_ref().is_some_and(|value| value.windows(4).any(|part| part == b"fine")));
            if copies != expected {
                return Err(format!("record {n} is {copies} rows, should be {expected}; steps: {:?}", state.steps));
            }
            let bad = value.as_ref().is_some_and(|value| value.starts_with(b"{ not") || value.windows(6).any(|part| part == b"reject"));
            if bad && !state.letters.contains(&n.to_string()) {
                return Err(format!("bad record {n} has no letter; steps: {:?}", state.steps));
            }
        }
        Ok(())
    }
}

/// The world as one owner reaches it.
#[derive(Clone)]
pub struct Reach {
    pub world: Arc<World>,
    pub owner: u64,
    pub generation: u64,
    /// Where its consumer stands.
    pub position: Arc<Mutex<(i64, bool)>>,
}

fn lost<T>(maybe_durable: bool) -> Result<T, AppendFailure> {
    Err(AppendFailure { class: ErrorClass::Transient, message: "no answer".into(), row_errors: Vec::new(), maybe_durable })
}

fn refused<T>(class: ErrorClass, row_errors: Vec<RowError>) -> Result<T, AppendFailure> {
    Err(AppendFailure { class, message: format!("{class:?}"), row_errors, maybe_durable: false })
}

#[async_trait]
impl WriteStreams for Reach {
    async fn create(&self, table: &TableName) -> Result<Arc<str>, AppendFailure> {
        let create = |state: &mut State| {
            let name = format!("{}/streams/{}", table.resource(), state.streams.len());
            state.streams.insert(name.clone(), Stream::default());
            Arc::from(name)
        };
        self.world.step(self.owner, "create", create).await.map_or_else(|| lost(false), Ok)
    }

    async fn finalize(&self, stream: &str) -> Result<u64, AppendFailure> {
        let finalize = |state: &mut State| match state.streams.get_mut(stream).filter(|stream| !stream.forgotten) {
            None => refused(ErrorClass::StreamNotFound, Vec::new()),
            Some(stream) => {
                stream.finalized = true;
                Ok(stream.rows)
            }
        };
        self.world.step(self.owner, "finalize", finalize).await.unwrap_or_else(|| lost(false))
    }

    fn open(&self, stream: &Arc<str>) -> Box<dyn StreamLine> {
        Box::new(Line { reach: self.clone(), stream: stream.to_string() })
    }
}

struct Line {
    reach: Reach,
    stream: String,
}

fn append(state: &mut State, stream: &str, rows: &[Vec<u8>], offset: u64) -> Result<(), AppendFailure> {
    let rejected = rows.iter().enumerate().filter(|(_, row)| row.windows(6).any(|part| part == b"reject"));
    let rejected: Vec<RowError> = rejected.map(|(index, _)| RowError { index: index as u32, message: "no".into() }).take(1).collect();
    match state.streams.get_mut(stream).filter(|stream| !stream.forgotten) {
        None => refused(ErrorClass::StreamNotFound, Vec::new()),
        Some(stream) if stream.finalized => refused(ErrorClass::StreamFinalized, Vec::new()),
        Some(_) if !rejected.is_empty() => refused(ErrorClass::RowErrors, rejected),
        Some(stream) if offset < stream.rows => refused(ErrorClass::OffsetAlreadyExists, Vec::new()),
        Some(stream) if offset > stream.rows => refused(ErrorClass::OffsetOutOfRange, Vec::new()),
        Some(stream) => {
            stream.rows += rows.len() as u64;
            state.rows.extend(rows.iter().cloned());
            Ok(())
        }
    }
}

#[async_trait]
impl StreamLine for Line {
    async fn append(&mut self, rows: Append, offset: u64) -> BoxFuture<'static, Result<(), AppendFailure>> {
        let (reach, stream) = (self.reach.clone(), self.stream.clone());
        if reach.world.refuses() {
            return async move {
                while reach.world.state.lock().appends == Appends::Unanswered {
                    tokio::time::sleep(Duration::from_micros(50)).await;
                }
                lost(false)
            }
            .boxed();
        }
        let rows: Vec<Vec<u8>> = split_rows(&rows.rows).map(|range| rows.rows[range].to_vec()).collect();
        // Its first half happens now: appends reach BigQuery in the order of the calls.
        let mut step =
            Box::pin(async move { reach.world.step(reach.owner, "append", |state| append(state, &stream, &rows, offset)).await });
        let now = futures::poll!(&mut step);
        async move {
            let answer = match now {
                std::task::Poll::Ready(answer) => answer,
                std::task::Poll::Pending => step.await,
            };
            answer.unwrap_or_else(|| lost(true))
        }
        .boxed()
    }
}

impl Appender for Reach {
    fn append(&self, append: Append) -> BoxFuture<'static, Result<(), AppendFailure>> {
        let mut state = self.world.state.lock();
        let rows: Vec<Vec<u8>> = split_rows(&append.rows).map(|range| append.rows[range].to_vec()).collect();
        state.unguarded += rows.len() as u64;
        state.rows.extend(rows);
        async { Ok(()) }.boxed()
    }
}

#[async_trait]
impl Tables for Reach {
    async fn get(&self, _table: &TableName) -> Result<Option<TableState>, TableError> {
        let column = |name: &str, ty| Column { name: name.into(), ty, mode: Mode::Nullable, description: None };
        let columns = vec![column("n", ColumnType::Int64), column("s", ColumnType::String(None))];
        Ok(Some(TableState { columns, etag: "e".into(), creation_time_ms: 1, time_partition: None }))
    }
    async fn ensure(&self, table: &TableName, _spec: &TableSpec, _wanted: &[Column]) -> Result<TableState, TableError> {
        let state = self.get(table).await?;
        state.ok_or(TableError { cause: crate::flow::HoldCause::TableMissing, message: "none".into(), retry_after: None })
    }
    fn changed_recently(&self, _table: &TableName) -> bool {
        false
    }
}

#[async_trait]
impl LetterBox for Reach {
    async fn put(&self, _topic: &str, letter: Letter) -> Result<(), LetterError> {
        let offset = letter.headers.iter().find(|(name, _)| name == "__connect.errors.offset").and_then(|(_, value)| value.clone());
        let offset = String::from_utf8_lossy(&offset.unwrap_or_default()).into_owned();
        if self.world.state.lock().letters_refused {
            return Err(LetterError::Refused("as told".into()));
        }
        let put = |state: &mut State| {
            state.letters.insert(offset);
        };
        self.world.step(self.owner, "letter", put).await.ok_or_else(|| LetterError::Refused("no answer".into()))
    }
}

#[async_trait]
impl Rereader for Reach {
    async fn reread(&self, partition: &TopicPartition, offsets: &[i64]) -> Result<Vec<Option<OwnedRecord>>, String> {
        let again = |offset: &i64| OwnedRecord {
            topic: partition.topic.clone(),
            partition: partition.partition,
            offset: *offset,
            timestamp_ms: None,
            key: None,
            value: self.world.values[*offset as usize].clone().map(Into::into),
            headers: Vec::new(),
        };
        Ok(offsets.iter().map(|offset| Some(again(offset))).collect())
    }
}

impl GroupControl for Reach {
    fn commit(&self, offsets: &[NextOffset], _timeout: Duration) -> Result<Vec<(TopicPartition, GroupError)>, GroupError> {
        if self.world.is_stopped(self.owner) {
            return Err(GroupError::TimedOut("paused".into()));
        }
        let what = match offsets.first().and_then(|next| next.metadata.as_deref()) {
            Some(text) if text.contains('+') => "commit intents",
            _ => "commit",
        };
        let commit = |state: &mut State| {
            if state.generation != self.generation {
                return Err(GroupError::Fenced("another generation".into()));
            }
            let too_large =
                |next: &&NextOffset| next.metadata.as_ref().map_or(0, |text| text.len()) > state.metadata_bytes_max.unwrap_or(usize::MAX);
            if let Some(next) = offsets.iter().find(too_large) {
                return Ok(vec![(next.partition.clone(), GroupError::MetadataTooLarge("as told".into()))]);
            }
            for next in offsets {
                state.committed = Some((next.offset, next.metadata.clone()));
            }
            Ok(Vec::new())
        };
        let no_answer = || Err(GroupError::TimedOut("no answer".into()));
        match self.world.fate(self.owner, what) {
            Fate::Do => commit(&mut self.world.state.lock()),
            Fate::DoUnheard | Fate::Stand { done: true } => {
                let _ = commit(&mut self.world.state.lock());
                no_answer()
            }
            Fate::Fail | Fate::Stand { done: false } => no_answer(),
        }
    }
    fn pause(&self, _partition: &TopicPartition) -> Result<(), GroupError> {
        self.position.lock().1 = true;
        Ok(())
    }
    fn seek_and_resume(&self, _partition: &TopicPartition, offset: i64, _timeout: Duration) -> Result<(), GroupError> {
        *self.position.lock() = (offset, false);
        Ok(())
    }
    fn restart_at(&self, _partition: &TopicPartition, _epoch: Epoch, _offset: Option<i64>) -> Result<(), GroupError> {
        Ok(())
    }
    fn watermarks(&self, _partition: &TopicPartition, _timeout: Duration) -> Result<(i64, i64), GroupError> {
        Ok((0, self.world.values.len() as i64))
    }
    fn since_last_poll(&self) -> Duration {
        Duration::ZERO
    }
    fn session_timeout(&self) -> Duration {
        Duration::from_secs(3600)
    }
    fn close(&self, _timeout: Duration) -> Result<(), GroupError> {
        Ok(())
    }
}
