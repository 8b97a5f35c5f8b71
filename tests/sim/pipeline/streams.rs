//! Write streams of type COMMITTED, played: rows land at their offset or not at all, and never after the stream's end. Streams go with
//! their table, and are forgotten when nobody has used them for days.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use millrace::bigquery::{Append, AppendFailure, ErrorClass, StreamLine, WriteStreams};
use millrace::table::TableName;
use parking_lot::Mutex;

use super::bigquery::{Client, failure};
use super::mutants::Mutant;

/// Rows that somebody else puts into a stream: more than any append announces.
const FOREIGN_ROWS: u64 = 1000;

#[derive(Default)]
struct Stream {
    rows: u64,
    ended: bool,
    /// BigQuery does not know it any more.
    gone: bool,
    /// Appends that have left and not arrived.
    on_way: u32,
    /// One did not land, and its sender does not know.
    missing: bool,
    /// Somebody else wrote to it.
    intruded: bool,
}

/// All streams, by name.
#[derive(Default)]
pub struct Streams(Mutex<BTreeMap<String, Stream>>);

impl Streams {
    /// Their table was deleted.
    pub fn all_gone(&self) {
        self.0.lock().values_mut().for_each(|stream| stream.gone = true);
    }

    /// Days went by: those are forgotten that nothing is on its way to. How many.
    pub fn forget_idle(&self, forgets: impl Fn() -> bool) -> u64 {
        let mut streams = self.0.lock();
        let idle = streams.values_mut().filter(|stream| stream.on_way == 0 && !stream.gone && forgets());
        idle.map(|stream| stream.gone = true).count() as u64
    }

    /// Somebody else writes to streams that are not ended. Not where an answer is lost, then or later: with that nobody could tell whose
    /// rows stand at an append's place.
    pub fn intrude(&self) {
        let mut streams = self.0.lock();
        let open = |stream: &&mut Stream| !stream.ended && !stream.gone && !stream.missing && stream.on_way == 0;
        streams.values_mut().filter(open).for_each(|stream| {
            stream.rows += FOREIGN_ROWS;
            stream.intruded = true;
        });
    }
}

/// What is said of a stream that is gone: the documentation names both.
fn not_found(client: &Client) -> AppendFailure {
    client.scene.oracle.see(|seen| seen.not_found += 1);
    failure(if client.scene.warehouse.chance(0.7) { ErrorClass::StreamNotFound } else { ErrorClass::TableNotFound }, false)
}

impl Client {
    /// A call that takes its time, and whose answer may be lost. `None`: nobody hears whether it was done.
    async fn call<T: Send + 'static>(&self, act: impl FnOnce(&Client) -> T + Send + 'static) -> Option<T> {
        let world = self.scene.world.clone();
        world.pass(self.way()).await;
        let flaky = self.troubles().flaky > world.now() || self.troubles().dead > world.now();
        if flaky && self.scene.warehouse.chance(0.2) {
            return None;
        }
        let done = act(self);
        world.pass(self.way()).await;
        (!flaky || !self.scene.warehouse.chance(0.2)).then_some(done)
    }
}

#[async_trait]
impl WriteStreams for Client {
    async fn create(&self, table: &TableName) -> Result<Arc<str>, AppendFailure> {
        let name = format!("{}/streams/", table.default_stream());
        let create = move |client: &Client| {
            if !client.scene.warehouse.has_table() {
                return Err(failure(ErrorClass::TableNotFound, false));
            }
            let mut streams = client.scene.warehouse.streams.0.lock();
            let name = format!("{name}{}", streams.len());
            streams.insert(name.clone(), Stream::default());
            Ok(Arc::from(name))
        };
        self.call(create).await.unwrap_or_else(|| Err(failure(ErrorClass::Transient, false)))
    }

    async fn finalize(&self, stream: &str) -> Result<u64, AppendFailure> {
        let name = stream.to_owned();
        let finalize = move |client: &Client| {
            let mut streams = client.scene.warehouse.streams.0.lock();
            let found = streams.get_mut(&name).filter(|stream| !stream.gone).ok_or_else(|| not_found(client))?;
            found.ended |= client.scene.mutant != Mutant::NoFinalize;
            client.scene.world.note(|| format!("process {}: ends {name} with {} rows", client.process, found.rows));
            client.scene.oracle.see(|seen| seen.takeovers += 1);
            Ok(found.rows)
        };
        self.call(finalize).await.unwrap_or_else(|| Err(failure(ErrorClass::Transient, false)))
    }

    fn open(&self, stream: &Arc<str>) -> Box<dyn StreamLine> {
        Box::new(Line { client: self.clone(), stream: stream.to_string(), arrives_at: Duration::ZERO })
    }
}

/// A connection: what is sent over it arrives in order.
struct Line {
    client: Client,
    stream: String,
    arrives_at: Duration,
}

/// What becomes of an append that arrived; without an offset it lands at the end.
fn arrive(client: &Client, stream: &str, append: &Append, offset: Option<u64>) -> Result<(), AppendFailure> {
    let scene = &client.scene;
    {
        let streams = scene.warehouse.streams.0.lock();
        let found = streams.get(stream).filter(|stream| !stream.gone).ok_or_else(|| not_found(client))?;
        if found.ended {
            return Err(failure(ErrorClass::StreamFinalized, false));
        }
        match offset.map(|offset| offset.cmp(&found.rows)) {
            Some(Ordering::Less) => return Err(failure(ErrorClass::OffsetAlreadyExists, false)),
            Some(Ordering::Greater) => return Err(failure(ErrorClass::OffsetOutOfRange, false)),
            Some(Ordering::Equal) | None => {}
        }
    }
    scene.warehouse.land(scene, client.process, scene.warehouse.any_server(), append)?;
    if let Some(found) = scene.warehouse.streams.0.lock().get_mut(stream) {
        found.rows += u64::from(append.row_count);
    }
    Ok(())
}

/// Counts appends on their way to a stream.
fn on_way(client: &Client, stream: &str, count: impl FnOnce(&mut u32)) {
    if let Some(found) = client.scene.warehouse.streams.0.lock().get_mut(stream) {
        count(&mut found.on_way);
    }
}

#[async_trait]
impl StreamLine for Line {
    async fn append(&mut self, append: Append, offset: u64) -> BoxFuture<'static, Result<(), AppendFailure>> {
        let (client, stream) = (self.client.clone(), self.stream.clone());
        let world = client.scene.world.clone();
        if let Err(kept) = client.leave(&append).await {
            return async move { Err(kept) }.boxed();
        }
        let troubles = client.troubles();
        let (dead, flaky) = (troubles.dead > world.now(), troubles.flaky > world.now());
        let way = if dead { troubles.dead.saturating_sub(world.now()) } else { client.way() };
        self.arrives_at = self.arrives_at.max(world.now() + way);
        let arrives_in = self.arrives_at - world.now();
        let intruded = client.scene.warehouse.streams.0.lock().get(&stream).is_some_and(|found| found.intruded);
        let lost = (dead || flaky) && !intruded && client.scene.warehouse.chance(0.25);
        let never = lost && client.scene.warehouse.chance(0.3);
        if let Some(found) = client.scene.warehouse.streams.0.lock().get_mut(&stream) {
            found.missing |= never;
        }
        let row_count = append.row_count;
        let offset = (client.scene.mutant != Mutant::NumbersIgnored).then_some(offset);
        let (answer, answered) = tokio::sync::oneshot::channel();
        if !never {
            let client = client.clone();
            on_way(&client, &stream, |count| *count += 1);
            world.after(arrives_in, move |_| {
                on_way(&client, &stream, |count| *count -= 1);
                let outcome = arrive(&client, &stream, &append, offset);
                client.scene.oracle.see(|seen| seen.refused += u64::from(outcome.is_err()));
                if !lost {
                    answer.send(outcome).unwrap_or_default();
                } else if outcome.is_err()
                    && let Some(found) = client.scene.warehouse.streams.0.lock().get_mut(&stream)
                {
                    found.missing = true;
                }
            });
        }
        async move {
            if lost {
                world.pass(client.way()).await;
                client.scene.oracle.see(|seen| seen.lost_answers += 1);
                return client.unanswered(failure(ErrorClass::Transient, true));
            }
            let outcome = answered.await.unwrap_or_else(|_| Err(failure(ErrorClass::Transient, true)));
            world.pass(client.way()).await;
            client.read(outcome, row_count)
        }
        .boxed()
    }
}
